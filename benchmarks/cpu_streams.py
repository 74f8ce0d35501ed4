"""What several streams cost and bring on the CPU: the default plan beside plans on 1, 2 and 4.

    python benchmarks/cpu_streams.py             # 2 minutes; little else should run

For each of the example graphs, one of 994 nodes and 30 random ones: the plan of `compile` with
default options, and the best plans by prediction that use one stream, two, and up to four, whether
they pay or not, the last two also without batches. All take turns in one process, with inputs in
host memory; times are medians. The default plan is
checked against float64, and the outputs of all plans of a graph must agree.

What `explain` says is true if a plan on one stream takes longer by at least half of what it says,
and if no plan on more streams takes less than 0.95 of the time, when it says that a further stream
would not pay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from statistics import median

import numpy as np
from graph_files import FILES
from measure import table

import graphexec as gx
from graphexec.formats.arrays import read_inputs
from graphexec.planning.options import Options
from graphexec.planning.pipeline import Compiled, alternative_plans, plan_graph
from graphexec.runtime.executable import Executable
from graphexec.runtime.find import find_device
from graphexec.tools.tuning.measuring import time_in_turns

SIZES = (16, 64, 96, 128, 192, 256, 384)
STREAMS = (2, 4)
PAYS = 0.95


@dataclass(frozen=True)
class Row:
    """A graph: commands, streams and microseconds of the default plan; what explain says, how many
    times as long as that one stream and how much of it a further stream would take; and the streams
    and microseconds of all plans."""

    graph: str
    commands: int
    streams: int
    said: float
    more: float
    default: float
    plans: tuple[tuple[int, float], ...]

    @property
    def best(self) -> float:
        return min(time for _, time in self.plans)

    def fastest(self, streams: int) -> float:
        """The fastest plan of those on so many streams that were to be tried."""
        return min((t for used, t in self.plans if used == streams), default=float("nan"))

    @property
    def true(self) -> bool:
        one = self.fastest(1) / self.default
        slower = one >= 1 + (self.said - 1) / 2 if self.streams > 1 else True
        further = min((t for used, t in self.plans if used > self.streams), default=self.default)
        return slower and further / self.default >= min(PAYS, 1 - (1 - self.more) / 2)


def random_graph(seed: int) -> gx.Graph:
    """Layers of GEMMs, softmaxes and sums, all of one size, each reading the layer before."""
    random = Random(seed)
    n, width = random.choice(SIZES), random.randint(1, 6)
    g = gx.Graph(f"random {seed}, {n} × {n}")
    weights = [g.input(f"w{i}", (n, n)) for i in range(random.randint(1, 3))]
    before = [g.input("x", (n, n))]
    for layer in range(random.randint(1, 6)):
        here = []
        for place in range(random.randint(1, width)):
            name, x = f"n{layer}_{place}", random.choice(before)
            kind = random.random()
            if kind < 0.2:
                here.append(g.softmax(x, name=name))
            else:
                more = {"c": random.choice(before)} if kind > 0.7 else {}
                w = random.choice(weights)
                here.append(g.gemm(x, w, alpha=n**-0.5, name=name, **more))
        before = here
    g.output(*before)
    return g


def layered(nodes: int) -> gx.Graph:
    """Small GEMMs, 20 wide."""
    random = Random(0)
    g = gx.Graph(f"{nodes} nodes")
    weights = [g.input(f"w{i}", (16, 16)) for i in range(5)]
    before = [g.input("x", (16, 16))]
    while len(g.nodes) < nodes:
        count = min(20, nodes - len(g.nodes))
        before = [
            g.gemm(random.choice(before), random.choice(weights), alpha=0.25, name=f"n{first}")
            for first in range(len(g.nodes), len(g.nodes) + count)
        ]
    g.output(*before)
    return g


def graphs(count: int) -> Iterator[gx.Graph]:
    yield from map(gx.load, FILES)
    yield layered(994)
    yield from map(random_graph, range(count))


def measured(graph: gx.Graph, rounds: int) -> Row:
    device = find_device("cpu")
    default = plan_graph(graph)
    streams = len(default.plan.streams)
    now, then = predicted(default), predicted(plan_graph(graph, streams=streams + 1))
    same = default.plan.instructions
    plans = [default, *(p for p in tried(graph) if p.plan.instructions != same)]
    with ExitStack() as opened:
        exes = [
            opened.enter_context(Executable(graph, lambda *_, p=p: p, device)) for p in plans
        ]  # fmt: skip
        check(graph, exes)
        time, *times = time_in_turns([exe.session for exe in exes], rounds)
    prediction = default.synchronized.schedule.prediction
    assert prediction is not None
    used = [len(plan.plan.streams) for plan in plans]
    said = prediction.one_stream / prediction.timeline.makespan
    return Row(
        graph.name, len(default.program.commands), streams, said, then / now, time,
        tuple(zip(used, [time, *times], strict=True)),
    )  # fmt: skip


def predicted(made: Compiled) -> float:
    assert made.synchronized.schedule.prediction is not None
    return made.synchronized.schedule.prediction.timeline.makespan


def tried(graph: gx.Graph) -> Iterator[Compiled]:
    """The best plan on one stream, and on each number of streams, with and without batches."""
    yield alternative_plans(graph, 1, device="cpu")[-1]
    for streams in STREAMS:
        for off in ((), ("batch",)):
            options = Options(streams=streams, no_rewrite=off)
            several = alternative_plans(graph, 4, device="cpu", options=options)[:-1]
            yield from several[:1]


def check(graph: gx.Graph, exes: list[Executable]) -> None:
    inputs, _ = read_inputs((), exes[0].inputs, 0)
    if not gx.compare(graph, inputs, device="cpu").ok:
        sys.exit(f"{graph.name}: out of tolerance against float64")
    expected = exes[0].run(**inputs)
    for exe in exes[1:]:
        for name, array in exe.run(**inputs).items():
            one, other = (a.astype(np.float64) for a in (array, expected[name]))
            limit = 2e-2 if str(exe.outputs[name].dtype) == "f16" else 1e-4
            if not np.linalg.norm(one - other) <= limit * np.linalg.norm(other):  # NaN too
                sys.exit(f"{graph.name}: '{name}' differs between two plans")


def cell(microseconds: float) -> str:
    return "" if np.isnan(microseconds) else f"{microseconds:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30, help="random graphs")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    rows = [measured(graph, given.rounds) for graph in graphs(given.count)]
    header = [
        "graph",
        "commands",
        "streams",
        "µs",
        "on 1",
        "on 2",
        "on 3",
        "on 4",
        "÷ best",
        "true",
    ]
    print(table([header] + [
        [r.graph, str(r.commands), str(r.streams), cell(r.default),
         *(cell(r.fastest(k)) for k in (1, 2, 3, 4)), f"{r.default / r.best:.2f}",
         "yes" if r.true else "no"] for r in rows
    ]))  # fmt: skip
    ratios = [r.default / r.best for r in rows]
    print(
        f"\ndefault ÷ best measured: median {median(ratios):.2f}, worst {max(ratios):.2f}, "
        f"at most 1.05 in {sum(q <= 1.05 for q in ratios)} of {len(rows)}; "
        f"what explain says is true in {sum(r.true for r in rows)} of {len(rows)}"
    )


if __name__ == "__main__":
    main()
