"""Generated kernels with reductions, against float64 and Python's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from generated_bodies import EVERY, FLOATS, INTEGERS, Run, body_of, dense, draw, window
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Harness
from numbers_table import array, edges, wrapped

from graphexec.base.tensor import DType, TensorType
from graphexec.ir.body import Body, Value, Writer
from graphexec.ops.kit import strides
from graphexec.ops.kit.generate import kernel_of
from graphexec.ops.kit.generate.row_blocks import Rows

Array = np.ndarray[Any, Any]

LENGTHS = (1, 2, 31, 32, 33, 1000, 4097)
TOLERANCE = {DType.F16: 2**-10, DType.BF16: 2**-7, DType.F32: 4e-6, DType.F64: 1e-13}


@pytest.fixture(autouse=True)
def made_anew() -> Iterator[None]:
    """Kernels are kept, but tests change what they are made by."""
    kernel_of.cache_clear()
    yield
    kernel_of.cache_clear()


@pytest.fixture(scope="module")
def opened() -> Harness:
    return Harness.open()


@pytest.fixture(params=[32, 64], ids=["wave32", "wave64"])
def harness(request: pytest.FixtureRequest, opened: Harness) -> Harness:
    opened.use_wavefront(request.param)
    return opened


@pytest.fixture
def device(opened: Harness) -> Harness:
    opened.use_wavefront(64)
    return opened


@pytest.fixture(params=["registers", "memory"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Rows of more than a few elements are held in registers, or read in every pass."""
    if request.param == "memory":
        module = import_module("graphexec.ops.kit.generate.row_blocks")
        for name in ("HELD", "HELD_BY_MANY"):
            monkeypatch.setattr(module, name, 0)
        for name in ("MOST_THREADS", "LONG_ROW_THREADS", "COLUMN_THREADS"):
            monkeypatch.setattr(module, name, 64)
    held: str = request.param
    return held


def norm(length: int) -> Callable[..., Value]:
    """Layer normalization with weight and bias."""

    def make(w: Writer, x: Value, weight: Value, bias: Value) -> Value:
        centred = x - w.reduce("sum", x) / float(length)
        variance = w.reduce("sum", centred * centred) / float(length)
        return w.cast(centred * w.rsqrt(variance + 1e-5) * weight + bias, x.dtype)

    return make


def normalized(x: Array, weight: Array, bias: Array) -> Array:
    x, weight, bias = (a.astype(np.float64) for a in (x, weight, bias))
    x = x - x.mean(-1, keepdims=True)
    return np.asarray(
        x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight + bias
    )  # fmt: skip


def softmax(w: Writer, x: Value) -> Value:
    power = w.floating("exp", x - w.reduce("max", x))
    return power / w.reduce("sum", power)


def assert_close(actual: Array, expected: Array, dtype: DType) -> None:
    bound = TOLERANCE[dtype] * np.maximum(np.abs(expected), 1.0)
    np.testing.assert_array_less(np.abs(actual.astype(np.float64) - expected), bound)


# Rows of every length --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("length", LENGTHS)
def test_layer_norm(harness: Harness, length: int, dtype: DType) -> None:
    shape = (5, length)
    body = body_of([dtype] * 3, norm(length))
    reads = [window("x", dtype, shape)]
    reads += [window(name, dtype, shape, broadcast=(0,)) for name in ("w", "b")]
    x = draw(TensorType(shape, dtype), 0)
    weight, bias = (draw(TensorType((length,), dtype), seed) for seed in (1, 2))
    given = [x, np.broadcast_to(weight, shape), np.broadcast_to(bias, shape)]
    (actual,) = Run(body, reads, [window("y", dtype, shape)])(harness, given)
    assert_close(actual, normalized(*given), dtype)


def test_weights_of_long_rows_are_loaded_late(device: Harness) -> None:
    """Registers hold the row; what all rows share comes from a cache."""
    shape = (2, 16384)
    body = body_of([DType.F32] * 3, norm(shape[1]))
    reads = [window("x", DType.F32, shape)]
    reads += [window(name, DType.F32, shape, broadcast=(0,)) for name in ("w", "b")]
    given = [draw(TensorType(shape, DType.F32), 0)]
    given += [np.broadcast_to(draw(TensorType(shape[1:], DType.F32), n), shape) for n in (1, 2)]
    run = Run(body, reads, [window("y", DType.F32, shape)])
    assert "base" not in run.kernel.text
    assert "const Vector<f32, 4> a1 =" in run.kernel.text
    assert_close(run(device, given)[0], normalized(*given), DType.F32)


