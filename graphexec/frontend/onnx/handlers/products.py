"""Products of matrices, softmax, and normalizations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.extents import Extent, broadcast, count
from graphexec.frontend.onnx.handlers.patterns import by
from graphexec.frontend.onnx.handlers.reductions import reduced
from graphexec.frontend.onnx.handlers.whole import attention_of
from graphexec.frontend.onnx.values import Node, Unsupported, Value, axis_of


def product(b: Builder, x: Value, y: Value, part: str = "", bias: Value | None = None) -> Value:
    """x @ y by NumPy's rules, also of vectors."""
    left = b.reshape(x, [1, *x.shape], "row") if x.rank == 1 else x
    right = b.reshape(y, [*y.shape, 1], "column") if y.rank == 1 else y
    batch = broadcast(left.shape[:-2], right.shape[:-2])
    shape = [*batch, left.shape[-2], right.shape[-1]]
    vectors = x.rank == 1 or y.rank == 1
    made = b.op("gemm", {"a": left, "b": right, "bias": bias}, shape, x.dtype,
                part or ("matrix" if vectors else ""))  # fmt: skip
    if not vectors:
        return made
    rows = [] if x.rank == 1 else [left.shape[-2]]
    return b.reshape(made, [*batch, *rows, *([] if y.rank == 1 else [right.shape[-1]])])


def _matmul(b: Builder, n: Node) -> Value:
    x, y = n.value(0), n.value(1)
    if not x.dtype.is_float:
        return _exact(b, x, y, x.dtype)
    return attention_of(b, n) or product(b, x, y)


def _exact(b: Builder, x: Value, y: Value, to: DType) -> Value:
    """A product of integers: exact in f64 below 2 ** 53."""
    if DType.I64 in (x.dtype, y.dtype):
        raise Unsupported("a product of i64")
    wide = [b.cast(v, DType.F64, part) for v, part in ((x, "a"), (y, "b"))]
    return b.cast(product(b, wide[0], wide[1], "wide"), to)


def _gemm(b: Builder, n: Node) -> Value:
    x, y, c = n.value(0), n.value(1), n.given(2)
    if not x.dtype.is_float:
        raise Unsupported(f"a Gemm of {x.dtype}")
    turned = bool(n.attr("transA", 0)), bool(n.attr("transB", 0))
    rows = x.shape[1] if turned[0] else x.shape[0]
    columns = y.shape[0] if turned[1] else y.shape[1]
    attrs: dict[str, Any] = {}
    if turned[0]:
        attrs["trans_a"] = True
    if turned[1]:
        attrs["trans_b"] = True
    if n.attr("alpha", 1.0) != 1:
        attrs["alpha"] = n.attr("alpha")
    operands: dict[str, Value | None] = {"a": x, "b": y}
    beta = n.attr("beta", 1.0)
    if c is not None and beta == 1 and c.shape == (columns,):
        operands["bias"] = c
    elif c is not None and beta != 0:
        operands["c"] = c
        if beta != 1:
            attrs["beta"] = beta
    return b.op("gemm", operands, [rows, columns], x.dtype, **attrs)


def _add(b: Builder, n: Node) -> Value:
    """A sum, or the bias of a product that nothing else reads."""
    for own, other in ((0, 1), (1, 0)):
        x, bias = n.value(own), n.value(other)
        made = by(x, "MatMul")
        if (
            made is not None and b.uses[made.outputs[0]] == 1 and x.dtype.is_float
            and bias.key is not None and bias.shape == x.shape[-1:] and x.rank > 1
            and made.value(0).rank > 1 and made.value(1).rank > 1
        ):  # fmt: skip
            return product(b, made.value(0), made.value(1), bias=bias)
    return b.map("{0} + {1}", n.value(0), n.value(1))


def _softmax(b: Builder, n: Node) -> Value:
    x = n.value(0)
    return b.op("softmax", {"x": x}, x.shape, x.dtype, axis=one_axis(n))


def one_axis(n: Node) -> int:
    """The axis of a softmax. Before opset 13 it was all axes from one on."""
    rank = n.value(0).rank
    axis = axis_of(n.attr("axis", -1 if n.opset >= 13 else 1), rank)
    if n.opset < 13 and axis != rank - 1:
        raise Unsupported("a softmax over several axes, as before opset 13")
    return axis


