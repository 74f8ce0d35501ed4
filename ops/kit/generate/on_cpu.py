"""Generated kernels on the CPU: what computes a body on NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from graphexec.base.casts import cast_into
from graphexec.base.tensor import Array
from graphexec.ir.body import Body
from graphexec.ir.program import Compute, Parallel
from graphexec.ops.kit.generate.by_numpy import evaluate

_SERIAL = 1 << 15  # elements; fewer are done before another thread has woken up


def compute_of(body: Body) -> Compute:
    """What computes a body over its operands and results, which have one iteration shape; results
    of reductions have extent 1 along the last axis."""
    return ByNumpy(body)


@dataclass(frozen=True)
class ByNumpy:
    """A body by NumPy, part by part: a part of everything along one axis."""

    body: Body

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute the results, which come last."""
        inputs = len(arrays) - len(self.body.results)
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        axis = self._axis(shape)
        if axis is None or prod(shape) < _SERIAL:
            self._part(arrays, inputs, shape, None, 0, 0)
            return
        parallel(shape[axis], lambda low, high: self._part(arrays, inputs, shape, axis, low, high))

    def _axis(self, shape: tuple[int, ...]) -> int | None:
        """An axis to cut, not the one that is reduced; coordinates need whole axes."""
        last = len(shape) - (1 if self.body.reduces else 0)
        free = [a for a in range(last) if a - len(shape) not in self.body.indexes]
        return next((a for a in free if shape[a] > 1), None)

    def _part(
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
