"""The quality of plans and the time of planning: the tables of docs/performance.md.

    python benchmarks/planner.py            # a few minutes
    python benchmarks/planner.py --quick    # fewer graphs, no 100,000 nodes
    python benchmarks/planner.py --only time arena
    python benchmarks/planner.py --only minimalloc --minimalloc FOLDER   # with A.1048576.csv …

Times are the best of several runs, from YAML text to a verified plan: seconds on the clock, and
seconds of the processor, which depend less on other work of the machine. All other figures are
deterministic. No GPU is needed; times of commands are those of the GPU model.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import growing
import intervals
import shapes
from graph_files import FILES
from measure import table

import graphexec as gx
from graphexec.ir.plan import Plan, Wait
from graphexec.machine import costs
from graphexec.machine.bounds import bounds
from graphexec.machine.simulate import simulate
from graphexec.planning.allocate import allocate
from graphexec.planning.allocation.arena import place
from graphexec.planning.allocation.conflicts import conflicts
from graphexec.planning.allocation.lifetimes import items
from graphexec.planning.assemble import assemble
from graphexec.planning.schedule import CANDIDATES, schedule
from graphexec.planning.scheduled import Synchronized
from graphexec.planning.scheduling.chains import transitive_reduction
from graphexec.planning.synchronize import synchronize

Rows = list[list[str]]


def layered_yaml(nodes: int, seed: int = 0) -> str:
    """GEMMs in layers of √n. Each depends on three of the layer before: on two by `a` and `b`, on
    the others by `after`."""
    random, width = Random(seed), max(8, math.isqrt(nodes))
    lines = ["version: 1", "inputs: {x: {shape: [64, 64], dtype: f32}}", "nodes:"]
    before, used, made = ["x"], set[str](), 0
    while made < nodes:
        here = [f"n{i}" for i in range(made, min(nodes, made + width))]
        needs: dict[str, list[str]] = {name: [] for name in here}
        for name in before:
            for reader in random.sample(here, min(3, len(here))):
                needs[reader].append(name)
        for name, reads in needs.items():
            a, *rest = reads or [random.choice(before)]
            b, *after = rest or [a]
            used.update((a, b, *after))
            ordered = f", after: [{', '.join(after)}]" if after else ""
            lines.append(f"  {name}: {{op: gemm, a: {a}, b: {b}{ordered}}}")
        before, made = here, made + len(here)
    outputs = [f"n{i}" for i in range(nodes) if f"n{i}" not in used]
    return "\n".join([*lines, f"outputs: [{', '.join(outputs)}]", ""])


@dataclass(frozen=True)
class Took:
    """Seconds on the clock and of the processor."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.3f} / {self.processor:.3f} s"


def best(work: Callable[[], object], repeat: int) -> Took:
    """The least of `repeat` runs."""
    wall, processor = math.inf, math.inf
    for _ in range(repeat):
        start, started = time.perf_counter(), time.process_time()
        work()
        wall = min(wall, time.perf_counter() - start)
        processor = min(processor, time.process_time() - started)
    return Took(wall, processor)


def planning_time(quick: bool) -> Rows:
    sizes = {1000: 15, 10_000: 4} | ({} if quick else {100_000: 2})
    targets = {1000: ("0.15 s", "0.03 s"), 10_000: ("1.5 s", "0.4 s"), 100_000: ("20 s", "")}
    gx.make_plan(gx.loads(layered_yaml(20)))  # imports
    rows = [["nodes (clock / processor)", "load", "load to verified plan", "target",
             "verify alone", "target", "with batches"]]  # fmt: skip
    times = {}
    for nodes, repeat in sizes.items():
        text = layered_yaml(nodes)
        load = best(lambda text=text: gx.loads(text), repeat)

        def whole(*without: str, text: str = text) -> Plan:
            return gx.make_plan(gx.loads(text), streams=8, device="hip", no_rewrite=without)

        # Without batches every node is a command, as in the planners this is compared with.
        times[nodes] = best(lambda whole=whole: whole("batch"), repeat)
        batched = best(whole, repeat)
        plan = whole("batch")
        proof = best(lambda plan=plan: gx.find_hazards(plan), repeat)
        total_target, verify_target = targets[nodes]
        rows.append([f"{nodes:,}", str(load), str(times[nodes]), total_target, str(proof),
                     verify_target, str(batched)])  # fmt: skip
    smallest, largest = min(times), max(times)
    wall, processor = (
        math.log(getattr(times[largest], kind) / getattr(times[smallest], kind))
        / math.log(largest / smallest)
        for kind in ("wall", "processor")
    )
    rows.append(["growth", "", f"exponent {wall:.2f} / {processor:.2f}", "1.1", "", "", ""])
    return rows


def growth(quick: bool) -> Rows:
    """Shapes that invite squares: processor time, and its exponent from the least size to the
    largest. tests/planning/test_growth.py counts lines for the same shapes."""
    sizes = (1000, 4000) if quick else (1000, 4000, 16_000)
    rows = [["shape (processor)", *(f"{size:,}" for size in sizes), "exponent", "target"]]
    for name, shape in growing.SHAPES.items():
        shape(4)()  # imports
        times = [best(shape(size), 3 if size < 10_000 else 1).processor for size in sizes]
        exponent = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
        rows.append([name, *(f"{took:.2f} s" for took in times), f"{exponent:.2f}", "1.15"])
    return rows


