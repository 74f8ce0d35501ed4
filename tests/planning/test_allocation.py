from __future__ import annotations

from itertools import permutations
from random import Random

import pytest
import shapes
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.program import Program, aligned
from graphexec.machine import costs
from graphexec.planning.allocate import allocate
from graphexec.planning.allocation.conflicts import (
    conflicts,
    grown_peak,
    heaviest_antichain,
    heaviest_clique,
    peak,
)
from graphexec.planning.allocation.fit import best_offsets
from graphexec.planning.allocation.lifetimes import items
from graphexec.planning.allocation.pools import pooled_offsets
from graphexec.planning.assemble import assemble
from graphexec.planning.schedule import schedule
from graphexec.planning.scheduled import Synchronized
from graphexec.planning.synchronize import synchronize
from graphexec.proof import find_hazards


def planned(program: Program, streams: int) -> Synchronized:
    return synchronize(schedule(program, streams, costs.GPU))


def naive_conflict(one, two, synchronized) -> bool:
    """By the definition: some accesses are unordered, or ordered both ways."""
    before, stream = synchronized.before, synchronized.schedule.stream
    position = synchronized.position

    def all_before(first, second):
        return all(before[b][stream[a]] > position[a] for a in first for b in second)

    ones, twos = (users(item, synchronized) for item in (one, two))
    return not all_before(ones, twos) and not all_before(twos, ones)


def users(item, synchronized) -> list[int]:
    """The commands that touch what lies in an item."""
    commands = synchronized.schedule.program.commands
    return [index for index, command in enumerate(commands)
            if any(view.storage in item.at for view in command.reads + command.writes)]  # fmt: skip


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 4))
@settings(max_examples=50)
def test_conflicts_are_those_of_the_definition(seed, nodes, streams):
    synchronized = planned(shapes.random_dag(nodes, seed), streams)
    found = items(synchronized, "device")
    neighbours = conflicts(found)
    for i, one in enumerate(found):
        expected = [j for j, two in enumerate(found)
                    if i != j and naive_conflict(one, two, synchronized)]  # fmt: skip
        assert neighbours[i] == expected


@given(st.integers(0, 2**32), st.integers(1, 25), st.integers(1, 4))
@settings(max_examples=50)
def test_both_allocators_keep_conflicting_items_apart(seed, nodes, streams):
    found = items(planned(shapes.random_dag(nodes, seed), streams), "device")
    sizes, neighbours = [i.size for i in found], conflicts(found)
    for offsets, total in (pooled_offsets(found), best_offsets(sizes, neighbours, 0)):
        assert total == max(o + s for o, s in zip(offsets, sizes, strict=True))
        for i, near in enumerate(neighbours):
            for j in near:
                apart = offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
                assert apart


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=50)
def test_lower_bounds_are_ordered_and_below_the_arena(seed, nodes, streams):
    found = items(planned(shapes.random_dag(nodes, seed), streams), "device")
    sizes, neighbours = [i.size for i in found], conflicts(found)
    exact = heaviest_antichain(found, neighbours)
    assert exact is not None
    assert max(peak(found), heaviest_clique(sizes, neighbours)) <= exact
    assert exact <= best_offsets(sizes, neighbours, 0)[1]


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=40)
def test_the_heaviest_antichain_is_the_heaviest_clique(seed, nodes, streams):
    found = items(planned(shapes.random_dag(nodes, seed), streams), "device")
    neighbours = [set(n) for n in conflicts(found)]
    heaviest = 0
    for chosen in range(1 << len(found)):
        members = [i for i in range(len(found)) if chosen >> i & 1]
        if all(b in neighbours[a] for a in members for b in members if a != b):
            heaviest = max(heaviest, sum(found[i].size for i in members))
    assert heaviest_antichain(found, [sorted(n) for n in neighbours]) == heaviest


def exhaustive(sizes, neighbours) -> int:
    """The smallest arena: in some order, each item at the lowest place that is free."""
    best = 1 << 62
    for order in permutations(range(len(sizes))):
        offsets: dict[int, int] = {}
        for item in order:
            at = 0
            for low, high in sorted((offsets[n], offsets[n] + sizes[n])
                                    for n in neighbours[item] if n in offsets):  # fmt: skip
                if low - at >= sizes[item]:
                    break
                at = max(at, high)
            offsets[item] = at
        best = min(best, max(offsets[i] + sizes[i] for i in offsets))
    return best


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_few_items_get_the_smallest_arena(seed):
    random = Random(seed)
    count = random.randint(1, 6)
    sizes = [256 * random.randint(1, 9) for _ in range(count)]
    edges = [(i, j) for i in range(count) for j in range(i) if random.random() < 0.6]
    neighbours = [[b for a, b in [*edges, *((b, a) for a, b in edges)] if a == i]
                  for i in range(count)]  # fmt: skip
    offsets, total = best_offsets(sizes, neighbours, max(sizes))
    assert total == exhaustive(sizes, neighbours)
    assert total == max(o + s for o, s in zip(offsets, sizes, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_one_stream_with_few_tensors_is_optimal(seed):
    program = shapes.random_dag(4 + seed % 4, seed)
    synchronized = planned(program, 1)
    found = items(synchronized, "device")
    assert len(found) <= 10
    smallest = exhaustive([i.size for i in found], conflicts(found))
    assert allocate(synchronized).arena_bytes == smallest


@pytest.mark.parametrize("seed", range(0, 300, 11))
def test_arenas_are_close_to_the_bound(seed):
    found = allocate(planned(shapes.random_dag(10 + seed % 51, seed), 4))
    assert found.lower_bound <= found.arena_bytes <= 1.15 * found.lower_bound


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 5))
@settings(max_examples=40)
def test_plans_of_random_programs_are_proved(seed, nodes, streams):
    synchronized = planned(shapes.random_dag(nodes, seed), streams)
    assert find_hazards(assemble(synchronized, allocate(synchronized), "hip").plan) == []


