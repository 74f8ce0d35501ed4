"""Options(reproducible=True) on the GPU or the emulator: the same bits, by the same calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from branches import BRANCHES
from hip_lab import GRAPHS, MODES, Lab, bits, calls, example, inputs_of
from hypothesis import given, settings
from strategies import repeated_graphs

import graphexec as gx
from graphexec.ir.program import GemmBatch
from graphexec.runtime.hip.device import HipDevice


@pytest.mark.parametrize("name", [*GRAPHS, *BRANCHES])
def test_the_same_bits_on_every_number_of_streams_and_in_every_mode(lab: Lab, name: str) -> None:
    graph = BRANCHES[name]() if name in BRANCHES else example(name)
    found = []
    for streams in (1, 3, 8):
        for mode in MODES:
            lab.seed(streams)
            with lab.compile(graph, mode, streams, reproducible=True) as exe:
                found.append(bits(exe.run(**inputs_of(exe))))
    assert all(each == found[0] for each in found)


@settings(max_examples=15, deadline=None)
@given(graph=repeated_graphs())
def test_any_graph_by_the_same_calls(opened_lab: Lab, graph: gx.Graph) -> None:
    """The emulator's BLAS gives the same bits by every call, others do not."""
    emulated = opened_lab
    if emulated.emulator is None:
        pytest.skip("needs the emulator")
    emulated.reset()
    found, issued = [], []
    for streams in (1, 2, 8):
        with emulated.compile(graph, "stream", streams, reproducible=True) as exe:
            inputs = inputs_of(exe)
            exe.run(**inputs)
            emulated.emulator.trace()
            found.append(bits(exe.run(**inputs)))
            names = Counter(c.name for c in calls(emulated.emulator))
            pointers = sum(isinstance(work, GemmBatch) for work in exe.bound.work.values())
        issued.append({n: k for n, k in names.items() if "Gemm" in n or "Launch" in n})
        assert names["hipblasGemmBatchedEx"] >= pointers
    assert all(each == found[0] for each in found)
    assert all(each == issued[0] for each in issued)


@pytest.mark.parametrize("reproducible", [False, True])
def test_operands_that_happen_to_lie_at_a_stride(emulated: Lab, reproducible: bool) -> None:
    """Two products often do. They are given by pointers all the same if the calls must not depend
    on where the arena has them."""
    g = gx.Graph("shuffled")
    b = [g.input(f"b{n}", (24, 24)) for n in range(4)]
    for n in range(4):
        a = g.input(f"a{n}", (24, 24))
        g.output(**{f"y{n}": g.gemm(a, b[n], name=f"g{n}")})
        g.output(**{f"z{n}": g.gemm(a, b[n ^ 1], trans_a=True, name=f"h{n}")})
    with emulated.compile(g, "stream") as exe:
        bound = exe.bound
    works = {i: w for i, w in bound.work.items() if isinstance(w, GemmBatch)}
    ((number, batch),) = works.items()
    pair = GemmBatch((batch.members[0], batch.members[2]))
    bound = replace(bound, work={**bound.work, number: pair})
    device = HipDevice(mode="stream", reproducible=reproducible)
    session = device.open(bound, {})
    emulated.emulator.trace()
    session.issue()
    session.wait()
    names = Counter(c.name for c in calls(emulated.emulator) if "Gemm" in c.name)
    session.close()
    batched = {"hipblasGemmBatchedEx": 1} if reproducible else {}
    assert names == {"hipblasGemmStridedBatchedEx": 2 - reproducible} | batched
