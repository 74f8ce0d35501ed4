"""Many runs on a GPU: the same bits every time, and no leaks.

    python benchmarks/soak.py [--runs 1000] [--cycles 1000]

Every example graph runs in both modes on 1, 2, 4 and 8 streams, `--runs` times each; every result
must have the bits of the first, which must be right against float64. Then ten times as many runs
and `--cycles` compilations must leave the device's and the host's free memory as it was.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import time
from pathlib import Path

import numpy as np
from graph_files import FILES

import graphexec as gx
from graphexec.formats.arrays import read_inputs
from graphexec.runtime.hip.bindings import load
from graphexec.tools.evaluate import evaluate
from graphexec.tools.judge import TOLERANCE

SLACK = 8 << 20  # bytes that free memory may differ by: libraries keep some of their own


def same_bits(path: Path, mode: str, streams: int, runs: int) -> str:
    graph = gx.load(path)
    with gx.compile(graph, device=gx.HipDevice(mode=mode), streams=streams) as exe:
        assert exe.session.mode == mode, exe.session.fallback
        inputs, _ = read_inputs((), exe.inputs, 0)
        first = exe.run(**inputs)
        exact = evaluate(exe.graph, inputs)
        coarsest = max(TOLERANCE[t.dtype] for t in exe.graph.types().values())
        for name, tensor in exe.graph.outputs.items():
            error = np.linalg.norm(first[name].astype(np.float64) - exact[tensor])
            if not error <= 4 * coarsest * np.linalg.norm(exact[tensor]):
                return f"'{name}' is off by {error:.3g}"
        bits = {name: array.tobytes() for name, array in first.items()}
        for n in range(runs):
            found = exe.run(**inputs)
            if any(found[name].tobytes() != bits[name] for name in bits):
                return f"run {n} differs from the first"
    return ""


def free_memory() -> tuple[int, int, int]:
    """Bytes free on the device, available on the host, and resident in this process."""
    gc.collect()
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    return load().memory_info()[0], int(meminfo["MemAvailable"].split()[0]) << 10, resident


def cycle(graph: gx.Graph) -> None:
    with gx.compile(graph, device=gx.HipDevice()) as exe:
        inputs, _ = read_inputs((), exe.inputs, 0)
        exe.run(**inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--cycles", type=int, default=1000)
    args = parser.parse_args()
    print(f"{gx.HipDevice().describe()}; {datetime.date.today()}\n")
    wrong = 0
    for path in FILES:
        start, found = time.perf_counter(), []
        for mode in ("graph", "stream"):
            for streams in (1, 2, 4, 8):
                failure = same_bits(path, mode, streams, args.runs)
                if failure:
                    found.append(f"{mode}, {streams} streams: {failure}")
        wrong += len(found)
        verdict = "; ".join(found) or f"8 × {args.runs} runs, the same bits in each"
        print(f"{path.stem:24} {verdict} ({time.perf_counter() - start:.0f} s)", flush=True)
    graph = gx.load(next(path for path in FILES if path.stem == "attention"), dims={"S": 32})
    for what, count in (("runs", 10 * args.runs), ("compilations", args.cycles)):
        cycle(graph)
        before, start = free_memory(), time.perf_counter()
        if what == "runs":
            with gx.compile(graph, device=gx.HipDevice()) as exe:
                inputs, _ = read_inputs((), exe.inputs, 0)
                for _ in range(count):
                    exe.run(**inputs)
        else:
            for _ in range(count):
                cycle(graph)
        after = free_memory()
        lost = [before[0] - after[0], before[1] - after[1], after[2] - before[2]]
        # The host's available memory depends on other programs: check the process's own.
        wrong += lost[0] > SLACK or lost[2] > SLACK
        device, host, resident = (f"{n / 2**20:+.1f} MiB" for n in lost)
        print(f"{count} {what}: device {device}, host {host}, resident {resident} "
              f"({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
