"""synchronize: the waits are the cross-stream edges of the transitive reduction, no more, no less.

The reduction, and what happens before what, are computed by networkx.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from programs import (
    Access,
    access_lists,
    does,
    happens_before,
    program_of,
    required,
    schedule_of,
    schedules,
    stream_of,
)

from graphexec.ir.plan import HostWait, Record, Wait
from graphexec.planning.scheduled import Schedule, Synchronized
from graphexec.planning.synchronize import synchronize

few = settings(max_examples=60, deadline=None)


def waits(synchronized: Synchronized) -> set[tuple[int, int]]:
    """(recorded command, waiting command) of the dependency waits."""
    schedule, steps = synchronized.schedule, synchronized.steps
    marked: dict[int, int] = {}
    last: dict[int, int] = {}
    found = set()
    for index, step in enumerate(steps):
        if isinstance(step, int):
            last[schedule.stream[step]] = step
        elif isinstance(step, Record) and step.stream in last:
            marked[step.event] = last[step.stream]
        elif isinstance(step, Wait) and step.role == "dependency":
            waiting = next(
                s for s in steps[index:] if isinstance(s, int) and schedule.stream[s] == step.stream
            )
            found.add((marked[step.event], waiting))
    return found


def count(synchronized: Synchronized, role: str) -> int:
    return sum(isinstance(s, Wait) and s.role == role for s in synchronized.steps)


# Dependencies ---------------------------------------------------------------------------------


@few
@given(access_lists())
def test_dependencies_order_whatever_must_not_be_swapped(accesses: list[Access]) -> None:
    """Their closure is that of all pairs with a storage in common that one of them writes."""
    program = program_of(accesses)
    commands = program.commands
    pairs = nx.DiGraph()
    pairs.add_nodes_from(range(len(commands)))
    for later, second in enumerate(accesses):
        pairs.add_edges_from((earlier, later) for earlier in second.after)
        for earlier, first in enumerate(accesses[:later]):
            touched = {*first.reads, *first.writes} & set(second.writes)
            if touched or set(first.writes) & set(second.reads):
                pairs.add_edge(earlier, later)
    found = nx.DiGraph()
    found.add_nodes_from(range(len(commands)))
    needs = program.predecessors
    found.add_edges_from((p, c) for c, before in enumerate(needs) for p in before)
    assert set(found.edges) <= set(pairs.edges)
    assert set(nx.transitive_closure_dag(found).edges) == set(
        nx.transitive_closure_dag(pairs).edges
    )


# The waits ------------------------------------------------------------------------------------


@few
@given(schedules())
def test_waits_are_the_cross_stream_edges_of_the_reduction(schedule: Schedule) -> None:
    reduced = nx.transitive_reduction(required(schedule))
    expected = {(p, c) for p, c in reduced.edges if schedule.stream[p] != schedule.stream[c]}
    synchronized = synchronize(schedule)
    assert waits(synchronized) == expected
    assert count(synchronized, "dependency") == len(expected)


@few
@given(schedules())
def test_every_dependency_happens_before(schedule: Schedule) -> None:
    synchronized = synchronize(schedule)
    order = happens_before(schedule, synchronized.steps)
    at = {step: i for i, step in enumerate(synchronized.steps) if isinstance(step, int)}
    assert [s for s in synchronized.steps if isinstance(s, int)] == list(schedule.order)
    for command, needs in enumerate(schedule.predecessors):
        assert {at[n] for n in needs} <= nx.ancestors(order, at[command])


@few
@given(schedules(max_commands=10))
def test_no_dependency_wait_can_be_deleted(schedule: Schedule) -> None:
    steps = synchronize(schedule).steps
    for index, step in enumerate(steps):
        if isinstance(step, Wait) and step.role == "dependency":
            left = [*steps[:index], *steps[index + 1 :]]
            order = happens_before(schedule, left)
            at = {s: i for i, s in enumerate(left) if isinstance(s, int)}
            assert any(
                at[n] not in nx.ancestors(order, at[c])
                for c, needs in enumerate(schedule.predecessors)
                for n in needs
            )


@few
@given(schedules())
def test_counters_say_how_much_of_each_stream_comes_before(schedule: Schedule) -> None:
    synchronized = synchronize(schedule)
    graph = required(schedule)
    seen = [0] * schedule.streams
    for command in schedule.order:
        own = schedule.stream[command]
        assert synchronized.position[command] == seen[own]
        seen[own] += 1
        streams = [schedule.stream[a] for a in nx.ancestors(graph, command)]
        expected = tuple(streams.count(s) for s in range(schedule.streams))
        assert synchronized.before[command] == expected


@few
@given(schedules())
def test_crossing_edges_are_counted_before_reduction(schedule: Schedule) -> None:
    crossing = sum(
        schedule.stream[p] != schedule.stream[c]
        for c, needs in enumerate(schedule.predecessors)
        for p in needs
    )
    assert synchronize(schedule).cross_stream_edges == crossing


# Events, forks and joins ----------------------------------------------------------------------


@few
@given(schedules())
def test_events(schedule: Schedule) -> None:
    """Events are numbered in order, recorded once and before their waits, and all used."""
    steps = synchronize(schedule).steps
    records = [s.event for s in steps if isinstance(s, Record)]
    awaited = {s.event for s in steps if isinstance(s, (Wait, HostWait))}
    assert records == list(range(len(records)))
    assert awaited == set(records)
    for index, step in enumerate(steps):
        if isinstance(step, Wait):
            (place,) = [
                i for i, s in enumerate(steps) if isinstance(s, Record) and s.event == step.event
            ]
            assert place < index
            assert steps[place].stream != step.stream  # type: ignore[union-attr]


@few
@given(schedules())
def test_streams_begin_with_a_wait_and_fork_only_if_they_must(schedule: Schedule) -> None:
    steps = synchronize(schedule).steps
    forks = [s for s in steps if isinstance(s, Wait) and s.role == "fork"]
    for stream in range(1, schedule.streams):
        own = [s for s in steps if stream_of(schedule, s) == stream]
        first = own[0]
        assert isinstance(first, Wait)
        assert first.role in ("dependency", "fork")
        assert all(not isinstance(s, Wait) or s.role == "dependency" for s in own[1:])
    if forks:
        assert steps[0] == Record(0, forks[0].event)  # nothing on stream 0 delays the others
        assert {f.event for f in forks} == {0}
    assert all(f.stream != 0 for f in forks)


@few
@given(schedules())
def test_everything_is_joined_before_the_host_waits(schedule: Schedule) -> None:
    steps = synchronize(schedule).steps
    assert isinstance(steps[-1], HostWait)
    assert sum(isinstance(s, HostWait) for s in steps) == 1
    assert steps[-2] == Record(0, steps[-1].event)
    order = happens_before(schedule, steps)
    assert nx.ancestors(order, len(steps) - 1) == set(range(len(steps) - 1))


@few
@given(schedules(max_commands=10))
def test_no_join_and_no_fork_can_be_deleted(schedule: Schedule) -> None:
    steps = synchronize(schedule).steps
    for index, step in enumerate(steps):
        if isinstance(step, Wait) and step.role != "dependency":
            left = [*steps[:index], *steps[index + 1 :]]
            order = happens_before(schedule, left)
            if step.role == "join":
                assert len(nx.ancestors(order, len(left) - 1)) < len(left) - 1
            else:
                first = next(i for i, s in enumerate(left) if stream_of(schedule, s) == step.stream)
                assert not nx.ancestors(order, first)


@few
@given(schedules())
def test_joins_come_last_and_are_on_the_origin(schedule: Schedule) -> None:
    steps = synchronize(schedule).steps
    last = max(i for i, s in enumerate(steps) if isinstance(s, int))
    joins = [i for i, s in enumerate(steps) if isinstance(s, Wait) and s.role == "join"]
    assert all(i > last and steps[i].stream == 0 for i in joins)  # type: ignore[union-attr]


# Known shapes ---------------------------------------------------------------------------------

SHAPES: dict[str, tuple[list[Access], list[int], int, int, int]] = {
    # accesses, streams, dependency waits, forks, joins
    "one": ([does("-> a")], [0], 0, 0, 0),
    "chain": ([does("-> a"), does("a -> b"), does("b -> c")], [0, 0, 0], 0, 0, 0),
    "chain on two streams": (
        [does("-> a"), does("a -> b"), does("b -> c"), does("c -> d")], [0, 1, 0, 1], 3, 0, 1),
    "independent": ([does("-> a"), does("-> b"), does("-> c")], [0, 1, 2], 0, 2, 2),
    "diamond": (
        [does("-> a"), does("a -> b"), does("a -> c"), does("b c -> d")], [0, 0, 1, 0], 2, 0, 0),
    "inception": (
        [does("-> a"), *(does(f"a -> b{i}") for i in range(4)), does("b0 b1 b2 b3 -> c")],
        [0, 0, 1, 2, 3, 0], 6, 0, 0),
    "skip": ([does("-> a"), does("a -> b"), does("a b -> c")], [0, 1, 2], 2, 0, 1),
    "skip home": ([does("-> a"), does("a -> b"), does("a b -> c")], [0, 1, 0], 2, 0, 0),
    "same tensor twice": ([does("-> a"), does("a a -> b")], [0, 1], 1, 0, 1),
    "two of one stream": (
        [does("-> a"), does("-> b"), does("a b -> c")], [0, 0, 1], 1, 0, 1),
    "two at once": ([does("-> a"), does("a -> b"), does("a -> c")], [0, 1, 2], 2, 0, 2),
    "write after read": ([does("-> a"), does("a -> b"), does("-> a")], [0, 1, 0], 2, 0, 0),
    "write after write": ([does("-> a"), does("-> a")], [0, 1], 1, 0, 1),
    "order without data": ([does("-> a"), does("-> b", after=[0])], [0, 1], 1, 0, 1),
    "ends covered by another": (
        [does("-> a"), does("-> b"), does("b -> c")], [0, 1, 2], 1, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_known_shapes(shape: str) -> None:
    accesses, streams, dependency, forks, joins = SHAPES[shape]
    synchronized = synchronize(schedule_of(accesses, streams))
    found = {role: count(synchronized, role) for role in ("dependency", "fork", "join")}
    assert found == {"dependency": dependency, "fork": forks, "join": joins}


def test_256_readers_between_two_writers() -> None:
    """Each of eight streams is waited for once, not each reader."""
    accesses = [does("-> x"), *(does(f"x -> r{i}") for i in range(256)), does("-> x")]
    streams = [0, *(i % 8 for i in range(256)), 0]
    synchronized = synchronize(schedule_of(accesses, streams))
    assert count(synchronized, "dependency") == 7 + 7
    assert synchronized.cross_stream_edges == 2 * 256 * 7 // 8
    # The last writer waits for the last reader of each other stream.
    assert {p for p, c in waits(synchronized) if c == 257} == {250, 251, 252, 253, 254, 255, 256}


def test_an_event_is_recorded_once_for_several_waits() -> None:
    accesses = [does("-> a"), *(does(f"a -> b{i}") for i in range(3))]
    steps = synchronize(schedule_of(accesses, [0, 1, 2, 3])).steps
    assert steps[:2] == (0, Record(0, 0))
    assert [s for s in steps if isinstance(s, Wait) and s.role == "dependency"] == [
        Wait(stream, 0, "dependency") for stream in (1, 2, 3)
    ]


def test_a_long_chain_over_many_streams() -> None:
    accesses = [does("-> t0"), *(does(f"t{i} -> t{i + 1}") for i in range(2000))]
    streams = [i % 16 for i in range(2001)]
    synchronized = synchronize(schedule_of(accesses, streams))
    assert waits(synchronized) == set(pairwise(range(2001)))


def test_an_empty_schedule() -> None:
    steps: Sequence[object] = synchronize(schedule_of([], [])).steps
    assert steps == (Record(0, 0), HostWait(0))
