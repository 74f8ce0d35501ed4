"""Attention that a model writes as two products and a softmax."""

from __future__ import annotations

from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.extents import broadcast
from graphexec.frontend.onnx.handlers.patterns import by, number_of, scaled
from graphexec.frontend.onnx.values import Node, Value


def attention_of(b: Builder, n: Node) -> Value | None:
    """softmax(scale · q · kᵀ + mask) · v, where `n` is the product with v; else None."""
    softmax = by(_without_nan(n.value(0)), "Softmax")
    if softmax is None or _axis(softmax) not in (-1, n.value(0).rank - 1):
        return None
    scores, mask = softmax.value(0), None
    if (sum_ := by(scores, "Add")) is not None:
        for own, other in ((0, 1), (1, 0)):
            if by(scaled(sum_.value(own))[0], "MatMul") is not None:
                scores, mask = sum_.value(own), sum_.value(other)
                break
    scores, scale = scaled(scores)
    product = by(scores, "MatMul")
    if product is None or not product.value(0).dtype.is_float:
        return None
    (q, one), (k, two) = scaled(product.value(0)), scaled(product.value(1))
    v = n.value(1)
    if min(q.rank, k.rank, v.rank) < 2 or not _fits(mask, scores):
        return None
    batch = broadcast(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    operands = {"q": q, "k": k, "v": v, "mask": mask}
    return b.op("attention", operands, [*batch, q.shape[-2], v.shape[-1]], q.dtype,
                scale=scale * one * two, trans_k=True)  # fmt: skip


def _axis(softmax: Node) -> int:
    return int(softmax.attr("axis", -1 if softmax.opset >= 13 else 1))


def _fits(mask: Value | None, scores: Value) -> bool:
    """Whether a mask is a tensor that broadcasts to the scores, and not they to it."""
    if mask is None:
        return True
    return number_of(mask) is None and broadcast(mask.shape, scores.shape) == scores.shape


def _without_nan(value: Value) -> Value:
    """The x of where(isnan(x), 0, x): here, a row that sees nothing is 0 without that."""
    node = by(value, "Where")
    if node is None or by(node.value(0), "IsNaN") is None or number_of(node.value(1)) != 0:
        return value
    return node.value(2)
