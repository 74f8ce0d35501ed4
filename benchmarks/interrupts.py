"""Interrupt commands at random moments: nothing may be left behind.

    python benchmarks/interrupts.py --count 1000 --seed 0 --jobs 2

Each command runs in a folder of its own and gets SIGINT or SIGTERM somewhere between its start and
its usual end. Afterwards it must have ended within 5 s by the code of the signal, or in order; have
said so in one line without a traceback; and have left no unfinished file, in its folder or in its
caches. What it was to write is there in full or not at all. Exit status 1 if any is not so.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
GRAPH = ROOT / "graphs" / "diamond.yaml"
HANG = 5.0  # seconds
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run", str(GRAPH), "--device", "cpu", "-o", "out.npz"),
    "run with a trace": ("run", str(GRAPH), "--device", "cpu", "--trace", "trace.json"),
    "plan": ("plan", str(GRAPH), "--device", "cpu", "-o", "plan.json"),
    "page": ("plan", str(GRAPH), "--device", "cpu", "-o", "plan.html"),
    "tune": ("tune", str(GRAPH), "--device", "cpu", "--budget", "1"),
    "compare": ("compare", str(GRAPH), "--device", "cpu"),
    "bench": ("bench", str(GRAPH), "--device", "cpu", "--runs", "20"),
    "init": ("init", "new"),
    "map in C": ("run", "map.yaml", "--device", "cpu", "-o", "out.npz"),
}
MAP = """\
version: 1
inputs: {x: {shape: [64, 512], dtype: f32}}
nodes: {y: "silu(x) * NUMBER", z: {op: softmax, x: y}}
outputs: {z: z}
"""
UNFINISHED = (".part", ".building", ".tmp")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True)
class Trial:
    """A command, the signal, and when it is sent, as a share of the command's usual time."""

    number: int
    command: str
    signal: signal.Signals
    share: float


def trials(count: int, seed: int) -> list[Trial]:
    random = Random(seed)
    return [
        Trial(n, random.choice(list(COMMANDS)), random.choice(list(CODES)), random.random())
        for n in range(count)
    ]  # fmt: skip


def start(command: str, folder: Path, number: int) -> subprocess.Popen[str]:
    """The command in its folder, with caches of its own there; each map is compiled anew."""
    (folder / "map.yaml").write_text(MAP.replace("NUMBER", f"{number + 1}.5"))
    caches = {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder),
              "GRAPHEXEC_PROFILES": str(folder / "profiles")}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "graphexec", *COMMANDS[command]], cwd=folder,
        env={**os.environ, **caches}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def usual(command: str) -> float:
    """How long it takes."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        process = start(command, Path(folder), -1)
        told = process.communicate()
        if process.returncode:
            raise SystemExit(f"{command} fails by itself:\n{''.join(told)}")
        return time.monotonic() - began


def fault(trial: Trial, seconds: float) -> str:
    """What is wrong; empty if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(trial.command, Path(folder), trial.number)
        time.sleep(trial.share * seconds)
        process.send_signal(trial.signal)
        try:
            _, said = process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"it did not end within {HANG:g} s"
        left = [
            str(path.relative_to(folder)) for path in Path(folder).rglob("*")
            if any(part in path.name for part in UNFINISHED)
        ]  # fmt: skip
        if left:
            return f"it leaves {', '.join(left)}"
        if "Traceback" in said and "/graphexec/cli/" not in said:
            return ""  # Python was still starting the program
        if "Traceback" in said:
            return f"it shows a traceback:\n{said}"
        if process.returncode not in (0, CODES[trial.signal], -trial.signal):
            return f"it ends with {process.returncode}:\n{said}"
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    times = {command: usual(command) for command in COMMANDS}
    counts: Counter[str] = Counter()
    wrong = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        todo = trials(options.count, options.seed)
        for trial, told in zip(
            todo, pool.map(lambda t: fault(t, times[t.command]), todo), strict=True
        ):  # fmt: skip
            counts[trial.command] += 1
            if told:
                wrong += 1
                print(f"{trial.command}, {trial.signal.name} at {trial.share:.2f}: {told}")
    print(f"{options.count:,} interrupts ({dict(counts)}): {wrong} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
