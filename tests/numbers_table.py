"""What functions of numbers give, by Python's own numbers: the table generated kernels are held to.

Nothing here comes from the package but the names of dtypes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from graphexec.base.tensor import DType

Array = np.ndarray[Any, Any]

BITS = {DType.I8: 8, DType.U8: 8, DType.I32: 32, DType.I64: 64}
# Bits of the significand, the exponent of the smallest subnormal, the least power that overflows.
FORMATS = {
    DType.F16: (11, -24, 16), DType.BF16: (8, -133, 128), DType.F32: (24, -149, 128),
    DType.F64: (53, -1074, 1024),
}  # fmt: skip


def limits(dtype: DType) -> tuple[int, int]:
    bits = BITS[dtype]
    return (0, 2**bits - 1) if dtype is DType.U8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def wrapped(value: int, dtype: DType) -> int:
    low, high = limits(dtype)
    return (value - low) % (high - low + 1) + low


def nearest(value: Fraction, dtype: DType) -> float:
    """Rounded to nearest, ties to even, once."""
    bits, lowest, highest = FORMATS[dtype]
    if value == 0:
        return 0.0
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    if abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - bits + 1, lowest)
    found = round(value / unit) * unit
    if abs(found) >= Fraction(2) ** highest:
        return math.inf if found > 0 else -math.inf
    return math.copysign(float(found), 1 if value > 0 else -1)


def cast(value: float | int | bool, dtype: DType) -> float | int | bool:
    """A number in another dtype."""
    if dtype is DType.BOOL:
        return value != 0
    if dtype.is_integer:
        if isinstance(value, int):
            return wrapped(int(value), dtype)
        low, high = limits(dtype)
        if math.isnan(value):
            return 0
        if math.isinf(value):
            return high if value > 0 else low
        return min(max(math.trunc(value), low), high)
    if isinstance(value, float) and (value == 0 or not math.isfinite(value)):
        return value
    return nearest(Fraction(value), dtype)


def edges(dtype: DType) -> list[Any]:
    """Numbers of a dtype at which something may go wrong."""
    if dtype is DType.BOOL:
        return [False, True]
    if dtype.is_integer:
        low, high = limits(dtype)
        near = [
            -129,
            -128,
            -100,
            -7,
            -3,
            -2,
            -1,
            0,
            1,
            2,
            3,
            5,
            7,
            127,
            128,
            255,
            256,
            65519,
            65520,
        ]
        far = [2**24 + 1, -(2**24) - 3, 2**53 + 1, 2**61 + 2**53 + 1, -(2**61) - 2**53 - 1]
        found = {low, low + 1, high, high - 1} | {n for n in near + far if low <= n <= high}
        return sorted(found)
    bits, lowest, highest = FORMATS[dtype]
    one, largest = 2.0 ** (1 - bits), 2.0 ** (highest - 1) * (2 - 2.0 ** (1 - bits))
    plain = [0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 7.25, 100.0, 127.5, 128.0, 255.5, 256.0, 2.0**-14]
    ends = [1 + one, 1 - one / 2, largest, 2.0**lowest, 2.0 ** (lowest + bits - 1), math.inf]
    wide = [2.0**31, 2.0**31 - 0.5, 2.0**63, 65519.0, 65520.0, 3e38, 1 + 2.0**-8 + 2.0**-40]
    numbers = [*plain, *ends, *wide]
    kept = {abs(float(cast(n, dtype))) for n in numbers}
    return [*sorted(kept), *(-n for n in sorted(kept)), math.nan]


def array(values: list[Any], dtype: DType) -> Array:
    """Numbers of a dtype as an array."""
    if dtype is DType.BF16:
        return np.array(values, np.float32).astype(dtype.numpy())
    return np.array(values, dtype.numpy())


def assert_numbers(found: Array, expected: list[Any], dtype: DType) -> None:
    """These numbers, signs of zeros included, and bytes of bools that are 0 or 1."""
    assert found.dtype == dtype.numpy()
    wanted = array(expected, dtype)
    if not dtype.is_float:
        assert found.view(np.uint8).tolist() == wanted.view(np.uint8).tolist()
        return
    wide, right = found.astype(np.float64), wanted.astype(np.float64)
    np.testing.assert_array_equal(wide, right)
    number = ~np.isnan(right)
    assert (np.signbit(wide) == np.signbit(right))[number].all()


def _floor_divided(a: int, b: int) -> int:
    return a // b if b else 0


def _remainder(a: int, b: int) -> int:
    return a % b if b else 0


INTEGER_PAIRS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": _floor_divided, "mod": _remainder, "min": min, "max": max,
}  # fmt: skip
INTEGER_SINGLES: dict[str, Callable[[int], int]] = {
    "neg": lambda a: -a, "abs": abs, "sign": lambda a: (a > 0) - (a < 0),
}  # fmt: skip
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}  # fmt: skip


def _extreme(of: Callable[[float, float], float]) -> Callable[[float, float], float]:
    return lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else of(a, b)


FLOAT_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "floordiv": lambda a, b: np.floor(a / b), "mod": lambda a, b: a - b * np.floor(a / b),
    "min": np.minimum, "max": np.maximum,
}  # fmt: skip
"""Of arrays of the type that is computed in: IEEE's operations, which NumPy rounds correctly."""

FLOAT_SINGLES: dict[str, Callable[[Any], Any]] = {
    "neg": np.negative, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    "sqrt": np.sqrt, "sign": lambda x: np.where(np.isnan(x), x, (x > 0) * 1.0 - (x < 0) * 1.0),
}  # fmt: skip

APPROXIMATE: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x))),
    "erf": np.vectorize(math.erf, otypes=[np.longdouble]),
    "erfc": np.vectorize(math.erfc, otypes=[np.longdouble]),
}  # fmt: skip
"""Of extended precision, in which they are more exact than float64 except for erf and erfc."""
