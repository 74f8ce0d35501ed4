"""Batches on the HIP device: the right numbers, and one BLAS call where there were many."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from branches import BRANCHES, chains
from hip_lab import MODES, Lab, assert_right, bits, calls, inputs_of
from hypothesis import given, settings
from strategies import repeated_graphs

import graphexec as gx
from graphexec.ir.graph import Graph
from graphexec.ir.plan import Launch
from graphexec.ir.program import GemmBatch, aligned
from graphexec.runtime.hip.device import Mode
from graphexec.tools.compare import compare_executable


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BRANCHES)
def test_numbers(lab: Lab, name: str, mode: Mode) -> None:
    with lab.compile(BRANCHES[name](), mode) as exe:
        assert any(i.nodes for i in exe.plan.instructions if isinstance(i, Launch))
        inputs = inputs_of(exe)
        found = exe.run(**inputs)
        assert_right(exe, inputs, found)
        for seed in range(3):
            lab.seed(seed)
            assert bits(exe.run(**inputs)) == bits(found)
        assert compare_executable(exe, inputs).ok


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shuffled", [False, True])
def test_inputs_that_stay_on_the_device(emulated: Lab, mode: Mode, shuffled: bool) -> None:
    """Inputs are allocated at a stride in one order; another order needs pointers."""
    g = gx.Graph("resident")
    b = [g.input(f"b{n}", (24, 24)) for n in range(4)]
    for n in range(4):
        a = g.input(f"a{n}", (24, 24))
        g.output(**{f"pad{n}": g.softmax(g.input(f"pad{n}_in", ((n + 1) * 100,)))})
        g.output(**{f"y{n}": g.gemm(a, b[n], name=f"g{n}")})
        if shuffled:
            g.output(**{f"z{n}": g.gemm(a, b[n ^ 1], trans_a=True, name=f"h{n}")})
    emulated.emulator.trace()
    with emulated.compile(g, mode, resident=True) as exe:
        works = exe.bound.work.values()
        assert any(isinstance(work, GemmBatch) for work in works) == shuffled
        at = [exe.device_array(f"a{n}").address for n in range(4)]
        assert {after - before for before, after in pairwise(at)} == {aligned(24 * 24 * 4)}
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))
    found = {c.name for c in calls(emulated.emulator) if "Gemm" in c.name}
    batched = {"hipblasGemmBatchedEx"} if shuffled else set()
    assert found == {"hipblasGemmStridedBatchedEx"} | batched


def test_a_step_of_all_chains_is_one_call(emulated: Lab) -> None:
    graph = chains(8, 3)
    found = {}
    for off in ((), ("batch",)):
        with emulated.compile(graph, "stream", no_rewrite=off) as exe:
            inputs = inputs_of(exe)
            exe.run(**inputs)
            emulated.emulator.trace()
            exe.run(**inputs)
            found[off] = Counter(c.name for c in calls(emulated.emulator) if "Gemm" in c.name)
    assert found[()] == {"hipblasGemmStridedBatchedEx": 3}
    assert found["batch",] == {"hipblasGemmEx": 24}


@settings(max_examples=30)
@given(graph=repeated_graphs(4))
def test_any_graph(opened_lab: Lab, graph: Graph) -> None:
    opened_lab.reset()
    for off in ((), ("batch",)):
        with opened_lab.compile(graph, "graph", no_rewrite=off) as exe:
            assert compare_executable(exe, inputs_of(exe)).ok
