"""Numbers as integers with a scale: quantizing, dequantizing, and products of what is quantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.extents import Extent
from graphexec.frontend.onnx.handlers.products import product
from graphexec.frontend.onnx.handlers.reductions import reduced
from graphexec.frontend.onnx.handlers.windows import convolved, windows_of
from graphexec.frontend.onnx.model import DTYPES, type_name
from graphexec.frontend.onnx.values import Node, Unsupported, Value, axis_of


def _along(b: Builder, n: Node, scale: Value, x: Value, part: str) -> Value:
    """A scale or zero point in the shape that broadcasts to x."""
    if scale.rank == 0 or scale.shape == (1,):
        return b.reshape(scale, [], part)
    axis = axis_of(n.attr("axis", 1), x.rank)
    block = n.attr("block_size", 0)
    if scale.rank == 1:
        return b.reshape(scale, [*scale.shape, *[1] * (x.rank - 1 - axis)], part)
    if not block:
        return scale
    wide: list[Extent] = [*scale.shape[: axis + 1], block, *scale.shape[axis + 1 :]]
    column = b.reshape(scale, [*scale.shape[: axis + 1], 1, *scale.shape[axis + 1 :]], part)
    return b.reshape(b.expand(column, wide, f"{part}_wide"), x.shape, f"{part}_blocks")


def _rounded(b: Builder, x: Value, scale: Value, zero: Value | None, to: DType) -> Value:
    """round(x / scale) + zero, at the nearest end of the type where it is outside."""
    if zero is None:
        return b.map("round({0} / {1})", x, scale, to=to)
    return b.map("round({0} / {1}) + {2}", x, scale, b.cast(zero, x.dtype, "zero_as"), to=to)


def _quantize(b: Builder, n: Node) -> Value:
    x = n.value(0)
    scale, zero = _along(b, n, n.value(1), x, "scale"), n.given(2)
    wanted = n.attr("output_dtype", 0)
    to = zero.dtype if zero is not None else DTYPES.get(wanted) if wanted else DType.U8
    if to not in (DType.U8, DType.I8, DType.I32):
        raise Unsupported(f"quantizing to {type_name(wanted)}")
    zero = None if zero is None else _along(b, n, zero, x, "zero")
    return _rounded(b, b.cast(x, scale.dtype, "as"), scale, zero, to)


def _dequantize(b: Builder, n: Node) -> Value:
    x = n.value(0)
    scale = _along(b, n, n.value(1), x, "scale")
    wide = _centered(b, x, None if n.given(2) is None else _along(b, n, n.value(2), x, "zero"), "x")
    to = DTYPES.get(n.attr("output_dtype", 0), scale.dtype)
    return b.map(f"cast({{0}}, {scale.dtype}) * {{1}}", wide, scale, gives=scale.dtype, to=to)


def _centered(b: Builder, x: Value, zero: Value | None, part: str) -> Value:
    """x - zero in i32."""
    wide = b.cast(x, DType.I32, f"{part}_wide")
    if zero is None:
        return wide
    return b.map("{0} - {1}", wide, b.cast(zero, DType.I32, f"{part}_zero"), part=f"{part}_own")


def _rows(b: Builder, value: Value, part: str) -> Value:
    """A scale or zero point of each row of a matrix."""
    return value if value.rank != 1 or value.shape == (1,) else b.reshape(
        value, [*value.shape, 1], part)  # fmt: skip


def _exact(b: Builder, values: Sequence[Value], of: Callable[[Value, Value], Value]) -> Value:
    """A product of integers of 8 bits: exact in f64."""
    wide = [b.cast(v, DType.F64, f"side_{i}") for i, v in enumerate(values)]
    return of(wide[0], wide[1])


def _matmul_integer(b: Builder, n: Node) -> Value:
    zeros = n.given(2), n.given(3)
    left = _centered(b, n.value(0), None if zeros[0] is None else _rows(b, zeros[0], "rows"), "a")
    sides = [left, _centered(b, n.value(1), zeros[1], "b")]
    return b.cast(_exact(b, sides, lambda x, y: product(b, x, y, "wide")), DType.I32)


def _qlinear_matmul(b: Builder, n: Node) -> Value:
    x, xs, xz, y, ys, yz, zs, zz = (n.value(i) for i in range(8))
    sides = [_centered(b, x, _rows(b, xz, "a_zeros"), "a"), _centered(b, y, yz, "b")]
    made = _exact(b, sides, lambda a, c: product(b, a, c, "wide"))
    named = (_rows(b, xs, "a_scales"), "a_scale"), (ys, "b_scale"), (zs, "y_scale")
    scales = [b.cast(scale, DType.F64, part) for scale, part in named]
    scaled = b.map("{0} * ({1} * {2})", made, scales[0], scales[1], part="scaled")
    return _rounded(b, scaled, scales[2], zz, zz.dtype)


def _convolved(b: Builder, n: Node, x: Value, weight: Value) -> Value:
    windows = windows_of(n, x, n.attr("kernel_shape") or weight.shape[2:])
    groups = n.attr("group", 1)
    return _exact(b, [x, weight], lambda a, c: convolved(b, a, c, None, windows, groups))


def _channels(b: Builder, zero: Value | None, weight: Value, part: str) -> Value | None:
    if zero is None or zero.rank == 0 or zero.shape == (1,):
        return zero
    return b.reshape(zero, [*zero.shape, *[1] * (weight.rank - 1)], part)


def _conv_integer(b: Builder, n: Node) -> Value:
    x, weight = n.value(0), n.value(1)
    zero = _channels(b, n.given(3), weight, "zeros")
    sides = _centered(b, x, n.given(2), "x"), _centered(b, weight, zero, "w")
    return b.cast(_convolved(b, n, *sides), DType.I32)


def _qlinear_conv(b: Builder, n: Node) -> Value:
    x, xs, xz, w, ws, wz, ys, yz = (n.value(i) for i in range(8))
    zero = _channels(b, wz, w, "w_zeros")
    made = _convolved(b, n, _centered(b, x, xz, "x"), _centered(b, w, zero, "w"))
    bias = n.given(8)
    channels: list[Extent] = [w.shape[0], *[1] * (x.rank - 2)]
    if bias is not None:
        wide = b.cast(b.reshape(bias, channels, "biases"), DType.F64, "bias")
        made = b.map("{0} + {1}", made, wide, part="sum")
    own = ws if ws.rank == 0 or ws.shape == (1,) else b.reshape(ws, channels, "w_scales")
    scales = [
        b.cast(s, DType.F64, p) for s, p in ((xs, "x_scale"), (own, "w_scale"), (ys, "y_scale"))
    ]
    scaled = b.map("{0} * ({1} * {2})", made, scales[0], scales[1], part="scaled")
    return _rounded(b, scaled, scales[2], yz, yz.dtype)


def _dynamic_quantize(b: Builder, n: Node) -> Sequence[Value]:
    x = n.value(0)
    axes = list(range(x.rank))
    low = b.map("min({0}, 0)", reduced(b, x, "min", axes, False, "min"), part="low")
    high = b.map("max({0}, 0)", reduced(b, x, "max", axes, False, "max"), part="high")
    scale = b.map("({1} - {0}) / 255", low, high, output=1)
    zero = b.map("round(max(0, min(255, (0 - {0}) / {1})))", low, scale, to=DType.U8, output=2)
    return [_rounded(b, x, scale, zero, DType.U8), scale, zero]


HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {
    "QuantizeLinear": _quantize, "DequantizeLinear": _dequantize,
    "MatMulInteger": _matmul_integer, "QLinearMatMul": _qlinear_matmul,
    "ConvInteger": _conv_integer, "QLinearConv": _qlinear_conv,
    "DynamicQuantizeLinear": _dynamic_quantize,
}  # fmt: skip