# Random DAGs ------------------------------------------------------------------------------


def random_plans(quick: bool, streams: int = 4) -> Iterator[Synchronized]:
    for seed in range(40 if quick else 300):
        program = shapes.random_dag(10 + seed % 51, seed)
        yield synchronize(schedule(program, streams, costs.GPU))


def waits(quick: bool) -> Rows:
    ours = exact = by_id = naive = caught = deleted = 0
    equal = graphs = 0
    for synchronized in random_plans(quick):
        plan = assemble(synchronized, allocate(synchronized), "hip").plan
        assert not gx.find_hazards(plan)
        assert plan.stats is not None
        least = _reduction_edges(synchronized)
        graphs, equal = graphs + 1, equal + (plan.stats.waits == least)
        ours, exact = ours + plan.stats.waits, exact + least
        by_id, naive = (
            by_id + _waits_by_event_id(synchronized),
            naive + plan.stats.cross_stream_edges,
        )
        for index, i in enumerate(plan.instructions):
            if isinstance(i, Wait) and i.role != "fork":
                rest = plan.instructions[:index] + plan.instructions[index + 1 :]
                deleted += 1
                caught += bool(gx.find_hazards(replace(plan, instructions=rest), limit=1))
    return [
        ["waits", "count", "per necessary one"],
        ["one a dependency", str(naive), f"{naive / exact:.3f}"],
        ["MIGraphX's rule", str(by_id), f"{by_id / exact:.3f}"],
        ["graphexec", str(ours), f"{ours / exact:.3f}"],
        ["exact reduction", str(exact), "1"],
        ["graphs where graphexec is exact", f"{equal} of {graphs}", ""],
        [
            "deleted dependency and join waits that the verifier catches",
            f"{caught} of {deleted}",
            "",
        ],
    ]


def _reduction_edges(synchronized: Synchronized) -> int:
    """Cross-stream edges of the transitive reduction of dependencies and stream order, by another
    algorithm than the planner's."""
    found = synchronized.schedule
    place = {command: at for at, command in enumerate(found.order)}
    successors: list[list[int]] = [[] for _ in found.order]
    last: dict[int, int] = {}
    for command in found.order:
        needs = {*found.predecessors[command]}
        if found.stream[command] in last:
            needs.add(last[found.stream[command]])
        last[found.stream[command]] = command
        for need in needs:
            successors[place[need]].append(place[command])
    stream = [found.stream[command] for command in found.order]
    reduced = transitive_reduction(successors)
    return sum(stream[a] != stream[b] for a, readers in enumerate(reduced) for b in readers)


def _waits_by_event_id(synchronized: Synchronized) -> int:
    """MIGraphX (src/schedule.cpp): a wait for the last operand on each other stream, unless this
    stream has waited for the same event before."""
    found = synchronized.schedule
    place = {command: at for at, command in enumerate(found.order)}
    waited: set[tuple[int, int]] = set()
    for command in found.order:
        latest: dict[int, int] = {}
        for need in sorted(found.predecessors[command], key=lambda c: place[c]):
            latest[found.stream[need]] = need
        latest.pop(found.stream[command], None)
        waited.update((found.stream[command], need) for need in latest.values())
    return len(waited)


def arena(quick: bool) -> Rows:
    rows = [["arena ÷ lower bound", "graphs", "median", "mean", "worst", "equal to the bound"]]
    ratios = [_ratio(s) for s in random_plans(quick)]
    rows.append(["random DAGs, 4 streams", *_summary(ratios)])
    rows.append(["random DAGs, 1 stream", *_summary([_ratio(s) for s in random_plans(quick, 1)])])
    plans = [gx.make_plan(gx.load(path), streams=4) for path in FILES]
    examples = [p.stats.arena_bytes / p.stats.arena_lower_bound for p in plans if p.stats]
    rows.append(["example graphs, 4 streams", *_summary(examples)])
    many = 10 if quick else 60
    optimal = sum(_is_smallest(seed) for seed in range(many))
    rows.append([f"≤ 10 tensors, 1 stream: smallest by exhaustive search: {optimal} of {many}",
                 "", "", "", "", ""])  # fmt: skip
    return rows


def _ratio(synchronized: Synchronized) -> float:
    found = allocate(synchronized)
    return found.arena_bytes / found.lower_bound


def _summary(ratios: list[float]) -> list[str]:
    exact = sum(r == 1 for r in ratios)
    return [str(len(ratios)), f"{statistics.median(ratios):.3f}", f"{statistics.mean(ratios):.3f}",
            f"{max(ratios):.3f}", f"{exact}"]  # fmt: skip


