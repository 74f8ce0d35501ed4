"""Attention and rotary embedding as one operator, in the cases that the ops of that name cover.

In the other cases their definitions by other operators are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.extents import Extent, count
from graphexec.frontend.onnx.values import Node, Value

_COVERED = {"is_causal", "kv_num_heads", "q_num_heads", "scale", "softmax_precision", "softcap",
            "qk_matmul_output_mode"}  # fmt: skip


def _attention(b: Builder, n: Node) -> Sequence[Value] | None:
    """Heads of q share those of k and v where there are more; the mask is added."""
    if not _covered(n):
        return None
    mask, causal = n.given(3), bool(n.attr("is_causal", 0))
    q = _heads(b, n.value(0), n.attr("q_num_heads", 0), "q")
    k = _heads(b, n.value(1), n.attr("kv_num_heads", 0), "k")
    v = _heads(b, n.value(2), n.attr("kv_num_heads", 0), "v")
    if n.given(4) is not None:
        k, v = _joined(b, n.value(4), k, 1), _joined(b, n.value(5), v, 2)
    rows, keys = q.shape[2], k.shape[2]
    if not _fits(mask, q, keys):
        return None
    own = q.shape[1]
    shared = k.shape[1]
    if not isinstance(own, int) or not isinstance(shared, int) or own % shared:
        return None
    if mask is not None:
        mask = _added(b, mask, q.dtype)
    if causal and n.given(4) is None and rows != keys:  # counted from the first key, not the last
        mask, causal = _triangle(b, mask, [rows, keys], q.dtype), False
    y = (
        _one(b, n, q, k, v, mask, causal)
        if own == shared
        else _grouped(b, n, q, k, v, mask, causal)
    )
    if n.value(0).rank == 3:
        turned = b.transpose(y, [0, 2, 1, 3], "rows")
        y = b.reshape(turned, [y.shape[0], rows, count((own, v.shape[3]))])
    return [y, k, v][: len(n.outputs)]


def _covered(n: Node) -> bool:
    """Whether nothing is asked for that the op does not do."""
    scores = len(n.outputs) > 3 and n.outputs[3]
    return (
        set(n.attrs) <= _COVERED and not n.attr("softcap", 0.0) and not scores
        and n.given(6) is None and n.value(0).dtype == n.value(2).dtype
    )  # fmt: skip


def _fits(mask: Value | None, q: Value, keys: Extent) -> bool:
    """Whether a mask is one for all keys, of bools or of q's type."""
    if mask is None:
        return True
    return mask.dtype in (DType.BOOL, q.dtype) and mask.shape[-1] == keys


def _heads(b: Builder, x: Value, heads: int, part: str) -> Value:
    """(B, S, H · D) as (B, H, S, D)."""
    if x.rank == 4:
        return x
    batch, rows, features = x.shape
    split = b.reshape(x, [batch, rows, heads, features // heads], f"{part}_split")
    return b.transpose(split, [0, 2, 1, 3], f"{part}_heads")


def _joined(b: Builder, past: Value, new: Value, output: int) -> Value:
    shape = [*new.shape]
    shape[2] = past.shape[2] + new.shape[2]
    if past.shape[2] == 0:
        return new
    return b.op("concat", {"x": [past, new]}, shape, new.dtype, "", output, axis=2)


def _added(b: Builder, mask: Value, dtype: DType) -> Value:
    """A mask of bools, true where a key is seen, as one that is added."""
    if mask.dtype != DType.BOOL:
        return mask
    return b.map("where({0}, 0, -inf)", mask, to=dtype, part="mask")


def _triangle(b: Builder, mask: Value | None, shape: Sequence[Extent], dtype: DType) -> Value:
    """The mask by which query i sees the keys up to i."""
    seen = "index(-1) <= index(-2)"
    if mask is None:
        return b.map(f"where({seen}, 0, -inf)", shape=shape, to=dtype, part="triangle")
    return b.map(f"where({seen}, {{0}}, -inf)", mask, shape=shape, part="triangle")


def _one(
    b: Builder, n: Node, q: Value, k: Value, v: Value, mask: Value | None, causal: bool,
    part: str = "",
) -> Value:  # fmt: skip
    part = part or ("heads" if n.value(0).rank == 3 else "")
    more = {"causal": True} if causal else {}
    if n.attr("scale") is not None:
        more["scale"] = n.attr("scale")
    shape = [*q.shape[:-1], v.shape[-1]]
    operands = {"q": q, "k": k, "v": v, "mask": mask}
    return b.op("attention", operands, shape, q.dtype, part, **more)


def _grouped(
    b: Builder, n: Node, q: Value, k: Value, v: Value, mask: Value | None, causal: bool
) -> Value:
    """Groups of heads of q, each with its head of k and v."""
    batch, heads, rows, size = q.shape
    groups = k.shape[1]
    each = heads // groups
    split = b.reshape(q, [batch, groups, each, rows, size], "q_groups")
    wide = [b.reshape(x, [x.shape[0], groups, 1, *x.shape[2:]], f"{p}_groups")
            for x, p in ((k, "k"), (v, "v"))]  # fmt: skip
    if mask is not None and mask.rank > 2:
        lead: list[Extent] = [1, *mask.shape][-4:-2] if mask.rank == 3 else [*mask.shape[:2]]
        own = [groups, each] if lead[1] == heads else [1, 1]
        mask = b.reshape(mask, [lead[0], *own, *mask.shape[-2:]], "mask_groups")
    y = _one(b, n, split, wide[0], wide[1], mask, causal, "groups")
    return b.reshape(y, [batch, heads, rows, v.shape[3]], "heads" if n.value(0).rank == 3 else "")


def _rotary(b: Builder, n: Node) -> Value | None:
    x, cos, sin, position = n.value(0), n.value(1), n.value(2), n.given(3)
    heads = n.attr("num_heads", 0)
    flat = x.rank == 3
    y = _heads(b, x, heads, "x") if flat else x
    batch, _, rows, size = y.shape
    if position is None:  # a row of the tables for each row of x
        tables = [b.reshape(t, [count(t.shape[:-1]), t.shape[-1]], p)
                  for t, p in ((cos, "cos"), (sin, "sin"))]  # fmt: skip
        cos, sin = tables
        text = f"index(0) * {literal(rows)} + index(2)"
        position = b.map(text, shape=[batch, 1, rows], to=DType.I64, part="position")
    else:
        position = b.reshape(position, [position.shape[0], 1, rows], "position")
    if cos.rank != 2 or not x.dtype.is_float:
        return None
    more: dict[str, str | int] = {"pairs": "interleaved"} if n.attr("interleaved", 0) else {}
    rotate = n.attr("rotary_embedding_dim", 0)
    if rotate and rotate != size:
        more["rotate"] = rotate
    operands = {"x": y, "position": position, "cos": cos, "sin": sin}
    made = b.op("rope", operands, y.shape, x.dtype, "heads" if flat else "", **more)  # type: ignore[arg-type]
    return b.reshape(b.transpose(made, [0, 2, 1, 3], "rows"), x.shape) if flat else made


HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value] | None]] = {
    "Attention": _attention, "RotaryEmbedding": _rotary,
}  # fmt: skip
