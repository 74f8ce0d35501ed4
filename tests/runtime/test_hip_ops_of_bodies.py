"""map, reduce, norm and rope on a HIP device: each element within its bound of float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Applied, Harness, tensor

from graphexec.base.grammar import parse
from graphexec.base.tensor import DType, TensorType
from graphexec.ir.approximate import Approximate
from graphexec.ir.expression import with_numbers
from graphexec.ops.map import OP as MAP
from graphexec.ops.norm import OP as NORM
from graphexec.ops.reduce import KINDS
from graphexec.ops.reduce import OP as REDUCE
from graphexec.ops.rope import OP as ROPE

Array = np.ndarray[Any, Any]
FLOATS = ("f16", "bf16", "f32", "f64")


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness.open()


def drawn(types: dict[str, TensorType], seed: int = 0) -> dict[str, Array]:
    """Normal numbers, and small integers."""
    rng, found = np.random.default_rng(seed), {}
    for name, type in types.items():
        numbers = rng.standard_normal(type.shape) if type.dtype.is_float else (
            rng.integers(0, 5, type.shape))  # fmt: skip
        found[name] = np.asarray(numbers).astype(type.dtype.numpy())
    return found


def check(harness: Harness, applied: Applied, arrays: dict[str, Array]) -> None:
    """The result is within the op's own bound of the float64 reference."""
    found = applied.run(harness, **arrays).astype(np.float64)
    wide = {name: a.astype(np.float64) if DType.of(a.dtype).is_float else a
            for name, a in arrays.items()}  # fmt: skip
    known = {name: Approximate(a, applied.types[name].dtype) for name, a in wide.items()}
    with np.errstate(all="ignore"):
        exact = applied.op.reference(wide, applied.attrs, applied.type)
        bound = applied.op.error(known, applied.attrs, applied.type, exact)
    assert bound is not None
    exact = np.asarray(exact, np.float64)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    judged = np.isfinite(exact)
    off = np.abs(np.where(judged, found - np.where(judged, exact, 0.0), 0.0))
    slack = 4 if applied.type.dtype is DType.F64 else 1  # the reference is rounded, too
    assert (off <= slack * np.broadcast_to(bound, off.shape) + 1e-300).all()
    np.testing.assert_array_equal(found[~judged], exact[~judged])


EXPRESSIONS = [
    "silu(x) * y + 0.5", "x / (1 + abs(y))", "where(x < y, gelu(x), -inf)",
    "min(x, y, 0.25) + max(x, y)", "gelu_tanh(x) - softplus(y)", "x % 0.3 + y // 0.5",
    "floor(x) + ceil(y) * sign(x) + round(y)", "exp(x) * rsqrt(y * y + 1) + tanh(x)",
    "sigmoid(x) + erf(y) + log1p(y * y) + sin(x) * cos(y)", "x ** 3 + abs(y) ** 0.3",
    "isnan(x / 0.5) or y >= 0 and not x == y", "cast(x * 3, i32) // 2 + index(-1) * cast(y, i8)",
    "x + index(0) * 0.5 - index(-1)",
]  # fmt: skip


def expression(text: str) -> Any:
    return with_numbers(parse(text), {"x", "y", "i", "u"}, {})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_maps(harness, text, dtype):
    types = {"x": tensor(dtype, 3, 5, 8), "y": tensor(dtype, 5, 1)}
    check(harness, Applied(MAP, types, expr=expression(text)), drawn(types))


@pytest.mark.parametrize("dtype", ["i8", "u8", "i32", "i64"])
@pytest.mark.parametrize("operator", ["+", "-", "*", "//", "%"])
def test_maps_of_integers(harness, operator, dtype):
    types = {"i": tensor(dtype, 40), "u": tensor(dtype, 40, 1)}
    info = np.iinfo(DType(dtype).numpy())
    ends = [info.min, info.min + 1, 0, 1, 2, 3, info.max - 1, info.max]
    rng = np.random.default_rng(1)
    values = rng.choice(np.array(ends, info.dtype), 40)
    applied = Applied(MAP, types, expr=expression(f"i {operator} u"))
    check(harness, applied, {"i": values, "u": rng.permutation(values)[:, None]})


REDUCTIONS = [
    (kind, dtype) for kind in KINDS for dtype in (*FLOATS, "i32", "u8")
    if kind != "logsumexp" or dtype in FLOATS
]  # fmt: skip


@pytest.mark.parametrize(("kind", "dtype"), REDUCTIONS)
def test_reductions(harness, kind, dtype):
    for shape, axis in (((6, 33), (-1,)), ((33, 6), (0,)), ((3, 4, 5), (0, 2)), ((3, 4, 5), None)):
        types = {"x": tensor(dtype, *shape)}
        applied = Applied(REDUCE, types, kind=kind, axis=axis)
        check(harness, applied, drawn(types, seed=len(shape)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms(harness, kind, dtype):
    for shape, axis in (((5, 48), -1), ((2, 3, 257), -1), ((4, 9, 8), 1), ((17, 3), 0)):
        types = {"x": tensor(dtype, *shape), "weight": tensor(dtype, shape[axis]),
                 "bias": tensor("f32", shape[axis])}  # fmt: skip
        if dtype == "f64":
            types["bias"] = tensor("f64", shape[axis])
        check(harness, Applied(NORM, types, kind=kind, axis=axis), drawn(types))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("pairs", ["halves", "interleaved"])
def test_rotary_embeddings(harness, pairs, dtype):
    x = tensor(dtype, 2, 3, 5, 12)
    for rotate, place in ((None, "at"), (8, "position"), (12, "each")):
        types = {"x": x}
        if place == "position":
            types["position"] = tensor("i64", 5)
        else:
            types["at"] = tensor("i32", *((2,) if place == "each" else ()))
        arrays = drawn(types)
        name = "position" if place == "position" else "at"
        arrays[name] = arrays[name] * 100_003  # a million
        check(harness, Applied(ROPE, types, pairs=pairs, rotate=rotate), arrays)


@pytest.mark.parametrize("table", ["f16", "f32"])
def test_rotary_embeddings_by_tables(harness, table):
    types = {"x": tensor("f16", 2, 3, 4, 8), "position": tensor("i32", 3, 1),
             "cos": tensor(table, 3, 2), "sin": tensor(table, 3, 2)}  # fmt: skip
    arrays = drawn(types) | {"position": np.array([[2], [-1], [3]], np.int32)}
    check(harness, Applied(ROPE, types, rotate=4), arrays)
