"""Biases that hipBLASLt adds in its epilogue, and what happens where it does not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from exact import DTYPES, UNIT, Array, assert_within, draw, wide
from hardware import PLAIN, TYPES
from hip_lab import MODES, Lab, assert_right, bits, calls, inputs_of
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.errors import ExecutionError
from graphexec.base.tensor import TensorType, View
from graphexec.cli.planning import plan_for
from graphexec.ir.plan import Launch
from graphexec.ir.program import Gemm, Work
from graphexec.machine.costs import gemm_signature
from graphexec.machine.support import Support, no
from graphexec.planning.pipeline import Compiled
from graphexec.runtime.executable import Executable
from graphexec.runtime.hip.device import HipDevice, Mode
from graphexec.runtime.hip.gemm import gemm_call
from graphexec.runtime.hip.products import count_algorithms
from graphexec.tools.explain import explain

PAIRS = sorted(TYPES)
WITH_BIAS = 2  # algorithms of the emulator


@dataclass(frozen=True)
class Plain(HipDevice):
    """A device whose hipBLASLt adds no bias."""

    def support(self, work: Work) -> Support:
        return PLAIN.support(work)


def layer(
    dtype: str = "f16", out: str | None = None, batch: tuple[int, ...] = (), added: str = ""
) -> gx.Graph:
    """A product and its bias, and with `added` 0.5 · c: "dead" afterwards or "kept", or one c for
    "all" products of the batch, or these and the weight for all of them."""
    g = gx.Graph("layer")
    of_b = () if added == "weight" else batch
    a, b = g.input("a", (*batch, 20, 24), dtype), g.input("b", (*of_b, 24, 40), dtype)
    more: dict[str, Any] = {}
    if added:
        c = g.input("c", (*(batch if added in ("dead", "kept") else ()), 20, 40), out or dtype)
        more = {"c": c, "beta": 0.5}
    bias = g.input("bias", (40,), out or dtype)
    g.output(y=g.gemm(a, b, bias=bias, out_dtype=out, name="y", **more))
    if added == "kept":
        g.output(z=g.softmax(c, after=["y"], name="z"))
    return g


def products(exe: Executable) -> list[Gemm]:
    return [work for work in exe.bound.work.values() if isinstance(work, Gemm)]


def made(lab: Lab) -> list[str]:
    """The calls of kernels and of the BLAS libraries."""
    names = [call.name for call in calls(lab.emulator)]
    return [n for n in names if "hipblasGemm" in n or n in ("hipblasLtMatmul",
                                                            "hipModuleLaunchKernel")]  # fmt: skip


# Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "out"), PAIRS)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_one_call_and_right_numbers(
    lab: Lab, dtype: str, out: str, mode: Mode, batch: tuple[int, ...]
) -> None:
    with lab.nothing_left(), lab.compile(layer(dtype, out, batch), mode) as exe:
        one_call(lab, exe, dtype, out)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "out"), PAIRS)
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("added", ["dead", "kept", "all", "weight"])
def test_one_call_adds_c_as_well(
    lab: Lab, dtype: str, out: str, mode: Mode, batch: tuple[int, ...], added: str
) -> None:
    """c is read in place, and overwritten if nothing reads it afterwards."""
    graph = layer(dtype, out, batch, added)
    with lab.nothing_left(), lab.compile(graph, mode, streams=1) as exe:
        places = {t.name: (t.buffer, t.offset) for t in exe.plan.tensors}
        (work,) = products(exe)
        if work.c is not None:
            dead = added == "dead" or (added != "kept" and not batch)
            assert (places["c"] == places["y"]) == dead
        one_call(lab, exe, dtype, out)


def one_call(lab: Lab, exe: Executable, dtype: str, out: str) -> None:
    """The product adds what there is to add if the device says so, and the numbers are right."""
    (node,) = [node for node in exe.graph.nodes if node.name == "y"]
    able = "c" not in node.operands or out == gx.DType(dtype).accumulator.value
    assert [work.bias is not None for work in products(exe)] == [able]
    assert [work.c is not None for work in products(exe)] == [able and "c" in node.operands]
    inputs = inputs_of(exe)
    found = exe.run(**inputs)
    assert_right(exe, inputs, found)
    check(found["y"], inputs, dtype, out, beta=0.5)
    for seed in range(3):
        lab.seed(seed)
        assert bits(exe.run(**inputs)) == bits(found)


@pytest.mark.parametrize("added", ["kept", "all", "weight"])
def test_where_c_and_the_result_are_two_matrices_each_has_a_layout(
    emulated: Lab, added: str
) -> None:
    graph = layer("f32", batch=(3,), added=added)
    with gx.compile(graph, device=HipDevice(mode="stream")) as exe:
        inputs = inputs_of(exe)
        exe.run(**inputs)
        emulated.emulator.trace()
        assert_right(exe, inputs, exe.run(**inputs))
        assert made(emulated)[:1] == ["hipblasLtMatmul"]
        (call,) = products(exe)
    assert gemm_call(call).gemm.stride_c == (800 if added == "kept" else 0)
    assert gemm_call(call).gemm.stride_d == 800


def test_a_run_is_one_call_where_it_was_two(emulated: Lab) -> None:
    for device, expected in (
        (HipDevice(mode="stream"), ["hipblasLtMatmul"]),
        (Plain(mode="stream"), ["hipModuleLaunchKernel", "hipblasGemmEx"]),
    ):
        with gx.compile(layer(), device=device) as exe:
            inputs = inputs_of(exe)
            exe.run(**inputs)
            emulated.emulator.trace()
            assert_right(exe, inputs, exe.run(**inputs))
            assert made(emulated) == expected


def check(found: Array, inputs: dict[str, Array], dtype: str, out: str, **attrs: Any) -> None:
    """With float64."""
    a, b, bias = (wide(inputs[name]) for name in ("a", "b", "bias"))
    a = a.swapaxes(-1, -2) if attrs.get("trans_a") else a
    b = b.swapaxes(-1, -2) if attrs.get("trans_b") else b
    alpha = attrs.get("alpha", 1.0)
    expected = alpha * np.matmul(a, b) + bias
    size = abs(alpha) * np.matmul(abs(a), abs(b)) + abs(bias)
    if "c" in inputs:
        c = attrs["beta"] * wide(inputs["c"])
        expected, size = expected + c, size + abs(c)
    unit = UNIT["f64" if dtype == "f64" else "f32"]
    assert_within(found, expected, out, (a.shape[-1] + 8) * unit * size)


extents = st.integers(1, 9)


@settings(max_examples=60)
@given(data=st.data())
def test_any_call(opened_lab: Lab, data: st.DataObject) -> None:
    """Any shapes, batches that broadcast, transpositions, types; also by two calls."""
    opened_lab.reset()
    pick = lambda *options: data.draw(st.sampled_from(options))  # noqa: E731
    batch = tuple(data.draw(st.lists(extents, max_size=2)))
    part = lambda: tuple(pick(1, e) for e in batch[pick(0, len(batch)) :])  # noqa: E731
    m, n, k = (data.draw(extents) for _ in range(3))
    trans_a, trans_b = pick(False, True), pick(False, True)
    dtype = pick(*DTYPES)
    out = pick(dtype, *(["f32"] if dtype != "f64" else []))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    inputs = {
        "a": draw(rng, (*part(), *((k, m) if trans_a else (m, k))), dtype),
        "b": draw(rng, (*part(), *((n, k) if trans_b else (k, n))), dtype),
        "bias": draw(rng, (n,), pick(dtype, out)),
    }
    attrs = {"trans_a": trans_a, "trans_b": trans_b, "alpha": pick(1.0, -0.5, 0.0)}
    if pick(False, True):
        shape = (*np.broadcast_shapes(*(inputs[name].shape[:-2] for name in "ab")), m, n)
        if pick(False, True):
            shape = tuple(pick(1, e) for e in shape)[pick(0, len(shape) - 1) :]
        inputs["c"] = draw(rng, shape, pick(dtype, out))
        attrs["beta"] = pick(1.0, -2.5)
    g = gx.Graph("any")
    for name, array in inputs.items():
        kind = next(d for d in DTYPES if gx.DType(d).numpy() == array.dtype)
        g.input(name, array.shape, kind)
    operands = {name: name for name in inputs}
    g.output(y=g.gemm(**operands, out_dtype=out, **attrs))
    for device in (HipDevice(), Plain(mode="stream")):
        with gx.compile(g, device=device) as exe:
            check(exe.run(**inputs)["y"], inputs, dtype, out, **attrs)


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_whose_products_have_biases(
    emulated: Lab, dtype: str, weight: bool, shared: bool, added: bool
) -> None:
    g = branches(dtype, shared, weight, added)
    emulated.emulator.trace()
    with emulated.compile(g, "stream") as exe:
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))
        (work,) = products(exe)
        if added and dtype in ("f16", "bf16"):
            assert (work.bias, work.c) == (None, None)  # the sum is not rounded in between
            assert work.out.dtype is gx.DType.F32
            return
        assert work.bias is not None
        assert (work.c is not None) == added
        assert work.bias.strides[0] == (0 if shared else 256 // work.bias.dtype.itemsize)
    strides = [c for c in calls(emulated.emulator) if c.name == "hipblasLtMatmulDescSetAttribute"
               and c.arguments[1] == "23"]  # fmt: skip
    assert len(strides) == (0 if shared else 2)  # when it is asked about, and loaded


def branches(dtype: str, shared: bool, weight: bool, added: bool = False) -> gx.Graph:
    """Products that share the bias, the weight, or neither; each with a c if one is `added`."""
    g = gx.Graph("branches")
    for i in range(4):
        x = g.input(f"x{i}", (16, 16), dtype)
        w, bias = "w" if weight else f"w{i}", "bias" if shared else f"bias{i}"
        for name, shape in ((w, (16, 16)), (bias, (16,))):
            if name not in g.inputs:
                g.input(name, shape, dtype)
        c = g.softmax(g.input(f"c{i}", (16, 16), dtype)) if added else None
        g.output(**{f"y{i}": g.gemm(x, w, c=c, bias=bias, alpha=0.25, name=f"g{i}")})
    return g


def test_where_operands_take_pointers_biases_go_first(emulated: Lab) -> None:
    """16 products with arrays of pointers have no epilogue; two calls are better than 16."""
    g = gx.Graph("pointers")
    for i in range(16):
        x, w = g.input(f"x{i}", (16 + i % 2, 16), "f16"), g.input(f"w{i}", (16, 16), "f16")
        x = g.copy(x, slice={0: [0, 16, None]})  # no constant stride from one to the next
        bias = g.softmax(g.input(f"b{i}", (16,), "f16"))
        g.output(**{f"y{i}": g.softmax(g.gemm(x, w, bias=bias, name=f"g{i}"))})
    device = HipDevice(mode="stream")
    with gx.compile(g, device=device, resident=True) as exe:
        inputs = inputs_of(exe)
        exe.run(**inputs)
        emulated.emulator.trace()
        assert_right(exe, inputs, exe.run(**inputs))
        labels = [i.command for i in exe.plan.instructions if isinstance(i, Launch) and i.nodes]
    assert [name for name in made(emulated) if "hipblas" in name] == ["hipblasGemmBatchedEx"]
    assert labels[labels.index("copy") + 1] == "gemm"


# What the device says --------------------------------------------------------------------------


def product(
    m: int = 20, dtype: str = "f16", batch: int = 0, own: bool = True, added: bool = False
) -> Gemm:
    """A product, or a batch of them, with a bias or one each, and perhaps a c."""
    shape = (batch,) if batch else ()
    kind = gx.DType(dtype)

    def dense(name: str, *last: int) -> View:
        return View.dense(name, TensorType((*shape, *last), kind))

    bias = dense("bias", 64)
    if batch and not own:
        bias = replace(bias, strides=(0, 1))
    c = dense("c", m, 64) if added else None
    return Gemm(
        dense("a", m, 24), dense("b", 24, 64), dense("y", m, 64), 1.0, float(added), c, bias
    )


def test_hipblaslt_is_asked_once_for_a_product(emulated: Lab) -> None:
    before = emulated.live()
    emulated.emulator.trace()
    for work in (product(), product(), product(m=21), replace(product(), bias=None)):
        assert HipDevice().support(work).answer == "yes"
    asked = [c.name for c in calls(emulated.emulator)]
    assert asked.count("hipblasLtMatmulAlgoGetHeuristic") == 2
    assert emulated.live() == before


@pytest.mark.parametrize(("fault", "refused", "why"), [
    ("hipSetDevice:*=101", "one batch", "hipSetDevice failed"),
    ("hipblasLtCreate:*=1", "one batch", "hipblasLtCreate failed"),
    ("hipblasLtMatmulAlgoGetHeuristic:*=7", "one batch", "hipblasLtMatmulAlgoGetHeuristic failed"),
    ("hipblasLtMatmulAlgoGetHeuristic:1=7", "one", "hipblasLtMatmulAlgoGetHeuristic failed"),
    ("hipblasLtMatmulAlgoGetHeuristic:2=7", "batch", "hipblasLtMatmulAlgoGetHeuristic failed"),
    # That of a batch has a sixth attribute, the stride of the bias.
    ("hipblasLtMatmulDescSetAttribute:11=3", "batch", "hipblasLtMatmulDescSetAttribute failed"),
])  # fmt: skip
def test_what_hipblaslt_does_not_do_has_a_reason(
    emulated: Lab, fault: str, refused: str, why: str
) -> None:
    before = emulated.live()
    emulated.emulator.fail(fault)
    for name, work in (("one", product()), ("batch", product(batch=3))):
        found = HipDevice().support(work)
        assert found.refused == (name in refused.split())
        assert (why in found.why) == found.refused
        assert HipDevice().support(work) == found  # whatever the library would say now
    assert emulated.live() == before


@pytest.mark.parametrize(("work", "why"), [
    (product(added=True), "the product would be rounded to f16 before both are added"),
    (replace(product(), a=replace(product().a, offset=8)), "a does not begin at a multiple of 256"),
    (replace(product(), bias=replace(product().bias, strides=(2,))), "no neighbours"),
    (replace(product(), bias=replace(product().bias, dtype=gx.DType.F32)),
     "the bias is f32 and the product f16"),
])  # fmt: skip
def test_what_it_is_not_asked(emulated: Lab, work: Gemm, why: str) -> None:
    emulated.emulator.trace()
    assert why in HipDevice().support(work).why
    assert not any("hipblasLt" in c.name for c in calls(emulated.emulator))


def lacking(patch: pytest.MonkeyPatch) -> HipDevice:
    """The device without hipBLASLt."""
    patch.setattr(HipDevice()._bindings(), "lt", None)
    return HipDevice()


def test_without_hipblaslt_there_are_two_commands(
    emulated: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with hip-python 7.2, which has none."""
    with monkeypatch.context() as patch, gx.compile(layer(), device=lacking(patch)) as exe:
        assert "there is no hipBLASLt" in explain(exe._compiled, "y")
        assert [work.bias for work in products(exe)] == [None]
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


