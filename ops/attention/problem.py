"""Attention over views with equal batch axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphexec.tensor import View

LARGEST_HEAD = 256
"""Head and value sizes up to this have a configuration."""


@dataclass(frozen=True)
class Problem:
    """out = softmax(scale · q @ kᵀ + mask) @ v over equal leading batch axes.

    q is (…, M, D), k (…, N, D), v (…, N, Dv), mask (…, M, N), out (…, M, Dv); broadcast axes have
    stride 0.
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
        """How many blocks of so many queries all batch entries have."""
        shape: tuple[int, ...] = self.q.shape
        return prod(shape[:-2]) * -(-shape[-2] // block)

    def views(self) -> tuple[View, ...]:
        """What the kernel is given, in order; the mask, if any, comes last."""
        base = (self.q, self.k, self.v, self.out)
        return base if self.mask is None else (*base, self.mask)


def is_positive(scale: float) -> bool:
    """Whether a scale is above 0 as kernels have it, in f32."""
    return bool(np.float32(scale) > 0)


def has_flash(problem: Problem, capabilities: frozenset[str]) -> bool:
    """Whether a device with these capabilities computes the problem as one command."""
    fits = max(problem.q.shape[-1], problem.v.shape[-1]) <= LARGEST_HEAD
    return fits and f"attention:{problem.q.dtype}" in capabilities


__all__ = ["LARGEST_HEAD", "Problem", "has_flash", "is_positive"]
