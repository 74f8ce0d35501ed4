"""allocate: no two tensors that may be in use at once share bytes.

Happens-before is recomputed here by transitive closure, and tiny problems are solved by trying
every order of placement.
"""

from __future__ import annotations

from itertools import combinations, permutations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import access_lists, does, program_of, required, schedule_of, schedules

import graphexec as gx
from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.plan import Buffer
from graphexec.ir.program import ALIGNMENT, Command, Memcpy, Program, Storage, aligned
from graphexec.planning.allocate import allocate
from graphexec.planning.scheduled import Allocation, Schedule
from graphexec.planning.synchronize import synchronize

few = settings(max_examples=60, deadline=None)


def conflicts(schedule: Schedule) -> set[frozenset[str]]:
    """Pairs of storages with overlapping lifetimes."""
    before = {c: nx.ancestors(required(schedule), c) for c in schedule.order}
    accesses: dict[str, set[int]] = {}
    for index, command in enumerate(schedule.program.commands):
        for view in (*command.reads, *command.writes):
            accesses.setdefault(view.storage, set()).add(index)
    return {
        frozenset((x, y))
        for x, y in combinations(accesses, 2)
        if not all(accesses[x] <= before[c] for c in accesses[y])
        and not all(accesses[y] <= before[c] for c in accesses[x])
    }


def span(allocation: Allocation, storage: Storage) -> tuple[str, int, int]:
    buffer, offset = allocation.places[storage.name]
    return buffer, offset, offset + storage.nbytes


def overlap(one: tuple[str, int, int], two: tuple[str, int, int]) -> bool:
    return one[0] == two[0] and one[1] < two[2] and two[1] < one[2]


def place(schedule: Schedule) -> Allocation:
    return allocate(synchronize(schedule))


# Safety ---------------------------------------------------------------------------------------


@few
@given(schedules())
def test_tensors_in_use_at_once_share_no_byte(schedule: Schedule) -> None:
    allocation, storages = place(schedule), schedule.program.storages
    for pair in conflicts(schedule):
        x, y = (span(allocation, storages[name]) for name in pair)
        assert not overlap(x, y), pair


@few
@given(schedules())
def test_every_storage_lies_in_its_buffer_aligned(schedule: Schedule) -> None:
    allocation, storages = place(schedule), schedule.program.storages
    assert set(allocation.places) == set(storages)
    buffers = {b.id: b for b in allocation.buffers}
    for storage in storages.values():
        buffer, low, high = span(allocation, storage)
        assert low % ALIGNMENT == 0
        assert 0 <= low < high <= buffers[buffer].bytes


@few
@given(schedules())
def test_figures(schedule: Schedule) -> None:
    """lower bound ≤ arena ≤ sum of all; the bound is the weight of a set of rivals at least as
    heavy as the largest tensor, so never above the heaviest clique."""
    allocation, storages = place(schedule), schedule.program.storages
    sizes = {name: aligned(s.nbytes) for name, s in storages.items()}
    assert allocation.naive_bytes == sum(sizes.values())
    assert max(sizes.values()) <= allocation.lower_bound <= allocation.arena_bytes
    assert allocation.arena_bytes <= allocation.naive_bytes
    assert allocation.buffers == (Buffer("arena", allocation.arena_bytes, "device", "arena"),)
    assert allocation.arena_bytes == max(allocation.places[n][1] + sizes[n] for n in storages)
    graph = nx.Graph()
    graph.add_nodes_from((name, {"weight": size}) for name, size in sizes.items())
    graph.add_edges_from(tuple(pair) for pair in conflicts(schedule))
    assert allocation.lower_bound <= nx.max_weight_clique(graph)[1]


def test_aligned() -> None:
    assert [aligned(n) for n in (1, 255, 256, 257, 512)] == [256, 256, 256, 512, 512]


# Quality --------------------------------------------------------------------------------------


def least(sizes: dict[str, int], rivals: set[frozenset[str]]) -> int:
    """The smallest arena there is: some order of lowest fits gives it."""
    best = sum(sizes.values())
    for order in permutations(sizes):
        offsets: dict[str, int] = {}
        for name in order:
            near = sorted(
                (offsets[o], offsets[o] + sizes[o])
                for o in offsets
                if frozenset((o, name)) in rivals
            )
            at = 0
            for low, high in near:
                if at + sizes[name] <= low:
                    break
                at = max(at, high)
            offsets[name] = at
        best = min(best, max(offsets[n] + sizes[n] for n in sizes))
    return best


@st.composite
def one_stream(draw: st.DrawFn) -> Schedule:
    accesses = draw(access_lists(max_commands=5))
    sizes = {n: draw(st.integers(1, 4)) * ALIGNMENT for a in accesses for n in a.writes}
    return schedule_of(accesses, [0] * len(accesses), sizes=sizes)


@few
@given(one_stream())
def test_tiny_problems_on_one_stream_are_solved_exactly(schedule: Schedule) -> None:
    sizes = {name: aligned(s.nbytes) for name, s in schedule.program.storages.items()}
    if len(sizes) <= 6:
        assert place(schedule).arena_bytes == least(sizes, conflicts(schedule))


