"""The kernels of the built-in ops, through the genuine hip-python, against float64.

They run on the emulator, or on the device that `GRAPHEXEC_HIP_LIBRARY_PATH` names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from exact import UNIT, assert_within
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, Case, cases
from kernel_harness import Applied, Harness, random_array, tensor
from numbers_table import assert_numbers, cast

from graphexec.base.tensor import DType, TensorType
from graphexec.machine.variants import variants
from graphexec.ops.copy import OP as COPY
from graphexec.ops.kit import strides
from graphexec.ops.softmax import OP as SOFTMAX

Array = np.ndarray[Any, Any]

# Relative, and absolute for what is smaller than the smallest normal number.
TOLERANCE = {
    "f16": (2**-10, 2**-23),
    "bf16": (2**-7, 1e-38),
    "f32": (4e-6, 1e-37),
    "f64": (1e-13, 0),
}


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness.open()


@pytest.fixture(scope="module", params=[32, 64], ids=["wave32", "wave64"])
def wavefront(request: pytest.FixtureRequest, harness: Harness) -> int:
    """A size of wavefronts for which every case is compiled."""
    lanes: int = request.param
    harness.use_wavefront(lanes)
    harness.cache().compile(kernel for case in cases() for kernel in case.apply().kernels)
    return lanes


@pytest.fixture
def device(harness: Harness, wavefront: int) -> Harness:
    harness.use_wavefront(wavefront)
    return harness


def operands(applied: Applied, spread: float = 3.0) -> dict[str, Array]:
    return {n: random_array(t, i, spread) for i, (n, t) in enumerate(applied.types.items())}


def assert_close(actual: Array, expected: Array, dtype: DType) -> None:
    relative, absolute = TOLERANCE[dtype.value]
    np.testing.assert_allclose(actual.astype(np.float64), expected, relative, absolute)


def sliced(x: Array, attrs: dict[str, Any]) -> Array:
    """What a copy should give, in the dtype of x."""
    for axis, (start, stop, step) in (attrs["slice"] or {}).items():
        x = x[(slice(None),) * axis + (slice(start, stop, step),)]
    return x.transpose(attrs["permute"]) if attrs["permute"] else x


def assert_copied(applied: Applied, actual: Array, x: Array) -> None:
    into, dtype = applied.type.dtype, applied.types["x"].dtype
    if not (into.is_float and dtype.is_float):
        moved = sliced(x, applied.attrs)
        values = [cast(value, into) for value in moved.reshape(-1).tolist()]
        assert_numbers(actual.reshape(-1), values, into)
        return
    with np.errstate(all="ignore"):
        expected = sliced(x, applied.attrs).astype(applied.type.dtype.numpy())
        np.testing.assert_array_equal(actual.astype(np.float64), expected.astype(np.float64))


# Every case ------------------------------------------------------------------------------


def by_op(name: str) -> Callable[[Any], Any]:
    chosen = [case for case in cases() if case.name.startswith(name)]
    return pytest.mark.parametrize("case", chosen, ids=[c.name.replace(" ", "-") for c in chosen])


@by_op("softmax")
def test_softmax(device: Harness, case: Case) -> None:
    applied = case.apply()
    arrays = operands(applied)
    assert_close(applied.run(device, **arrays), applied.reference(**arrays), applied.type.dtype)


@by_op("example")
def test_example(device: Harness, case: Case) -> None:
    """The ops of docs/adding-an-op.md."""
    applied = case.apply()
    arrays = operands(applied)
    assert_close(applied.run(device, **arrays), applied.reference(**arrays), applied.type.dtype)


@by_op("copy")
def test_copy(device: Harness, case: Case) -> None:
    applied = case.apply()
    x = random_array(applied.types["x"])
    if applied.types["x"].dtype.is_float:
        x.reshape(-1)[:3] = np.nan, np.inf, 0.0
    assert_copied(applied, applied.run(device, x=x), x)


@by_op("affine")
def test_affine(device: Harness, case: Case) -> None:
    applied = case.apply()
    (command,) = [c for c in applied.commands if c.label == "affine"]
    arrays = operands(applied)
    sums, products = command.writes[0], command.reads[2:]  # before the product, or with it
    given = {v.storage: random_array(TensorType(v.shape, v.dtype)) for v in products}
    raw = device.run([command], arrays | given, applied.sizes)[sums.storage]
    actual = raw.view(sums.dtype.numpy()).reshape(sums.shape)
    c, bias = (arrays[n].astype(np.float64) for n in ("c", "bias"))
    expected = np.broadcast_to(applied.attrs["beta"] * c + bias, actual.shape) + sum(given.values())
    assert bool(given) == (sums.dtype.itemsize == 2)
    relative, _ = TOLERANCE[sums.dtype.value]
    np.testing.assert_allclose(actual.astype(np.float64), expected, relative, relative)


@by_op("few rows")
def test_few_rows(device: Harness, case: Case) -> None:
    applied = case.apply()
    arrays = operands(applied, 1.0)
    assert_a_product(applied, arrays, applied.run(device, **arrays))


@by_op("few rows f16")
def test_other_blocks_of_few_rows_give_the_same(device: Harness, case: Case) -> None:
    applied = case.apply()
    (command,) = applied.commands
    arrays = operands(applied, 1.0)
    others = variants(command)
    assert others
    for kernel in others[:: max(1, len(others) // 2)]:
        applied.commands = [replace(command, work=kernel)]
        assert_a_product(applied, arrays, applied.run(device, **arrays))


def assert_a_product(applied: Applied, arrays: dict[str, Array], found: Array) -> None:
    """The sum of K products, in f32, and of what is added, rounded once more when it is stored."""
    magnitudes = {name: abs(array) for name, array in arrays.items()}
    factors = {name: applied.attrs[name] for name in ("alpha", "beta")}
    signs = {name: None if factor is None else abs(factor) for name, factor in factors.items()}
    sized = Applied(applied.op, applied.types, **applied.attrs | signs).reference(**magnitudes)
    error = (applied.types["a"].shape[-1] + 8) * UNIT["f32"] * sized
    assert_within(found, applied.reference(**arrays), applied.type.dtype.value, error)


def test_the_cases_take_every_branch() -> None:
    taken = {(k.entry, name, value) for case in cases() for k in case.apply().kernels
             for name, value in k.defines}  # fmt: skip
    wanted = {
        "softmax_rows": {"ONE_PASS": "01", "CAUSAL": "01", "VECTOR": "1248", "RANK": "12"},
        "softmax_columns": {"ONE_PASS": "01", "VECTOR": "1248", "RANK": "12"},
        "strided_copy": {"VECTOR": "1248", "SRC_VECTOR": "1248", "PER_THREAD": "14"},
        "few_rows": {
            "COLUMNS": "124",
            "SPLIT": "1248",
            "VECTOR": "1248",
            "ADDENDS": "012",
            "WHOLE": "01",
            "BATCHED": "01",
        },
        "few_rows_turned": {"LANES": "248", "VECTOR": "248", "ADDENDS": "012", "RANK": "1"},
        "transposed_copy": {"SRC_VECTOR": "1248", "DST_VECTOR": "1248", "RANK": "12"},
        "pointwise": {"VECTOR": "1248", "COUNT": "123", "RANK": "12"},
    }
    for entry, defines in wanted.items():
        for name, values in defines.items():
            assert {v for e, n, v in taken if (e, n) == (entry, name)} >= set(values), (entry, name)
    pieces = {found for _, _, value in taken for found in re.findall(r"EACH\(.*?, (\d)\)", value)}
    assert pieces >= set("148")


# Values at the edge ----------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", [40, 3000, 40000])
def test_softmax_of_infinities_and_nan(device: Harness, length: int, axis: int) -> None:
    shape = (5, length) if axis else (length, 5)
    applied = Applied(SOFTMAX, {"x": tensor("f32", *shape)}, axis=axis)
    x = random_array(applied.types["x"])
    rows = x if axis else x.T
    rows[0] = -np.inf
    rows[1, length // 2] = np.nan
    rows[2, 7] = np.inf
    rows[3, : length - 1] = -np.inf
    actual = applied.run(device, x=x)
    np.testing.assert_array_equal((actual if axis else actual.T)[0], 0)
    assert_close(actual, applied.reference(x=x), DType.F32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_large_values(device: Harness, dtype: str) -> None:
    applied = Applied(SOFTMAX, {"x": tensor(dtype, 3, 50)})
    x = random_array(applied.types["x"])
    x[0] = x[0] * 100
    x[1] = np.finfo(np.float16).max
    x[2, 1:] = -np.finfo(np.float16).max
    assert_close(applied.run(device, x=x), applied.reference(x=x), DType(dtype))


def test_a_mask_of_minus_infinity_hides_keys(device: Harness) -> None:
    applied = Applied(SOFTMAX, {"x": tensor("f16", 4, 24), "mask": tensor("bf16", 4, 24)})
    arrays = operands(applied)
    arrays["mask"][:] = 0
    arrays["mask"][1, 5:] = arrays["mask"][2] = -np.inf
    actual = applied.run(device, **arrays)
    assert not actual[2].any()
    assert not actual[1, 5:].any()
    assert_close(actual, applied.reference(**arrays), DType.F16)


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_every_16_bit_value_is_cast_right(device: Harness, dtype: str, to: str) -> None:
    applied = Applied(COPY, {"x": tensor(dtype, 1, 1 << 16)}, dtype=DType(to), permute=(1, 0),
                      slice={1: (1, None, 1)})  # fmt: skip
    x = np.arange(1 << 16, dtype=np.uint16).view(DType(dtype).numpy()).reshape(1, -1)
    actual = applied.run(device, x=x)
    if dtype == to:
        np.testing.assert_array_equal(actual.view(np.uint16)[:, 0], np.arange(1, 1 << 16))
    else:
        assert_copied(applied, actual, x)


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_casts_round_to_nearest_even(device: Harness, dtype: str, to: str) -> None:
    half = np.arange(1 << 16, dtype=np.uint16)
    ties = half.view(np.float16).astype(np.float64)[:31743]
    brain = half[:32640].view(DType.BF16.numpy()).astype(np.float64)
    values = np.concatenate([(v[1:] + v[:-1]) / 2 for v in (ties, brain)] + [ties, brain])
    near = np.nextafter(values, np.inf), np.nextafter(values, 0)
    x = np.concatenate([values, *near, [65519.999, 65520.0, 3.3961e38, 1e300, np.inf, np.nan]])
    with np.errstate(over="ignore"):
        x = np.concatenate([x, -x]).astype(DType(dtype).numpy())
    applied = Applied(COPY, {"x": tensor(dtype, x.size)}, dtype=DType(to), slice={0: (1, None, 1)})
    actual = applied.run(device, x=x)
    if (dtype, to) == ("f64", "bf16"):  # ml_dtypes rounds twice, by way of f32
        expected = rounded_to_bf16(x[1:])
        np.testing.assert_array_equal(actual.astype(np.float64), expected)
    else:
        assert_copied(applied, actual, x)


def rounded_to_bf16(x: Array) -> Array:
    """f64 to the nearest bf16, ties to even, as f64."""
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(x)[1], -125) - 8
        y = np.ldexp(np.rint(np.ldexp(x, -exponent)), exponent)
        return np.where(
            np.abs(y) >= 2.0**128, np.copysign(np.inf, x), np.where(np.isfinite(x), y, x)
        )


# Large tensors, without large tensors ----------------------------------------------------

SMALL = [
    Case("rows", SOFTMAX, {"x": tensor("f16", 3, 5, 24), "mask": tensor("f32", 3, 1, 24)}),
    Case("long rows", SOFTMAX, {"x": tensor("f16", 7, 33003)}),
    Case("columns", SOFTMAX, {"x": tensor("f32", 3, 5, 24)}, {"axis": 1}),
    Case("causal", SOFTMAX, {"x": tensor("f32", 3, 5, 24)}, {"causal": True}),
    Case("strided", COPY, {"x": tensor("f16", 6, 5, 4, 8)}, {"permute": (2, 1, 0, 3)}),
    Case("transposed", COPY, {"x": tensor("f16", 6, 5, 40, 72)}, {"permute": (1, 0, 3, 2)}),
]


@pytest.mark.parametrize("case", SMALL, ids=[c.name for c in SMALL])
@pytest.mark.parametrize("limit", ["indices", "grid"])
def test_beyond_the_limits(
    device: Harness, case: Case, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64-bit indices, and kernels that loop because the grid is too small for their blocks."""
    if limit == "indices":
        monkeypatch.setattr(strides, "INDEX_LIMIT", 1)
    else:
        monkeypatch.setattr(import_module("graphexec.ops.kit.launch"), "GRID_LIMIT", 2048)
    applied = case.apply()
    arrays = operands(applied)
    actual = applied.run(device, **arrays)
    if case.op is SOFTMAX:
        assert_close(actual, applied.reference(**arrays), applied.type.dtype)
    else:
        assert_copied(applied, actual, arrays["x"])