# What is planned is what is loaded --------------------------------------------------------------


def planned(graph: gx.Graph) -> Compiled:
    """As the command line plans where nothing is run."""
    return plan_for(graph, "hip", gx.Options())


def many() -> gx.Graph:
    """A batch, products alone, with a c and without, in half and single precision."""
    g = branches("f16", shared=False, weight=False)
    for m, dtype, added in ((8, "f16", False), (9, "f32", True), (10, "f16", True)):
        x, w = g.input(f"x_{m}", (m, 24), dtype), g.input(f"w_{m}", (24, 40), dtype)
        more = {"c": g.input(f"c_{m}", (m, 40), dtype)} if added else {}
        bias = g.input(f"bias_{m}", (40,), dtype)
        g.output(**{f"y_{m}": g.gemm(x, w, bias=bias, name=f"p{m}", **more)})
    return g


FAULTS = [
    f"hipblasLtMatmulAlgoGetHeuristic:{n}=7" for n in "1234*"
]  # four products are asked about


@pytest.mark.parametrize("fault", ["", *FAULTS, "hipblasLtCreate:*=1"])
def test_the_plan_that_is_shown_is_the_one_that_runs(emulated: Lab, fault: str) -> None:
    """Also where hipBLASLt has no algorithm for some products."""
    if fault:
        emulated.emulator.fail(fault)
    shown = planned(many())
    with emulated.nothing_left(), gx.compile(many(), device=HipDevice()) as exe:
        assert exe.plan.to_json() == shown.plan.to_json()
        assert str(exe.plan) == str(shown.plan)
        assert explain(exe._compiled) == explain(shown)
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_only_the_product_without_an_algorithm_goes_without(emulated: Lab) -> None:
    g = layer()
    c, d = g.input("c", (8, 24), "f16"), g.input("d", (24, 40), "f16")
    g.output(z=g.gemm(c, d, bias="bias", name="z"))
    emulated.emulator.fail("hipblasLtMatmulAlgoGetHeuristic:1=7")
    with emulated.nothing_left(), gx.compile(g, device=HipDevice()) as exe:
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))
        assert sorted(work.bias is None for work in products(exe)) == [False, True]
        told = [note.text for note in exe._compiled.notes if note.rewrite == "fuse-epilogue"]
    assert len(told) == 2
    assert sum("hipblasLtMatmulAlgoGetHeuristic failed" in text for text in told) == 1


