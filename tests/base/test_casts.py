"""Casts against rounding in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numbers_table import array, assert_numbers, edges
from numbers_table import cast as as_expected

import graphexec as gx
from graphexec.base.casts import cast, cast_into
from graphexec.base.tensor import DType

BF16 = DType.BF16.numpy()
LARGEST = (2 - 2.0**-7) * 2.0**127


def nearest(value: float) -> float:
    """The bfloat16 nearest to a finite number, ties to even."""
    if value == 0:
        return value
    _, exponent = np.frexp(value)
    place = Fraction(2) ** int(max(exponent - 8, -133))
    rounded = round(Fraction(value) / place) * place
    return float(rounded) if abs(rounded) <= LARGEST else float(np.copysign(np.inf, value))


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1 + 2.0**-8 + 2.0**-40)
@example(1 + 2.0**-8)
@example(1 + 3 * 2.0**-8 - 2.0**-40)
@example(LARGEST + 2.0**119)
@example(2.0**-134)
def test_float64_to_bfloat16_is_rounded_once(value: float) -> None:
    found = cast(np.float64([value]), BF16)
    assert float(found[0]) == nearest(value)


@given(st.integers(0, 2**15 - 1), st.sampled_from([-1, 1]), st.integers(9, 51))
def test_near_ties(bits: int, side: int, power: int) -> None:
    """Halfway between two neighbours, and a little beside that."""
    value = float(np.array(bits, np.uint16).view(BF16))
    if not np.isfinite(value) or abs(value) < 1e-30:
        return
    middle = value * (1 + 2.0**-9) if bits else value
    beside = middle * (1 + side * 2.0**-power)
    assert float(cast(np.float64([beside]), BF16)[0]) == nearest(beside)


def test_infinities_and_nan_stay() -> None:
    found = cast(np.array([np.inf, -np.inf, np.nan, -0.0]), BF16).astype(np.float64)
    assert found[0] == np.inf
    assert found[1] == -np.inf
    assert np.isnan(found[2])
    assert np.signbit(found[3])


def test_any_strides_and_shapes() -> None:
    source = np.full((3, 4), 1 + 2.0**-8 + 2.0**-40)
    target = np.zeros((4, 6), BF16)
    cast_into(target[:, ::2], source.T)
    assert (target[:, ::2] == np.array(1.0078125, BF16)).all()
    assert (target[:, 1::2] == 0).all()
    assert cast(np.float64(1 + 2.0**-8 + 2.0**-40).reshape(()), BF16) == np.array(1.0078125, BF16)


ODD = np.full((2, 4, 4), 1 + 2.0**-8 + 2.0**-40)


@pytest.mark.parametrize("op", ["copy", "gemm", "attention", "softmax_then_copy"])
def test_ops_round_once(op: str) -> None:
    graph = gx.Graph()
    x = graph.input("x", (2, 4, 4), "f64")
    unit = graph.input("unit", (2, 4, 4), "f64")
    if op == "copy":
        y = graph.copy(x, dtype="bf16")
    elif op == "gemm":
        y = graph.copy(graph.gemm(x, unit), dtype="bf16")
    elif op == "attention":
        y = graph.attention(unit, unit, x, out_dtype="bf16")
    else:
        y = graph.copy(graph.copy(x, permute=[1, 0, 2]), dtype="bf16")
    graph.output(y=y)
    with gx.compile(graph, device="cpu") as exe:
        found = exe.run(x=ODD, unit=np.stack([np.eye(4)] * 2))["y"]
    assert (found == np.array(1.0078125, BF16)).all()


# All types --------------------------------------------------------------------------------------

PAIRS = [(source, target) for source in DType for target in DType]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_cast_of_edges(source: DType, target: DType) -> None:
    values = edges(source)
    found = cast(array(values, source), target.numpy())
    assert_numbers(found, [as_expected(value, target) for value in values], target)


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1.9, "f32", "i8", 1), (-1.9, "f64", "i32", -1), (-0.9, "bf16", "u8", 0),
        (127.9, "f16", "i8", 127), (128.0, "f16", "i8", 127), (-1e9, "f32", "i8", -128),
        (-1.0, "f32", "u8", 0), (256.0, "f16", "u8", 255), (np.inf, "f64", "u8", 255),
        (2147483520.0, "f32", "i32", 2147483520), (2147483648.0, "f32", "i32", 2**31 - 1),
        (2147483647.5, "f64", "i32", 2**31 - 1), (-np.inf, "bf16", "i32", -(2**31)),
        (9.3e18, "f64", "i64", 2**63 - 1), (-9.3e18, "f32", "i64", -(2**63)),
        (np.nan, "f16", "i64", 0), (np.nan, "f64", "u8", 0), (-0.0, "f32", "i32", 0),
        (300, "i32", "u8", 44), (-1, "i32", "u8", 255), (128, "u8", "i8", -128),
        (2**32 + 5, "i64", "i32", 5), (2**31, "i64", "i32", -(2**31)), (-1, "i8", "i64", -1),
        (0.1, "f32", "bool", True), (np.nan, "f64", "bool", True), (-0.0, "f16", "bool", False),
        (2**40, "i64", "bool", True), (256, "i32", "bool", True), (True, "bool", "f16", 1.0),
        (True, "bool", "i64", 1), (65520, "i32", "f16", np.inf), (65519, "i32", "f16", 65504.0),
        (2**24 + 1, "i32", "f32", 2.0**24), (2**24 + 3, "i32", "f32", 2.0**24 + 4),
        (257, "i32", "bf16", 256.0), (2**61 + 2**53 + 1, "i64", "bf16", 2.0**61 + 2.0**54),
        (2**53 + 1, "i64", "f64", 2.0**53), (255, "u8", "bf16", 255.0),
    ],
)  # fmt: skip
def test_casts_by_hand(value: float, source: str, target: str, expected: float) -> None:
    given_as = array([value], DType(source))
    found = cast(given_as, DType(target).numpy())
    assert_numbers(found, [expected], DType(target))


@pytest.mark.parametrize("target", list(DType))
def test_any_byte_but_zero_is_true(target: DType) -> None:
    source = np.array([0, 1, 2, 255], np.uint8).view(bool)
    found = cast(source, target.numpy()) if target is not DType.BOOL else np.zeros(4, bool)
    cast_into(found, source)
    assert found.astype(np.float64).tolist() == [0, 1, 1, 1]
    assert set(found.view(np.uint8)) <= {0, 1} or target is not DType.BOOL
