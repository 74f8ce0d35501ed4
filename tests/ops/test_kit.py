"""The kit: pointwise ops against float64, the shape language, and accesses that are stated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Applied, Harness, random_array, tensor

import graphexec as gx
from graphexec.base.tensor import TensorType, View
from graphexec.ir.op import Call, Command, In, InOut, Kernel, Op, Operand, OpError, Out
from graphexec.ir.operand import Shapes, parse
from graphexec.ir.plan import Launch
from graphexec.ops.kit import pointwise

Array = np.ndarray[Any, Any]
RELU = pointwise("relu", c="x > 0 ? x : 0", numpy=lambda x: np.maximum(x, 0))
BLEND = pointwise(
    "blend", c="x * sqrt(y * y + 1) - z", numpy=lambda x, y, z: x * np.sqrt(y * y + 1) - z
)
EPS = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-22, "f64": 2.0**-50}


def graph_of(op: Op, types: dict[str, TensorType]) -> gx.Graph:
    graph = gx.Graph("g", ops={**gx.known_ops(), op.name: op})
    for name, type in types.items():
        graph.input(name, type.shape, type.dtype.value)
    graph.output(y=graph.node(op.name, **{name: name for name in types}))
    return graph


def assert_close(found: Array, expected: Array, dtype: str) -> None:
    """Within a few roundings of what float64 gives."""
    scale = np.abs(expected) + 8.0
    assert (np.abs(found.astype(np.float64) - expected) <= 4 * EPS[dtype] * scale).all()


# Pointwise ops --------------------------------------------------------------------------------


@st.composite
def broadcast_types(draw: st.DrawFn) -> tuple[str, dict[str, TensorType]]:
    dtype = draw(st.sampled_from(sorted(EPS)))
    whole = draw(st.lists(st.sampled_from((1, 2, 3, 5, 8, 16, 33)), max_size=4))

    def shape() -> list[int]:
        kept = whole[draw(st.integers(0, len(whole))) :]
        return [draw(st.sampled_from((1, extent))) for extent in kept]

    return dtype, {name: tensor(dtype, *shape()) for name in "xyz"}


@settings(max_examples=60, deadline=None)
@given(broadcast_types())
def test_pointwise_on_the_cpu(case: tuple[str, dict[str, TensorType]]) -> None:
    dtype, types = case
    given_ = {name: random_array(t, seed) for seed, (name, t) in enumerate(types.items())}
    graph = graph_of(BLEND, types)
    with gx.compile(graph, device=gx.CpuDevice(poison=True)) as exe:
        found = exe.run(**given_)["y"]
    assert_close(found, Applied(BLEND, types).reference(**given_), dtype)
    assert gx.compare(graph, given_, device="cpu").ok


@pytest.fixture(scope="module")
def harness() -> Harness:
    found = Harness.open()
    found.use_wavefront(64)
    return found


@settings(max_examples=12, deadline=None)
@given(broadcast_types())
def test_pointwise_on_the_emulator(
    harness: Harness, case: tuple[str, dict[str, TensorType]]
) -> None:
    dtype, types = case
    given_ = {name: random_array(t, seed) for seed, (name, t) in enumerate(types.items())}
    applied = Applied(BLEND, types)
    assert_close(applied.run(harness, **given_), applied.reference(**given_), dtype)


@pytest.mark.parametrize("dtype", sorted(EPS))
@pytest.mark.parametrize("shape", [(), (1,), (7,), (1003,), (3, 64), (5, 2, 33)])
def test_relu_is_exact_on_the_emulator(
    harness: Harness, dtype: str, shape: tuple[int, ...]
) -> None:
    applied = Applied(RELU, {"x": tensor(dtype, *shape)})
    x = random_array(applied.types["x"])
    assert (applied.run(harness, x=x) == np.maximum(x, 0)).all()


def test_wide_loads_where_elements_are_neighbours() -> None:
    (kernel,) = Applied(BLEND, {n: tensor("f16", 4, 64) for n in "xyz"}).kernels
    assert dict(kernel.defines)["VECTOR"] == "8"
    assert ", f16, 8)" in dict(kernel.defines)["OPERANDS(EACH)"]


def test_a_result_takes_the_place_of_an_operand() -> None:
    types = {"x": tensor("f32", 4, 8), "y": tensor("f32", 8), "z": tensor("f32", 4, 8)}
    (command,) = Applied(BLEND, types).commands
    assert command.inplace == ((0, 0), (2, 0))  # y is broadcast
    assert command.cost.bytes == 4 * (3 * 32 + 8)


def test_dtypes_are_shared() -> None:
    with pytest.raises(OpError, match="'x' and 'y' share a dtype: x is f32"):
        BLEND.infer({"x": tensor("f32", 2), "y": tensor("f16", 2), "z": tensor("f32", 2)}, {})


@pytest.mark.parametrize("function", [lambda: 0, lambda *x: x[0], lambda x=1: x])
def test_parameters_that_are_no_operands(function: Any) -> None:
    with pytest.raises(ValueError, match="parameters without defaults"):
        pointwise("bad", c="x", numpy=function)


def test_eight_relus_are_one_launch() -> None:
    graph = gx.Graph("g", ops={**gx.known_ops(), "relu": RELU})
    for i in range(8):
        graph.input(f"x{i}", (64, 64))
        graph.output(**{f"y{i}": graph.relu(f"x{i}", name=f"r{i}")})
    with gx.compile(graph, device="cpu") as exe:
        launches = [i for i in exe.plan.instructions
                    if isinstance(i, Launch) and i.command == "relu"]  # fmt: skip
        assert [len(launch.members) for launch in launches] == [8]
        rng = np.random.default_rng(0)
        given_ = {f"x{i}": rng.standard_normal((64, 64), np.float32) for i in range(8)}
        found = exe.run(**given_)
    assert all((found[f"y{i}"] == np.maximum(given_[f"x{i}"], 0)).all() for i in range(8))


# The shape language ---------------------------------------------------------------------------


def shapes(result: str = "(…, M, N)", turned: bool = False, **types: TensorType) -> Shapes:
    operands = (
        Operand("a", shape="(…, M, K)", turned="flip"),
        Operand("b", shape="(..., K, N)", dtype="a", optional=True),
        Operand("c", shape="broadcast to out", optional=True),
        Operand("row", shape="(N,)", optional=True),
        Operand("three", shape="(3,)", optional=True),
        Operand("square", shape="(S, S)", optional=True),
    )
    return Shapes(operands, types, {"flip": turned}, result)


def test_named_extents_and_leading_axes() -> None:
    found = shapes(a=tensor("f32", 5, 1, 2, 3), b=tensor("f32", 4, 3, 7), row=tensor("f32", 7))
    assert found.shape("(…, M, N)") == (5, 4, 2, 7)
    assert found.shape("(K, 9)") == (3, 9)
    turned = shapes(turned=True, a=tensor("f32", 3, 2), b=tensor("f32", 3, 7))
    assert turned.shape("(…, M, N)") == (2, 7)


A, B = tensor("f32", 2, 3), tensor("f32", 3, 7)


@pytest.mark.parametrize(("types", "message"), [
    ({"a": TensorType((2, 3), A.dtype, "host")}, "operand 'a' is in host memory"),
    ({"a": tensor("f32", 3)}, r"operand 'a' needs at least 2 axes, \(…, M, K\); found \[3\]"),
    ({"a": A, "b": tensor("f16", 3, 7)}, "'a' and 'b' share a dtype: a is f32"),
    ({"a": A, "b": tensor("f32", 2, 7)}, "the extents K differ: 3 in a, 2 in b"),
    ({"a": tensor("f32", 2, 2, 3), "b": tensor("f32", 5, 3, 7)},
     r"the leading axes \[5\] of b do not broadcast with \[2\]"),
    ({"a": A, "b": B, "c": tensor("f32", 3, 7)}, r"does not broadcast to the result \[2, 7\]"),
    ({"a": A, "b": B, "row": tensor("f32", 1, 7)}, r"'row' needs 1 axis, \(N,\); found \[1, 7\]"),
    ({"a": A, "b": B, "row": tensor("f32", 1)}, "the extents N differ: 7 in b, 1 in row"),
    ({"a": A, "square": tensor("f32", 4, 5)}, "the extents S differ: 4 in square, 5 in square"),
    ({"a": A, "three": tensor("f32", 4)}, "an extent of three must be 3, found 4"),
])  # fmt: skip
def test_what_does_not_fit(types: dict[str, TensorType], message: str) -> None:
    with pytest.raises(OpError, match=message):
        shapes(**types)


def test_an_error_shows_both_operands_and_what_would_fit() -> None:
    with pytest.raises(OpError) as caught:
        shapes(a=tensor("f32", 3, 2), b=B)
    assert caught.value.notes == ("a is f32[3, 2], (…, M, K)", "b is f32[3, 7], (..., K, N)")
    assert caught.value.help == "flip: true would fit"


@pytest.mark.parametrize("text", ["M, K", "(M K)", "(M, …)", "(-1,)"])
def test_patterns_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="shape"):
        parse(text)


# Accesses -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """out = x + y by NumPy."""

    def __call__(self, x: View, y: View, out: View) -> Kernel:
        def compute(arrays: list[Array], parallel: Any) -> None:
            np.add(arrays[0], arrays[1], out=arrays[2])

        return Kernel(Path("sum.hip"), "sum", (x, y, out), (1, 1, 1), (1, 1, 1), compute)


class Add(Op):
    """x + y, with the accesses that a test wants."""

    name = "add"
    doc = "For tests."
    operands = (Operand("x"), Operand("y"))

    def __init__(self, state: Any) -> None:
        self.state = state

    def lower(self, call: Call) -> list[Command]:
        x, y = call.operands["x"], call.operands["y"]
        work = Sum()(x, y, call.out)
        return [call.command("add", work, *self.state(x, y, call.out))]


CHEATS = {
    "an operand that is not stated": (
        lambda x, y, out: [In(x), Out(out)], "passes operand 'y' to its kernel"),
    "the result": (lambda x, y, out: [In(x), In(y)], "passes the result to its kernel"),
    "a part of an operand": (
        lambda x, y, out: [In(x), In(View(y.storage, (1,), y.dtype, (1,))), Out(out)],
        "passes operand 'y' to its kernel"),
    "an operand written only": (
        lambda x, y, out: [In(x), Out(y), Out(out)], "none of its commands reads operand 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_an_op_that_does_not_state_its_accesses_is_refused(cheat: str) -> None:
    state, message = CHEATS[cheat]
    graph = graph_of(Add(state), {"x": tensor("f32", 4), "y": tensor("f32", 4)})
    with pytest.raises(gx.GraphError, match=message) as caught:
        gx.make_plan(graph)
    assert "op 'add' cannot be planned for node 'add'" in str(caught.value)
    assert "test_kit.py" in str(caught.value)


def test_one_that_states_them_is_planned() -> None:
    graph = graph_of(
        Add(lambda x, y, out: [In(x), In(y), Out(out, over=(x,))]),
        {"x": tensor("f32", 4), "y": tensor("f32", 4)},
    )
    with gx.compile(graph, device="cpu") as exe:
        found = exe.run(x=np.ones(4, np.float32), y=np.ones(4, np.float32))
    assert found["y"].tolist() == [2] * 4


def test_what_follows_from_accesses() -> None:
    types = {"x": tensor("f32", 4), "y": tensor("f32", 4)}
    (command,) = Applied(Add(lambda x, y, out: [InOut(x), In(y), Out(out, over=(y,))]),
                         types).commands  # fmt: skip
    assert [v.storage for v in command.reads] == ["x", "y"]
    assert [v.storage for v in command.writes] == ["x", "out"]
    assert command.inplace == ((0, 0), (1, 1))
    assert command.cost.bytes == 4 * 4 * 4


@dataclass(frozen=True)
class Named:
    """A Sum that says whether it takes strides."""

    strided: bool

    def op(self) -> Op:
        class Plus(Op):
            name = "plus"
            doc = "For tests."
            operands = (Operand("x"), Operand("y"))

            def lower(plus, call: Call) -> list[Command]:
                reads = [In(call.operands[n], strided=self.strided) for n in "xy"]
                return [call.kernel("plus", Sum(), *reads, Out(call.out))]

        return Plus()


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_kernel_gets_strides_from_a_batch_only_if_it_takes_them(
    shared: bool, strided: bool
) -> None:
    """An operand that members share would have stride 0."""
    op = Named(strided).op()
    graph = gx.Graph("g", ops={**gx.known_ops(), "plus": op})
    for i in range(8):
        graph.input(f"x{i}", (64, 64))
        graph.input(f"y{i}", (64, 64))
        graph.output(**{f"o{i}": graph.plus(f"x{i}", "y0" if shared else f"y{i}")})
    with gx.compile(graph, device="cpu") as exe:
        launches = [i for i in exe.plan.instructions
                    if isinstance(i, Launch) and i.command == "plus"]  # fmt: skip
    assert len(launches) == (8 if shared and not strided else 1)
