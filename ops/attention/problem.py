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
class Limits:
    """Which keys are seen by numbers that lie on the device.

    Their `names` are some of length, at and start (lengths.py). `queries` follow one another; if
    there is one, the rows of a problem may be its heads.
    """

    names: tuple[str, ...]
    queries: int
    causal: bool
    window: int | None


@dataclass(frozen=True)
class Problem:
    """out = softmax(scale · q @ kᵀ + mask) @ v over equal leading batch axes.

    q is (…, M, D), k (…, N, D), v (…, N, Dv), mask (…, M, N), out (…, M, Dv); broadcast axes have
    stride 0. A mask of bools says which keys are seen. With `limits`, lengths are (…, 1, 1), in the
    order of their names, and `causal` is theirs.
    """

    q: View
    k: View
    v: View
    mask: View | None
    out: View
    scale: float
    causal: bool
    limits: Limits | None = None
    lengths: tuple[View, ...] = ()

    @staticmethod
    def of(
        views: Sequence[View], scale: float, causal: bool, limits: Limits | None = None
    ) -> Problem:
        """The problem whose `views` these are."""
        q, k, v, out, *rest = views
        masks = len(rest) - (len(limits.names) if limits else 0)
        mask = rest[0] if masks else None
        return Problem(q, k, v, mask, out, scale, causal, limits, tuple(rest[masks:]))

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
        if not shared or any(x.strides[-3] for x in (self.k, self.v, *self.lengths)):
            return self
        q, out, *mask = (
            _without(view, -2) for view in (self.q, self.out, self.mask) if view is not None
        )
        k, v, *lengths = (_without(view, -3) for view in (self.k, self.v, *self.lengths))
        # The single query saw every key; as rows, the queries still do.
        return replace(
            self, q=q, k=k, v=v, mask=mask[0] if mask else None, out=out, causal=False,
            lengths=tuple(lengths),
        )  # fmt: skip

    @property
    def label(self) -> str:
        """The name of its command, for people."""
        if self.limits:
            return "attention by length" if self.limits.names else "attention by window"
        return "causal attention" if self.causal else "attention"

    def views(self) -> tuple[View, ...]:
        """The arguments of the kernel, in order: the mask, if any, and lengths come last."""
        return (self.q, self.k, self.v, self.out, *self._rest())

    def accesses(self, out: View) -> tuple[Access, ...]:
        """The same as accesses, with `out` in the place of the result."""
        reads = (In(x, strided=True) for x in (self.q, self.k, self.v))
        return (*reads, Out(out), *(In(x, strided=True) for x in self._rest()))

    def _rest(self) -> tuple[View, ...]:
        return self.lengths if self.mask is None else (self.mask, *self.lengths)


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
