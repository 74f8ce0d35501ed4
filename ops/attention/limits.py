"""Attention on a GPU whose kernel reads on the device how many keys there are.

So a decoder whose cache is half empty reads half of it, and one captured graph serves every step.
Without this kernel, a mask says what is seen, and a GPU reads all keys (lengths.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.op import Call
from graphexec.ir.program import Parallel
from graphexec.ops.attention import lengths
from graphexec.ops.attention.problem import Limits, Problem, addend


def limited(call: Call, given: Problem) -> Problem | None:
    """The problem with the lengths of the call as operands; None where a mask says it."""
    halves = given.q.dtype in (DType.F16, DType.BF16)
    if not call.programs or not halves or call.attrs["softcap"] is not None:
        return None
    names = tuple(name for name in lengths.NAMES if name in call.operands)
    rank, queries = len(given.out.shape), given.q.shape[-2]
    each = (*given.out.shape[:-2], 1, 1)
    views = (lengths.spread(call.operands[name], rank).broadcast_to(each) for name in names)
    # A single query at the end sees every key before it.
    causal = bool(call.attrs["causal"]) and (queries > 1 or "start" in names)
    limits = Limits(names, queries, causal, call.attrs["window"])
    return replace(given, causal=False, limits=limits, lengths=tuple(views)).grouped()


def logits(views: list[Array], scale: float, causal: bool, limits: Limits | None) -> Array:
    """What the softmax is of, by NumPy in f32; `views` are q, k, perhaps a mask, and lengths."""
    q, k, *rest = views
    z = scale * np.matmul(q.astype(np.float32), k.astype(np.float32).swapaxes(-1, -2))
    rows, keys = z.shape[-2:]
    count = len(limits.names) if limits else 0
    for mask in rest[: len(rest) - count]:
        z = z + addend(mask).astype(np.float32)
    if limits:
        given = dict(zip(limits.names, rest[len(rest) - count :], strict=True))
        sizes = lengths.Sizes(limits.queries, keys, z.ndim)
        attrs = {"causal": limits.causal, "window": limits.window}
        z = np.where(lengths.seen_by_numpy(given, attrs, sizes), z, -np.inf)
    return np.where(np.tri(rows, keys, keys - rows, dtype=bool), z, -np.inf) if causal else z


@dataclass(frozen=True)
class LimitedOnCpu:
    """The kernel by NumPy, over q, k, v, the result, perhaps a mask, and lengths."""

    scale: float
    limits: Limits

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute it, by the formula."""
        q, k, v, out, *rest = arrays
        z = logits([q, k, *rest], self.scale, False, self.limits)
        top = z.max(axis=-1, keepdims=True)
        weights = np.exp(z - np.where(top == -np.inf, 0.0, top))
        total = weights.sum(axis=-1, keepdims=True)
        weights /= np.where(total == 0.0, 1.0, total)
        out[...] = np.matmul(weights, v.astype(np.float32)).astype(out.dtype)