@pytest.mark.parametrize("length", [33, 1000, 40003])
def test_softmax(device: Harness, place: str, length: int) -> None:
    body = body_of([DType.F32], softmax)
    x = draw(TensorType((3, length), DType.F32), 0)
    run = dense(body, x.shape)
    (actual,) = run(device, [x])
    power = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    np.testing.assert_allclose(actual, power / power.sum(-1, keepdims=True), 4e-6, 1e-30)
    fits = length == 33 or (place == "registers" and length == 1000)
    assert ("] = t" in run.kernel.text) == fits  # the exponentials are kept


@pytest.mark.parametrize("dtype", [DType.F16, DType.F32])
@pytest.mark.parametrize("shape", [(4, 50, 40), (1, 3, 9), (2, 300, 33), (1, 2000, 8)])
def test_columns(
    device: Harness, place: str, shape: tuple[int, ...], dtype: DType
) -> None:  # fmt: skip
    """A row's elements lie apart; neighbouring rows lie side by side."""
    length = shape[1]
    turned = (shape[0], shape[2], length)
    body = body_of([dtype] * 3, norm(length))
    order = (0, 2, 1)
    reads = [window("x", dtype, turned, order=order)]
    reads += [window(name, dtype, turned, broadcast=(0, 1)) for name in ("w", "b")]
    x = draw(TensorType(turned, dtype), 0)
    given = [x, *(np.broadcast_to(draw(TensorType((length,), dtype), n), turned) for n in (1, 2))]
    run = Run(body, reads, [window("y", dtype, turned, order=order)])
    assert "merged_column" in run.kernel.text
    if length >= 300:
        assert ("base" in run.kernel.text) == (place == "memory")
    assert_close(run(device, given)[0], normalized(*given), dtype)


def test_a_step_through_memory(device: Harness) -> None:
    """Neither rows nor columns are dense."""
    shape = (6, 5, 40)
    body = body_of([DType.F32] * 3, norm(40))
    reads = [
        window("x", DType.F32, shape, order=(2, 0, 1), steps=(1, 2, 1), offset=3),
        window("w", DType.F32, shape, steps=(1, 1, -2)),
        window("b", DType.F32, shape, broadcast=(1,), steps=(3, 1, 1), offset=1),
    ]
    given = [draw(TensorType(shape, DType.F32), seed) for seed in (0, 1)]
    bias = draw(TensorType((6, 1, 40), DType.F32), 2)
    given.append(np.broadcast_to(bias, shape))
    out = window("y", DType.F32, shape, order=(1, 0, 2), offset=5)
    (actual,) = Run(body, reads, [out])(device, given)
    assert_close(actual, normalized(*given), DType.F32)


# Every reduction -------------------------------------------------------------------------

NUMERIC = ("sum", "prod", "min", "max", "argmin", "argmax", "any", "all")


@pytest.mark.parametrize("length", [1, 31, 300])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_reductions_of_integers(
    device: Harness, place: str, dtype: DType, length: int
) -> None:  # fmt: skip
    body = body_of([dtype], lambda w, x: tuple(w.reduce(kind, x) for kind in NUMERIC))
    numbers = np.random.default_rng(length).choice(array(edges(dtype), dtype), (40, length))
    numbers[1] = numbers[0, 0]
    actual = dense(body, numbers.shape, reduced=True)(device, [numbers])
    for row, values in enumerate(numbers.tolist()):
        expected = [
            wrapped(sum(values), dtype), wrapped(math.prod(values), dtype), min(values),
            max(values), values.index(min(values)), values.index(max(values)), any(values),
            all(values),
        ]  # fmt: skip
        assert [a[row, 0].item() for a in actual] == expected


def first(values: list[float], extreme: Callable[[list[float]], float]) -> int:
    bad = [n for n, v in enumerate(values) if math.isnan(v)]
    return bad[0] if bad else values.index(extreme(values))