def _is_smallest(seed: int) -> bool:
    """Whether no arena 256 bytes smaller holds the tensors, by exhaustive search."""
    synchronized = synchronize(schedule(shapes.random_dag(5 + seed % 5, seed), 1, costs.GPU))
    found = items(synchronized, "device")
    assert len(found) <= 10
    near = conflicts(found)
    assert near is not None
    limit = allocate(synchronized).arena_bytes - 256
    return not _fits([i.size for i in found], near, limit, {}, 0)


def _fits(
    sizes: list[int], near: list[list[int]], limit: int, offsets: dict[int, int], lowest: int
) -> bool:
    if len(offsets) == len(sizes):
        return True
    for item in range(len(sizes)):
        if item in offsets:
            continue
        at = max((offsets[n] + sizes[n] for n in near[item] if n in offsets), default=0)
        if at < lowest or at + sizes[item] > limit:
            continue
        if _fits(sizes, near, limit, offsets | {item: at}, at):
            return True
    return False


def minimalloc(folder: Path | None) -> Rows:
    """Published intervals of one stream; the capacity is what suffices."""
    files = sorted(folder.glob("*.csv")) if folder else []
    rows = [["input", "buffers", "lower bound ÷ capacity", "arena ÷ capacity", "seconds"]]
    ratios = []
    for file in files:
        items, enough = intervals.read(file), intervals.capacity(file)
        found = place(items)
        ratios.append(found.bytes / enough)
        took = best(lambda items=items: place(items), 1)
        rows.append([file.stem.split(".")[0], str(len(items)), f"{found.lower_bound / enough:.3f}",
                     f"{ratios[-1]:.3f}", f"{took.processor:.2f}"])  # fmt: skip
    if ratios:
        rows.append(["median", "", "", f"{statistics.median(ratios):.3f}", ""])
    else:
        rows.append(["none: name a folder with --minimalloc", "", "", "", ""])
    return rows


# Schedules --------------------------------------------------------------------------------


def makespan(quick: bool) -> Rows:
    """Makespans ÷ bounds: the plain bound (path, capacity, copies), and the best bound for as many
    streams. The last column is the best bound for any number of streams ÷ the plain one: a lower
    bound of the column of the plain bound."""
    rows = [["graph", "commands", "streams", "candidate", "predicted", "÷ one stream",
             "÷ plain bound", "÷ best bound", "no schedule below"]]  # fmt: skip
    for resident in (False, True):
        for allowed in (4, 8, "auto"):
            ratios = []
            for name, shape in shapes.MAKESPAN_SHAPES.items():
                program = shapes.resident(shape()) if resident else shape()
                found = schedule(program, allowed, costs.GPU)
                prediction = found.prediction
                assert prediction is not None
                low, time = prediction.bounds, prediction.timeline.makespan
                one = sum(prediction.tasks.time) + prediction.tasks.launch * len(found.order)
                least = bounds(prediction.tasks, len(found.order)).best
                ratios.append((time / one, time / low.plain, time / low.best, least / low.plain))
                rows.append([name + ", resident" * resident, str(len(found.order)),
                             f"{found.streams} of {allowed}", prediction.candidate,
                             f"{time:.1f} µs", *_three(ratios[-1])])  # fmt: skip
            for what, of in (("median", statistics.median), ("worst", max)):
                over = _three([of(column) for column in zip(*ratios, strict=True)])
                name = f"**{what}**" + ", resident" * resident
                rows.append([name, "", str(allowed), "", "", *over])
    return rows


def _three(ratios: Sequence[float]) -> list[str]:
    return [f"{ratio:.3f}" for ratio in ratios]


def portfolio(quick: bool) -> Rows:
    """Each candidate against the portfolio: how much longer it takes."""
    longer: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    programs = [shape() for shape in shapes.MAKESPAN_SHAPES.values()]
    programs += [shapes.random_dag(10 + seed % 51, seed) for seed in range(20 if quick else 100)]
    for program in programs:
        prediction = schedule(program, 4, costs.GPU).prediction
        assert prediction is not None
        for name, candidate in CANDIDATES.items():
            other = candidate(prediction.tasks, 4)
            alone = simulate(prediction.tasks, other.order, other.stream).makespan
            longer[name].append(alone / prediction.timeline.makespan)
    rows = [["candidate alone ÷ portfolio", "graphs", "median", "worst", "best"]]
    for name, ratios in longer.items():
        rows.append([name, str(len(ratios)), f"{statistics.median(ratios):.3f}",
                     f"{max(ratios):.3f}", f"{min(ratios):.4f}"])  # fmt: skip
    return rows


PARTS: dict[str, Callable[[bool], Rows]] = {
    "time": planning_time, "growth": growth, "waits": waits, "arena": arena,
    "makespan": makespan,
    "portfolio": portfolio,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "minimalloc"],
                        default=[*PARTS, "minimalloc"])  # fmt: skip
    parser.add_argument("--minimalloc", type=Path, help="folder of MiniMalloc's CSV files")
    options = parser.parse_args()
    parts = PARTS | {"minimalloc": lambda _: minimalloc(options.minimalloc)}
    for part in options.only:
        print(table(parts[part](options.quick)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
