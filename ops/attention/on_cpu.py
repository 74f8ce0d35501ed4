"""Attention on the CPU: by the compiled kernel where there is a C compiler, else by NumPy."""

from __future__ import annotations

from dataclasses import dataclass

from graphexec.base.tensor import Array
from graphexec.ir.program import Compute, Parallel
from graphexec.ops.attention import compiled
from graphexec.ops.attention.by_numpy import ByNumpy
from graphexec.ops.attention.compiled import Compiled
from graphexec.ops.attention.problem import Problem


@dataclass(frozen=True)
class AttentionOnCpu:
    """What computes `problem` on arrays of its views.

    The choice is made when a session on the CPU prepares the plan: a run must not wait for a
    compiler, and plans for GPUs need none.
    """

    problem: Problem

    def prepare(self) -> Compute:
        """The fastest function on this machine; the first call may compile the kernel."""
        kernel = compiled.native_kernel() if compiled.fits(self.problem) else None
        way = ByNumpy(self.problem) if kernel is None else Compiled(self.problem, kernel)
        compute: Compute = way.compute
        return compute

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute it, unprepared."""
        self.prepare()(arrays, parallel)
