"""Dtypes, tensor types, and strided windows, against NumPy's own strides."""

from __future__ import annotations

from itertools import product
from math import prod
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from graphexec.base.tensor import DType, TensorType, View, contiguous_strides, merge_axes
from graphexec.ir.operand import FLOATS

extents = st.integers(1, 4)
shapes = st.lists(extents, max_size=5).map(tuple)
dtypes = st.sampled_from(list(DType))


def indices(view: View) -> np.ndarray:
    """The index in the storage of each element of the view."""
    low, high = (b // view.dtype.itemsize for b in view.byte_range())
    storage = np.arange(low, high)
    strides = tuple(s * storage.itemsize for s in view.strides)
    return as_strided(storage[view.offset - low :], view.shape, strides)


def dense(shape: tuple[int, ...], dtype: DType = DType.F32) -> View:
    return View.dense("t", TensorType(shape, dtype))


@st.composite
def windows(draw: st.DrawFn) -> View:
    """Views of any non-negative strides, broadcast axes (stride 0) among them."""
    shape = draw(shapes)
    strides = tuple(draw(st.integers(0, 9)) for _ in shape)
    return View("t", shape, draw(dtypes), strides, draw(st.integers(0, 20)))


def test_dtypes_have_the_size_of_numpys() -> None:
    assert " ".join(DType) == "f16 bf16 f32 f64 i8 u8 i32 i64 bool"
    for dtype in DType:
        assert dtype.itemsize == dtype.numpy().itemsize
    assert DType.BF16.numpy().name == "bfloat16"


def test_accumulators() -> None:
    assert [d.accumulator for d in FLOATS] == [DType.F32, DType.F32, DType.F32, DType.F64]


def test_kinds() -> None:
    for dtype in DType:
        kind = dtype.numpy().kind
        assert dtype.is_integer == (kind in "iu")
        assert dtype.is_float == (kind in "fV")
        assert DType.of(dtype.numpy()) is dtype


def test_tensor_type() -> None:
    type = TensorType((2, 3, 5), DType.BF16)
    assert (type.elements, type.nbytes, str(type)) == (30, 60, "bf16[2, 3, 5]")
    assert TensorType((), DType.F64).nbytes == 8
    assert TensorType((2**40, 2**30), DType.F64).nbytes == 2**73  # exact past int64


@given(shapes)
def test_contiguous_strides_are_numpys(shape: tuple[int, ...]) -> None:
    strides = np.empty(shape, np.int8).strides
    own = contiguous_strides(shape)
    # NumPy's strides of axes of extent 1 mean nothing.
    assert all(e == 1 or o == s for e, o, s in zip(shape, own, strides, strict=True))


@given(shapes, dtypes)
def test_a_dense_view_covers_its_tensor(shape: tuple[int, ...], dtype: DType) -> None:
    view = dense(shape, dtype)
    assert view.is_dense
    assert view.byte_range() == (0, TensorType(shape, dtype).nbytes)
    assert np.array_equal(indices(view), np.arange(prod(shape)).reshape(shape))


@given(windows())
def test_byte_range_is_first_and_past_last_byte(view: View) -> None:
    touched = [
        view.offset + sum(i * s for i, s in zip(index, view.strides, strict=True))
        for index in product(*map(range, view.shape))
    ]
    size = view.dtype.itemsize
    assert view.byte_range() == (min(touched) * size, (max(touched) + 1) * size)


def test_byte_range_of_a_view_that_runs_backwards() -> None:
    view = View("t", (4, 2), DType.F16, (-2, 1), offset=6)
    assert view.byte_range() == (0, 16)


@given(windows())
def test_is_dense_iff_elements_follow_each_other(view: View) -> None:
    walked = indices(view).ravel()
    follow = np.array_equal(walked, walked[0] + np.arange(view.elements))
    assert view.is_dense == follow


@given(windows(), st.randoms(use_true_random=False))
def test_transpose_is_numpys(view: View, random: Random) -> None:
    axes = list(range(len(view.shape)))
    random.shuffle(axes)
    turned = view.transpose(tuple(axes))
    assert np.array_equal(indices(turned), indices(view).transpose(axes))
    assert turned.byte_range() == view.byte_range()


@given(shapes, st.data())
def test_broadcast_is_numpys(shape: tuple[int, ...], data: st.DataObject) -> None:
    target = tuple(data.draw(st.lists(extents, max_size=2)))
    target += tuple(data.draw(extents) if e == 1 else e for e in shape)
    view = dense(shape).broadcast_to(target)
    assert view.shape == target
    assert np.array_equal(indices(view), np.broadcast_to(indices(dense(shape)), target))
    assert view.byte_range() == dense(shape).byte_range()
    assert view.is_dense == (prod(target) == prod(shape))


@given(shapes, st.randoms(use_true_random=False))
def test_reshape_of_a_dense_view(shape: tuple[int, ...], random: Random) -> None:
    other = list(shape)
    random.shuffle(other)
    view = View("t", shape, DType.F16, contiguous_strides(shape), offset=7)
    seen = view.reshape(tuple(other))
    assert np.array_equal(indices(seen), indices(view).reshape(other))


@given(shapes, st.data())
def test_merged_axes_walk_the_same_elements(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    # Strides that can be merged now and then: those of permuted or broadcast dense tensors.
    sets = []
    for _ in range(count):
        strides = list(contiguous_strides(shape))
        for axis in range(len(shape)):
            if data.draw(st.booleans()):
                strides[axis] = data.draw(st.sampled_from([0, 1, 2, strides[axis]]))
        sets.append(tuple(strides))
    merged, merged_sets = merge_axes(shape, *sets)
    assert prod(merged) == prod(shape)
    assert 1 not in merged
    for before, after in zip(sets, merged_sets, strict=True):
        old = indices(View("t", shape, DType.F32, before)).ravel()
        new = indices(View("t", merged, DType.F32, after)).ravel()
        assert np.array_equal(old, new)
    # No two neighbours are left that all sets walk as one.
    for axis in range(len(merged) - 1):
        assert any(s[axis] != merged[axis + 1] * s[axis + 1] for s in merged_sets)


def test_merge_axes_examples() -> None:
    assert merge_axes((2, 3, 4), (12, 4, 1)) == ((24,), [(1,)])
    assert merge_axes((2, 3, 4), (12, 4, 1), (0, 0, 1)) == ((6, 4), [(4, 1), (0, 1)])
    assert merge_axes((2, 1, 4), (4, 99, 1)) == ((8,), [(1,)])
    assert merge_axes((1, 1), (5, 7)) == ((), [()])


@pytest.mark.parametrize("value", ["f8", "F32", "float32", ""])
def test_other_dtypes_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is not a valid DType"):
        DType(value)
