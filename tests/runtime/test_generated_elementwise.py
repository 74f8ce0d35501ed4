"""Generated kernels without reductions, against tables, Python's numbers and NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from generated_bodies import EVERY, FLOATS, INTEGERS, Run, body_of, dense, draw, window
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Harness
from numbers_table import (
    APPROXIMATE,
    COMPARISONS,
    FLOAT_PAIRS,
    FLOAT_SINGLES,
    INTEGER_PAIRS,
    INTEGER_SINGLES,
    array,
    cast,
    edges,
    wrapped,
)

from graphexec.base import casts
from graphexec.base.tensor import DType, TensorType
from graphexec.ir.body import Body, Value, Writer
from graphexec.ops.kit import strides
from graphexec.ops.kit.generate import kernel_of
from graphexec.ops.kit.generate.by_numpy import computed, evaluate

Array = np.ndarray[Any, Any]

ULPS = 4


@pytest.fixture(autouse=True)
def made_anew() -> Iterator[None]:
    """Kernels are kept, but tests change what they are made by."""
    kernel_of.cache_clear()
    yield
    kernel_of.cache_clear()


@pytest.fixture(scope="module")
def harness() -> Harness:
    opened = Harness.open()
    opened.use_wavefront(64)
    return opened


def results(harness: Harness, body: Body, *arrays: Array) -> list[Array]:
    return dense(body, arrays[0].shape)(harness, arrays)


def pairs(dtype: DType) -> tuple[list[Any], list[Any]]:
    """Every edge value with every other."""
    found = [(a, b) for a in edges(dtype) for b in edges(dtype)]
    return [a for a, _ in found], [b for _, b in found]


def assert_same(actual: Array, expected: Array) -> None:
    """The same numbers, signs of zeros included; any NaN for a NaN."""
    assert actual.dtype == expected.dtype
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, expected)
        return
    found, wanted = actual.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(found, wanted)
    known = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(wanted[known]))


# Each function and type ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
def test_functions_of_integers(harness: Harness, dtype: DType) -> None:
    def make(w: Writer, a: Value, b: Value) -> tuple[Value, ...]:
        return (
            *(w.arithmetic(name, a, b) for name in INTEGER_PAIRS),
            *(w.numeric(name, a) for name in INTEGER_SINGLES),
            *(w.compare(name, a, b) for name in COMPARISONS),
        )

    a, b = pairs(dtype)
    actual = results(harness, body_of([dtype] * 2, make), array(a, dtype), array(b, dtype))
    expected: list[list[Any]] = [
        [wrapped(f(x, y), dtype) for x, y in zip(a, b, strict=True)]
        for f in INTEGER_PAIRS.values()
    ]  # fmt: skip
    expected += [[wrapped(f(x), dtype) for x in a] for f in INTEGER_SINGLES.values()]
    expected += [[f(x, y) for x, y in zip(a, b, strict=True)] for f in COMPARISONS.values()]
    names = (*INTEGER_PAIRS, *INTEGER_SINGLES, *COMPARISONS)
    for name, found, wanted in zip(names, actual, expected, strict=True):
        assert found.tolist() == wanted, name


@pytest.mark.parametrize("dtype", FLOATS)
def test_exact_functions_of_floats(harness: Harness, dtype: DType) -> None:
    def make(w: Writer, a: Value, b: Value) -> tuple[Value, ...]:
        exact = (w.floating if name == "sqrt" else w.numeric for name in FLOAT_SINGLES)
        return (
            *(w.divide(a, b) if n == "div" else w.arithmetic(n, a, b) for n in FLOAT_PAIRS),
            *(f(name, a) for name, f in zip(FLOAT_SINGLES, exact, strict=True)),
            *(w.compare(name, a, b) for name in COMPARISONS),
            w.floating("isnan", a), w.floating("isinf", a),
        )  # fmt: skip

    a, b = (array(values, dtype) for values in pairs(dtype))
    actual = results(harness, body_of([dtype] * 2, make), a, b)
    wide = computed(dtype, exact=False)
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(all="ignore"):
        expected = [f(x, y) for f in FLOAT_PAIRS.values()]
        expected += [np.asarray(f(x), wide) for f in FLOAT_SINGLES.values()]
        expected = [casts.cast(e, dtype.numpy()) for e in expected]
        expected += [f(x, y) for f in COMPARISONS.values()]
        expected += [np.isnan(x), np.isinf(x)]
    names = (*FLOAT_PAIRS, *FLOAT_SINGLES, *COMPARISONS, "isnan", "isinf")
    for name, found, wanted in zip(names, actual, expected, strict=True):
        try:
            # Which zero the extreme of two zeros is, is not said.
            known = ~((x == 0) & (y == 0)) if name in ("min", "max") else np.full(x.shape, True)
            assert_same(found[known], wanted[known])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
def test_other_functions_of_floats(harness: Harness, dtype: DType) -> None:
    """Within 4 ulp."""
    body = body_of([dtype], lambda w, a: tuple(w.floating(name, a) for name in APPROXIMATE))
    small = np.random.default_rng(0).normal(0, 3, 2000)
    x = np.concatenate([array(edges(dtype), dtype), small.astype(dtype.numpy())])
    actual = results(harness, body, x)
    with np.errstate(all="ignore"):
        wanted = [f(x.astype(np.longdouble)) for f in APPROXIMATE.values()]
    for name, found, expected in zip(APPROXIMATE, actual, wanted, strict=True):
        assert_within(found, expected, name)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
def test_powers(harness: Harness, dtype: DType) -> None:
    body = body_of([dtype] * 2, lambda w, a, b: w.power(a, b))
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 10, 2000).astype(dtype.numpy()), rng.normal(0, 5, 2000)
    y = y.astype(dtype.numpy())
    (actual,) = results(harness, body, x, y)
    assert_within(actual, x.astype(np.longdouble) ** y.astype(np.longdouble), "pow")


def assert_within(actual: Array, expected: Array, name: str) -> None:
    """4 ulp of the type of `actual`."""
    info = np.finfo(actual.dtype)
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(actual[~finite], rounded[~finite], name)
        unit = np.maximum(np.spacing(np.abs(rounded[finite])), info.smallest_subnormal)
        off = np.abs(actual[finite].astype(np.longdouble) - expected[finite]) / unit
    assert off.max() <= ULPS, f"{name}: {off.max()} ulp"


@pytest.mark.parametrize("source", EVERY)
def test_casts(harness: Harness, source: DType) -> None:
    others = [dtype for dtype in EVERY if dtype is not source]
    body = body_of([source], lambda w, a: tuple(w.cast(a, dtype) for dtype in others))
    values = edges(source)
    for dtype, found in zip(others, results(harness, body, array(values, source)), strict=True):
        plain = [bool(v) if source is DType.BOOL else v for v in values]
        assert_same(found, array([cast(v, dtype) for v in plain], dtype))


def test_bools(harness: Harness) -> None:
    def make(w: Writer, a: Value, b: Value, x: Value) -> tuple[Value, ...]:
        both, either = w.logical("and", a, b), w.logical("or", a, b)
        return both, either, w.logical("not", a), w.where(a, x, 2.0), w.compare("lt", a, b), a

    a, b = np.array([0, 1, 0, 1], np.uint8), np.array([0, 0, 1, 255], np.uint8)
    x = np.array([5, 6, 7, 8], np.float32)
    body = body_of([DType.BOOL, DType.BOOL, DType.F32], make)
    given = a.view(bool), b.view(bool), x
    actual = results(harness, body, *given)
    expected = [[0, 0, 0, 1], [0, 1, 1, 1], [1, 0, 1, 0], [2, 6, 2, 8], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert [found.view(np.uint8 if n != 3 else np.float32).tolist()
            for n, found in enumerate(actual)] == expected  # fmt: skip


def test_constants(harness: Harness) -> None:
    numbers = [0.1, 1 / 3, 1e-45, 3e38, math.inf, -math.inf, math.nan, -0.0, 1e22, 5e-324]
    whole = {dtype: edges(dtype) for dtype in INTEGERS}

    def make(w: Writer, a: Value) -> tuple[Value, ...]:
        return (
            *(w.constant(n, DType.F32) for n in numbers),
            *(w.constant(n, DType.F64) for n in numbers),
            *(w.constant(n, dtype) for dtype, values in whole.items() for n in values),
            w.constant(True, DType.BOOL),
        )

    found = [a[0] for a in results(harness, body_of([DType.F32], make), np.zeros(1, np.float32))]
    expected = [*(np.float32(n) for n in numbers), *numbers]
    expected += [n for values in whole.values() for n in values] + [True]
    assert_same(np.array(found[:20]), np.array(expected[:20]))
    assert [int(n) for n in found[20:]] == expected[20:]


def test_halves_are_not_rounded_between_steps(harness: Harness) -> None:
    def make(w: Writer, a: Value) -> tuple[Value, Value]:
        return a * a - a, w.rounded(a * a) - a

    x = np.array([1 + 2**-10, 300.0], np.float16)
    kept, rounded = results(harness, body_of([DType.F16], make), x)
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        assert_same(kept, (wide * wide - wide).astype(np.float16))
        assert_same(rounded, ((wide * wide).astype(np.float16) - wide).astype(np.float16))


def test_a_product_and_a_sum_round_twice(harness: Harness) -> None:
    body = body_of([DType.F32] * 3, lambda w, a, b, c: a * b + c)
    x = np.array([1 + 2**-12], np.float32)
    (actual,) = results(harness, body, x, x, -(x * x))
    assert actual[0] == 0
    assert "-ffp-contract=off" in dense(body, (1,)).kernel.options


# Shapes and strides ----------------------------------------------------------------------


def add(*dtypes: DType) -> Body:
    return body_of(dtypes, lambda w, a, b: a + b)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (9,), (4099,), (3, 5, 7), (2, 1, 16)])
@pytest.mark.parametrize("dtype", [DType.F16, DType.F64, DType.U8])
def test_shapes(harness: Harness, shape: tuple[int, ...], dtype: DType) -> None:
    a, b = (draw(TensorType(shape, dtype), seed) for seed in (0, 1))
    (actual,) = dense(add(dtype, dtype), shape)(harness, [a, b])
    wide = computed(dtype, exact=False)
    assert_same(actual, (a.astype(wide) + b.astype(wide)).astype(a.dtype))


def test_accesses_have_16_bytes(harness: Harness) -> None:
    """Vectors of the widest element; and a text that a person can read."""
    text = dense(add(DType.F16, DType.F16), (64, 64)).kernel.text
    assert "gather<8, 8>(x0" in text
    assert "const float t2 = t0 + t1;" in text
    mixed = body_of([DType.I8, DType.F32], lambda w, a, b: w.cast(a, DType.F32) * b)
    assert "gather<4, 4>(x0" in dense(mixed, (64, 64)).kernel.text
    assert "gather<16, 16>(x0" in dense(add(DType.I8, DType.I8), (64, 64)).kernel.text


def test_windows(harness: Harness) -> None:
    """Results in windows; operands across, backwards, broadcast, out of line."""
    shape = (6, 4, 24)
    body = body_of([DType.F32] * 4, lambda w, a, b, c, d: (a + b - c * d, a - b))
    reads = [
        window("a", DType.F32, shape, order=(2, 0, 1)),
        window("b", DType.F32, shape, steps=(1, -1, -2)),
        window("c", DType.F32, shape, broadcast=(0, 2)),
        window("d", DType.F32, shape, offset=3),
    ]
    writes = [
        window("y", DType.F32, shape, steps=(2, 1, 1), offset=4),
        window("z", DType.F32, shape, order=(1, 2, 0), offset=1),
    ]
    a, b, d = (draw(TensorType(shape, DType.F32), seed) for seed in range(3))
    c = draw(TensorType((1, 4, 1), DType.F32), 3)
    y, z = Run(body, reads, writes)(harness, [a, b, np.broadcast_to(c, shape), d])
    assert_same(y, a + b - c * d)
    assert_same(z, a - b)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_coordinates(harness: Harness, order: tuple[int, ...]) -> None:
    def make(w: Writer) -> tuple[Value, ...]:
        i, j, k = (w.index(axis) for axis in (-3, -2, -1))
        return i * 10000 + j * 100 + k, w.compare("le", k, j)

    shape = (3, 5, 12)
    body = body_of([], make)
    writes = [window(f"y{n}", d, shape, order=order) for n, d in enumerate(body.dtypes)]
    number, below = Run(body, [], writes)(harness, [])
    i, j, k = np.indices(shape)
    assert_same(number, (i * 10000 + j * 100 + k).astype(np.int32))
    assert_same(below, k <= j)


@pytest.mark.parametrize("limit", ["indices", "grid", "many"])
def test_beyond_the_limits(harness: Harness, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """64-bit indices; kernels that loop; several vectors a thread."""
    if limit == "indices":
        monkeypatch.setattr(strides, "INDEX_LIMIT", 1)
    if limit == "grid":
        monkeypatch.setattr(import_module("graphexec.ops.kit.launch"), "GRID_LIMIT", 256)
    if limit == "many":
        module = import_module("graphexec.ops.kit.generate.elementwise")
        monkeypatch.setattr(module, "MANY_VECTORS", 1)
    for shape, orders in (((9, 7, 33), (1, 0, 2)), ((1031,), (0,))):
        body = add(DType.I8, DType.I8)
        reads = [window("a", DType.I8, shape, offset=1), window("b", DType.I8, shape, order=orders)]
        a, b = (draw(TensorType(shape, DType.I8), seed) for seed in (0, 1))
        run = Run(body, reads, [window("y", DType.I8, shape)])
        assert limit != "many" or run.kernel.grid[0] <= -(-a.size // 512)
        assert_same(run(harness, [a, b])[0], a + b)


def test_a_result_over_an_operand(harness: Harness) -> None:
    """Every element is read before it is written."""
    body = add(DType.F32, DType.F32)
    a, b = (draw(TensorType((1027,), DType.F32), seed) for seed in (0, 1))
    x, y = window("a", DType.F32, (1027,)), window("b", DType.F32, (1027,))
    run = Run(body, [x, y], [])
    kernel = run.kernel.generated
    assert kernel is not None
    run.kernel = kernel(x.view, y.view, x.view)
    run.writes = (x,)
    assert_same(run(harness, [a, b])[0], a + b)


# Any body --------------------------------------------------------------------------------

_OPS = ("add", "sub", "mul", "min", "max")


@st.composite
def bodies(draw_: st.DrawFn) -> Body:
    """Bodies of functions that are exact, so that every device gives the same bits."""
    writer = Writer()
    dtypes = draw_(st.lists(st.sampled_from(EVERY), min_size=1, max_size=4))
    values = [writer.load(n, dtype) for n, dtype in enumerate(dtypes)]
    values.append(writer.index(-1))
    for _ in range(draw_(st.integers(1, 8))):
        a, b = (draw_(st.sampled_from(values)) for _ in range(2))
        kind = draw_(st.sampled_from(("pair", "compare", "where", "cast")))
        if kind == "pair" and DType.BOOL not in (a.dtype, b.dtype):
            values.append(writer.arithmetic(draw_(st.sampled_from(_OPS)), a, b))
        elif kind == "compare":
            values.append(writer.compare(draw_(st.sampled_from(tuple(COMPARISONS))), a, b))
        elif kind == "where":
            values.append(writer.where(writer.cast(values[0], DType.BOOL), a, b))
        else:
            values.append(writer.cast(a, draw_(st.sampled_from(EVERY))))
    chosen = draw_(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    return writer.body(*chosen)


EXTENTS = st.sampled_from([1, 2, 3, 4, 5, 8, 16, 33])


@given(body=bodies(), data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_body(harness: Harness, body: Body, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(EXTENTS, min_size=1, max_size=4)))
    axes = range(len(shape))

    def drawn(name: str, dtype: DType, broadcast: bool) -> Any:
        return window(
            name, dtype, shape, order=tuple(data.draw(st.permutations(axes))),
            broadcast=[a for a in axes if broadcast and data.draw(st.booleans())],
            steps=[data.draw(st.sampled_from([1, 1, 1, 2, -1])) for _ in axes],
            offset=data.draw(st.sampled_from([0, 0, 1, 4])),
        )  # fmt: skip

    reads = [drawn(f"x{n}", dtype, True) for n, dtype in enumerate(body.operands)]
    writes = [drawn(f"y{n}", dtype, False) for n, dtype in enumerate(body.dtypes)]
    arrays = []
    for n, w in enumerate(reads):
        extents = tuple(1 if s == 0 else e for e, s in zip(shape, w.view.strides, strict=True))
        arrays.append(np.broadcast_to(draw(TensorType(extents, w.view.dtype), n), shape))
    actual = Run(body, reads, writes)(harness, arrays)
    expected = evaluate(body, arrays, shape, exact=False)
    for found, wanted, dtype in zip(actual, expected, body.dtypes, strict=True):
        assert_same(found, casts.cast(np.broadcast_to(wanted, shape), dtype.numpy()))
