"""GEMMs by hipBLASLt, with a chosen algorithm; by hipBLAS where that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hip_lab import MODES, Lab, assert_right, bits, calls, inputs_of

import graphexec as gx
from graphexec.ir.program import Gemm
from graphexec.machine.costs import gemm_signature
from graphexec.planning.pipeline import plan_graph
from graphexec.runtime.executable import Executable
from graphexec.runtime.hip.device import HipDevice, Mode
from graphexec.runtime.hip.products import count_algorithms

MOST = 8
EMULATED = 3  # algorithms


def gemms(graph: gx.Graph) -> list[Gemm]:
    bound = plan_graph(graph, device="hip", no_rewrite=["batch"]).bound
    return [work for work in bound.work.values() if isinstance(work, Gemm)]


def tuned(graph: gx.Graph, choice: int, mode: Mode = "graph", streams: int = 4) -> Executable:
    algorithms = {gemm_signature(work): choice for work in gemms(graph)}
    device = HipDevice(mode=mode, algorithms=algorithms)
    return gx.compile(graph, device=device, streams=streams, no_rewrite=["batch"])


def layered(dtype: str) -> gx.Graph:
    """Transpositions, batches at a stride, one that is added to, an f32 result, two streams."""
    g = gx.Graph("layered")
    x, w = g.input("x", (3, 8, 16), dtype), g.input("w", (24, 16), dtype)
    c = g.input("c", (3, 8, 24), dtype)
    wide = g.gemm(x, w, c=c, trans_b=True, alpha=0.5, beta=2.0, name="wide")
    square = g.gemm(x, x, trans_a=True, name="square")
    out_dtype = "f64" if dtype == "f64" else "f32"
    g.output(a=g.gemm(wide, wide, trans_b=True, alpha=0.125, out_dtype=out_dtype), b=square)
    return g


def names(lab: Lab) -> list[str]:
    return [
        call.name for call in calls(lab.emulator) if "atmul" in call.name or "Gemm" in call.name
    ]


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("choice", range(EMULATED))
def test_every_algorithm_computes_the_product(
    lab: Lab, dtype: str, mode: Mode, choice: int
) -> None:
    graph = layered(dtype)
    with lab.nothing_left(), tuned(graph, choice, mode) as exe:
        inputs = inputs_of(exe)
        outputs = exe.run(**inputs)
        assert_right(exe, inputs, outputs)
        for _ in range(20):
            assert bits(exe.run(**inputs)) == bits(outputs)


def test_a_run_makes_one_call_of_hipblaslt_a_product(emulated: Lab) -> None:
    graph = layered("f16")
    with tuned(graph, 1, "stream") as exe:
        inputs = inputs_of(exe)
        exe.run(**inputs)
        emulated.emulator.trace()
        exe.run(**inputs)
        assert names(emulated) == ["hipblasLtMatmul"] * len(gemms(graph))


def test_each_stream_has_a_workspace_of_its_own(emulated: Lab) -> None:
    g = gx.Graph("branches")
    x = g.input("x", (32, 32), "f32")
    g.output(**{f"y{i}": g.gemm(g.gemm(x, x), x, name=f"y{i}") for i in range(4)})
    with tuned(g, 2, "stream") as exe:
        assert len(exe.plan.streams) > 1
        emulated.emulator.trace()
        exe.run(**inputs_of(exe))
        used = {(c.arguments[-1], c.arguments[-3]) for c in calls(emulated.emulator)
                if c.name == "hipblasLtMatmul"}  # fmt: skip
        streams, workspaces = ({pair[i] for pair in used} for i in (0, 1))
        assert len(used) == len(streams) == len(workspaces) > 1


@pytest.mark.parametrize("choice", range(EMULATED))
def test_a_batch_has_an_algorithm_of_its_own(emulated: Lab, choice: int) -> None:
    g = gx.Graph("batch")
    w = g.input("w", (16, 16), "f16")
    for i in range(4):
        x = g.input(f"x{i}", (16, 16), "f16")
        g.output(**{f"y{i}": g.gemm(g.gemm(x, w, alpha=0.25), w, alpha=0.25)})
    compiled = plan_graph(g, device="hip")
    works = [c.work for c in compiled.program.commands if isinstance(c.work, Gemm)]
    assert len(works) == 2
    device = HipDevice(mode="stream", algorithms={gemm_signature(w): choice for w in works})
    with gx.compile(g, device=device) as exe:
        inputs = inputs_of(exe)
        emulated.emulator.trace()
        outputs = exe.run(**inputs)
        assert names(emulated) == ["hipblasLtMatmul"] * 2
        assert_right(exe, inputs, outputs)


@pytest.mark.parametrize("algorithms", [{}, {"gemm: of another graph": 0}])
def test_what_was_not_chosen_goes_to_hipblas(emulated: Lab, algorithms: Mapping[str, int]) -> None:
    device = HipDevice(mode="stream", algorithms=algorithms)
    with gx.compile(layered("f32"), device=device) as exe:
        emulated.emulator.trace()
        exe.run(**inputs_of(exe))
        assert "hipblasLtMatmul" not in names(emulated)


def test_an_algorithm_that_is_not_there_is_hipblas(lab: Lab) -> None:
    with lab.nothing_left(), tuned(layered("f32"), 10_000) as exe:
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_batches_that_strides_cannot_express_stay_with_hipblas(lab: Lab) -> None:
    g = gx.Graph("broadcast")
    a, b = g.input("a", (2, 1, 3, 4), "f32"), g.input("b", (1, 5, 4, 6), "f32")
    g.output(y=g.gemm(a, b))
    (work,) = gemms(g)
    assert count_algorithms(HipDevice()._bindings(), work, MOST) == 0
    with tuned(g, 0) as exe:
        inputs = inputs_of(exe)
        np.testing.assert_allclose(
            exe.run(**inputs)["y"], inputs["a"] @ inputs["b"], rtol=1e-5, atol=1e-5
        )


def test_operands_at_odd_addresses_stay_with_hipblas(emulated: Lab) -> None:
    """hipBLASLt's heuristic takes 256 bytes of alignment for granted."""
    g = gx.Graph("sliced")
    x = g.input("x", (4, 8), "f32")
    g.output(y=g.gemm(x, x, trans_b=True))
    bound = plan_graph(g, device="hip").bound
    (work,) = gemms(g)
    rows = replace(
        work,
        a=replace(work.a, shape=(3, 8), offset=8),
        out=replace(work.out, shape=(3, 4), offset=4),
    )
    bound = replace(bound, work={n: rows if w == work else w for n, w in bound.work.items()})
    device = HipDevice(mode="stream", algorithms={gemm_signature(rows): 0})
    session = device.open(bound, {})
    try:
        emulated.emulator.trace()
        session.issue()
        session.wait()
        assert names(emulated) == ["hipblasGemmEx"]
    finally:
        session.close()