def test_many_items_go_through_the_pools():
    program = shapes.layered(layers=270, width=10)
    synchronized = planned(program, 8)
    found = allocate(synchronized)
    assert len(items(synchronized, "device")) > 2500
    assert found.lower_bound <= found.arena_bytes <= 2.0 * found.lower_bound
    assert find_hazards(assemble(synchronized, found, "hip").plan) == []


# In place ---------------------------------------------------------------------------------


def placed(net: shapes.Net, streams: int = 2):
    synchronized = planned(net.program(), streams)
    found = allocate(synchronized)
    assert find_hazards(assemble(synchronized, found, "hip").plan) == []
    return found


def test_a_command_writes_over_the_input_that_dies_there():
    net = shapes.Net()
    net.node(net.node(net.input(1024), nbytes=1024, name="a"), nbytes=1024, name="b", inplace=True)
    assert placed(net).places["a"] == placed_at(net, "b")


def placed_at(net: shapes.Net, name: str):
    return allocate(planned(net_program(net), 2)).places[name]


def net_program(net: shapes.Net) -> Program:
    return Program(net.name, {}, net.storages, net.views, tuple(net.commands), net.inputs,
                   net.outputs, {})  # fmt: skip


def test_not_over_an_input_that_is_read_later():
    net = shapes.Net()
    a = net.node(net.input(1024), nbytes=1024, name="a")
    b = net.node(a, nbytes=1024, name="b", inplace=True)
    net.node(a, b, nbytes=1024)
    found = placed(net)
    assert found.places["a"] != found.places["b"]


def test_not_over_an_input_that_another_stream_may_be_reading():
    net = shapes.Net()
    a = net.node(net.input(1024), nbytes=1024, name="a")
    b = net.node(a, nbytes=1024, name="b", inplace=True, mflop=500)
    net.node(b, net.node(a, nbytes=1024, mflop=500), nbytes=1024)
    found = placed(net)
    assert found.places["a"] != found.places["b"]


def test_not_over_a_tensor_of_another_size_nor_one_read_twice():
    net = shapes.Net()
    a = net.node(net.input(1024), nbytes=1024, name="a")
    b = net.node(a, nbytes=2048, name="b", inplace=True)
    c = net.node(b, b, nbytes=2048, name="c", inplace=True)
    net.node(c)
    found = placed(net)
    assert len({found.places[n] for n in "bc"}) == 2


def test_a_chain_in_place_needs_one_tensor():
    net = shapes.Net()
    x = net.input(1 << 16)
    for _ in range(20):
        x = net.node(x, nbytes=1 << 16, inplace=True)
    found = placed(net)
    assert found.arena_bytes == found.lower_bound == 1 << 16


def test_softmax_and_a_cast_of_equal_width_run_in_place():
    g = gx.Graph("inplace")
    q = g.input("q", (4, 64), "f16")
    s = g.gemm(q, q, trans_b=True, name="s")
    p = g.softmax(s, name="p")
    c = g.copy(p, dtype="bf16", name="c")
    d = g.copy(c, dtype="f32", name="d")
    g.output(out=d)
    plan = gx.make_plan(g, streams=2)
    at = {t.name: (t.buffer, t.offset) for t in plan.tensors}
    assert at["s"] == at["p"] == at["c"] != at["d"]


def test_softmax_masked_by_its_own_input_is_not_in_place():
    g = gx.Graph("mask")
    x = g.input("x", (8, 8), "f32")
    g.output(out=g.gemm(g.softmax(x, mask=x, name="p"), x))
    at = {t.name: (t.buffer, t.offset) for t in gx.make_plan(g).tensors}
    assert at["p"] != at["x"]


def test_in_place_results_are_right():
    import numpy as np

    g = gx.Graph("numbers")
    x = g.input("x", (16, 300), "f32")
    y = g.copy(x, permute=[1, 0], name="y")
    g.output(out=g.copy(g.softmax(g.softmax(y, axis=0), scale=2.0), permute=[1, 0]))
    given = np.random.default_rng(0).standard_normal((16, 300)).astype(np.float32)
    with gx.compile(g, device=gx.CpuDevice(poison=True)) as exe:
        found = exe.run(x=given)["out"]
    e = np.exp(given - given.max(axis=1, keepdims=True))
    p = 2 * (e / e.sum(axis=1, keepdims=True))
    e = np.exp(p - p.max(axis=0, keepdims=True))
    np.testing.assert_allclose(found, e / e.sum(axis=0, keepdims=True), rtol=1e-5)


def test_alignment():
    assert [aligned(n) for n in (1, 256, 257)] == [256, 256, 512]


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 6))
@settings(max_examples=50)
def test_the_peak_grows_by_all_that_conflicts_with_all(seed, nodes, streams):
    found = items(planned(shapes.random_dag(nodes, seed), streams), "device")
    most = max(peak_at(found, place) for place in {item.first for item in found})
    at = min(i.first for i in found if peak_at(found, i.first) == most)
    clique = [item for item in found if item.first <= at <= item.last]
    near = [item for item in found if item not in clique]
    for item in sorted(near, key=lambda i: (-i.size, max(i.first - at, at - i.last), i.first)):
        if not any(item.ends_before(m) or m.ends_before(item) for m in clique):
            clique.append(item)
    assert grown_peak(found) == sum(item.size for item in clique)


def peak_at(found, place) -> int:
    return sum(item.size for item in found if item.first <= place <= item.last)
