"""Integers by their bits, written as arithmetic: shifts, logic, and powers of integers."""

from __future__ import annotations

from collections.abc import Callable

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.values import Node, Unsupported, Value

_WIDTHS = {DType.U8: 8, DType.I8: 8, DType.I32: 32, DType.I64: 64}


def power(b: Builder, x: Value, y: Value, part: str = "") -> Value:
    """x ** y of integers, by squaring, for y from 0 to 63."""
    found = b.map("where({1} % 2 == 1, {0}, 1)", x, y, part="power_0")
    for bit in range(1, 6):
        x = b.map("{0} * {0}", x, part=f"square_{bit}")
        text = f"{{0}} * where({{2}} // {1 << bit} % 2 == 1, {{1}}, 1)"
        found = b.map(text, found, x, y, part=part if bit == 5 else f"power_{bit}")
    return found


def _shift(b: Builder, n: Node) -> Value:
    x, by = n.value(0), n.value(1)
    width = _WIDTHS.get(x.dtype)
    if width is None or x.dtype == DType.I64:
        raise Unsupported(f"shifts of {x.dtype}")
    wide, places = b.cast(x, DType.I64, "wide"), b.cast(by, DType.I64, "places")
    factor = power(b, b.map("{0} * 0 + 2", places, part="two"), places, "factor")
    left = n.attr("direction") == "LEFT"
    text, rest = ("{0} * {1}", "0") if left else ("{0} // {1}", "where({0} < 0, -1, 0)")
    outside = f"{{2}} < 0 or {{2}} >= {width}"
    return b.map(f"where({outside}, {rest}, {text})", wide, factor, places, to=x.dtype)


def _bitwise(of: str) -> Callable[[Builder, Node], Value]:
    """`and` is a sum over the bits; `or` and `xor` follow from it."""

    def handler(b: Builder, n: Node) -> Value:
        x, y = n.value(0), n.value(1)
        width = _WIDTHS.get(x.dtype)
        if width is None:
            raise Unsupported(f"bits of {x.dtype}")
        terms = [f"where({{0}} // {1 << k} % 2 == 1 and {{1}} // {1 << k} % 2 == 1, {1 << k}, 0)"
                 for k in range(width - 1)]  # fmt: skip
        signed = x.dtype != DType.U8
        top = "{0} < 0 and {1} < 0" if signed else "{0} >= 128 and {1} >= 128"
        terms.append(f"where({top}, {-(1 << width - 1) if signed else 128}, 0)")
        both = None
        for first in range(0, width, 16):  # an expression is nested at most 100 deep
            text = " + ".join(terms[first : first + 16])
            found = b.map(text, x, y, part=f"bits_{first}")
            both = found if both is None else b.map("{0} + {1}", both, found, part=f"to_{first}")
        assert both is not None
        text = {"and": "{2}", "or": "{0} + {1} - {2}", "xor": "{0} + {1} - 2 * {2}"}[of]
        return both if of == "and" else b.map(text, x, y, both)

    return handler


def _not(b: Builder, n: Node) -> Value:
    x = n.value(0)
    return b.map("255 - {0}" if x.dtype == DType.U8 else "-1 - {0}", x)


HANDLERS: dict[str, Callable[[Builder, Node], Value]] = {
    "BitShift": _shift, "BitwiseAnd": _bitwise("and"), "BitwiseOr": _bitwise("or"),
    "BitwiseXor": _bitwise("xor"), "BitwiseNot": _not,
}  # fmt: skip
