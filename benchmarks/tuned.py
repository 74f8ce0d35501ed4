"""The accuracy of predictions after tuning, and the gain of several streams: docs/tuning.md.

    python benchmarks/tuned.py --device hip              # some minutes on a GPU
    python benchmarks/tuned.py --device cpu --quick      # small graphs

Each graph is tuned in a temporary folder. Then its plans, which differ in their schedules, numbers
of streams and batches, are predicted and measured: device-resident inputs, captured graphs on a
GPU, times by device events, medians over rounds in which the plans take turns. The gain of streams
is that of the best plan by prediction without batches over the same on one stream, and that of the
plan of `compile` over one stream. Outputs of all plans of a graph must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from graph_files import FILES
from measure import table

import graphexec as gx
from graphexec.formats.arrays import read_inputs
from graphexec.planning.pipeline import Compiled, alternative_plans
from graphexec.planning.profile import Profile
from graphexec.runtime.device import Device
from graphexec.runtime.executable import Executable
from graphexec.runtime.find import find_device
from graphexec.tools.tuning.measuring import time_in_turns
from graphexec.tools.tuning.tune import tune

STREAMS = (2, 4, 8)
APART = 1.05  # measured times further apart than this have an order
TOLERANCE = {"f16": 2e-2, "f32": 1e-4}


@dataclass(frozen=True)
class Point:
    """One plan of a graph: microseconds predicted and measured."""

    graph: str
    plan: str
    streams: int
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return abs(self.predicted / self.measured - 1)


@dataclass(frozen=True)
class Gain:
    """Microseconds without batches, on several streams and on one; and of the plan that `compile`
    takes, and that on one stream."""

    graph: str
    several: float
    one: float
    chosen: float
    chosen_one: float

    @property
    def streams(self) -> float:
        """How many times as fast several streams are, without batches."""
        return self.one / self.several

    @property
    def compiled(self) -> float:
        """... and what `compile` takes."""
        return self.chosen_one / self.chosen


# Graphs ---------------------------------------------------------------------------------------


def chains(count: int, depth: int, size: int, dtype: str) -> gx.Graph:
    """`count` independent chains of `depth` square GEMMs."""
    g = gx.Graph(f"{count} chains of {depth} GEMMs of {size}")
    w = g.input("w", (size, size), dtype)
    for c in range(count):
        x = g.input(f"x{c}", (size, size), dtype)
        for d in range(depth):
            x = g.gemm(x, w, alpha=size**-0.5, name=f"y{c}_{d}")
        g.output(**{f"out{c}": x})
    return g


def heads(count: int, length: int, width: int, dtype: str) -> gx.Graph:
    """Attention, every head by nodes of its own."""
    g = gx.Graph(f"{count} heads of {length} × {width}")
    for h in range(count):
        q, k, v = (g.input(f"{name}{h}", (length, width), dtype) for name in "qkv")
        scores = g.gemm(q, k, trans_b=True, alpha=width**-0.5, name=f"scores{h}")
        g.output(**{f"out{h}": g.gemm(g.softmax(scores, name=f"probs{h}"), v, name=f"ctx{h}")})
    return g


def experts(count: int, tokens: int, width: int, dtype: str) -> gx.Graph:
    """Two GEMMs an expert, all of one input, summed up pair by pair."""
    g = gx.Graph(f"{count} experts of {tokens} × {width}")
    x = g.input("x", (tokens, width), dtype)
    parts = []
    for e in range(count):
        up, down = (g.input(f"{name}{e}", (width, width), dtype) for name in ("up", "down"))
        hidden = g.gemm(x, up, alpha=width**-0.5, name=f"hidden{e}")
        parts.append((hidden, down))
    total = None
    for e, (hidden, down) in enumerate(parts):
        more = {} if total is None else {"c": total}
        total = g.gemm(hidden, down, alpha=width**-0.5, name=f"sum{e}", **more)
    g.output(out=total)
    return g


def diamonds(count: int, size: int, dtype: str) -> gx.Graph:
    """Forks to four GEMMs that join two by two, one after another."""
    g = gx.Graph(f"{count} forks to four GEMMs of {size}")
    x = g.input("x", (size, size), dtype)
    w = g.input("w", (size, size), dtype)
    for i in range(count):
        a, b, c, d = (g.gemm(x, w, alpha=size**-0.5, name=f"{n}{i}") for n in "abcd")
        left, right = (g.gemm(p, q, alpha=1 / size, name=f"{n}{i}")
                       for p, q, n in ((a, b, "left"), (c, d, "right")))  # fmt: skip
        x = g.gemm(left, right, alpha=1 / size, name=f"x{i}")
    g.output(out=x)
    return g


def workloads(quick: bool) -> Iterator[tuple[gx.Graph, bool]]:
    """Graphs, and whether several streams should pay: branches of small commands."""
    for path in FILES:
        yield gx.load(path), False
    if quick:
        yield chains(3, 2, 64, "f32"), False
        yield diamonds(1, 64, "f32"), False
        return
    for size in (128, 256, 512):
        yield chains(8, 8, size, "f16"), True
    yield chains(32, 4, 256, "f16"), True
    yield chains(4, 4, 2048, "f16"), False
    for length in (128, 512, 1024):
        yield heads(8, length, 64, "f16"), length <= 512
    yield heads(32, 256, 64, "f16"), True
    yield experts(8, 256, 512, "f16"), False
    yield diamonds(6, 256, "f16"), False
    yield diamonds(6, 512, "f16"), False


# Measuring ------------------------------------------------------------------------------------


def loaded(graph: gx.Graph, compiled: Compiled, device: Device, opened: ExitStack) -> Executable:
    exe = opened.enter_context(Executable(graph, lambda *_: compiled, device, resident=True))
    return exe


def agree(graph: gx.Graph, exes: Sequence[Executable]) -> None:
    inputs, _ = read_inputs((), exes[0].inputs, 0)
    expected = exes[0].run(**inputs)
    for exe in exes[1:]:
        for name, array in exe.run(**inputs).items():
            one, other = (a.astype(np.float64) for a in (array, expected[name]))
            limit = TOLERANCE.get(str(exe.outputs[name].dtype), 1e-2)
            if np.linalg.norm(one - other) > limit * np.linalg.norm(other):
                sys.exit(f"{graph.name}: '{name}' differs between two plans")


def points(
    graph: gx.Graph, device: Device, profile: Profile, counts: Sequence[int], rounds: int
) -> list[Point]:
    plans: dict[str, Compiled] = {}
    for off in ((), ("batch",)):
        for streams in counts:
            for compiled in plans_of(graph, device, profile, streams, 2, off):
                used, name = len(compiled.plan.streams), compiled.plan.stats.schedule
                how = ", no batches" if off else ""
                if compiled.plan.instructions not in [p.plan.instructions for p in plans.values()]:
                    plans.setdefault(f"{name} on {used}{how}", compiled)
    with ExitStack() as opened:
        exes = [loaded(graph, compiled, device, opened) for compiled in plans.values()]
        agree(graph, exes)
        measured = time_in_turns([exe.session for exe in exes], rounds)
    return [
        Point(graph.name, name, len(c.plan.streams), c.plan.stats.predicted_ns / 1e3, time)
        for (name, c), time in zip(plans.items(), measured, strict=True)
    ]


def plans_of(
    graph: gx.Graph, device: Device, profile: Profile, streams: int, most: int,
    off: Sequence[str] = (),
) -> list[Compiled]:  # fmt: skip
    options = gx.Options(streams=streams, resident=True, costs=profile, no_rewrite=tuple(off))
    return alternative_plans(graph, most, device=device.name, options=options, hardware=device)


def gain(graph: gx.Graph, device: Device, profile: Profile, rounds: int) -> Gain:
    with ExitStack() as opened:
        exes = [
            loaded(graph, plans_of(graph, device, profile, k, 1, ("batch",))[0], device, opened)
            for k in (8, 1)
        ]
        exes += [
            opened.enter_context(gx.compile(graph, device=device, streams=k, resident=True))
            for k in (4, 1)
        ]
        agree(graph, exes)
        return Gain(graph.name, *time_in_turns([exe.session for exe in exes], rounds))


def agreement(found: Sequence[Point]) -> tuple[int, int]:
    """Of the pairs of plans of one graph whose measured times are apart: agreeing, and all."""
    right = total = 0
    for one, other in combinations(found, 2):
        fast, slow = sorted((one, other), key=lambda p: p.measured)
        if one.graph == other.graph and slow.measured > APART * fast.measured:
            total += 1
            right += fast.predicted < slow.predicted
    return right, total


# Showing --------------------------------------------------------------------------------------


def show(found: list[Point], gains: list[Gain], branches: set[str]) -> None:
    rows = [["graph", "plans", "median error", "worst", "order agrees",
             "no batches: one stream, several µs", "compiled: one stream, chosen µs"]]  # fmt: skip
    for g in gains:
        own = [p for p in found if p.graph == g.graph]
        right, total = agreement(own)
        errors = [p.error for p in own]
        rows.append([
            g.graph + (" *" if g.graph in branches else ""), str(len(own)),
            f"{statistics.median(errors):.1%}", f"{max(errors):.1%}", f"{right} of {total}",
            f"{g.one:.1f}, {g.several:.1f} ({g.streams:.2f}×)",
            f"{g.chosen_one:.1f}, {g.chosen:.1f} ({g.compiled:.2f}×)",
        ])  # fmt: skip
    print(table(rows))
    right, total = agreement(found)
    worth = [g.streams for g in gains if g.graph in branches]
    print()
    print(table([
        ["what", "found", "target"],
        ["predicted against measured, median error over all plans",
         f"{statistics.median(p.error for p in found):.1%} of {len(found)}", "≤ 15 %"],
        [f"pairs further apart than {APART - 1:.0%} in the predicted order",
         f"{right / total:.0%} of {total}" if total else "no such pairs", "≥ 80 %"],
        ["branches of small commands (*), no batches, against one stream",
         f"median {statistics.median(worth):.2f}×, least {min(worth):.2f}×" if worth else "none",
         "≥ 1.4×"],
        ["slowest that compile takes against one stream",
         f"{min(g.compiled for g in gains):.3f}×", "≥ 0.98×"],
    ]))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "hip"], default="hip")
    parser.add_argument("--quick", action="store_true", help="small graphs, few runs")
    parser.add_argument("--only", metavar="WORD", default="", help="graphs whose name has WORD")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tuning a graph")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each plan")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every point, too")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    device = find_device(options.device)
    print(f"{device.describe()}\n", flush=True)
    found: list[Point] = []
    gains: list[Gain] = []
    branches: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHEXEC_PROFILES"] = folder
        for graph, small in workloads(options.quick):
            if options.only not in graph.name:
                continue
            profile = tune(graph, device, seconds=options.budget).profile
            found += points(graph, device, profile, STREAMS, rounds)
            gains.append(gain(graph, device, profile, rounds))
            branches |= {graph.name} if small else set()
            print(f"{graph.name}: {profile.constants}", file=sys.stderr, flush=True)
    show(found, gains, branches)
    if options.json is not None:
        document = {"points": [asdict(p) for p in found], "gains": [asdict(g) for g in gains]}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
