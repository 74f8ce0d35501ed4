"""Attention on the CPU: by the compiled kernel where there is a C compiler, else by NumPy.

Which it is is decided when it is computed first: plans for GPUs need neither.
"""

from __future__ import annotations

from functools import cache

from graphexec.command import Parallel
from graphexec.ops.attention import compiled
from graphexec.ops.attention.by_numpy import Array, ByNumpy
from graphexec.ops.attention.compiled import Compiled
from graphexec.ops.attention.problem import Problem
from graphexec.ops.launch import Compute


def attention_on_cpu(problem: Problem) -> Compute:
    """The function that computes `problem` on arrays of its views."""

    @cache
    def way() -> Compute:
        kernel = compiled.native_kernel() if compiled.fits(problem) else None
        return (ByNumpy(problem) if kernel is None else Compiled(problem, kernel)).compute

    def compute(arrays: list[Array], parallel: Parallel) -> None:
        way()(arrays, parallel)

    return compute


__all__ = ["attention_on_cpu"]
