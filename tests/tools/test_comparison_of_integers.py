"""compare on integers and bools: exact, unless they follow from floats that were rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphexec as gx
from graphexec.base.tensor import DType, TensorType
from graphexec.ir.approximate import Approximate
from graphexec.ir.op import Attrs, Call, In, Op, Operand, Out
from graphexec.ir.operand import ANY
from graphexec.ir.program import Command, Kernel, Parallel
from graphexec.tools.compare import Comparison
from graphexec.tools.judge import Judge

Array = np.ndarray[Any, Any]


def compared(graph: gx.Graph, **inputs: Array) -> Comparison:
    return gx.compare(graph, inputs, device=gx.CpuDevice(poison=True))


def graph_of(dtype: str, expr: str, shape: tuple[int, ...] = (6,)) -> gx.Graph:
    g = gx.Graph("g")
    x = g.input("x", shape, dtype)
    g.output(y=g.map(expr, x=x, name="y"))
    return g


@pytest.mark.parametrize("dtype", ["i8", "u8", "i32", "i64"])
def test_integers_are_compared_to_the_last_bit(dtype: str) -> None:
    limits = np.iinfo(DType(dtype).numpy())
    x = np.array([limits.min, limits.max, 1, 2, limits.max - 1, 5], limits.dtype)
    found = compared(graph_of(dtype, "x * 3 + 1"), x=x)
    assert found.ok
    assert [row.max_abs for row in (*found.outputs, *found.nodes)] == [0, 0]
    assert found.outputs[0].tolerance == 0
    assert found.outputs[0].dtype == dtype


def judge(dtype: str, found: list[int], exact: list[int], error: float | None = None) -> Any:
    type = TensorType((len(found),), DType(dtype))
    kind = type.dtype.numpy()
    bound = None if error is None else np.full(len(found), error)
    expected = Approximate(np.array(exact, kind), type.dtype, bound)
    return Judge(type, 0.0, 0.0, None).row("y", "map", np.array(found, kind), expected)


def test_large_integers_that_float64_does_not_tell_apart() -> None:
    row = judge("i64", [2**62, 1], [2**62 + 1, 1])
    assert not row.ok
    assert row.worst.index == (0,)
    assert (row.worst.found, row.worst.expected) == (2**62, 2**62 + 1)
    assert judge("i64", [2**62 + 1], [2**62 + 1]).ok


def test_an_element_off_by_one_is_wrong() -> None:
    assert not judge("i8", [0] * 999 + [1], [0] * 1000).ok
    assert not judge("bool", [1, 0], [1, 1]).ok
    assert judge("bool", [1, 0], [1, 1], error=1.0).ok
    assert not judge("i32", [7, 0], [5, 0], error=1.0).ok


def test_a_wrong_kernel_is_found() -> None:
    class OneMore(Op):
        name = "one_more"
        operands = (Operand("x", dtype=ANY),)

        def reference(self, arrays: Mapping[str, Array], attrs: Attrs, type: TensorType) -> Array:
            return np.asarray(arrays["x"] + 1)

        def lower(self, call: Call) -> list[Command]:
            def compute(views: list[Array], parallel: Parallel) -> None:
                views[1][...] = views[0] + 1
                views[1][3] += 1

            def make(x: Any, y: Any) -> Kernel:
                from graphexec.ops.kit import launch

                return launch(__file__, "none", (x, y), 1, 1, {}, compute)  # type: ignore[arg-type]

            return [call.kernel("one_more", make, In(call.operands["x"]), Out(call.out))]

    g = gx.Graph("g", ops={**gx.known_ops(), "one_more": OneMore()})
    g.input("x", (6,), "i32")
    g.output(y=g.node("one_more", x="x", name="y"))
    found = compared(g, x=np.arange(6, dtype=np.int32))
    assert found.first_bad == "y"
    assert found.nodes[0].worst.index == (3,)
    assert (found.nodes[0].worst.found, found.nodes[0].worst.expected) == (5, 4)


def test_an_integer_that_follows_from_rounded_floats_may_differ_where_they_do() -> None:
    """x · 3 is 0.99999994 or 1 after rounding; next to it nothing is near an integer."""
    x = np.array([1 / 3, 0.5, 7.7, -1 / 3, 2.6, 1e9], np.float32)
    for expr in ("cast(x * 3, i32)", "x * 3 >= 1", "floor(x * 3) == 1"):
        assert compared(graph_of("f32", expr), x=x).ok, expr


def test_casts_and_flips_of_what_is_off() -> None:
    """A chain: floats that are off by a gemm become integers, and these are read again."""
    g = gx.Graph("g")
    a, b = g.input("a", (32, 64), "f16"), g.input("b", (64, 32), "f16")
    y = g.gemm(a, b, name="y")
    i = g.copy(y, dtype="i32", name="i")
    seen = g.map("i > 0", i=i, name="seen")
    g.output(i, seen, best=g.reduce(y, kind="argmax", axis=-1, name="best"),
             back=g.copy(seen, dtype="f16", name="back"))  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = {
        n: rng.standard_normal(s).astype("f2") * 4 for n, s in (("a", (32, 64)), ("b", (64, 32)))
    }
    found = compared(g, **inputs)
    assert found.ok
    rows = {row.name: row for row in found.nodes}
    assert rows["i"].tolerance == rows["seen"].tolerance == rows["best"].tolerance == 0


def test_integers_to_floats_are_rounded() -> None:
    g = gx.Graph("g")
    x = g.input("x", (4,), "i64")
    g.output(*(g.copy(x, dtype=d, name=d) for d in ("f16", "bf16", "f32", "f64")))
    found = compared(g, x=np.array([3, 2**24 + 1, 2**53 + 1, -12345])[[0, 3, 0, 3]])
    assert found.ok
    found = compared(g, x=np.array([2**24 + 1, 2**53 + 1, 2**62 + 2**40, 100]) // 2**20)
    assert all(row.ok for row in found.outputs if row.name != "f16")


def test_bools_of_any_byte() -> None:
    g = gx.Graph("g")
    g.output(y=g.copy(g.input("x", (4,), "bool"), dtype="i8", name="y"))
    found = compared(g, x=np.array([0, 1, 2, 255], np.uint8).view(bool))
    assert found.ok


def test_a_tolerance_that_is_given_leaves_integers_exact() -> None:
    row = Judge(TensorType((2,), DType.I32), 0.0, 0.0, 0.5).row(
        "y", "map", np.array([1, 2], np.int32),
        Approximate(np.array([1, 3], np.int32), DType.I32),
    )  # fmt: skip
    assert not row.ok
    assert replace(row, worst=replace(row.worst, bound=1.0), tolerance=1.0).ok


def test_a_tensor_without_axes() -> None:
    g = gx.Graph("g")
    g.output(y=g.copy(g.input("n", (), "i64"), dtype="i32", name="y"))
    found = compared(g, n=np.int64(2**40 + 7))
    assert found.ok
    assert found.outputs[0].worst.found == 7
