"""Biases that hipBLASLt adds in its epilogue, and what happens where it does not."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from exact import DTYPES, UNIT, Array, assert_within, draw, wide
from hip_lab import MODES, Lab, assert_right, bits, calls, inputs_of
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.errors import ExecutionError, NotCapable
from graphexec.ir.plan import Launch
from graphexec.ir.program import Gemm
from graphexec.machine.capabilities import reduced
from graphexec.machine.costs import gemm_signature
from graphexec.machine.epilogue import (
    batch_capability,
    c_capability,
    capability,
    pairs,
    product_capability,
)
from graphexec.planning.pipeline import Compiled, plan_graph
from graphexec.runtime.device import FallbackWarning
from graphexec.runtime.executable import Executable
from graphexec.runtime.hip.device import HipDevice, Mode
from graphexec.runtime.hip.gemm import gemm_call
from graphexec.runtime.hip.products import biased, count_algorithms

ASKED = frozenset(name(*types) for types in pairs() for name in (capability, batch_capability))
EVERY = ASKED | {c_capability(dtype, out) for dtype, out in pairs() if out is dtype.accumulator}
WITH_BIAS = 2  # algorithms of the emulator


@dataclass(frozen=True)
class Plain(HipDevice):
    """A device whose hipBLASLt adds no bias."""

    def capabilities(self, graph: gx.Graph | None = None) -> frozenset[str]:
        return frozenset()


@pytest.fixture
def asked_anew(emulated: Lab) -> Iterator[None]:
    """What hipBLASLt can do is asked in the test, and again after it."""
    biased.cache_clear()
    yield
    emulated.reset()
    biased.cache_clear()
    assert HipDevice().capabilities() >= EVERY


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
    works = [i.work for i in exe.plan.instructions if isinstance(i, Launch)]
    return [work for work in works if isinstance(work, Gemm)]


def made(lab: Lab) -> list[str]:
    """The calls of kernels and of the BLAS libraries."""
    names = [call.name for call in calls(lab.emulator)]
    return [n for n in names if "hipblasGemm" in n or n in ("hipblasLtMatmul",
                                                            "hipModuleLaunchKernel")]  # fmt: skip


# Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "out"), [(d.value, o.value) for d, o in pairs()])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_one_call_and_right_numbers(
    lab: Lab, dtype: str, out: str, mode: Mode, batch: tuple[int, ...]
) -> None:
    with lab.nothing_left(), lab.compile(layer(dtype, out, batch), mode) as exe:
        one_call(lab, exe, dtype, out)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "out"), [(d.value, o.value) for d, o in pairs()])
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
    names = [capability, c_capability] if "c" in node.operands else [capability]
    wanted = {name(gx.DType(dtype), gx.DType(out)) for name in names}
    able = wanted <= HipDevice().capabilities()
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
            return
        assert work.bias is not None
        assert (work.c is not None) == added
        assert work.bias.strides[0] == (0 if shared else 256 // work.bias.dtype.itemsize)
    strides = [c for c in calls(emulated.emulator) if c.name == "hipblasLtMatmulDescSetAttribute"
               and c.arguments[1] == "23"]  # fmt: skip
    assert len(strides) == (0 if shared else 1)


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


# Which types ----------------------------------------------------------------------------------


def test_hipblaslt_is_asked_once(emulated: Lab, asked_anew: None) -> None:
    before = emulated.live()
    emulated.emulator.trace()
    assert HipDevice().capabilities() >= EVERY
    asked = [c.name for c in calls(emulated.emulator)]
    assert asked.count("hipblasLtMatmulAlgoGetHeuristic") == len(ASKED)
    assert emulated.live() == before
    assert HipDevice().capabilities() >= EVERY
    assert not any("hipblasLt" in c.name for c in calls(emulated.emulator))


@pytest.mark.parametrize(("fault", "missing"), [
    ("hipSetDevice:*=101", EVERY),
    ("hipblasLtCreate:*=1", EVERY),
    ("hipblasLtMatmulAlgoGetHeuristic:*=7", EVERY),
    # The first is f16 alone, the second a batch of it; that has a sixth attribute, the stride.
    ("hipblasLtMatmulAlgoGetHeuristic:1=7", {"gemm-bias:f16", "gemm-bias-batch:f16"}),
    ("hipblasLtMatmulAlgoGetHeuristic:2=7", {"gemm-bias-batch:f16"}),
    ("hipblasLtMatmulDescSetAttribute:11=3", {"gemm-bias-batch:f16"}),
])  # fmt: skip
def test_what_hipblaslt_does_not_do_is_not_said(
    emulated: Lab, asked_anew: None, fault: str, missing: set[str]
) -> None:
    before = emulated.live()
    emulated.emulator.fail(fault)
    assert HipDevice().capabilities() & EVERY == EVERY - missing
    assert emulated.live() == before


def lacking(patch: pytest.MonkeyPatch) -> HipDevice:
    """The device without hipBLASLt."""
    patch.setattr(HipDevice()._bindings(), "lt", None)
    return HipDevice()


def test_without_hipblaslt_there_are_two_commands(
    emulated: Lab, asked_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with hip-python 7.2, which has none."""
    with monkeypatch.context() as patch, gx.compile(layer(), device=lacking(patch)) as exe:
        assert [work.bias for work in products(exe)] == [None]
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


