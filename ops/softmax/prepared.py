"""What computes softmax on the CPU: a body in C where there is a C compiler, else NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.program import Compute, Parallel
from graphexec.ops.kit.generate.compiled import Compiled, library
from graphexec.ops.softmax.body import body_of
from graphexec.ops.softmax.on_cpu import softmax_on_cpu
from graphexec.ops.softmax.variants import Problem

_FEWEST = 1 << 15  # elements; fewer are not worth a compiler's time


@dataclass(frozen=True)
class SoftmaxOnCpu:
    """What computes `problem` on arrays of its views. Like that of a body, the choice is made when
    a session on the CPU prepares the plan."""

    problem: Problem

    def prepare(self) -> Compute:
        """The fastest function on this machine; the first call may compile the body, which depends
        on the scale. NumPy's powers in f64 are faster than those of C."""
        p = self.problem
        plain = partial(softmax_on_cpu, axis=p.axis, scale=p.scale, causal=p.causal)
        if p.x.dtype is DType.F64 or p.x.elements < _FEWEST:
            return plain
        order = (*(n for n in range(len(p.x.shape)) if n != p.axis), p.axis)
        mask = None if p.mask is None else p.mask.transpose(order)
        body = body_of(p.x.transpose(order), mask, p.scale, p.causal)
        code = library(body)
        if code is None:
            return plain
        compiled, along = Compiled(body, code), p.axis == len(p.x.shape) - 1

        def compute(arrays: list[Array], parallel: Parallel) -> None:
            if not along:
                arrays = [np.moveaxis(array, p.axis, -1) for array in arrays]
            x, out, *mask = arrays
            compiled.compute([x, *mask, out], parallel)

        return compute

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute it, unprepared."""
        self.prepare()(arrays, parallel)
