"""Softmax along the last axis as a body, for the generated kernel of a softmax and its
neighbours."""

from __future__ import annotations

import math

from graphexec.base.tensor import View
from graphexec.ir.body import Body, Value, Writer


def body_of(x: View, mask: View | None, scale: float, causal: bool) -> Body:
    """Operand 0 is x, operand 1 the mask. Rows that see nothing are zero."""
    writer = Writer()
    z: Value = writer.load(0, x.dtype)
    z = z * scale if scale != 1.0 else z
    if mask is not None:
        z = z + writer.load(1, mask.dtype)
    if causal:
        queries, keys = x.shape[-2:]
        seen = writer.index(-1) <= writer.index(-2) + (keys - queries)
        z = writer.where(seen, z, -math.inf)
    top = writer.reduce("max", z)
    shift = writer.where(writer.compare("eq", top, -math.inf), 0.0, top)
    weight = writer.floating("exp", z - shift)
    total = writer.reduce("sum", weight)
    result = weight / writer.where(writer.compare("eq", total, 0.0), 1.0, total)
    return writer.body(writer.cast(result, x.dtype))
