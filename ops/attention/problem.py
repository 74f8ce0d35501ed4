"""Attention over views with equal batch axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log2, prod

import numpy as np

from graphexec.base.tensor import Array, DType, View
from graphexec.ir.access import Access, In, Out

LARGEST_HEAD = 256
"""Head and value sizes up to this have a configuration."""


@dataclass(frozen=True)
class Problem:
    """out = softmax(scale · q @ kᵀ + mask) @ v over equal leading batch axes.

    q is (…, M, D), k (…, N, D), v (…, N, Dv), mask (…, M, N), out (…, M, Dv); broadcast axes have
    stride 0. A mask of bools says which keys are seen.
    """

    q: View
    k: View
    v: View
    mask: View | None
    out: View
    scale: float
    causal: bool

    @staticmethod
    def of(views: Sequence[View], scale: float, causal: bool) -> Problem:
        """The problem whose `views` these are."""
        q, k, v, out, *mask = views
        return Problem(q, k, v, mask[0] if mask else None, out, scale, causal)

    def tiles(self, block: int) -> int:
        """The number of blocks of this many queries in all batch entries."""
        shape = self.q.shape
        return prod(shape[:-2]) * -(-shape[-2] // block)

    @property
    def has_one_mask(self) -> bool:
        """Whether the mask hides the same keys from all queries of a batch entry."""
        return self.mask is not None and self.mask.strides[-2] == 0

    @property
    def headroom(self) -> float:
        """The power of two that GPU kernels divide weights by: all weights of a query then add up
        to at most ½, and no sum of values exceeds the largest one. Where f16 has no room for small
        weights, values are far from overflowing in f32, in which they are added up."""
        return 0.0 if self.q.dtype is DType.F16 else ceil(log2(self.k.shape[-2])) + 1.0

    def grouped(self) -> Problem:
        """The same problem, with single queries that share their keys along the last batch axis
        (grouped heads in decoding) as rows."""
        shared = self.q.shape[-2] == 1 and len(self.q.shape) > 2 and self.q.shape[-3] > 1
        if not shared or self.k.strides[-3] or self.v.strides[-3]:
            return self
        q, out, *mask = (
            _without(view, -2) for view in (self.q, self.out, self.mask) if view is not None
        )
        k, v = (_without(view, -3) for view in (self.k, self.v))
        # The single query saw every key; as rows, the queries still do.
        return Problem(q, k, v, mask[0] if mask else None, out, self.scale, causal=False)

    def views(self) -> tuple[View, ...]:
        """The arguments of the kernel, in order; the mask, if any, comes last."""
        base = (self.q, self.k, self.v, self.out)
        return base if self.mask is None else (*base, self.mask)

    def accesses(self, out: View) -> tuple[Access, ...]:
        """The same as accesses, with `out` in the place of the result."""
        masks = () if self.mask is None else (In(self.mask, strided=True),)
        return (*(In(x, strided=True) for x in (self.q, self.k, self.v)), Out(out), *masks)


def _without(view: View, axis: int) -> View:
    """The view at index 0 of an axis."""
    kept = [n for n in range(len(view.shape)) if n != axis % len(view.shape)]
    return replace(
        view,
        shape=tuple(view.shape[n] for n in kept),
        strides=tuple(view.strides[n] for n in kept),
    )


def addend(mask: Array) -> Array:
    """What a mask adds to the scores: bools tell whether a key is seen."""
    return np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == bool else mask


def is_positive(scale: float) -> bool:
    """Whether a scale is above 0 in f32, as in the kernels."""
    return bool(np.float32(scale) > 0)