@given(st.integers(2, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_division_by_multiplication(extent: int, n: int) -> None:
    multiplier, shift = strides.divisor(extent)
    assert multiplier < 2**32
    for value in (n, n // extent * extent, max(0, n // extent * extent - 1), 2**31 - 1):
        assert (value * multiplier >> 32) >> shift == value // extent


# Any shape -------------------------------------------------------------------------------

EXTENTS = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 24, 33])


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_any_softmax(harness: Harness, data: st.DataObject) -> None:
    harness.use_wavefront(data.draw(st.sampled_from([32, 64])))
    shape = data.draw(st.lists(EXTENTS, min_size=1, max_size=4))
    axis = data.draw(st.integers(0, len(shape) - 1))
    shape[axis] = data.draw(st.sampled_from([1, 3, 8, 24, 77, 200, 1032, 2050]))
    causal = len(shape) > 1 and axis == len(shape) - 1 and data.draw(st.booleans())
    types = {"x": tensor(data.draw(st.sampled_from(DTYPES)), *shape)}
    if data.draw(st.booleans()):
        spread = [data.draw(st.sampled_from([1, extent])) for extent in shape]
        first = data.draw(st.integers(0, len(shape) - 1))
        types["mask"] = tensor(data.draw(st.sampled_from(DTYPES)), *spread[first:])
    applied = Applied(SOFTMAX, types, axis=axis, causal=causal, scale=0.5)
    arrays = operands(applied)
    actual = applied.run(harness, **arrays)
    assert_close(actual, applied.reference(**arrays), applied.type.dtype)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_copy(harness: Harness, data: st.DataObject) -> None:
    harness.use_wavefront(data.draw(st.sampled_from([32, 64])))
    shape = data.draw(st.lists(EXTENTS, min_size=1, max_size=4))
    slices = {}
    for axis, extent in enumerate(shape):
        if data.draw(st.booleans()):
            start = data.draw(st.integers(0, extent - 1))
            slices[axis] = (start, None, data.draw(st.sampled_from([1, 2, 3, -1, -2])))
    permute = tuple(data.draw(st.permutations(range(len(shape)))))
    dtype, to = (data.draw(st.sampled_from([d.value for d in DType])) for _ in range(2))
    applied = Applied(
        COPY, {"x": tensor(dtype, *shape)}, slice=slices or None, permute=permute, dtype=DType(to)
    )
    x = random_array(applied.types["x"])
    assert_copied(applied, applied.run(harness, x=x), x)
