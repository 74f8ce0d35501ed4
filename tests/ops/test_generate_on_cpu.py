"""Generated kernels on the CPU: the compiled C and NumPy against independent definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphexec.base.tensor import Array, DType
from graphexec.ir.body import Body, Value, Writer
from graphexec.ir.program import Compute
from graphexec.ops.kit.generate import compiled
from graphexec.ops.kit.generate.by_numpy import evaluate
from graphexec.ops.kit.generate.compiled import Compiled
from graphexec.ops.kit.generate.on_cpu import ByNumpy, OnCpu, compute_of
from graphexec.runtime.cpu.cores import Cores

F16, BF16, F32, F64 = DType.F16, DType.BF16, DType.F32, DType.F64
I8, U8, I32, I64, BOOL = DType.I8, DType.U8, DType.I32, DType.I64, DType.BOOL
INTEGERS = (I8, U8, I32, I64)
FLOATS = (F16, BF16, F32, F64)
COMPUTED = {F16: F32, BF16: F32, F32: F32, F64: F64}
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 3.5, -2.5, 1e-3, 1e-20, 700.0, -700.0, 88.0, 1e30,
           math.inf, -math.inf, math.nan)  # fmt: skip


def serially(n: int, body: Callable[[int, int], None]) -> None:
    body(0, n)


def both(body: Body) -> list[Compute]:
    """The compiled C, and NumPy."""
    code = compiled.library(body)
    assert code is not None
    return [Compiled(body, code).compute, ByNumpy(body)]


def run(compute: Compute, body: Body, arrays: list[Array], shape: tuple[int, ...]) -> list[Array]:
    results = []
    for number, dtype in zip(body.results, body.dtypes, strict=True):
        row = body.reduces and body.along_rows[number]
        results.append(np.zeros((*shape[:-1], 1) if row else shape, dtype.numpy()))
    compute([*(np.broadcast_to(a, shape) for a in arrays), *results], serially)
    return results


def of(function: Callable[..., Value], *dtypes: DType) -> Body:
    """The body of a function of a writer and of operands of these dtypes."""
    writer = Writer()
    return writer.body(function(writer, *(writer.load(n, d) for n, d in enumerate(dtypes))))


def same(a: Array, b: Array) -> None:
    """Bit for bit, but for what a NaN holds and for the sign of 0."""
    assert a.dtype == b.dtype
    wide = a.astype(np.float64) if a.dtype.kind not in "biu" else a
    other = b.astype(np.float64) if b.dtype.kind not in "biu" else b
    np.testing.assert_array_equal(wide, other)


# Functions of floats ------------------------------------------------------------------------------

LARGE = 1e38


def spread(low: float, high: float, dtype: DType) -> Array:
    """Numbers between two, around 0 and of all magnitudes, and special ones."""
    rng = np.random.default_rng(7)
    even = rng.uniform(low, high, 20_000)
    by_size = 10.0 ** rng.uniform(-40, math.log10(max(high, -low)), 20_000)
    signed = np.where(rng.random(20_000) < 0.5 if low < 0 else True, by_size, -by_size)
    near = 1 + rng.normal(size=4000) * 1e-3
    found = np.concatenate([even, signed[signed >= low], near, [s for s in SPECIAL if s >= low]])
    return found.astype(dtype.numpy())


def ulps(found: Array, x: Array, function: Callable[[float], float]) -> float:
    """The largest error in units of the last place of the exact value in the dtype."""
    exact = np.array([defined(function, float(v)) for v in x])
    plain = np.isfinite(exact) & (np.abs(exact) <= float(np.finfo(found.dtype).max))
    nan = np.isnan(exact)
    assert np.isnan(found[nan]).all()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            found[~plain & ~nan], exact[~plain & ~nan].astype(found.dtype)
        )
    rounded = exact[plain].astype(found.dtype)
    unit = np.spacing(np.abs(rounded)).astype(np.float64)
    return float(np.max(np.abs(found[plain].astype(np.float64) - exact[plain]) / unit))


def defined(function: Callable[[float], float], x: float) -> float:
    """A function of the math module, with its limits."""
    try:
        return function(x)
    except OverflowError:
        return math.inf
    except ValueError:
        return -math.inf if x in (0, -1) and function in (math.log, math.log1p) else math.nan


FUNCTIONS = {
    "exp": (math.exp, -120.0, 120.0), "log": (math.log, 0.0, 1e38),
    "log1p": (math.log1p, -1.0, 1e38), "sin": (math.sin, -LARGE, LARGE),
    "cos": (math.cos, -LARGE, LARGE), "tanh": (math.tanh, -12.0, 12.0),
    "sigmoid": (lambda x: math.exp(min(x, 0)) / (1 + math.exp(-abs(x))), -100.0, 100.0),
    "erf": (math.erf, -5.0, 5.0), "erfc": (math.erfc, -6.0, 28.0), "sqrt": (math.sqrt, 0.0, 1e38),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_4_ulp(name: str, dtype: DType) -> None:
    function, low, high = FUNCTIONS[name]
    body = of(lambda w, x: w.floating(name, x), dtype)
    x = spread(low, high, dtype)
    for compute in both(body):
        (found,) = run(compute, body, [x], x.shape)
        assert ulps(found, x, function) <= (0.5 if name == "sqrt" else 4)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_of_some_turns_are_within_4_ulp(name: str) -> None:
    body = of(lambda w, x: w.floating(name, x), F32)
    near = np.arange(1, 3000) * (math.pi / 2)
    x = np.concatenate([np.linspace(-100, 100, 5001), near, near * 5000]).astype(np.float32)
    for compute in both(body):
        assert ulps(run(compute, body, [x], x.shape)[0], x, FUNCTIONS[name][0]) <= 4


@pytest.mark.parametrize("dtype", [F32, F64])
def test_powers(dtype: DType) -> None:
    body = of(lambda w, x, y: w.power(x, y), dtype, dtype)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0.01, 30, 3000), rng.uniform(-9, 9, 3000)
    x, y = x.astype(dtype.numpy()), y.astype(dtype.numpy())
    exact = np.array([math.pow(float(a), float(b)) for a, b in zip(x, y, strict=True)])
    for compute in both(body):
        found = run(compute, body, [x, y], x.shape)[0]
        assert np.max(np.abs(found - exact) / np.spacing(np.abs(exact).astype(dtype.numpy()))) <= 4


# What has the same bits on every device -----------------------------------------------------------


def pairs(dtype: DType) -> tuple[Array, Array]:
    """All pairs of values at the edges of a dtype, and some others."""
    if dtype is BOOL:
        values: list[Any] = [False, True]
    elif dtype.is_integer:
        limits = np.iinfo(dtype.numpy())
        near = (limits.min, limits.min + 1, limits.max - 1, limits.max)
        values = [
            v for v in (*near, -7, -2, -1, 0, 1, 2, 3, 5, 100) if limits.min <= v <= limits.max
        ]
    else:
        values = list(SPECIAL)
    with np.errstate(over="ignore"):
        all_pairs = np.array(list(product(values, values)), dtype.numpy()).T
    return np.ascontiguousarray(all_pairs[0]), np.ascontiguousarray(all_pairs[1])


def wrapped(value: int, dtype: DType) -> int:
    bits = 8 * dtype.itemsize
    value %= 2**bits
    return value - 2**bits if dtype is not U8 and value >= 2 ** (bits - 1) else value


INTEGER = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "min": min, "max": max,
}  # fmt: skip


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", INTEGER)
def test_integers_wrap_and_divide_to_the_floor(name: str, dtype: DType) -> None:
    body = of(lambda w, a, b: w.arithmetic(name, a, b), dtype, dtype)
    a, b = pairs(dtype)
    exact = [wrapped(INTEGER[name](int(x), int(y)), dtype) for x, y in zip(a, b, strict=True)]
    for compute in both(body):
        assert run(compute, body, [a, b], a.shape)[0].tolist() == exact


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", ["neg", "abs", "sign"])
def test_signs_of_integers(name: str, dtype: DType) -> None:
    body = of(lambda w, a: w.numeric(name, a), dtype)
    a, _ = pairs(dtype)
    exact = {"neg": lambda v: -v, "abs": abs, "sign": lambda v: (v > 0) - (v < 0)}[name]
    for compute in both(body):
        found = run(compute, body, [a], a.shape)[0].tolist()
        assert found == [wrapped(exact(int(v)), dtype) for v in a]


FLOATING: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: float(np.float64(a) / np.float64(b)),
    "min": lambda a, b: math.nan if a != a or b != b else min(a, b),
    "max": lambda a, b: math.nan if a != a or b != b else max(a, b),
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FLOATING)
def test_arithmetic_of_floats_is_exact_and_rounded(name: str, dtype: DType) -> None:
    def write(w: Writer, a: Value, b: Value) -> Value:
        return w.divide(a, b) if name == "div" else w.arithmetic(name, a, b)

    body = of(write, dtype, dtype)
    a, b = pairs(dtype)
    with np.errstate(all="ignore"):
        wide = [FLOATING[name](float(x), float(y)) for x, y in zip(a, b, strict=True)]
        # float64 has room for the sum, product or quotient of floats to be rounded once more.
        exact = np.array(wide).astype(COMPUTED[dtype].numpy()).astype(dtype.numpy())
    for compute in both(body):
        same(run(compute, body, [a, b], a.shape)[0], exact)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["floor", "ceil", "round", "abs", "neg", "sign"])
def test_rounding_and_signs(name: str, dtype: DType) -> None:
    body = of(lambda w, a: w.numeric(name, a), dtype)
    a, _ = pairs(dtype)
    exact: dict[str, Callable[[float], float]] = {
        "floor": math.floor, "ceil": math.ceil, "round": round, "abs": abs, "neg": lambda v: -v,
        "sign": lambda v: (v > 0) - (v < 0),
    }  # fmt: skip

    def defined_as(v: float) -> float:
        whole = name in ("floor", "ceil", "round")
        return v if v != v or (whole and math.isinf(v)) else float(exact[name](v))

    plain = [defined_as(float(v)) for v in a]
    for compute in both(body):
        same(run(compute, body, [a], a.shape)[0], np.array(plain).astype(dtype.numpy()))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_comparisons_and_choices(dtype: DType) -> None:
    a, b = pairs(dtype)
    wide = [v.astype(np.float64) if dtype.is_float else v for v in (a, b)]
    plain = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal}
    for name, function in plain.items():
        body = of(lambda w, x, y, name=name: w.compare(name, x, y), dtype, dtype)
        for compute in both(body):
            same(run(compute, body, [a, b], a.shape)[0], function(*wide))
    body = of(lambda w, x, y: w.where(w.logical("not", x < y), x, y), dtype, dtype)
    for compute in both(body):
        same(run(compute, body, [a, b], a.shape)[0], np.where(~np.less(*wide), a, b))


def nearest(value: Fraction, dtype: DType) -> float:
    """The float of a dtype that is nearest to a number, ties to even; by its definition."""
    digits, least, most = {F16: (11, -24, 15), BF16: (8, -133, 127), F32: (24, -149, 127),
                           F64: (53, -1074, 1023)}[dtype]  # fmt: skip
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    unit = Fraction(2) ** max(exponent - digits + 1, least)
    rounded = round(size / unit) * unit  # ties to even
    found = math.inf if rounded >= Fraction(2) ** (most + 1) else float(rounded)
    return -found if value < 0 else found


def awkward(dtype: DType) -> Array:
    """Values that casts get wrong: ties, what rounds twice, limits, subnormals."""
    if dtype is BOOL:
        return np.array([False, True])
    if dtype.is_integer:
        values = list(range(-128, 256)) + [2**k + d for k in range(8, 63) for d in (-1, 0, 1)]
        values += [2**62 + 2**54 + 1, 2**62 + 2**54 - 1, 2**53 + 1, 2**40 + 2**32 + 1, 2049, 2051]
        limits = np.iinfo(dtype.numpy())
        values += [-v for v in values] + [limits.min, limits.max]
        return np.array([v for v in values if limits.min <= v <= limits.max], dtype.numpy())
    rng = np.random.default_rng(3)
    sizes = 2.0 ** rng.integers(-150, 130, 3000) * rng.integers(2**10, 2**12, 3000) / 2**11
    ties = sizes * (1 + rng.choice([0, 2.0**-40, -(2.0**-40), 2.0**-30], 3000))
    limits_of = [2.0**k + d for k in (7, 8, 15, 16, 31, 63) for d in (-1.5, -1, -0.5, 0, 0.5, 1)]
    all_of = np.concatenate([ties, rng.normal(size=500) * 300, limits_of, SPECIAL])
    with np.errstate(over="ignore"):
        return np.concatenate([all_of, -all_of]).astype(dtype.numpy())


@pytest.mark.parametrize("target", [*FLOATS, *INTEGERS, BOOL])
@pytest.mark.parametrize("source", [*FLOATS, *INTEGERS, BOOL])
def test_casts_round_once(source: DType, target: DType) -> None:
    if source is target:
        return
    x = awkward(source)
    body = of(lambda w, v: w.cast(v, target), source)
    for compute in both(body):
        (found,) = run(compute, body, [x], x.shape)
        for before, after in zip(x.tolist(), found.tolist(), strict=True):
            wanted = cast_of(float(before) if source.is_float else before, target)
            assert after == wanted or (after != after and wanted != wanted), before


def cast_of(value: Any, target: DType) -> Any:
    if target is BOOL:
        return value != 0
    if target.is_integer and isinstance(value, float):
        limits = np.iinfo(target.numpy())
        if value != value:
            return 0
        if math.isinf(value):
            return int(limits.max if value > 0 else limits.min)
        return min(max(math.trunc(value), int(limits.min)), int(limits.max))
    if target.is_integer:
        return wrapped(int(value), target)
    if isinstance(value, float) and not math.isfinite(value):
        return value
    return nearest(Fraction(value), target)


# Rows, shapes and strides -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, I8, U8, I32, I64])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 40, 255, 256, 257, 1000])
def test_reductions(dtype: DType, length: int) -> None:
    rng = np.random.default_rng(length)
    x = (rng.normal(size=(5, length)) * 40).astype(np.int64)
    x = (np.abs(x) if dtype is U8 else x).astype(dtype.numpy())
    wide = x.astype(np.float64 if dtype.is_float else np.int64)
    exact = {"min": wide.min(-1), "max": wide.max(-1), "sum": wide.sum(-1),
             "argmin": wide.argmin(-1), "argmax": wide.argmax(-1), "any": (wide != 0).any(-1),
             "all": (wide != 0).all(-1)}  # fmt: skip
    for kind, wanted in exact.items():
        body = of(lambda w, v, kind=kind: w.reduce(kind, v), dtype)
        for compute in both(body):
            (found,) = run(compute, body, [x], x.shape)
            same(found[:, 0], wanted.astype(body.dtypes[0].numpy()))


def test_nan_is_the_least_and_the_largest_and_the_first_wins() -> None:
    x = np.zeros((4, 700), np.float32)
    x[1, [300, 650]] = math.nan
    x[2, [20, 400]] = [-3, -3]
    x[3, [699, 3]] = [math.nan, 5]
    for kind, wanted in (("argmin", [0, 300, 20, 699]), ("argmax", [0, 300, 0, 699])):
        body = of(lambda w, v, kind=kind: w.reduce(kind, v), F32)
        for compute in both(body):
            assert run(compute, body, [x], x.shape)[0][:, 0].tolist() == wanted
    body = of(lambda w, v: w.reduce("max", v), F32)
    for compute in both(body):
        same(run(compute, body, [x], x.shape)[0][:, 0], np.float32([0, math.nan, 0, math.nan]))


def test_long_sums_lose_nothing() -> None:
    x = np.random.default_rng(5).random((2, 1_000_003), np.float32)
    body = of(lambda w, v: w.reduce("sum", v), F32)
    compute = both(body)[0]
    found = run(compute, body, [x], x.shape)[0][:, 0]
    exact = [math.fsum(row.astype(np.float64)) for row in x]
    assert np.max(np.abs(found - exact)) <= 2 * np.spacing(np.float32(exact[0]))


def test_a_result_may_lie_over_an_operand() -> None:
    """Also where the row is read again after a result of an earlier pass is known."""

    def write(w: Writer, x: Value, y: Value) -> Body:
        h = x + y
        return w.body(h, h - w.reduce("max", h), w.reduce("sum", x))

    writer = Writer()
    body = write(writer, writer.load(0, F16), writer.load(1, F32))
    rng = np.random.default_rng(2)
    x, y = (
        rng.normal(size=(3, 600)).astype(np.float16),
        rng.normal(size=(3, 600)).astype(np.float32),
    )
    h = x.astype(np.float32) + y
    for compute in both(body):
        over, total = y.copy(), np.zeros((3, 1), np.float16)
        other = np.zeros_like(y)
        compute([x, over, other, over, total], serially)
        same(other, h)
        same(over, h - h.max(-1, keepdims=True))


def norm_of(w: Writer, x: Value, g: Value) -> Body:
    length = 1.0 * 64
    centred = x - w.reduce("sum", x) / length
    scale = w.rsqrt(w.reduce("sum", centred * centred) / length + 1e-5)
    return w.body(w.cast(centred * scale * g, x.dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_norm(dtype: DType) -> None:
    writer = Writer()
    body = norm_of(writer, writer.load(0, dtype), writer.load(1, dtype))
    rng = np.random.default_rng(4)
    x, g = (rng.normal(size=s).astype(dtype.numpy()) for s in ((2, 3, 64), (64,)))
    (exact,) = evaluate(body, [x, g], x.shape, exact=True)
    room = {F16: 2e-3, BF16: 2e-2, F32: 2e-6, F64: 1e-14}[dtype]
    for compute in both(body):
        found = run(compute, body, [x, g], x.shape)[0].astype(np.float64)
        np.testing.assert_allclose(found, exact, rtol=room, atol=room)


@pytest.mark.parametrize("dtype", [F16, F32, F64, U8])
@pytest.mark.parametrize("shape", [(3, 33, 20), (70, 5), (1, 64, 600)])
def test_rows_that_lie_side_by_side(dtype: DType, shape: tuple[int, ...]) -> None:
    """What is given and made lies turned: the bits are those of rows that do not."""
    writer = Writer()
    x, g = writer.load(0, dtype), writer.load(1, F32)
    z = writer.cast(x, F32) * g + writer.cast(writer.index(-2) - writer.index(-1), F32)
    total = writer.reduce("sum", z)
    body = writer.body(writer.cast(z - total, dtype), total, writer.reduce("argmax", x))
    rng = np.random.default_rng(4)
    rows = [(9 * rng.random(size=shape)).astype(dtype.numpy()),
            rng.normal(size=shape[-1:]).astype("f4")]  # fmt: skip
    code = compiled.library(body)
    assert code is not None
    compute = Compiled(body, code).compute
    expected = run(compute, body, rows, shape)
    turned = np.ascontiguousarray(rows[0].swapaxes(-1, -2)).swapaxes(-1, -2)
    made = np.zeros_like(turned)  # turned as well
    assert made.strides[-2] == dtype.itemsize
    totals, places = (np.zeros((*shape[:-1], 1), kind) for kind in ("f4", "i8"))
    compute([turned, np.broadcast_to(rows[1], shape), made, totals, places], serially)
    for found, wanted in zip((made, totals, places), expected, strict=True):
        same(found, wanted)
    if dtype is not U8:
        over = [turned, np.broadcast_to(rows[1], shape), turned, totals, places]
        compute(over, serially)
        same(turned, expected[0])


@given(st.data())
@settings(max_examples=60)
def test_shapes_strides_and_indexes(data: st.DataObject) -> None:
    """One body over operands that are turned, broadcast, and stepped through, also backwards."""
    rank = data.draw(st.integers(0, 4))
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    if rank and data.draw(st.booleans()):
        shape = (*shape[:-1], data.draw(st.integers(200, 300)))
    compute = both(_MIXED)[data.draw(st.integers(0, 1))] if rank > 1 else both(_FLAT)[0]
    body = _MIXED if rank > 1 else _FLAT
    operands = [data.draw(windows(shape, d.numpy())) for d in body.operands]
    target = data.draw(windows(shape, np.dtype(np.float32), broadcast=False))
    compute([*operands, target], serially)
    a, b = (x.astype(np.float32) for x in operands)
    wanted = a * 2 + b
    if rank > 1:
        i = np.arange(shape[-1], dtype=np.float32)
        wanted = wanted + i + np.arange(shape[-2], dtype=np.float32)[:, None] * 100
    np.testing.assert_array_equal(target, np.broadcast_to(wanted, shape))


def _sum(w: Writer, a: Value, b: Value) -> Value:
    return w.cast(a * 2 + b, F32)


_FLAT = of(_sum, F16, I32)
_MIXED = of(
    lambda w, a, b: w.cast(_sum(w, a, b) + w.cast(w.index(-1), F32), F32)
    + w.cast(w.index(-2), F32) * 100,
    F16, I32,
)  # fmt: skip


@st.composite
def windows(draw: st.DrawFn, shape: tuple[int, ...], dtype: Any, broadcast: bool = True) -> Array:
    """A view of a shape on small whole numbers, somewhere in memory."""
    steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
    order = draw(st.permutations(range(len(shape))))
    own = [1 if broadcast and draw(st.booleans()) else extent for extent in shape]
    base = np.arange(math.prod(2 * e for e in own), dtype=np.int64) % 29 - 7
    turned = base.astype(dtype).reshape([2 * own[n] for n in order])
    view = turned.transpose(np.argsort(order)) if shape else turned
    cut = tuple(slice(None, None, -1) if step == -1 else slice(None, None, step) for step in steps)
    limited = view[(..., *cut)][(..., *(slice(0, e) for e in own))]
    return np.broadcast_to(limited, shape) if broadcast else limited


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    """Random bodies of what has the same bits everywhere, of whole numbers that stay small."""
    writer = Writer()
    values = [writer.load(n, draw(st.sampled_from([F16, BF16, F32, F64, I8, I32, I64])))
              for n in range(draw(st.integers(1, 3)))]  # fmt: skip
    values.append(writer.index(-1))
    for _ in range(draw(st.integers(1, 12))):
        a, b, c = (draw(st.sampled_from(values)) for _ in range(3))
        kind = draw(st.integers(0, 6))
        if kind == 0:
            values.append(
                writer.arithmetic(draw(st.sampled_from(["add", "sub", "min", "max"])), a, b)
            )
        elif kind == 1:
            values.append(writer.cast(a, draw(st.sampled_from([F16, BF16, F32, I8, U8, I32, F64]))))
        elif kind == 2:
            values.append(writer.where(a < b, b, c))
        elif kind == 3:
            values.append(writer.numeric(draw(st.sampled_from(["neg", "abs", "sign", "round"])), a))
        elif kind == 4:
            values.append(writer.reduce(draw(st.sampled_from(["min", "max", "argmin"])), a))
        elif kind == 5:
            values.append(writer.divide(writer.arithmetic("sub", a, b), 7))
        else:
            values.append(writer.arithmetic("floordiv", writer.cast(a, I32), writer.cast(b, I32)))
    wanted = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    return writer.body(*wanted)


@given(bodies(), st.integers(1, 300), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_random_bodies_have_the_same_bits_in_c_and_numpy(
    body: Body, length: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, length)
    arrays = [rng.integers(-60, 60, shape).astype(d.numpy()) for d in body.operands]
    by_c, by_numpy = (run(compute, body, arrays, shape) for compute in both(body))
    for a, b in zip(by_c, by_numpy, strict=True):
        same(a, b)


# Cores and compilers ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F16, F32])
def test_results_do_not_depend_on_the_number_of_cores(
    dtype: DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_SERIAL", 0)
    writer = Writer()
    x, g = writer.load(0, dtype), writer.load(1, dtype)
    rows = norm_of(writer, x, g)
    writer = Writer()
    flat = writer.body(writer.silu(writer.load(0, dtype)) * writer.load(1, dtype))
    rng = np.random.default_rng(6)
    a, b = (rng.normal(size=(301, 1777)).astype(dtype.numpy()) for _ in range(2))
    for body in (rows, flat):
        for compute in both(body):
            alone = run(compute, body, [a, b], a.shape)[0]
            for count in (1, 2, 5):
                cores = Cores(count)
                out = np.zeros_like(a)
                compute([a, b, out], cores.parallel)
                cores.close()
                np.testing.assert_array_equal(out.view(np.uint8), alone.view(np.uint8))


def test_without_a_compiler_it_is_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    body = of(lambda w, x: w.floating("exp", x) * 3.25, F32)
    compute = compute_of(body)
    assert isinstance(compute, OnCpu)
    assert isinstance(compute.prepare(), ByNumpy)
    x = np.linspace(-3, 3, 100, dtype=np.float32)
    out = np.zeros_like(x)
    compute([x, out], serially)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)) * 3.25, rtol=1e-6)


def test_a_body_that_is_too_long_for_a_compiler_is_numpy() -> None:
    writer = Writer()
    value = writer.load(0, F32)
    for n in range(compiled.LONGEST):
        value = value * 1.0001 if n % 2 else value + 1.0
    assert compiled.library(writer.body(value)) is None