def test_other_shapes_of_the_graph_keep_their_bias(emulated: Lab) -> None:
    g = gx.Graph("layer", dims={"M": 20})
    x, b = g.input("x", ("M", 24), "f16"), g.input("b", (24, 40), "f16")
    g.output(y=g.gemm(x, b, bias=g.input("bias", (40,), "f16"), name="y"))
    emulated.emulator.fail("hipblasLtMatmulAlgoGetHeuristic:1=7")
    with gx.compile(g, device=HipDevice()) as exe:
        assert [work.bias is None for work in products(exe)] == [True]
        inputs = inputs_of(exe)
        inputs["x"] = inputs["x"][:8]
        emulated.emulator.trace()
        exe.run(**inputs)
        assert "hipblasLtMatmul" in made(emulated)


@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_without_an_algorithm_has_no_biases(emulated: Lab, shared: bool) -> None:
    """One product of the same graph keeps its own."""

    @dataclass(frozen=True)
    class Single(HipDevice):
        def support(self, work: Work) -> Support:
            if isinstance(work, Gemm) and work.bias is not None and len(work.out.shape) > 2:
                return no("there is no algorithm")
            return super().support(work)

    g = branches("f16", shared, weight=False)
    x, w = g.input("x", (8, 16), "f16"), g.input("w", (16, 16), "f16")
    g.output(y=g.gemm(x, w, bias=g.input("bias_of_one", (16,), "f16"), name="one"))
    with gx.compile(g, device=Single()) as exe:
        assert all(work.bias is None for work in products(exe) if len(work.out.shape) > 2)
        (own,) = [work for work in products(exe) if work.out.storage == "one"]
        assert own.bias is not None
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_a_product_that_fails_when_it_is_loaded_is_an_error(emulated: Lab) -> None:
    """It says which, and what failed; nothing else is tried."""
    compiled = planned(layer())
    emulated.emulator.fail("hipblasLtMatmulAlgoGetHeuristic:*=7")
    told = r"node 'y': hipblasLtMatmulAlgoGetHeuristic failed: .*\(7\)"
    with emulated.nothing_left(), pytest.raises(ExecutionError, match=told):
        Executable(layer(), lambda *_: compiled, HipDevice())


