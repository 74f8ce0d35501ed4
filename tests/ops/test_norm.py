"""norm: layer and RMS normalization against the definition in float64, and every mistake."""

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
from graphexec.ops.norm import OP as NORM

Shape = tuple[int, ...]


def graph_of(arrays: dict[str, Array], **settings: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, array in arrays.items():
        graph.input(name, array.shape, array.dtype)
    graph.output(y=graph.norm(**{name: name for name in arrays}, name="y", **settings))
    return graph


def normalized(arrays: dict[str, Array], **settings: Any) -> Array:
    return run(graph_of(arrays, **settings), arrays)["y"]


def expected(
    arrays: dict[str, Array], kind: str = "layer", eps: float = 1e-5, axis: int = -1
) -> Array:
    """The definition, in float64."""
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    x = wide["x"]
    mean = x.mean(axis=axis, keepdims=True) if kind == "layer" else 0.0
    variance = ((x - mean) ** 2).mean(axis=axis, keepdims=True)
    along = [1] * x.ndim
    along[axis] = x.shape[axis]
    y = (x - mean) / np.sqrt(variance + eps)
    y = y * wide["weight"].reshape(along) if "weight" in wide else y
    return y + wide["bias"].reshape(along) if "bias" in wide else y


def bound_of(arrays: dict[str, Array], exact: Array, **settings: Any) -> Array:
    attrs = {a.name: a.default for a in NORM.attributes} | settings
    known = {n: Approximate(a.astype(np.float64), DType.of(a.dtype)) for n, a in arrays.items()}
    types = {n: TensorType(a.shape, DType.of(a.dtype)) for n, a in arrays.items()}
    found = NORM.error(known, attrs, NORM.infer(types, attrs), exact)
    assert found.shape == exact.shape
    return found


@st.composite
def cases(draw: Any) -> tuple[Shape, int]:
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = draw(st.integers(2, 40))
    return tuple(shape), axis


@given(cases(), st.sampled_from(["layer", "rms"]), st.sampled_from(DTYPES),
       st.sets(st.sampled_from(["weight", "bias"])), st.integers(0, 99))  # fmt: skip
def test_any_shape_and_axis(case, kind, dtype, given_, seed):
    shape, axis = case
    rng = np.random.default_rng(seed)
    arrays = {"x": draw(rng, shape, dtype, 3.0)}
    arrays |= {n: draw(rng, (shape[axis],), dtype) for n in ("weight", "bias") if n in given_}
    found = normalized(arrays, kind=kind, axis=axis)
    exact = expected(arrays, kind, axis=axis)
    bound = bound_of(arrays, exact, kind=kind, axis=axis)
    assert (np.abs(found.astype(np.float64) - exact) <= 2 * bound).all()
    unit = {"f16": 2**-9, "bf16": 2**-6, "f32": 1e-4, "f64": 1e-12}[dtype]
    spread = np.abs(exact).max() + 1
    assert np.median(bound) <= unit * spread * 10


@pytest.mark.parametrize("mean", [1e3, 1e4])
def test_the_variance_does_not_cancel(mean):
    x = (np.random.default_rng(0).standard_normal((4, 256)) + mean).astype(np.float32)
    found = normalized({"x": x})
    assert np.abs(found - expected({"x": x})).max() < mean * 1e-6


def test_halves_are_computed_in_f32():
    x = to_dtype(np.linspace(-300, 300, 64).reshape(2, 32), "f16")  # squares overflow f16
    found = normalized({"x": x}, kind="rms")
    exact = expected({"x": x}, "rms")
    assert np.abs(found.astype(np.float64) - exact).max() <= 2**-11 * np.abs(exact).max() * 1.01


def test_weights_may_be_wider_than_x():
    rng = np.random.default_rng(1)
    arrays = {"x": draw(rng, (3, 8), "bf16"), "weight": draw(rng, (8,), "f32")}
    found = normalized(arrays, kind="rms")
    assert found.dtype == arrays["x"].dtype
    exact = expected(arrays, "rms")
    assert np.abs(found.astype(np.float64) - exact).max() <= 2**-8 * np.abs(exact).max()


def test_operands_in_any_order():
    rng = np.random.default_rng(2)
    arrays = {"x": draw(rng, (3, 8), "f16"), "w": draw(rng, (8,), "f32"),
              "b": draw(rng, (8,), "f32")}  # fmt: skip
    text = """\
version: 1
name: g
inputs:
  x: {shape: [3, 8], dtype: f16}
  w: {shape: [8], dtype: f32}
  b: {shape: [8], dtype: f32}
nodes:
  y: {op: norm, bias: b, weight: w, x: x}
outputs: {y: y}
"""
    found = run(loads(text), arrays)["y"]
    named = {"x": arrays["x"], "weight": arrays["w"], "bias": arrays["b"]}
    np.testing.assert_array_equal(found, normalized(named))
    assert found.dtype == np.float16


def test_rows_of_equal_numbers_are_zeros_and_those_of_nan_are_nan():
    x = np.array([[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [1.0, np.nan, 2.0]], np.float32)
    found = normalized({"x": x})
    np.testing.assert_array_equal(found[:2], 0.0)
    assert np.isnan(found[2]).all()


def test_eps_is_added_to_the_variance():
    x = np.array([[3.0, -3.0]], np.float32)
    np.testing.assert_allclose(normalized({"x": x}, eps=16.0), [[0.6, -0.6]], rtol=1e-6)


def mistake(shape: Shape, **settings: Any) -> str:
    graph = gx.Graph("g")
    graph.input("x", shape)
    operands = {"x": "x"}
    for name in ("weight", "bias"):
        if name in settings:
            graph.input(name, settings.pop(name))
            operands[name] = name
    graph.output(y=graph.norm(**operands, name="y", **settings))
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    [found] = caught.value.diagnostics
    return found.message.removeprefix("norm 'y': ")


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((4, 1), {}, "axis -1 of x has extent 1: there is nothing to normalize"),
        ((1, 4), {"axis": 0}, "axis 0 of x has extent 1: there is nothing to normalize"),
        ((4, 8), {"axis": 2}, "there is no axis 2 in x of shape [4, 8]"),
        ((), {}, "there is no axis -1 in x of shape []"),
        ((4, 8), {"weight": (4,)}, "weight has the shape [4]; axis -1 of x has extent 8"),
        ((4, 8), {"bias": (4,), "axis": 1}, "bias has the shape [4]; axis 1 of x has extent 8"),
        ((4, 8), {"eps": -1e-5}, "eps must not be negative, found -1e-05"),
        ((4, 8), {"eps": 1e39}, "eps: 1e+39 is infinite in f32, the type that is computed in"),
        ((4, 8), {"kind": "group"}, "kind: expected one of layer, rms; found 'group'"),
    ],
)
def test_mistakes(shape, settings, message):
    assert mistake(shape, **settings) == message


def test_integers_are_refused():
    graph = gx.Graph("g")
    graph.output(y=graph.norm(graph.input("x", (2, 3), "i32"), name="y"))
    with pytest.raises(gx.GraphError, match=r"'x' is i32\[2, 3\], but its dtype must be f16"):
        infer(graph)


def test_a_weight_of_two_axes_is_refused():
    assert "weight" in mistake((4, 8), weight=(1, 8))


def test_accepts_windows_with_neighbours_along_the_last_axis():
    dense = View.dense("a", TensorType((4, 6), DType.F32))
    window = View("a", (4, 6), DType.F32, (12, 1), 6)
    turned = View("a", (4, 6), DType.F32, (1, 4))
    weight = View.dense("w", TensorType((6,), DType.F32))
    attrs = {"axis": -1}
    assert NORM.accepts({"x": window, "weight": weight}, attrs, dense)
    assert NORM.accepts({"x": dense}, attrs, window)
    assert not NORM.accepts({"x": turned}, attrs, dense)
    assert not NORM.accepts({"x": dense, "weight": View("w", (6,), DType.F32, (2,))}, attrs, dense)