# When a plan is loaded ------------------------------------------------------------------------


def test_a_product_without_an_algorithm_is_planned_anew(emulated: Lab) -> None:
    """Only its bias is given up; other products of its types keep theirs."""
    asked: list[frozenset[str]] = []

    def plan(source: gx.Graph, resident: bool, without: frozenset[str]) -> Compiled:
        asked.append(without)
        able = reduced(HipDevice().capabilities(), without)
        return plan_graph(source, device="hip", resident=resident, capabilities=able)

    g = layer()
    c, d = g.input("c", (8, 24), "f16"), g.input("d", (24, 40), "f16")
    g.output(z=g.gemm(c, d, bias="bias", name="z"))
    emulated.emulator.fail("hipblasLtMatmulAlgoGetHeuristic:1=7")
    told = rf"layer is planned without {re.escape(of_shape(20))}|{re.escape(of_shape(8))}: node '"
    with emulated.nothing_left():
        with pytest.warns(FallbackWarning, match=told):
            exe = Executable(g, plan, HipDevice())
        with exe:
            inputs = inputs_of(exe)
            assert_right(exe, inputs, exe.run(**inputs))
            assert sorted(work.bias is None for work in products(exe)) == [False, True]
    assert asked[0] == frozenset()
    assert asked[1:] in ([{of_shape(20)}], [{of_shape(8)}])


def of_shape(m: int) -> str:
    """The capability to add the bias of such a product."""
    return f"gemm-bias of f16[{m},24] f16[24,40] f16[40] -> f16[{m},40]"


def test_all_products_without_an_algorithm_are_told_at_once(emulated: Lab) -> None:
    """All products are reported at once, so there is a single new plan."""
    g = layer()
    for m in (1, 2, 3, 4):
        x = g.input(f"x{m}", (m, 24), "f16")
        g.output(**{f"y{m}": g.gemm(x, "b", bias="bias", name=f"p{m}")})
    emulated.emulator.fail("hipblasLtMatmulAlgoGetHeuristic:*=7")
    three = ", ".join(map(of_shape, (1, 2, 20)))  # in order of their names
    with emulated.nothing_left():
        with pytest.warns(FallbackWarning, match=f"{re.escape(three)} and 2 more: node") as told:
            exe = gx.compile(g, device=HipDevice())
        with exe:
            assert len(told) == 1
            assert exe.without == {of_shape(m) for m in (20, 1, 2, 3, 4)}
            assert all(work.bias is None for work in products(exe))
            inputs = inputs_of(exe)
            assert_right(exe, inputs, exe.run(**inputs))


