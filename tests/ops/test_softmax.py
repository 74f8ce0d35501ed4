"""softmax: what it infers, every mistake, and its numbers on the CPU against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import DTYPES, UNIT, Array, assert_within, draw, run, to_dtype, wide
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.graph.infer import infer

Shape = tuple[int, ...]


def graph_of(arrays: dict[str, tuple[Shape, str]], **attrs: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, (shape, dtype) in arrays.items():
        graph.input(name, shape, dtype)
    graph.softmax(**{name: name for name in arrays}, **attrs, name="y")
    graph.output("y")
    return graph


def inferred(arrays: dict[str, tuple[Shape, str]], **attrs: Any) -> TensorType:
    return infer(graph_of(arrays, **attrs)).types()["y"]


def dtype_of(array: Array) -> str:
    return next(d for d in DTYPES if gx.DType(d).numpy() == array.dtype)


def give(x: Array, mask: Array | None = None, **attrs: Any) -> Array:
    arrays = {"x": x} if mask is None else {"x": x, "mask": mask}
    types = {name: (array.shape, dtype_of(array)) for name, array in arrays.items()}
    return run(graph_of(types, **attrs), arrays)["y"]


def exact(
    x: Array, mask: Array | None = None, axis: int = -1, scale: float = 1.0, causal: bool = False
) -> tuple[Array, float]:
    """The definition, row by row in float64, and the largest finite |z|."""
    z = wide(x) * scale
    if mask is not None:
        z = z + np.broadcast_to(wide(mask), z.shape)
    if causal:
        queries, keys = z.shape[-2:]
        for query in range(queries):
            z[..., query, max(0, query + keys - queries + 1) :] = -np.inf
    rows = np.moveaxis(z, axis, -1).copy()
    for index in np.ndindex(rows.shape[:-1]):
        row = rows[index]
        top = row.max()
        if top == -np.inf:
            row[:] = 0
            continue
        powers = np.exp(row - top)
        row[:] = powers / powers.sum()
    largest = np.abs(z[np.isfinite(z)]).max(initial=0.0)
    return np.moveaxis(rows, -1, axis), float(largest)


def check(x: Array, mask: Array | None = None, **attrs: Any) -> Array:
    found = give(x, mask, **attrs)
    expected, largest = exact(x, mask, **attrs)
    dtype = dtype_of(x)
    unit = UNIT["f64" if dtype == "f64" else "f32"]
    length = x.shape[attrs.get("axis", -1)]
    # An error of z is an equal relative error of exp(z); z - max z is below 2 · largest.
    assert_within(found, expected, dtype, unit * (8 * largest + length + 16) * expected)
    return found


# Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (2, 1, 4, 3)])
def test_the_result_has_the_type_of_x(shape: Shape, dtype: str) -> None:
    assert inferred({"x": (shape, dtype)}) == TensorType(shape, gx.DType(dtype))
    assert inferred({"x": (shape, dtype), "mask": ((1,), "f64")}).dtype == gx.DType(dtype)


X = {"x": ((2, 3, 4), "f32")}
ERRORS: dict[str, tuple[dict[str, tuple[Shape, str]], dict[str, Any], str]] = {
    "axis too large": (X, {"axis": 3}, "there is no axis 3 in f32[2, 3, 4]"),
    "axis too small": (X, {"axis": -4}, "there is no axis -4 in f32[2, 3, 4]"),
    "scalar": ({"x": ((), "f32")}, {}, "there is no axis -1 in f32[]"),
    "axis type": (X, {"axis": 0.5}, "axis: expected an integer, found 0.5"),
    "mask shape": ({**X, "mask": ((3, 3), "f32")}, {},
                   "mask of shape [3, 3] does not broadcast to x of shape [2, 3, 4]"),
    "mask rank": ({**X, "mask": ((1, 2, 3, 4), "f32")}, {},
                  "mask of shape [1, 2, 3, 4] does not broadcast to x"),
    "where from": ({**X, "mask": ((3,), "f32")}, {}, "'mask' is f32[3] (input)"),
    "causal rank": ({"x": ((3,), "f32")}, {"causal": True},
                    "causal needs queries in axis -2 and the softmax along axis -1; x is f32[3]"),
    "causal axis": (X, {"causal": True, "axis": 1}, "causal needs queries in axis -2"),
    "scale": (X, {"scale": float("inf")}, "scale: "),
    "causal type": (X, {"causal": "yes"}, "causal: expected true or false, found 'yes'"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    arrays, attrs, message = ERRORS[case]
    with pytest.raises(gx.GraphError) as caught:
        inferred(arrays, **attrs)
    assert len(caught.value.diagnostics) == 1
    assert "softmax 'y'" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("operand", ["x", "mask"])
def test_operands_in_host_memory_are_refused(operand: str) -> None:
    graph = gx.Graph()
    graph.input("x", (3, 3))
    graph.input("mask", (3, 3))
    graph.copy(operand, to="host", name="parked")
    operands = {n: "parked" if n == operand else n for n in ("x", "mask")}
    graph.output(graph.softmax(**operands))
    with pytest.raises(gx.GraphError, match=f"operand '{operand}' is in host memory") as caught:
        infer(graph)
    assert "copy it with `to: device`" in str(caught.value)


# Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [-4, -3, -2, -1, 0, 1, 2, 3])
def test_any_axis(axis: int, dtype: str) -> None:
    x = draw(np.random.default_rng(1), (2, 3, 5, 4), dtype, 2)
    check(x, axis=axis)
    check(x, axis=axis, scale=-0.25)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1), (4, 1), (1, 4)])
def test_small_shapes(shape: Shape, dtype: str) -> None:
    x = draw(np.random.default_rng(2), shape, dtype, 3)
    for axis in range(len(shape)):
        found = check(x, axis=axis)
        if shape[axis] == 1:
            assert np.all(wide(found) == 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_logits(dtype: str) -> None:
    largest = 60000.0 if dtype == "f16" else 1e30
    check(to_dtype([[largest, -largest, 0], [-largest, -largest, -largest]], dtype))
    check(to_dtype([[largest, largest, 0]], dtype))
    check(to_dtype([[100.0, 99.0, -100.0], [-100.0, -101.0, -300.0]], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_shift_changes_nothing(dtype: str) -> None:
    x = to_dtype([[1.0, 2.0, 4.0]], dtype)
    assert np.array_equal(check(x), check(x + to_dtype(32.0, dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_minus_infinity_takes_part_with_zero(dtype: str) -> None:
    found = check(to_dtype([[-np.inf, 1.0, 1.0], [2.0, -np.inf, -np.inf]], dtype))
    assert wide(found).tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_masked_entirely_are_zeros(dtype: str) -> None:
    x = draw(np.random.default_rng(3), (3, 4), dtype)
    mask = np.zeros((3, 4))
    mask[1] = -np.inf
    found = check(x, to_dtype(mask, "f32"))
    assert np.all(wide(found)[1] == 0)
    assert np.allclose(wide(found)[[0, 2]].sum(-1), 1, atol=4 * UNIT[dtype])
    assert np.all(wide(check(to_dtype(np.full((2, 3), -np.inf), dtype))) == 0)
    assert np.all(wide(check(x, to_dtype(-np.inf, "f16"), axis=0)) == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (2, 5), (1, 5), (5, 2), (3, 1), (1, 1)])
def test_causal(queries: int, keys: int, dtype: str) -> None:
    """Aligned to the last key; with more queries than keys the first ones see nothing."""
    x = draw(np.random.default_rng(4), (2, 3, queries, keys), dtype, 2)
    found = wide(check(x, causal=True, scale=0.5))
    for query in range(queries):
        seen = query + keys - queries
        assert np.all(found[..., query, max(seen + 1, 0) :] == 0)
        assert np.all(found[..., query, : max(seen + 1, 0)] > 0)
    check(x, causal=True, axis=3)
    check(x, to_dtype([[0.5]], "f32"), causal=True)


@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("mask_dtype", DTYPES)
def test_every_pair_of_dtypes(x_dtype: str, mask_dtype: str) -> None:
    rng = np.random.default_rng(5)
    mask = draw(rng, (3, 4), mask_dtype, 2)
    mask[0, 1] = -np.inf
    check(draw(rng, (2, 3, 4), x_dtype), mask, scale=1.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1), (1, 1, 1), (3, 4),
                                   (3, 1), (4,), (1,), ()])  # fmt: skip
def test_masks_broadcast(shape: Shape, axis: int) -> None:
    rng = np.random.default_rng(6)
    mask = draw(rng, shape, "f32", 2)
    check(draw(rng, (2, 3, 4), "f32"), mask, axis=axis, scale=2)


@pytest.mark.parametrize("shape", [(5,), (1,), ()])
def test_a_vector_with_a_mask(shape: Shape) -> None:
    rng = np.random.default_rng(7)
    check(draw(rng, (5,), "f32"), draw(rng, shape, "f32"))


@pytest.mark.parametrize("axis", [0, 1])
def test_the_first_axis_with_a_mask(axis: int) -> None:
    rng = np.random.default_rng(8)
    check(draw(rng, (5, 3), "f32"), draw(rng, (5, 1), "f32"), axis=axis)


def test_a_mask_outside_f32_is_as_good_as_minus_infinity() -> None:
    found = give(to_dtype([[1.0, 1.0, 1.0]], "f32"), to_dtype([0.0, 0.0, -1e300], "f64"))
    assert found.tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_spoil_their_row_only(value: float, dtype: str) -> None:
    """exp(inf - inf) is NaN: there is no limit."""
    x = draw(np.random.default_rng(9), (3, 4), dtype)
    x[1, 2] = value
    found = wide(give(x))
    assert np.isnan(found[1]).any()
    assert np.allclose(found[[0, 2]], exact(x[[0, 2]])[0], atol=2 * UNIT[dtype])


def test_scale_zero_weighs_all_alike() -> None:
    found = check(draw(np.random.default_rng(10), (3, 4), "f32"), scale=0)
    assert np.all(found == 0.25)


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize(("shape", "axis"), [
    ((5, 70000), 1), ((70000, 3), 0), ((300, 500), 1), ((40, 7, 900), 1), ((3, 50, 41, 37), 2),
])  # fmt: skip
def test_sizes_of_several_blocks(shape: Shape, axis: int, dtype: str) -> None:
    rng = np.random.default_rng(11)
    x = draw(rng, shape, dtype, 2)
    z = wide(x)
    powers = np.exp(z - z.max(axis, keepdims=True))
    expected = powers / powers.sum(axis, keepdims=True)
    error = UNIT["f32"] * (np.sqrt(shape[axis]) * 4 + 100) * expected
    assert_within(give(x, axis=axis), expected, dtype, error)


def test_causal_rows_of_several_blocks() -> None:
    x = draw(np.random.default_rng(12), (2, 300, 401), "f32")
    mask = draw(np.random.default_rng(13), (2, 1, 401), "f16")
    check(x, mask, causal=True)


extents = st.integers(1, 5)


@st.composite
def calls(draw_from: st.DrawFn) -> tuple[Array, Array | None, dict[str, Any]]:
    shape = tuple(draw_from(st.lists(extents, min_size=1, max_size=4)))
    rank = len(shape)
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32 - 1)))
    x = draw(rng, shape, draw_from(st.sampled_from(DTYPES)), draw_from(st.sampled_from([1, 10])))
    x[rng.random(shape) < draw_from(st.sampled_from([0, 0.5]))] = -np.inf
    mask = None
    if draw_from(st.booleans()):
        kept = shape[draw_from(st.integers(0, rank)) :]
        of_mask = tuple(draw_from(st.sampled_from([1, e])) for e in kept)
        mask = draw(rng, of_mask, draw_from(st.sampled_from(DTYPES)))
        mask[rng.random(of_mask) < 0.3] = -np.inf
    attrs: dict[str, Any] = {"axis": draw_from(st.integers(-rank, rank - 1)),
                             "scale": draw_from(st.sampled_from([1.0, 0.5, 3]))}  # fmt: skip
    if rank >= 2 and attrs["axis"] in (-1, rank - 1):
        attrs["causal"] = draw_from(st.booleans())
    return x, mask, attrs


@settings(max_examples=120, deadline=None)
@given(calls())
def test_any_call(call: tuple[Array, Array | None, dict[str, Any]]) -> None:
    x, mask, attrs = call
    check(x, mask, **attrs)
