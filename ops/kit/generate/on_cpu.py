"""Generated kernels on the CPU: compiled C where there is a C compiler, else NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from graphexec.base.casts import cast_into
from graphexec.base.tensor import Array
from graphexec.ir.body import Body
from graphexec.ir.program import Compute, Parallel
from graphexec.ops.kit.generate.by_numpy import evaluate
from graphexec.ops.kit.generate.compiled import Compiled, library

_SERIAL = 1 << 15  # elements; fewer are done before another thread has woken up
_SLAB = 1 << 16  # elements of a step's value: it stays in the second-level cache


def compute_of(body: Body) -> Compute:
    """What computes a body over its operands and results, which have one iteration shape; results
    of reductions have extent 1 along the last axis."""
    return OnCpu(body)


@dataclass(frozen=True)
class OnCpu:
    """What computes `body` on arrays of its operands and results.

    The choice is made when a session on the CPU prepares the plan: a run must not wait for a
    compiler, and plans for GPUs need none.
    """

    body: Body

    def prepare(self) -> Compute:
        """The fastest function on this machine; the first call may compile the body."""
        code = library(self.body)
        return ByNumpy(self.body) if code is None else Compiled(self.body, code).compute

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute it, unprepared."""
        self.prepare()(arrays, parallel)


@dataclass(frozen=True)
class ByNumpy:
    """A body by NumPy, slab by slab: a slab is a part of everything along one axis."""

    body: Body

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute the results, which come last."""
        inputs = len(arrays) - len(self.body.results)
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        axis = self._axis(shape)
        if axis is None:
            self._slab(arrays, inputs, shape, None, 0, 0)
            return
        height = max(1, _SLAB * shape[axis] // prod(shape))

        def slabs(low: int, high: int) -> None:
            for first in range(low, high, height):
                self._slab(arrays, inputs, shape, axis, first, min(first + height, high))

        if prod(shape) < _SERIAL:
            slabs(0, shape[axis])
        else:
            parallel(shape[axis], slabs)

    def _axis(self, shape: tuple[int, ...]) -> int | None:
        """An axis to cut, not the one that is reduced; coordinates need whole axes."""
        last = len(shape) - (1 if self.body.reduces else 0)
        free = [a for a in range(last) if a - len(shape) not in self.body.indexes]
        return next((a for a in free if shape[a] > 1), None)

    def _slab(
        self, arrays: list[Array], inputs: int, shape: tuple[int, ...], axis: int | None,
        low: int, high: int,
    ) -> None:  # fmt: skip
        if axis is not None:
            cut = (*(slice(None),) * axis, slice(low, high))
            arrays = [a[cut] if a.shape[axis] > 1 else a for a in arrays]
            shape = (*shape[:axis], high - low, *shape[axis + 1 :])
        found = evaluate(self.body, arrays[:inputs], shape, exact=False)
        for target, value in zip(arrays[inputs:], found, strict=True):
            cast_into(target, np.broadcast_to(value, target.shape))