def test_other_shapes_of_the_graph_keep_their_bias(emulated: Lab) -> None:
    g = gx.Graph("layer", dims={"M": 20})
    x, b = g.input("x", ("M", 24), "f16"), g.input("b", (24, 40), "f16")
    g.output(y=g.gemm(x, b, bias=g.input("bias", (40,), "f16"), name="y"))
    emulated.emulator.fail("hipblasLtMatmulAlgoGetHeuristic:1=7")
    with pytest.warns(FallbackWarning, match="planned without"):
        exe = gx.compile(g, device=HipDevice())
    with exe:
        assert [work.bias is None for work in products(exe)] == [True]
        inputs = inputs_of(exe)
        inputs["x"] = inputs["x"][:8]
        emulated.emulator.trace()
        exe.run(**inputs)
        assert "hipblasLtMatmul" in made(emulated)


@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_without_an_algorithm_puts_its_biases_first(emulated: Lab, shared: bool) -> None:
    """One product of the same graph keeps its own."""
    g = branches("f16", shared, weight=False)
    x, w = g.input("x", (8, 16), "f16"), g.input("w", (16, 16), "f16")
    g.output(y=g.gemm(x, w, bias=g.input("bias_of_one", (16,), "f16"), name="one"))
    with gx.compile(g, device=HipDevice()) as exe:
        works = {i.members: i.work for i in exe.plan.instructions if isinstance(i, Launch)}
        (batch,) = [w for nodes, w in works.items() if len(nodes) == 4 and isinstance(w, Gemm)]
        missing = product_capability(batch)
    device = HipDevice()

    def plan(source: gx.Graph, resident: bool, without: frozenset[str]) -> Compiled:
        able = reduced(device.capabilities(), without)
        return plan_graph(source, device="hip", resident=resident, capabilities=able)

    compiled = plan(g, False, frozenset({missing}))
    found = {c.nodes or (c.node,): c for c in compiled.program.commands}
    work = found["one",].work
    assert isinstance(work, Gemm)
    assert work.bias is not None
    assert missing not in map(product_capability, (w for w in works_of(compiled) if w.bias))
    with Executable(g, lambda *_: compiled, device) as exe:
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def works_of(compiled: Compiled) -> list[Gemm]:
    return [c.work for c in compiled.program.commands if isinstance(c.work, Gemm)]


def test_a_plan_that_cannot_do_without_is_refused(emulated: Lab) -> None:
    """No warning of a new plan: there is none."""
    compiled = plan_graph(layer(), device="hip", capabilities=EVERY)
    emulated.emulator.fail("hipblasLtMatmulAlgoGetHeuristic:*=7")
    with (
        emulated.nothing_left(),
        pytest.raises(NotCapable, match="node 'y': hipBLASLt has no algorithm that adds the bias"),
    ):
        Executable(layer(), lambda *_: compiled, HipDevice())


@pytest.mark.parametrize("operand", ["a", "b", "c", "out", "bias"])
def test_an_odd_address_is_noticed(emulated: Lab, operand: str) -> None:
    """The compiler makes no such plan: by hand."""
    g = layer("f32", added="kept")
    plan = plan_graph(g, device="hip", capabilities=EVERY).plan
    (launch,) = [i for i in plan.instructions if isinstance(i, Launch) and i.command == "gemm"]
    work = launch.work
    assert isinstance(work, Gemm)
    moved = replace(work, **{operand: replace(getattr(work, operand), offset=8)})
    instructions = tuple(replace(i, work=moved) if i is launch else i for i in plan.instructions)
    with pytest.raises(NotCapable) as caught:
        HipDevice().open(replace(plan, instructions=instructions), {})
    assert caught.value.capabilities == {product_capability(work)}


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


def test_the_library_is_asked_where_there_is_a_bias_only(
    emulated: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query loads hipBLASLt, which takes as long as the start."""

    def asked(*_: object) -> frozenset[str]:
        raise AssertionError("asked")

    monkeypatch.setattr("graphexec.runtime.hip.device.biased", asked)
    g = gx.Graph("plain")
    x = g.input("x", (32, 32))
    g.output(y=g.gemm(x, x, name="y"))
    assert not HipDevice().capabilities(g) & EVERY
    with gx.compile(g, device=HipDevice()):
        pass
    biased = gx.Graph("biased")
    x, b = biased.input("x", (32, 32)), biased.input("b", (32,))
    biased.output(y=biased.gemm(x, x, bias=b, name="y"))
    with pytest.raises(AssertionError, match="asked"):
        HipDevice().capabilities(biased)