@pytest.mark.parametrize("length", [1, 33, 1000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_extremes_of_floats(
    device: Harness, place: str, dtype: DType, length: int
) -> None:  # fmt: skip
    kinds = ("min", "max", "argmin", "argmax", "any", "all")
    body = body_of([dtype], lambda w, x: tuple(w.reduce(kind, x) for kind in kinds))
    x = draw(TensorType((9, length), dtype), 5)
    x[1, length // 2 :] = np.nan
    x[2], x[3], x[4] = np.inf, -np.inf, 0
    x[5, -1], x[6, -1] = np.inf, np.nan
    x[7, ::2] = x[7].max()
    actual = dense(body, x.shape, reduced=True)(device, [x])
    for row, values in enumerate(x.astype(np.float64).tolist()):
        bad = any(math.isnan(v) for v in values)
        extremes = [math.nan] * 2 if bad else [min(values), max(values)]
        found = [float(a[row, 0]) for a in actual]
        np.testing.assert_array_equal(found[:2], extremes)
        assert found[2:] == [first(values, min), first(values, max), any(values), all(values)]


def test_reductions_of_bools(device: Harness) -> None:
    kinds = ("any", "all", "argmax", "argmin")
    body = body_of([DType.BOOL], lambda w, x: tuple(w.reduce(kind, x) for kind in kinds))
    x = np.random.default_rng(0).integers(0, 2, (7, 37)).astype(bool)
    x[0], x[1], x[2, 1:] = False, True, False
    actual = dense(body, x.shape, reduced=True)(device, [x])
    for found, wanted in zip(actual, (x.any(1), x.all(1), x.argmax(1), x.argmin(1)), strict=True):
        np.testing.assert_array_equal(found[:, 0], wanted)


@pytest.mark.parametrize("length", LENGTHS)
def test_sums_of_halves_are_kept_in_f32(device: Harness, length: int) -> None:
    body = body_of([DType.F16], lambda w, x: (w.reduce("sum", x), w.reduce("prod", x)))
    x = np.full((3, length), 1 + 2**-10, np.float16)
    total, product = dense(body, x.shape, reduced=True)(device, [x])
    assert_close(total[:, 0], np.full(3, length * (1 + 2**-10)), DType.F16)
    assert_close(product[:, 0], np.full(3, (1 + 2**-10) ** length), DType.F16)


# Bodies ----------------------------------------------------------------------------------


def test_several_results(device: Harness, place: str) -> None:
    """Residual, norm and its statistics at once; the sum is written over an operand."""
    shape = (7, 264)

    def make(w: Writer, x: Value, r: Value) -> tuple[Value, ...]:
        total = x + r
        scale = w.rsqrt(w.reduce("sum", total * total) / 264.0 + 1e-5)
        return total, total * scale, scale, w.reduce("argmax", total), scale * 2.0

    body = body_of([DType.F32] * 2, make)
    x, r = (draw(TensorType(shape, DType.F32), seed) for seed in (0, 1))
    reads = [window("x", DType.F32, shape), window("r", DType.F32, shape)]
    extents = (264, 264, 1, 1, 264)
    writes = [
        window(f"y{n}", d, (7, e))
        for n, (d, e) in enumerate(zip(body.dtypes, extents, strict=True))
    ]
    run = Run(body, reads, writes)
    assert run.kernel.generated is not None
    over = [reads[0], *writes[1:]]
    run.kernel = run.kernel.generated(*(w.view for w in (*reads, *over)))
    run.writes = tuple(over)
    total, y, scale, place_of, twice = run(device, [x, r])
    np.testing.assert_array_equal(total, x + r)
    wide = (x + r).astype(np.float64)
    expected = 1 / np.sqrt((wide * wide).mean(-1, keepdims=True) + 1e-5)
    assert_close(y, wide * expected, DType.F32)
    assert_close(scale, expected, DType.F32)
    assert_close(twice, np.broadcast_to(2 * expected, shape), DType.F32)
    np.testing.assert_array_equal(place_of[:, 0], (x + r).argmax(-1))


def test_coordinates_and_values_of_a_row(device: Harness, place: str) -> None:
    """Indices along a row and across; operands with one element a row."""

    def make(w: Writer, x: Value, bias: Value) -> tuple[Value, ...]:
        seen = w.compare("le", w.index(-1), w.index(-2))
        shown = w.where(seen, x, 0.0) + bias
        return w.reduce("sum", shown), w.reduce("sum", w.index(-1) * w.index(-3)), shown

    shape = (3, 20, 50)
    body = body_of([DType.F32] * 2, make)
    reads = [window("x", DType.F32, shape), window("b", DType.F32, shape, broadcast=(2,))]
    writes = [window("s", DType.F32, (3, 20, 1)), window("i", DType.I32, (3, 20, 1))]
    x, bias = draw(TensorType(shape, DType.F32), 0), draw(TensorType((3, 20, 1), DType.F32), 1)
    run = Run(body, reads, [*writes, window("y", DType.F32, shape)])
    total, index, shown = run(device, [x, np.broadcast_to(bias, shape)])
    i, j, k = np.indices(shape)
    expected = np.where(k <= j, x, 0) + bias
    np.testing.assert_array_equal(shown, expected)
    assert_close(total[..., 0], expected.astype(np.float64).sum(-1), DType.F32)
    np.testing.assert_array_equal(index[..., 0], (i * k).sum(-1))


@pytest.mark.parametrize("shape", [(40,), (2, 3, 2, 40)])
def test_batches(device: Harness, shape: tuple[int, ...]) -> None:
    """Rows have any number of axes in front of them."""
    body = body_of([DType.F32], softmax)
    x = draw(TensorType(shape, DType.F32), 0)
    (actual,) = dense(body, shape)(device, [x])
    power = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(actual, power / power.sum(-1, keepdims=True), 4e-6)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("limit", ["indices", "grid"])
def test_beyond_the_limits(
    device: Harness, limit: str, columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64-bit indices, and blocks that take row after row."""
    if limit == "indices":
        monkeypatch.setattr(strides, "INDEX_LIMIT", 1)
    else:
        monkeypatch.setattr(import_module("graphexec.ops.kit.launch"), "GRID_LIMIT", 1024)
    for shape in ((130, 40), (67, 2050)):
        order = (1, 0) if columns else (0, 1)
        body = body_of([DType.F32], softmax)
        x = draw(TensorType(shape, DType.F32), 0)
        run = Run(body, [window("x", DType.F32, shape, order=order)],
                  [window("y", DType.F32, shape, order=order)])  # fmt: skip
        (actual,) = run(device, [x])
        power = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
        np.testing.assert_allclose(actual, power / power.sum(-1, keepdims=True), 4e-6, 1e-30)


def test_blocks_that_take_several_rows_keep_them_apart(
    device: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one reduction, a thread may be at the next row while others read this one's maximum."""
    monkeypatch.setattr(import_module("graphexec.ops.kit.launch"), "GRID_LIMIT", 1024)
    for length, order in ((2050, (0, 1)), (600, (1, 0))):
        shape = (300, length)
        body = body_of([DType.F32], lambda w, x: x - w.reduce("max", x))
        x = draw(TensorType(shape, DType.F32), 0)
        run = Run(body, [window("x", DType.F32, shape, order=order)],
                  [window("y", DType.F32, shape)])  # fmt: skip
        np.testing.assert_array_equal(run(device, [x])[0], x - x.max(-1, keepdims=True))


@pytest.mark.parametrize("length", [40, 2050])
def test_a_result_over_an_operand(device: Harness, place: str, length: int) -> None:
    """Threads without a row of their own write nothing."""
    x = draw(TensorType((5, length), DType.F32), 0)
    here = window("x", DType.F32, x.shape)
    run = Run(body_of([DType.F32], softmax), [here], [here])
    power = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    (actual,) = run(device, [x])
    np.testing.assert_allclose(actual, power / power.sum(-1, keepdims=True), 4e-6, 1e-30)


def test_the_order_of_sums_is_fixed(opened: Harness) -> None:
    """The same bits with wavefronts of 32 and of 64, and run after run."""
    body = body_of([DType.F32], lambda w, x: w.reduce("sum", x))
    x = np.random.default_rng(0).normal(0, 1, (5, 5000)).astype(np.float32)
    found = []
    for lanes in (32, 64, 64):
        opened.use_wavefront(lanes)
        found.append(dense(body, x.shape, reduced=True)(opened, [x])[0].tobytes())
    assert len(set(found)) == 1


# Blocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "length", "lanes", "vectors"),
    [(DType.F16, 4096, 128, 4), (DType.F16, 1024, 32, 4), (DType.F16, 512, 16, 4),
     (DType.F32, 4096, 256, 4), (DType.F32, 16384, 1024, 4), (DType.F16, 16384, 512, 4)],
)  # fmt: skip
def test_a_thread_holds_64_bytes(
    dtype: DType, length: int, lanes: int, vectors: int
) -> None:  # fmt: skip
    body = body_of([dtype], lambda w, x: x * w.rsqrt(w.reduce("sum", x * x)))
    rows = rows_of(body, (64, length))
    assert (rows.block.lanes, rows.block.per_thread, rows.one_pass) == (lanes, vectors, True)


def test_long_rows_are_read_again() -> None:
    body = body_of([DType.F32], lambda w, x: x * w.rsqrt(w.reduce("sum", x * x)))
    assert rows_of(body, (64, 32768)).one_pass
    assert not rows_of(body, (64, 32769)).one_pass


def rows_of(body: Body, shape: tuple[int, ...]) -> Rows:
    reads = [window(f"x{n}", d, shape).view for n, d in enumerate(body.operands)]
    return Rows(body, tuple(reads), (window("y", body.dtypes[0], shape).view,))


# Any body --------------------------------------------------------------------------------

EXTENTS = st.sampled_from([1, 2, 3, 5, 8, 16])


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_integer_body(opened: Harness, data: st.DataObject) -> None:
    """Two layers of reductions of integers over any views: every bit is known."""
    opened.use_wavefront(data.draw(st.sampled_from([32, 64])))
    outer = data.draw(st.lists(EXTENTS, max_size=3))
    shape = (*outer, data.draw(st.sampled_from([1, 2, 8, 33, 64, 500])))
    dtype = data.draw(st.sampled_from([DType.I32, DType.I64, DType.U8]))
    kinds = [data.draw(st.sampled_from(["sum", "prod", "min", "max"])) for _ in range(2)]

    def make(w: Writer, a: Value, b: Value) -> tuple[Value, ...]:
        whole = w.reduce(kinds[0], a * b - w.cast(w.index(-1), dtype))
        other = w.reduce(kinds[1], w.maximum(a, whole) + b)
        return w.reduce("argmin", a + b), other, a - other * b

    body = body_of([dtype] * 2, make)
    axes = range(len(shape))

    def drawn(name: str, kind: DType, extents: tuple[int, ...], broadcast: bool) -> Any:
        return window(
            name, kind, extents, order=tuple(data.draw(st.permutations(axes))),
            broadcast=[a for a in axes if broadcast and data.draw(st.integers(0, 3)) == 0],
            steps=[data.draw(st.sampled_from([1, 1, 1, 2, -1])) for _ in axes],
            offset=data.draw(st.sampled_from([0, 0, 1, 16])),
        )  # fmt: skip

    reads = [drawn(f"x{n}", dtype, shape, True) for n in range(2)]
    one = (*shape[:-1], 1)
    extents = zip(body.dtypes, (one, one, shape), strict=True)
    writes = [drawn(f"y{n}", d, e, False) for n, (d, e) in enumerate(extents)]
    arrays = []
    for n, w in enumerate(reads):
        drawn_shape = tuple(1 if s == 0 else e for e, s in zip(shape, w.view.strides, strict=True))
        arrays.append(np.broadcast_to(draw(TensorType(drawn_shape, dtype), n), shape))
    actual = Run(body, reads, writes)(opened, arrays)
    a, b = (x.astype(dtype.numpy()) for x in arrays)
    fold = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}
    k = np.arange(shape[-1]).astype(a.dtype)
    whole = fold[kinds[0]].reduce(a * b - k, axis=-1, keepdims=True, dtype=a.dtype)
    layer = np.maximum(a, whole) + b
    other = fold[kinds[1]].reduce(layer, axis=-1, keepdims=True, dtype=a.dtype)
    np.testing.assert_array_equal(actual[0], (a + b).argmin(-1, keepdims=True))
    np.testing.assert_array_equal(actual[1], other)
    np.testing.assert_array_equal(actual[2], a - other * b)


def test_every_dtype_is_reduced() -> None:
    """The text of each is printed."""
    for dtype in EVERY:
        body = body_of([dtype], lambda w, x: w.reduce("argmax", x))
        assert "Place<" in dense(body, (4, 40), reduced=True).kernel.text
