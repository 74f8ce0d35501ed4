"""Feed files with mistakes to everything that reads files, for as long as you like.

    python benchmarks/fuzz.py --count 100000 --seed 0 --jobs 2
    python benchmarks/fuzz.py --only npy,plan --count 1000000 --keep tests/fuzz/corpus
    python benchmarks/fuzz.py --only yaml --atheris -- -max_total_time=600

A fault is an exception that is not a mistake of the user's, a message that is not printable, more
than 10 s, or more than 1 GiB. Each kind of fault is printed once, with the smallest input found for
it; --keep writes these inputs to files, for tests/fuzz. The exit status is 1 if there is any.
With --atheris, which needs the package of that name, libFuzzer chooses the inputs by coverage.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fuzz"))

from fuzz_inputs import made
from fuzz_targets import TARGETS, judge

CHUNK = 100
HANG = 10  # seconds
MEMORY = 1 << 30

Fault = tuple[str, bytes, str]
"""The kind of a fault, the input, and the traceback."""


class Hang(BaseException):
    """An input takes too long."""


def main() -> int:
    arguments = parsed()
    names = arguments.only.split(",") if arguments.only else list(TARGETS)
    if arguments.atheris:
        return by_coverage(names, arguments.rest)
    found: dict[str, Fault] = {}
    counts: Counter[str] = Counter()
    began = time.monotonic()
    each = -(-arguments.count // len(names))
    chunks = [
        (name, arguments.seed, low, min(low + CHUNK, each))
        for low in range(0, each, CHUNK) for name in names
    ]  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context, initializer=bounded) as pool:
        running = {pool.submit(judged, *chunk): chunk for chunk in chunks}
        for done in as_completed(running):
            name, _, low, high = running[done]
            counts[name] += high - low
            if sum(counts.values()) % 10_000 < CHUNK:
                print(f"{sum(counts.values()):,} inputs", file=sys.stderr, flush=True)
            for kind, data, told in done.result():
                if kind not in found:
                    print(f"{name}: {kind}", file=sys.stderr, flush=True)
                if kind not in found or len(data) < len(found[kind][1]):
                    found[kind] = (name, data, told)
    for kind, (name, data, told) in found.items():
        small = minimised(name, data, kind)
        print(f"\n{name}: {kind}\n{small!r}\n{told}")
        if arguments.keep:
            keep(arguments.keep / name, small)
    took = time.monotonic() - began
    rows = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"{sum(counts.values()):,} inputs in {took:.0f} s ({rows}): {len(found)} kinds of faults")
    return 1 if found else 0


def parsed() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="inputs of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", help=f"some of {','.join(TARGETS)}")
    parser.add_argument("--keep", type=Path, help="a folder for inputs with faults")
    parser.add_argument("--atheris", action="store_true", help="inputs by coverage, of one target")
    parser.add_argument("rest", nargs="*", help="options of libFuzzer")
    return parser.parse_args()


# In the processes -----------------------------------------------------------------------------


def bounded() -> None:
    """Limit the memory of this process, above what it has, and the time of each input."""
    for name, target in TARGETS.items():
        judge(target, made(target, 0, 0))  # what is imported is no input's fault
        assert judge(target, target.seeds()[0]) == "", name
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGALRM, hanging)


def hanging(*_: object) -> None:
    raise Hang


def judged(name: str, seed: int, low: int, high: int) -> list[Fault]:
    """The faults of inputs `low` to `high`."""
    found = []
    for number in range(low, high):
        data = made(TARGETS[name], seed, number)
        if told := fault(name, data):
            found.append((kind_of(told), data, told))
    return found


def fault(name: str, data: bytes) -> str:
    signal.alarm(HANG)
    try:
        return judge(TARGETS[name], data)
    except Hang:
        return f"hang: more than {HANG} s"
    except KeyboardInterrupt:
        raise
    except BaseException:  # a panic of a library in another language
        return traceback.format_exc()
    finally:
        signal.alarm(0)


def kind_of(told: str) -> str:
    """Equal for faults of one cause: the exception's class and the line that raised it."""
    lines = told.strip().splitlines()
    place = next((line.strip() for line in reversed(lines) if line.startswith('  File "')), "")
    return f"{lines[-1].split(':')[0]} {place}"


# Making them small ----------------------------------------------------------------------------


def minimised(name: str, data: bytes, kind: str, seconds: float = 10.0) -> bytes:
    """A part of `data` with the same kind of fault: parts are left out while it stays."""
    signal.signal(signal.SIGALRM, hanging)
    until, size = time.monotonic() + seconds, max(len(data) // 2, 1)
    while size and time.monotonic() < until:
        low = 0
        while low < len(data) and time.monotonic() < until:
            less = data[:low] + data[low + size :]
            told = fault(name, less)
            if told and kind_of(told) == kind:
                data = less
            else:
                low += size
        size //= 2
    return data


def keep(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


# By coverage ----------------------------------------------------------------------------------


def by_coverage(names: list[str], rest: list[str]) -> int:
    """Let libFuzzer run a target; it ends the process at the first fault."""
    import atheris

    (name,) = names
    atheris.instrument_all()

    def use(data: bytes) -> None:
        if told := judge(TARGETS[name], data):
            raise AssertionError(told)

    atheris.Setup([sys.argv[0], *rest, *corpus_folders(name)], use)
    atheris.Fuzz()
    return 0


def corpus_folders(name: str) -> Iterator[str]:
    folder = Path(__file__).resolve().parents[1] / "tests" / "fuzz" / "corpus" / name
    if folder.is_dir():
        yield str(folder)


if __name__ == "__main__":
    sys.exit(main())
