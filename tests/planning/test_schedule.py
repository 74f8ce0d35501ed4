"""schedule: a topological order on at most K streams, close to the critical path."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import Access, access_lists, does, program_of

from graphexec.ir.program import Cost
from graphexec.machine import costs
from graphexec.machine.costs import CostModel
from graphexec.planning.schedule import schedule
from graphexec.planning.scheduled import Schedule

# 100 µs a command of cost SPLIT, which fills a hundredth of the device.
MODEL = CostModel(flops=100, bytes=1, link_bytes=1, launch=1, wait=2, wave=100)
SPLIT = Cost(100, 0)


def scheduled(accesses: list[Access], streams: int, cost: Cost = SPLIT) -> Schedule:
    return schedule(program_of(accesses, cost=cost), streams, MODEL)


def chains(number: int, length: int) -> list[Access]:
    return [
        does(f"{f'c{c}.{i - 1}' if i else ''} -> c{c}.{i}")
        for i in range(length)
        for c in range(number)
    ]


def makespan(found: Schedule, model: CostModel) -> float:
    """When the last command ends if every command starts as early as its stream lets it."""
    end: dict[int, float] = {}
    free: dict[int, float] = {}
    for command in found.order:
        own = found.stream[command]
        ready = [end[p] + (model.wait if found.stream[p] != own else 0)
                 for p in found.predecessors[command]]  # fmt: skip
        start = max([free.get(own, 0.0), *ready])
        end[command] = free[own] = start + model.microseconds(found.program.commands[command])
    return max(end.values(), default=0.0)


@settings(max_examples=100, deadline=None)
@given(access_lists(), st.integers(1, 6))
def test_contract(accesses: list[Access], streams: int) -> None:
    found = scheduled(accesses, streams)
    assert sorted(found.order) == list(range(len(accesses)))
    place = {c: i for i, c in enumerate(found.order)}
    assert all(place[p] < place[c] for c in place for p in found.predecessors[c])
    first = list(dict.fromkeys(found.stream[c] for c in found.order))
    assert first == list(range(len(first)))
    assert found.streams == len(first) <= streams
    assert scheduled(accesses, streams) == found


@settings(max_examples=60, deadline=None)
@given(access_lists(), st.integers(2, 6))
def test_more_streams_are_no_slower_than_one(accesses: list[Access], streams: int) -> None:
    one = makespan(scheduled(accesses, 1), MODEL)
    assert one == pytest.approx(101 * len(accesses))
    assert makespan(scheduled(accesses, streams), MODEL) <= one


def test_one_stream_keeps_a_chain_in_order() -> None:
    assert scheduled(chains(1, 6), 1).order == tuple(range(6))


@pytest.mark.parametrize("streams", [1, 2, 8])
def test_a_chain_stays_on_one_stream(streams: int) -> None:
    assert scheduled(chains(1, 6), streams).streams == 1


@pytest.mark.parametrize(("streams", "used"), [(1, 1), (2, 2), (4, 4), (16, 8)])
def test_independent_chains_get_streams_of_their_own(streams: int, used: int) -> None:
    found = scheduled(chains(8, 5), streams)
    assert found.streams == used
    for chain in range(8):
        assert len({found.stream[c] for c in range(chain, 40, 8)}) == 1
    loads = [found.stream.count(s) for s in range(used)]
    assert len(set(loads)) == 1
    assert makespan(found, MODEL) == 101 * 40 / used


def test_the_longest_way_is_issued_first() -> None:
    """A short branch that is listed first does not delay the long one."""
    accesses = [
        does("-> s0"),
        does("-> l0"),
        does("l0 -> l1"),
        does("l1 -> l2"),
        does("s0 l2 -> y"),
    ]
    assert scheduled(accesses, 2).order[0] == 1


def test_a_stream_is_not_worth_a_wait_for_short_work() -> None:
    accesses = [does("-> a"), does("a -> b"), does("a -> c"), does("b c -> d")]
    model = CostModel(flops=1, bytes=1, link_bytes=1, launch=1, wait=1000)
    program = program_of(accesses, cost=Cost(10, 0))
    assert schedule(program, 4, model).streams == 1


CAREFUL = replace(MODEL, beside=5, gain=0.1)


@settings(max_examples=60, deadline=None)
@given(access_lists(), st.integers(2, 6), st.sampled_from([CAREFUL, costs.CPU]))
def test_at_most_n_streams_are_never_slower_than_at_most_one_less(
    accesses: list[Access], streams: int, model: CostModel
) -> None:
    program = program_of(accesses, cost=Cost(3 * 10**7, 0))
    more, fewer = (schedule(program, n, model).prediction for n in (streams, streams - 1))
    assert more is not None
    assert fewer is not None
    assert more.makespan <= fewer.makespan
    assert more.one_stream == fewer.one_stream
    if more.timeline != fewer.timeline:
        assert more.timeline.makespan < 0.9 * fewer.timeline.makespan


@pytest.mark.parametrize(("wait", "streams"), [(75, 2), (77, 1)])
def test_a_further_stream_must_save_a_part_of_the_time(wait: float, streams: int) -> None:
    """Two commands take 202 µs on one stream, of which a tenth must be saved; on two, each takes
    106 µs, and the second begins after a wait."""
    program = program_of([does("-> a"), does("-> b")], cost=SPLIT)
    assert schedule(program, 2, replace(CAREFUL, wait=wait)).streams == streams
    assert schedule(program, 2, replace(MODEL, wait=wait)).streams == 2


def test_an_empty_program() -> None:
    found = scheduled([], 4)
    assert (found.order, found.stream, found.streams) == ((), (), 1)


def test_a_long_program_needs_no_recursion() -> None:
    assert len(scheduled(chains(2, 3000), 4).order) == 6000


def test_costs_follow_the_roofline() -> None:
    model = CostModel(flops=10, bytes=5, link_bytes=2, launch=3, wait=0)
    (command,) = program_of([does("-> a")], cost=Cost(100, 10)).commands
    assert model.microseconds(command) == 3 + 10
    (command,) = program_of([does("-> a")], cost=Cost(10, 100)).commands
    assert model.microseconds(command) == 3 + 20
    assert costs.CPU.launch > 0
    assert costs.GPU.flops > costs.CPU.flops
