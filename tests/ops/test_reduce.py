"""reduce: kinds, axes and types against NumPy in float64, and every mistake."""

from typing import Any

import numpy as np
import pytest
from exact import DTYPES, Array, draw, run, to_dtype
from hypothesis import given
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import DType, TensorType, View
from graphexec.frontend.load import loads
from graphexec.graph.infer import infer
from graphexec.ir.approximate import Approximate
from graphexec.ops.reduce import KINDS
from graphexec.ops.reduce import OP as REDUCE

Shape = tuple[int, ...]
INTEGERS = ("i8", "u8", "i32", "i64")


def graph_of(shape: Shape, dtype: Any, **settings: Any) -> gx.Graph:
    graph = gx.Graph("g")
    graph.input("x", shape, dtype)
    graph.output(y=graph.reduce("x", name="y", **settings))
    return graph


def reduced(x: Array, **settings: Any) -> Array:
    return run(graph_of(x.shape, x.dtype, **settings), {"x": x})["y"]


def expected(x: Array, kind: str, axes: tuple[int, ...] | None, keep: bool) -> Array:
    """By NumPy, in float64."""
    wide = x.astype(np.float64)
    if kind == "logsumexp":
        top = wide.max(axis=axes, keepdims=True)
        total = np.log(np.exp(wide - top).sum(axis=axes, keepdims=True)) + top
        return total if keep else np.squeeze(total, axes)
    if kind.startswith("arg"):
        axes = tuple(range(x.ndim)) if axes is None else tuple(a % x.ndim for a in axes)
        others = [a for a in range(x.ndim) if a not in axes]
        rows = x.transpose(*others, *sorted(axes)).reshape([x.shape[a] for a in others] + [-1])
        found = getattr(np, kind)(rows.astype(np.float64), axis=-1)
        return np.expand_dims(found, axes) if keep else found
    return np.asarray(getattr(np, kind)(wide, axis=axes, keepdims=keep))


@st.composite
def cases(draw: Any) -> tuple[Shape, tuple[int, ...] | None, bool]:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=0, max_size=4)))
    axes = draw(st.none() | st.sets(st.sampled_from(range(len(shape))))) if shape else None
    if axes is not None:
        signed = [a - draw(st.sampled_from([0, len(shape)])) for a in sorted(axes)]
        axes = tuple(draw(st.permutations(signed)))
    return shape, axes, draw(st.booleans())


@given(cases(), st.sampled_from(KINDS), st.sampled_from(DTYPES), st.integers(0, 99))
def test_floats_over_any_axes(case, kind, dtype, seed):
    shape, axes, keep = case
    x = draw(np.random.default_rng(seed), shape, dtype)
    found = reduced(x, kind=kind, axis=axes, keep=keep)
    exact = expected(x, kind, axes, keep)
    attrs = {"kind": kind, "axis": axes, "keep": keep}
    known = {"x": Approximate(x.astype(np.float64), DType(dtype))}
    type = REDUCE.infer({"x": TensorType(shape, DType(dtype))}, attrs)
    bound = REDUCE.error(known, attrs, type, exact)
    assert found.shape == exact.shape == type.shape
    assert found.dtype == type.dtype.numpy()
    off = np.abs(found.astype(np.float64) - exact)
    assert (off <= 2 * bound + 1e-300).all()
    assert (bound <= 0.05 + 0.05 * np.abs(exact)).all()


@given(cases(), st.sampled_from(KINDS[:-1]), st.sampled_from(INTEGERS), st.integers(0, 99))
def test_integers_over_any_axes(case, kind, dtype, seed):
    shape, axes, keep = case
    numpy_dtype = DType(dtype).numpy()
    x = np.random.default_rng(seed).integers(0, 100, shape, numpy_dtype)
    found = reduced(x, kind=kind, axis=axes, keep=keep)
    if kind in ("sum", "prod"):  # wraps
        exact = np.asarray(getattr(np, kind)(x, axis=axes, keepdims=keep, dtype=numpy_dtype))
        np.testing.assert_array_equal(found, exact)
        assert found.dtype == numpy_dtype
        return
    exact = expected(x, kind, axes, keep)
    if kind == "mean":
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, exact, rtol=1.3e-7)
    else:
        np.testing.assert_array_equal(found, exact.astype(found.dtype))


@pytest.mark.parametrize(
    ("kind", "dtype", "result"),
    [
        ("sum", "f16", "f16"), ("sum", "i8", "i8"), ("mean", "bf16", "bf16"),
        ("mean", "u8", "f32"), ("mean", "i64", "f32"), ("max", "i64", "i64"),
        ("any", "f32", "bool"), ("all", "bool", "bool"), ("argmax", "f64", "i64"),
        ("argmin", "bool", "i64"), ("logsumexp", "f16", "f16"), ("prod", "f64", "f64"),
    ],
)  # fmt: skip
def test_types_of_results(kind, dtype, result):
    assert str(infer(graph_of((2, 3), dtype, kind=kind)).types()["y"]) == f"{result}[]"


def test_shapes_of_results():
    def shape(**settings: Any) -> Shape:
        return infer(graph_of((2, 3, 4), "f32", **settings)).types()["y"].shape

    assert shape() == ()
    assert shape(keep=True) == (1, 1, 1)
    assert shape(axis=1) == (2, 4)
    assert shape(axis=-1, keep=True) == (2, 3, 1)
    assert shape(axis=[0, -1]) == (3,)


