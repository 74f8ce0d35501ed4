"""Casts against rounding in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
