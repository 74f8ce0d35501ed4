"""The running error analysis of bodies: no right result is blamed, and bounds are not idle."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.casts import cast
from graphexec.base.tensor import DType
from graphexec.ir.approximate import Approximate
from graphexec.ir.body import Body, Value, Writer
from graphexec.ops.kit.generate.by_numpy import evaluate
from graphexec.ops.kit.generate.running_error import running_error

Array = np.ndarray[Any, Any]

FLOATS = [DType.F16, DType.BF16, DType.F32, DType.F64]
FUNCTIONS = ["exp", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid", "erf", "erfc"]
SHAPE = (3, 7)


@st.composite
def bodies(draw: Any) -> Body:
    """Bodies of random steps over two operands, some with reductions."""
    writer = Writer()
    values: list[Value] = [
        writer.load(number, draw(st.sampled_from([*FLOATS, DType.I32]))) for number in range(2)
    ]
    for _ in range(draw(st.integers(1, 8))):
        values.append(_step(draw, writer, values))
    return writer.body(values[-1])


def _step(draw: Any, writer: Writer, values: list[Value]) -> Value:
    def any_of(*wanted: bool) -> Value:
        kept = [v for v in values if v.dtype is not DType.BOOL]
        return draw(st.sampled_from(kept))  # type: ignore[no-any-return]

    a, b = any_of(), any_of()
    floats = [v for v in values if v.dtype.is_float] or [writer.cast(a, DType.F32)]
    x = draw(st.sampled_from(floats))
    conditions = [v for v in values if v.dtype is DType.BOOL]
    kinds = ["two", "one", "function", "compare", "cast", "power", "row", *["where"] * 3]
    match draw(st.sampled_from(kinds if conditions else kinds[:-3])):
        case "two":
            name = draw(st.sampled_from(["add", "sub", "mul", "min", "max", "floordiv", "mod"]))
            return writer.arithmetic(name, a, draw(st.sampled_from([b, 3, 0.7])))
        case "one":
            name = draw(st.sampled_from(["neg", "abs", "sign", "floor", "ceil", "round"]))
            return writer.numeric(name, a)
        case "function":
            own = draw(st.sampled_from(["sigmoid", "gelu", "gelu_tanh", "silu", "softplus"]))
            name = draw(st.sampled_from([*FUNCTIONS, own]))
            return getattr(writer, name)(x) if name == own else writer.floating(name, x)
        case "compare":
            return writer.compare(draw(st.sampled_from(["eq", "ne", "lt", "le"])), a, b)
        case "cast":
            return writer.cast(a, draw(st.sampled_from([*FLOATS, DType.I32, DType.I8])))
        case "power":
            return writer.power(writer.numeric("abs", x), draw(st.sampled_from([2, 0.5, -1.5, x])))
        case "row":
            kind = draw(st.sampled_from(["sum", "prod", "min", "max", "argmin", "argmax"]))
            return writer.reduce(kind, a)
        case _:
            return writer.where(draw(st.sampled_from(conditions)), a, b)


def stored(body: Body, arrays: list[Array]) -> Array:
    """The result as the fallback computes and stores it, in float64."""
    [found] = evaluate(body, arrays, SHAPE, exact=False)
    with np.errstate(all="ignore"):
        return cast(found, body.dtypes[0].numpy()).astype(np.float64)


def arrays_of(body: Body, seed: int, rng: np.random.Generator) -> list[Array]:
    special = np.array([0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 1e-3])
    found = []
    for dtype in body.operands:
        values = rng.standard_normal(SHAPE) * rng.choice([0.1, 1.0, 5.0])
        values = np.where(rng.random(SHAPE) < 0.3, rng.choice(special, SHAPE), values)
        found.append(cast(values * (1 if dtype.is_float else 10), dtype.numpy()))
    return found


def wide(array: Array, dtype: DType) -> Array:
    return array.astype(np.float64) if dtype.is_float else array


def check(body: Body, found: Array, operands: list[Approximate]) -> None:
    [bound] = running_error(body, operands, SHAPE)
    [exact] = evaluate(body, [o.values for o in operands], SHAPE, exact=True)
    exact, bound, found = np.broadcast_arrays(exact.astype(np.float64), bound, found)
    assert not np.isnan(bound).any()
    judged = np.isfinite(exact) & np.isfinite(bound) & np.isfinite(found)
    with np.errstate(all="ignore"):
        wrong = judged & ~(np.abs(found - exact) <= bound)
    assert not wrong.any(), (found[wrong][0], exact[wrong][0], bound[wrong][0])


@given(bodies(), st.integers(0, 999))
def test_no_right_result_is_blamed(body, seed):
    arrays = arrays_of(body, seed, np.random.default_rng(seed))
    operands = [Approximate(wide(a, d), d) for a, d in zip(arrays, body.operands, strict=True)]
    check(body, stored(body, arrays), operands)


@given(bodies(), st.integers(0, 999), st.sampled_from([1e-6, 1e-3, 0.3]))
def test_operands_that_are_off_by_their_error(body, seed, scale):
    rng = np.random.default_rng(seed)
    arrays = arrays_of(body, seed, rng)
    operands = []
    for number, dtype in enumerate(body.operands):
        exact = wide(arrays[number], dtype)
        if not dtype.is_float:
            operands.append(Approximate(exact, dtype))
            continue
        moved = exact + scale * rng.choice([-1.0, 0.0, 1.0], SHAPE)
        arrays[number] = cast(moved, dtype.numpy())
        off = np.abs(arrays[number].astype(np.float64) - exact)
        operands.append(Approximate(exact, dtype, off))
    check(body, stored(body, arrays), operands)


def bound_of(expression: Any, *operands: Approximate) -> Array:
    writer = Writer()
    loads = [writer.load(n, o.dtype) for n, o in enumerate(operands)]
    body = writer.body(expression(writer, *loads))
    return running_error(body, list(operands), operands[0].values.shape)[0]


def test_a_sum_that_cancels_has_the_bound_of_its_terms():
    x = Approximate(np.array([[1.0, 2.0]]), DType.F32)
    bound = bound_of(lambda w, x: (x + 1e6) - 1e6, x)
    assert (bound > 0.05).all()
    assert (bound < 0.2).all()


def test_one_rounding_is_one_unit():
    x, y = (Approximate(np.array([[v]]), DType.F16) for v in (3.0, 7.0))
    bound = bound_of(lambda w, x, y: x * y, x, y)
    assert 21 * 2**-11 <= bound.item() <= 21 * 2**-11 * 1.01


@pytest.mark.parametrize(("x", "open_"), [(0.5, False), (0.7, True), (0.9, False)])
def test_comparisons_are_exact_unless_rounding_leaves_them_open(x, open_):
    given = Approximate(np.array([[x]]), DType.F64, np.array([[1e-3]]))
    assert bound_of(lambda w, x: x < 0.7, given).item() == open_


def test_comparisons_of_what_is_given_are_exact():
    x = Approximate(np.array([[0.0, 2.0, 5.0]]), DType.F32)
    i = Approximate(np.array([[0, 2, 4]], np.int32), DType.I32)
    assert not bound_of(lambda w, x, i: w.compare("eq", x, i), x, i).any()
    assert not bound_of(lambda w, x: x > 0, x).any()


def test_conversions_to_integers_are_off_by_one_only_near_an_integer():
    x = Approximate(np.array([[2.5, 2.9999, 3.0001]]), DType.F32, np.full((1, 3), 1e-3))
    assert bound_of(lambda w, x: w.cast(x, DType.I32), x).tolist() == [[0.0, 1.0, 1.0]]


def test_minus_infinity_stays_exact():
    x = Approximate(np.array([[-np.inf, 1.0]]), DType.F32)
    bound = bound_of(lambda w, x: w.floating("exp", x - w.reduce("max", x)), x)
    assert bound[0, 0] < 1e-40


def test_places_are_open_between_near_elements():
    x = Approximate(np.array([[1.0, 5.0, 4.9999, 2.0]]), DType.F32, np.full((1, 4), 1e-3))
    assert bound_of(lambda w, x: w.reduce("argmax", x), x).tolist() == [[1.0]]
    exact = Approximate(x.values, DType.F32)
    assert bound_of(lambda w, x: w.reduce("argmax", x), exact).tolist() == [[0.0]]


def test_a_choice_that_is_open_may_be_the_other():
    x = Approximate(np.array([[0.7, 5.0]]), DType.F64, np.full((1, 2), 1e-3))
    bound = bound_of(lambda w, x: w.where(x < 0.7, 10.0, 3.0), x)
    assert bound.tolist() == [[pytest.approx(7.0), pytest.approx(0.0, abs=1e-6)]]


def test_sums_of_many_may_lose_a_digit():
    x = Approximate(np.full((1, 100_000), 0.1), DType.F64)
    bound = bound_of(lambda w, x: w.reduce("sum", w.cast(x, DType.F32)), x)
    in_order = np.cumsum(np.full(100_000, 0.1, np.float32), dtype=np.float32)[-1]
    assert abs(in_order - 10_000) > 1.0  # one after another
    assert abs(in_order - 10_000) <= bound.item() <= 120.0


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
def test_compare_judges_by_it(dtype):
    graph = gx.Graph("g")
    graph.input("x", (6, 40), dtype)
    w = graph.input("w", (40,), dtype)
    h = graph.map("silu(x) * w + 0.5", name="h")
    n = graph.norm(h, weight=w, name="n")
    graph.output(m=graph.reduce(n, kind="logsumexp", axis=-1, name="m"), n=n)
    rng = np.random.default_rng(3)
    arrays = {"x": rng.standard_normal((6, 40)), "w": rng.standard_normal(40)}
    given_ = {name: a.astype(DType(dtype).numpy()) for name, a in arrays.items()}
    found = gx.compare(graph, given_, device="cpu")
    assert found.ok
    unit = {"f16": 2**-11, "f32": 2**-24, "f64": 2**-53}[dtype]
    for row in found.nodes:
        assert row.worst.bound <= unit * (abs(row.worst.expected) + 1) * 500
