"""Attention as one command: views with their batch axes merged, and the arguments of its kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from graphexec.command import Argument, Scalar, TritonKernel
from graphexec.ops.attention.configurations import Sizes, configure
from graphexec.ops.launch import Compute
from graphexec.ops.strides import collapse
from graphexec.tensor import View

SOURCE = Path(__file__).with_name("flash.py")
LARGEST_HEAD = 256
"""Head and value sizes up to this have a configuration."""
_INT32 = 2**31


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

    def views(self) -> tuple[View, ...]:
        """What the kernel is given, in order; the mask, if any, comes last."""
        base = (self.q, self.k, self.v, self.out)
        return base if self.mask is None else (*base, self.mask)


def flash_kernel(problem: Problem, compute: Compute) -> TritonKernel:
    """The launch of the Triton kernel."""
    p = problem
    extents, batches = collapse(p.q.shape[:-2], *(view.strides[:-2] for view in p.views()))
    q, k, v, out, *mask = (
        (view, (_wide(batch), _step(view, -2), _step(view, -1)))
        for view, batch in zip(p.views(), batches, strict=True)
    )
    queries, keys = p.q.shape[-2], p.k.shape[-2]
    sizes = Sizes(
        prod(extents), len(extents), queries, keys, p.q.shape[-1], p.v.shape[-1], p.causal,
        bool(mask), p.scale,
    )  # fmt: skip
    args: list[Argument] = [q[0], k[0], v[0], out[0], Scalar("f32", p.scale)]
    args += [Scalar("i32", queries), Scalar("i32", keys)]
    args.append(tuple(Scalar("i32", extent) for extent in extents))
    for _, strides in (q, k, v, out):
        args += strides
    for view, strides in mask:
        args += [view, *strides]
    return TritonKernel(SOURCE, "attention", tuple(args), partial(configure, sizes), compute)


def has_flash(problem: Problem, capabilities: frozenset[str]) -> bool:
    """Whether a device with these capabilities computes the problem as one command."""
    fits = max(problem.q.shape[-1], problem.v.shape[-1]) <= LARGEST_HEAD
    return fits and f"attention:{problem.q.dtype}" in capabilities


def _wide(strides: tuple[int, ...]) -> tuple[Scalar, ...]:
    return tuple(Scalar("i64", stride) for stride in strides)


def _step(view: View, axis: int) -> Scalar:
    """The stride along an axis: wide where an offset along it may be."""
    stride = view.strides[axis]
    return Scalar("i32" if stride * view.shape[axis] < _INT32 else "i64", stride)


__all__ = ["LARGEST_HEAD", "SOURCE", "Problem", "flash_kernel", "has_flash"]