def test_algorithms_are_counted(emulated: Lab) -> None:
    before = emulated.live()
    for work in gemms(layered("f16")):
        assert count_algorithms(HipDevice()._bindings(), work, MOST) == EMULATED
        assert count_algorithms(HipDevice()._bindings(), work, 2) == 2
    assert emulated.live() == before


@pytest.mark.parametrize("code", [2, 5, 6])
def test_a_failed_call_of_hipblaslt_is_named(emulated: Lab, code: int) -> None:
    """In `submit` and `map`, too, which prepare products for a second request."""
    HipDevice().describe()
    failed = r"node '\w+': hipblasLtMatmulAlgoGetHeuristic failed: \w+ \(" + str(code)
    emulated.emulator.fail(f"hipblasLtMatmulAlgoGetHeuristic:1={code}")
    with pytest.raises(gx.ExecutionError, match=failed):
        tuned(layered("f32"), 0)
    emulated.emulator.fail("")
    with emulated.nothing_left(), tuned(layered("f32"), 0) as exe:
        inputs = inputs_of(exe)
        first = exe.submit(**inputs)
        emulated.emulator.fail(f"hipblasLtMatmulAlgoGetHeuristic:1={code}")
        with pytest.raises(gx.ExecutionError, match=failed):
            exe.submit(**inputs)
        emulated.emulator.fail("")
        assert_right(exe, inputs, first.result())
        del first


def test_what_fails_while_preparing_leaves_nothing(emulated: Lab) -> None:
    """The product then runs by hipBLAS."""
    HipDevice().describe()
    for call in ("hipblasLtMatrixLayoutCreate:2=3", "hipblasLtMatmulAlgoGetHeuristic:1=7"):
        emulated.emulator.fail(call)
        with emulated.nothing_left(), tuned(layered("f32"), 0) as exe:
            inputs = inputs_of(exe)
            assert_right(exe, inputs, exe.run(**inputs))
