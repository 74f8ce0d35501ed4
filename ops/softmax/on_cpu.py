"""Softmax by NumPy, in blocks that stay in the second-level cache.

So the tensor is read from memory once and written once, in spite of several passes.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from graphexec.base.tensor import Array
from graphexec.ir.program import Parallel

_BLOCK = 1 << 16  # elements: 256 KiB in f32
# Fewer are done before another thread has woken up and been waited for.
_SERIAL = 1 << 17


def softmax_on_cpu(
    arrays: list[Array], parallel: Parallel, *, axis: int, scale: float, causal: bool
) -> None:
    """Softmax of arrays[0] into arrays[1], with the mask arrays[2] (broadcast) if there is one."""
    job = _Job(arrays, axis, scale, causal)
    if arrays[0].size < _SERIAL:
        job.rows(0, job.outer)
    else:
        parallel(job.outer, job.rows)


class _Job:
    """x and out as (outer, length, inner), the softmax running along `length`."""

    def __init__(self, arrays: list[Array], axis: int, scale: float, causal: bool) -> None:
        x, out = arrays[:2]
        self.length = x.shape[axis]
        self.outer_shape, self.inner = x.shape[:axis] or (1,), prod(x.shape[axis + 1 :])
        self.outer = prod(self.outer_shape)
        self.x = x.reshape(self.outer, self.length, self.inner)
        self.out = out.reshape(self.outer, self.length, self.inner)
        # With its outer axes apart, a mask that is broadcast along them needs no memory.
        self.mask = arrays[2].reshape(*self.outer_shape, self.length, self.inner) if (
            len(arrays) > 2
        ) else None  # fmt: skip
        self.queries = self.outer_shape[-1] if causal else 0
        self.wide = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
        self.scale = self.wide.type(scale)
        self.plain = scale == 1.0 and self.mask is None and not causal and x.dtype == self.wide

    def rows(self, low: int, high: int) -> None:
        """Entries `low` to `high` of the outer axis."""
        width = max(1, min(self.inner, _BLOCK // self.length))
        height = max(1, min(_BLOCK // (self.length * width), high - low))
        # Where the result is as wide as the sums, it serves as the memory to work in.
        own = self.out.dtype != self.wide
        scratch = np.empty((height, self.length, width) if own else 0, self.wide)
        for row in range(low, high, height):
            rows = slice(row, min(row + height, high))
            for column in range(0, self.inner, width):
                columns = slice(column, min(column + width, self.inner))
                out = self.out[rows, :, columns]
                z = scratch[: out.shape[0], :, : out.shape[2]] if own else out
                self.block(rows, columns, z, out)

    def block(self, rows: slice, columns: slice, z: Array, out: Array) -> None:
        x = self.x[rows, :, columns]
        if self.plain:
            top = x.max(axis=1, keepdims=True)
        else:
            np.multiply(x, self.scale, out=z, dtype=self.wide)
            self.cover(rows, columns, z)
            x, top = z, z.max(axis=1, keepdims=True)
        top[top == -np.inf] = 0
        np.subtract(x, top, out=z)
        np.exp(z, out=z)
        total = z.sum(axis=1, keepdims=True)
        total[total == 0] = 1
        np.multiply(z, 1 / total, out=out, casting="same_kind")

    def cover(self, rows: slice, columns: slice, z: Array) -> None:
        """Add the mask, and hide the keys that come after each query."""
        index = np.arange(rows.start, rows.stop)
        if self.mask is not None:
            outer: tuple[Any, ...] = np.unravel_index(index, self.outer_shape)
            z += self.mask[(*outer, slice(None), columns)].astype(self.wide, copy=False)
        if self.queries:
            last = index % self.queries + (self.length - self.queries)
            z[np.arange(self.length) > last[:, None]] = -np.inf
