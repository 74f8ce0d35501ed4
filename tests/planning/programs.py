"""Programs, schedules and happens-before for the tests of the stages after `lower`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
from hypothesis import strategies as st

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.plan import HostWait, Record, Wait
from graphexec.ir.program import Command, Cost, Memcpy, Program, Storage
from graphexec.planning.scheduled import Schedule, Step

NBYTES = 256
SOME = Cost(0, 1000)


@dataclass(frozen=True)
class Access:
    """The reads and writes of one command (names of storages), and its `after`."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    after: tuple[int, ...] = ()


def does(text: str, after: Iterable[int] = ()) -> Access:
    """`does("a b -> c")` reads a and b and writes c."""
    reads, _, writes = text.partition("->")
    return Access(tuple(reads.split()), tuple(writes.split()), tuple(after))


def view(name: str, nbytes: int = NBYTES) -> View:
    return View.dense(name, TensorType((nbytes // 2,), DType.F16))


def program_of(
    accesses: Sequence[Access], sizes: Mapping[str, int] | None = None, cost: Cost = SOME
) -> Program:
    """A program whose storages all lie in the device's arena."""
    sizes = sizes or {}
    names = dict.fromkeys(n for a in accesses for n in (*a.reads, *a.writes))
    storages = {n: Storage(n, sizes.get(n, NBYTES), "arena", "device") for n in names}
    views = {n: view(n, s.nbytes) for n, s in storages.items()}
    commands = []
    for number, access in enumerate(accesses):
        reads = tuple(views[n] for n in access.reads)
        writes = tuple(views[n] for n in access.writes)
        some = (*reads, *writes)
        work = Memcpy(some[0], some[-1])
        commands.append(Command(f"n{number}", "copy", work, reads, writes, cost, access.after))
    return Program("test", {}, storages, views, tuple(commands), {}, {}, {})


def schedule_of(
    accesses: Sequence[Access], streams: Sequence[int], order: Sequence[int] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Schedule:  # fmt: skip
    """The accesses on given streams, issued in `order` (as they stand by default)."""
    program = program_of(accesses, sizes)
    order = tuple(range(len(accesses))) if order is None else tuple(order)
    needs = program.predecessors
    return Schedule(program, needs, order, tuple(streams))


@st.composite
def access_lists(draw: st.DrawFn, max_commands: int = 14) -> list[Access]:
    """Commands that write new storages or old ones, and read what was written."""
    count = draw(st.integers(1, max_commands))
    accesses: list[Access] = []
    written: list[str] = []
    for number in range(count):
        fresh = f"t{number}"
        reads = draw(st.lists(st.sampled_from(written), max_size=3)) if written else []
        target = draw(st.sampled_from([*written, fresh, fresh, fresh])) if written else fresh
        after = draw(st.sets(st.integers(0, number - 1), max_size=1)) if number else set()
        keep_after = after if draw(st.integers(0, 5)) == 5 else set()
        writes = [target]
        if draw(st.integers(0, 5)) == 5:
            writes.append(f"{fresh}.scratch")
        written += [w for w in writes if w not in written]
        accesses.append(Access(tuple(reads), tuple(writes), tuple(keep_after)))
    return accesses


@st.composite
def schedules(draw: st.DrawFn, max_commands: int = 14, max_streams: int = 5) -> Schedule:
    """Any topological order and any streams, numbered by first use."""
    accesses = draw(access_lists(max_commands))
    sizes = {n: draw(st.integers(1, 5)) * 200 for a in accesses for n in a.writes}
    needs = program_of(accesses).predecessors
    waiting, order = set(range(len(accesses))), []
    while waiting:
        ready = sorted(c for c in waiting if not waiting.intersection(needs[c]))
        order.append(draw(st.sampled_from(ready)))
        waiting.remove(order[-1])
    count = draw(st.integers(1, max_streams))
    names: dict[int, int] = {}
    streams = [0] * len(accesses)
    for command in order:
        streams[command] = names.setdefault(draw(st.integers(0, count - 1)), len(names))
    return schedule_of(accesses, streams, order, sizes)


def required(schedule: Schedule) -> nx.DiGraph:
    """R = dependencies ∪ stream order, over commands."""
    graph = nx.DiGraph()
    graph.add_nodes_from(schedule.order)
    last: dict[int, int] = {}
    for command in schedule.order:
        graph.add_edges_from((p, command) for p in schedule.predecessors[command])
        stream = schedule.stream[command]
        if stream in last:
            graph.add_edge(last[stream], command)
        last[stream] = command
    return graph


def stream_of(schedule: Schedule, step: Step) -> int | None:
    """The stream of a step; None for a host_wait."""
    if isinstance(step, int):
        return schedule.stream[step]
    return None if isinstance(step, HostWait) else step.stream


def happens_before(schedule: Schedule, steps: Sequence[Step]) -> nx.DiGraph:
    """Stream order and record → wait, over the indices of `steps`."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(steps)))
    last: dict[int | None, int] = {}
    records: dict[int, int] = {}
    for index, step in enumerate(steps):
        stream = stream_of(schedule, step)
        if stream in last:
            graph.add_edge(last[stream], index)
        last[stream] = index
        if isinstance(step, Record):
            records[step.event] = index
        if isinstance(step, (Wait, HostWait)):
            graph.add_edge(records[step.event], index)
    return graph