def test_a_chain_needs_two_tensors() -> None:
    accesses = [does("-> t0"), *(does(f"t{i} -> t{i + 1}") for i in range(50))]
    allocation = place(schedule_of(accesses, [0] * 51))
    assert allocation.arena_bytes == allocation.lower_bound == 2 * ALIGNMENT
    assert allocation.naive_bytes == 51 * ALIGNMENT


def test_a_chain_over_streams_still_needs_two_tensors() -> None:
    """Its waits order all commands, for any streams."""
    accesses = [does("-> t0"), *(does(f"t{i} -> t{i + 1}") for i in range(50))]
    assert place(schedule_of(accesses, [i % 3 for i in range(51)])).arena_bytes == 2 * ALIGNMENT


def test_chains_side_by_side_share_nothing() -> None:
    accesses = [does(f"{f'{c}{i - 1}' if i else ''} -> {c}{i}") for i in range(4) for c in "ab"]
    together = place(schedule_of(accesses, [0] * 8))
    apart = place(schedule_of(accesses, [0, 1] * 4))
    assert apart.arena_bytes == 4 * ALIGNMENT
    assert together.arena_bytes == 3 * ALIGNMENT


def test_reuse_follows_waits_not_issue_order() -> None:
    """b is issued after the last use of a, but nothing makes its stream wait for that."""
    accesses = [does("-> a"), does("a -> x"), does("-> b"), does("b -> y")]
    assert place(schedule_of(accesses, [0, 0, 1, 1])).arena_bytes == 4 * ALIGNMENT
    ordered = [*accesses[:2], does("-> b", after=[1]), does("b -> y")]
    assert place(schedule_of(ordered, [0, 0, 1, 1])).arena_bytes == 2 * ALIGNMENT


def test_what_one_command_reads_and_writes_does_not_overlap() -> None:
    allocation = place(schedule_of([does("-> a"), does("a -> b")], [0, 0]))
    assert allocation.arena_bytes == 2 * ALIGNMENT


# Other buffers --------------------------------------------------------------------------------


def test_inputs_outputs_and_weights_have_buffers_of_their_own() -> None:
    storages = {
        s.name: s
        for s in (
            Storage("in.x", 300, "input", "host"),
            Storage("x", 300, "arena", "device"),
            Storage("w", 100, "weights", "device"),
            Storage("v", 600, "weights", "device"),
            Storage("h", 50, "arena", "host"),
            Storage("out.y", 300, "output", "host"),
        )
    }
    views = {n: View.dense(n, TensorType((s.nbytes // 2,), DType.F16)) for n, s in storages.items()}

    def copy(source: str, target: str, *more: str) -> Command:
        reads = tuple(views[n] for n in (source, *more))
        return Command("n", "c", Memcpy(reads[0], views[target]), reads, (views[target],))

    commands = (copy("in.x", "x"), copy("x", "h", "w", "v"), copy("h", "out.y"))
    program = Program("g", {}, storages, views, commands, {}, {}, {})
    schedule = Schedule(program, program.predecessors, (0, 1, 2), (0, 0, 0))
    allocation = place(schedule)
    assert set(allocation.buffers) == {
        Buffer("arena", 512, "device", "arena"),
        Buffer("host_arena", 256, "host", "arena"),
        Buffer("weights", 256 + 768, "device", "weights"),
        Buffer("in.x", 300, "host", "input"),
        Buffer("out.y", 300, "host", "output"),
    }
    assert allocation.places == {
        "in.x": ("in.x", 0), "out.y": ("out.y", 0), "x": ("arena", 0), "h": ("host_arena", 0),
        "w": ("weights", 0), "v": ("weights", 256),
    }  # fmt: skip
    assert (allocation.arena_bytes, allocation.naive_bytes) == (512, 512)


def test_an_empty_program_takes_no_memory() -> None:
    allocation = place(schedule_of([], []))
    assert allocation == Allocation((), {}, 0, 0, 0)


@pytest.mark.parametrize("streams", [1, 3])
def test_many_tensors(streams: int) -> None:
    """Thousands of tensors of mixed sizes, chained with skips: within a fifth of the bound."""
    accesses = [does("-> t0"), does("t0 -> t1")]
    accesses += [does(f"t{i - 1} t{i - 2} -> t{i}") for i in range(2, 2000)]
    sizes = {f"t{i}": 256 * (1 + i * 7 % 13) for i in range(2000)}
    program = program_of(accesses, sizes)
    needs = program.predecessors
    order = tuple(range(2000))
    schedule = Schedule(program, needs, order, tuple(i % streams for i in order))
    allocation = place(schedule)
    assert allocation.arena_bytes <= 1.2 * allocation.lower_bound


def test_graphs_report_their_figures() -> None:
    graph = gx.Graph("g")
    name = graph.input("x", (64,))
    for _ in range(10):
        name = graph.softmax(name)  # each in place
    graph.output(name)
    stats = gx.make_plan(graph).stats
    assert stats is not None
    assert (stats.arena_bytes, stats.arena_lower_bound, stats.naive_bytes) == (256, 256, 11 * 256)
