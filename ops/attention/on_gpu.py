"""Attention as one kernel of a GPU: the recipe, and the choice of the kernel for a GPU.

The kernels are in other modules, so that a plan with cached kernels is loaded without Triton.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from graphexec.base.tensor import View
from graphexec.ir.program import Compute, Gpu, TritonKernel, TritonLaunch
from graphexec.ops.attention import hopper, portable
from graphexec.ops.attention.limits import LimitedOnCpu
from graphexec.ops.attention.on_cpu import AttentionOnCpu
from graphexec.ops.attention.problem import Limits, Problem

_HOPPER = 1
_PORTABLE = 2  # the first of portable.ALTERNATIVES


@dataclass(frozen=True)
class Flash:
    """The kernel of attention, over q, k, v, the result, perhaps a mask, and lengths."""

    scale: float
    causal: bool
    limits: Limits | None = None

    def __call__(self, *views: View) -> TritonKernel:
        """The best known kernel for the GPU."""
        return self._kernel(views, 0)

    def variants(self, *views: View) -> tuple[TritonKernel, ...]:
        """Other kernels. Some of them exist only for some GPUs and problems."""
        count = _PORTABLE + portable.ALTERNATIVES
        return tuple(self._kernel(views, choice) for choice in range(1, count))

    def _kernel(self, views: tuple[View, ...], choice: int) -> TritonKernel:
        compute: Compute
        if self.limits:
            compute = LimitedOnCpu(self.scale, self.limits)
        else:
            compute = AttentionOnCpu(Problem.of(views, self.scale, self.causal))
        return TritonKernel("attention", views, partial(_launch, self, choice), compute)


def _launch(recipe: Flash, choice: int, views: tuple[View, ...], gpu: Gpu) -> TritonLaunch:
    """The launch on a GPU; the usual kernel if the choice does not exist."""
    problem = Problem.of(views, recipe.scale, recipe.causal, recipe.limits)
    fits = hopper.fits(problem, gpu)
    if choice < _PORTABLE and fits and (choice == _HOPPER or hopper.fills(problem, gpu)):
        return hopper.launch(problem, gpu)
    return portable.launch(problem, gpu, choice - _PORTABLE if choice >= _PORTABLE else None)
