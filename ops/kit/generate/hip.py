"""The steps of a body as statements of HIP C++.

A step is one statement, `const float t3 = t1 * t2;`. Elements in memory have the types of device.h
and are called x0, x1, … (operands) and y0, y1, … (results). Coordinates are i1 for the last axis,
i2 for the one before. steps.h has the functions that C++ lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from graphexec.base.tensor import DType
from graphexec.ir.body import Body, Step

OPTION = "-ffp-contract=off"
"""What the compiler is told: a · b + c rounds twice."""

_VALUES = {
    DType.F16: "float", DType.BF16: "float", DType.F32: "float", DType.F64: "double",
    DType.BOOL: "bool",
}  # fmt: skip
_UNSIGNED = {DType.I8: "u32", DType.U8: "u32", DType.I32: "u32", DType.I64: "u64"}

_FLOATS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "floordiv": "floor{f}({0} / {1})", "mod": "{0} - {1} * floor{f}({0} / {1})",
    "pow": "pow{f}({0}, {1})", "neg": "-{0}", "abs": "fabs{f}({0})", "round": "rint{f}({0})",
    **{name: name + "{f}({0})" for name in (
        "floor", "ceil", "exp", "log", "log1p", "sqrt", "sin", "cos", "tanh", "erf", "erfc",
    )},
    "sigmoid": "sigmoid_of({0})",
}  # fmt: skip
# Shorter, for results that are rounded to f16 or bf16.
_OF_HALVES = {
    "sigmoid": "sigmoid_of_halves({0})", "erfc": "complementary_error_of_halves({0})",
}  # fmt: skip
# Signed integers may not overflow in C++; unsigned ones wrap.
_INTEGERS = {
    "add": "{T}({U}({0}) + {U}({1}))", "sub": "{T}({U}({0}) - {U}({1}))",
    "mul": "{T}({U}({0}) * {U}({1}))", "neg": "{T}({U}(0) - {U}({0}))",
    "abs": "{0} < 0 ? {T}({U}(0) - {U}({0})) : {0}",
    "floordiv": "floor_divided({0}, {1})", "mod": "floor_remainder({0}, {1})",
}  # fmt: skip
_ANY = {
    "sign": "sign_of({0})", "min": "smaller({0}, {1})", "max": "larger({0}, {1})",
    "where": "{0} ? {1} : {2}", "isnan": "{0} != {0}", "isinf": "is_infinite({0})",
    "eq": "{0} == {1}", "ne": "{0} != {1}", "lt": "{0} < {1}", "le": "{0} <= {1}",
    "and": "{0} && {1}", "or": "{0} || {1}", "not": "!{0}",
}  # fmt: skip


def value_type(dtype: DType) -> str:
    """The C++ type in which values of a dtype are computed."""
    return _VALUES.get(dtype, dtype.value)


def coordinate(axis: int) -> str:
    """The name of the coordinate along an axis, counted from the end."""
    return f"i{-axis}"


def statements(
    body: Body, numbers: Sequence[int], element: Callable[[int], str] = "x{}".format
) -> Iterator[str]:
    """The statements of these steps, none of them a reduction. `element` gives the expression of
    an operand's element."""
    for number in numbers:
        step = body.steps[number]
        yield f"const {value_type(step.dtype)} t{number} = {_expression(body, step, element)};"


def _expression(body: Body, step: Step, element: Callable[[int], str]) -> str:
    match step.function:
        case "load":
            return f"widen({element(int(step.value or 0))})"
        case "constant":
            return literal(step.value or 0, step.dtype)
        case "index":
            return coordinate(int(step.value or 0))
        case "cast":
            return _cast(f"t{step.args[0]}", body.steps[step.args[0]].dtype, step.dtype)
    form = (_FLOATS if step.dtype.is_float else _INTEGERS).get(step.function)
    if body.makes_halves:
        form = _OF_HALVES.get(step.function, form)
    names = [f"t{number}" for number in step.args]
    return (form or _ANY[step.function]).format(
        *names, T=step.dtype.value, U=_UNSIGNED.get(step.dtype, ""),
        f="" if step.dtype is DType.F64 else "f",
    )  # fmt: skip


def _cast(name: str, source: DType, target: DType) -> str:
    if target is DType.BOOL:
        return f"{name} != {literal(0, source)}"
    if target in (DType.F16, DType.BF16):
        return f"rounded<{target.value}>({name})"
    if target.is_integer and source.is_float:
        return f"to_integer<{target.value}>({name})"
    if value_type(source) == value_type(target):
        return name
    return f"{value_type(target)}({name})"


def literal(value: bool | int | float, dtype: DType) -> str:
    """A number of a dtype in C++, exactly."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype is DType.I64:
        return f"({value + 1}ll - 1)" if value == -(2**63) else f"{value}ll"
    if dtype.is_integer:
        number = f"({value + 1} - 1)" if value == -(2**31) else str(value)
        return number if dtype is DType.I32 else f"{dtype.value}({number})"
    return _float(float(value), dtype)


def _float(value: float, dtype: DType) -> str:
    kind = value_type(dtype)
    if dtype is not DType.F64:
        value = float(np.float32(value))
    if not math.isfinite(value):
        bits = "0x7FC00000u" if math.isnan(value) else "0x7F800000u"
        return f"{'-' if value < 0 else ''}{kind}(from_bits({bits}))"
    text = repr(value) if dtype is DType.F64 else str(np.float32(value))
    text = text if any(mark in text for mark in ".e") else f"{text}.0"
    return text if dtype is DType.F64 else f"{text}f"