def test_the_first_extreme_is_found_and_nan_wins():
    x = np.array([[1, 5, 5, 0, 0], [3, np.nan, 9, np.nan, -1]], np.float32)
    assert reduced(x, kind="argmax", axis=1).tolist() == [1, 1]
    assert reduced(x, kind="argmin", axis=1).tolist() == [3, 1]
    for kind in ("max", "min", "sum", "mean", "prod", "logsumexp"):
        assert np.isnan(reduced(x, kind=kind, axis=1)).tolist() == [False, True]
    assert reduced(x, kind="any", axis=1).tolist() == [True, True]


def test_sums_of_integers_wrap_and_their_means_do_not():
    x = np.array([100, 100, 100], np.int8)
    assert reduced(x).item() == 300 - 256
    assert reduced(x, kind="mean").item() == 100
    large = np.full(4, 2**62, np.int64)
    assert reduced(large).item() == 0
    assert reduced(np.full(4, 2**31 - 1, np.int32), kind="mean").item() == np.float32(2**31 - 1)


def test_sums_of_halves_are_kept_in_f32():
    x = to_dtype(np.full(60_000, 0.5), "f16")
    assert reduced(x).item() == 30_000
    assert reduced(to_dtype(np.full(300, 300.0), "f16"), kind="mean").item() == 300
    assert reduced(to_dtype(np.full(1000, 1.0), "bf16")).item() == 1000


def test_logsumexp_of_infinities():
    x = np.array([[-np.inf, -np.inf], [np.inf, 1], [np.inf, -np.inf], [-np.inf, 2], [800, 800]])
    found = reduced(x, kind="logsumexp", axis=-1)
    np.testing.assert_allclose(found, [-np.inf, np.inf, np.inf, 2, 800 + np.log(2)], rtol=1e-15)


def test_long_rows_and_many_rows():
    rng = np.random.default_rng(0)
    for shape, axis in (((3, 70_001), 1), ((70_001, 3), 0), ((129, 5, 257), (0, 2))):
        x = draw(rng, shape, "f32")
        exact = x.astype(np.float64).sum(axis=axis)
        size = np.abs(x.astype(np.float64)).sum(axis=axis)
        assert (np.abs(reduced(x, axis=axis) - exact) <= 1e-6 * size).all()


# Mistakes --------------------------------------------------------------------------------


def mistake(shape: Shape, dtype: str, **settings: Any) -> tuple[str, str]:
    with pytest.raises(gx.GraphError) as caught:
        infer(graph_of(shape, dtype, **settings))
    [found] = caught.value.diagnostics
    return found.message.removeprefix("reduce 'y': "), found.help


@pytest.mark.parametrize(
    ("dtype", "settings", "message"),
    [
        ("f32", {"axis": 2}, "there is no axis 2 in x of shape [2, 3]"),
        ("f32", {"axis": [0, -3]}, "there is no axis -3 in x of shape [2, 3]"),
        ("f32", {"axis": [1, -1]}, "axis 1 is named twice"),
        ("f32", {"axis": [0.5]}, "axis: expected an integer, found 0.5"),
        ("f32", {"kind": "median"}, ("kind: expected one of sum, mean, prod, max, min, any, all, "
         "argmax, argmin, logsumexp; found 'median'")),
        ("i32", {"kind": "logsumexp"}, "logsumexp of i32"),
        ("bool", {"kind": "sum"}, "the sum of bools"),
        ("bool", {"kind": "mean"}, "the mean of bools"),
    ],
)  # fmt: skip
def test_mistakes(dtype, settings, message):
    assert mistake((2, 3), dtype, **settings)[0] == message


def test_mistakes_help():
    assert mistake((2,), "bool", kind="sum")[1] == "cast(x, i32) is 1 where x is true"
    assert mistake((2,), "i8", kind="logsumexp")[1] == "a map can cast: cast(x, f32)"


def test_mistakes_in_yaml_are_located():
    text = """\
version: 1
name: g
inputs:
  x: {shape: [2, 3], dtype: bool}
nodes:
  y: {op: reduce, x: x, kind: sum}
  z: {op: reduce, x: x, kind: any, axis: [0, 2]}
outputs: {y: y, z: z}
"""
    with pytest.raises(gx.GraphError) as caught:
        infer(loads(text))
    places = [(d.mark.line, d.mark.column) for d in caught.value.diagnostics]
    assert places == [(6, 31), (7, 42)]


# The contract ----------------------------------------------------------------------------


def test_accepts_what_has_rows():
    dense = View.dense("a", TensorType((4, 3, 8), DType.F32))
    turned = View("a", (4, 3, 8), DType.F32, (8, 32, 1))
    window = View("a", (4, 3, 8), DType.F32, (48, 8, 1))
    out = View.dense("out", TensorType((4,), DType.F32))
    attrs = {"kind": "sum", "axis": (1, 2), "keep": False}
    assert REDUCE.accepts({"x": dense}, attrs, out)
    assert REDUCE.accepts({"x": window}, attrs, out)
    assert not REDUCE.accepts({"x": turned}, attrs, out)
    assert not REDUCE.accepts({"x": dense}, attrs, View("out", (4,), DType.F32, (2,)))


def test_axes_that_are_apart_are_packed():
    def labels(axis: Any) -> list[str]:
        graph = graph_of((4, 3, 8), "f32", axis=axis)
        launches = gx.make_plan(graph).launches.values()
        return [launch.command for launch in launches if launch.command != "memcpy"]

    assert len(labels([0, 2])) == 2
    assert len(labels([1, 2])) == len(labels([0, 1])) == len(labels(None)) == 1