@pytest.mark.parametrize("operand", ["a", "b", "c", "out", "bias"])
def test_an_odd_address_is_noticed(emulated: Lab, operand: str) -> None:
    """The compiler makes no such plan: by hand."""
    bound = planned(layer("f32", added="kept")).bound
    ((number, work),) = [(n, w) for n, w in bound.work.items() if isinstance(w, Gemm)]
    moved = replace(work, **{operand: replace(getattr(work, operand), offset=8)})
    with pytest.raises(ExecutionError, match="node 'y': hipBLASLt cannot add the bias: an operand"):
        HipDevice().open(replace(bound, work={**bound.work, number: moved}), {})


def test_a_call_that_fails_names_its_node(emulated: Lab) -> None:
    with gx.compile(layer(), device=HipDevice(mode="stream")) as exe:
        emulated.emulator.fail("hipblasLtMatmul:1=6")
        with pytest.raises(ExecutionError, match="node 'y': hipblasLtMatmul failed"):
            exe.run(**inputs_of(exe))
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


# Algorithms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [*range(WITH_BIAS), WITH_BIAS, 100])
def test_a_chosen_algorithm_is_taken_if_it_is_there(
    emulated: Lab, choice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    lt: Any = HipDevice()._bindings().lt
    real = lt.gemm  # which runs; what it is asked for is noted

    def noted(*args: Any, choice: int, **named: Any) -> Any:
        asked.append(choice)
        return real(*args, choice=choice, **named)

    monkeypatch.setattr(lt, "gemm", noted)
    with gx.compile(layer(), device="hip") as exe:
        (work,) = products(exe)
    asked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        device = HipDevice(algorithms={gemm_signature(work): choice})
        with emulated.nothing_left(), gx.compile(layer(), device=device) as exe:
            inputs = inputs_of(exe)
            assert_right(exe, inputs, exe.run(**inputs))
    assert asked == ([choice] if choice < WITH_BIAS else [choice, 0])


def test_algorithms_are_counted_with_the_epilogue(emulated: Lab) -> None:
    before = emulated.live()
    for batch in ((), (3,)):
        with emulated.compile(layer(batch=batch)) as exe:
            (work,) = products(exe)
        hip = HipDevice()._bindings()
        assert count_algorithms(hip, work, 8) == WITH_BIAS
        assert count_algorithms(hip, work, 1) == 1
        assert count_algorithms(hip, replace(work, bias=None), 8) == WITH_BIAS + 1
    assert emulated.live() == before


def test_the_library_is_asked_where_there_is_a_bias_only(emulated: Lab) -> None:
    """The query loads hipBLASLt, which takes as long as the start."""
    g = gx.Graph("plain")
    x = g.input("x", (32, 32))
    g.output(y=g.gemm(x, x, name="y"))
    emulated.emulator.trace()
    planned(g)
    assert not any("hipblasLt" in c.name for c in calls(emulated.emulator))