def _log_softmax(b: Builder, n: Node) -> Value:
    x = n.value(0)
    axis = one_axis(n)
    sums = reduced(b, x, "logsumexp", [axis], True, "logsumexp")
    return b.map("{0} - {1}", x, sums)


def _layer_normalization(b: Builder, n: Node) -> Sequence[Value]:
    x = n.value(0)
    axis = axis_of(n.attr("axis", -1), x.rank)
    eps = n.attr("epsilon", 1e-5)
    y = _normed(b, x, axis, "layer", eps, n.value(1), n.given(2))
    if len(n.outputs) == 1:
        return [y]
    axes = list(range(axis, x.rank))
    wide = b.cast(x, DType.F32, "wide") if x.dtype != DType.F64 else x
    mean = reduced(b, wide, "mean", axes, True, output=1)
    square = b.map("({0} - {1}) * ({0} - {1})", wide, mean, part="square")
    variance = reduced(b, square, "mean", axes, True, "variance")
    return [y, mean, b.map(f"rsqrt({{0}} + {literal(eps)})", variance, output=2)]


def _rms_normalization(b: Builder, n: Node) -> Value:
    x = n.value(0)
    axis = axis_of(n.attr("axis", -1), x.rank)
    return _normed(b, x, axis, "rms", n.attr("epsilon", 1e-5), n.value(1), None)


def _normed(
    b: Builder, x: Value, axis: int, kind: str, eps: float, weight: Value, bias: Value | None
) -> Value:
    """x normalized along all axes from `axis` on, which are joined to one."""
    shape, last = x.shape, count(x.shape[axis:])
    if last == 1:
        raise Unsupported("a normalization of one element")
    joined: list[Extent] = [*shape[:axis], last]
    flat = b.reshape(x, joined, "rows")
    named = (("weight", weight), ("bias", bias))
    factors = {key: b.reshape(b.expand(v, shape[axis:], f"{key}_wide"), [last], key)
               for key, v in named if v is not None}  # fmt: skip
    part = "" if joined == list(shape) else "normed"
    y = b.op("norm", {"x": flat, **factors}, joined, x.dtype, part, kind=kind, eps=eps)
    return b.reshape(y, shape)


def _batch_normalization(b: Builder, n: Node) -> Value:
    x = n.value(0)
    if n.attr("training_mode", 0):
        raise Unsupported("training")
    shape: list[Extent] = [x.shape[1], *[1] * (x.rank - 2)]
    names = ("scale", "bias", "mean", "variance")
    values = [b.reshape(n.value(i + 1), shape, part) for i, part in enumerate(names)]
    text = f"({{0}} - {{3}}) * rsqrt({{4}} + {literal(n.attr('epsilon', 1e-5))}) * {{1}} + {{2}}"
    return b.map(text, x, *values, gives=x.dtype)


def _instance_normalization(b: Builder, n: Node) -> Value:
    x = n.value(0)
    rows = b.reshape(x, [*x.shape[:2], count(x.shape[2:])], "rows")
    if rows.shape[2] == 1:
        raise Unsupported("a normalization of one element")
    normed = b.op("norm", {"x": rows}, rows.shape, x.dtype, "normed",
                  eps=n.attr("epsilon", 1e-5))  # fmt: skip
    shape: list[Extent] = [x.shape[1], 1]
    scale, bias = (b.reshape(n.value(i), shape, p) for i, p in ((1, "scale"), (2, "bias")))
    return b.reshape(b.map("{0} * {1} + {2}", normed, scale, bias, part="scaled"), x.shape)


def _lp_normalization(b: Builder, n: Node) -> Value:
    x = n.value(0)
    axis = axis_of(n.attr("axis", -1), x.rank)
    one = n.attr("p", 2) == 1
    terms = b.map("abs({0})" if one else "{0} * {0}", x, part="terms")
    sums = reduced(b, terms, "sum", [axis], True, "sum")
    size = "{1}" if one else "sqrt({1})"
    return b.map(f"where({{1}} == 0, 0, {{0}} / {size})", x, sums)


HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {
    "MatMul": _matmul, "Gemm": _gemm, "Add": _add,
    "Softmax": _softmax, "LogSoftmax": _log_softmax,
    "LayerNormalization": _layer_normalization, "RMSNormalization": _rms_normalization,
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _instance_normalization, "LpNormalization": _lp_normalization,
}  # fmt: skip
