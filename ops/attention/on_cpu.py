"""Attention by NumPy: blocks of queries and keys whose scores stay in the second-level cache.

A block's scores lie with the keys in rows, for which a BLAS needs nothing turned. A softmax does
not change when a number is taken from all its logits, so none is as long as the sums of the weights
stay far from the limits of the type. Else the queries are done again, their running maximum taken
away and what was summed before corrected when it grows (Milakov and Gimelshein 2018,
arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache
from math import e, log2, prod
from typing import Any

import numpy as np

from graphexec.command import Parallel
from graphexec.ops.attention.problem import Problem
from graphexec.ops.launch import Compute

Array = np.ndarray[Any, Any]
_QUERIES, _KEYS = 512, 512  # of a block, at most: 1 MiB of scores in f32
_FEWEST_QUERIES = 64
_TASKS = 8  # at least, where there are enough queries: something for every core
_SERIAL_FLOPS = 1 << 22  # less than this is done before another thread has woken up
_SAFE = (2.0**-30, 2.0**30)  # sums of weights: then neither they nor the result overflow
_kept = threading.local()


def attention_on_cpu(problem: Problem) -> Compute:
    """The function that computes `problem` on arrays of its views."""
    scale, causal = problem.scale, problem.causal

    def compute(arrays: list[Array], parallel: Parallel) -> None:
        job = _Job(arrays, scale, causal)
        if job.flops < _SERIAL_FLOPS:
            job.run(0, job.tasks)
        else:
            parallel(job.tasks, job.run)

    return compute


class _Job:
    """Tasks are blocks of queries of one batch entry, numbered through."""

    def __init__(self, arrays: list[Array], scale: float, causal: bool) -> None:
        self.q, self.k, self.v, self.out = arrays[:4]
        self.mask = arrays[4] if len(arrays) > 4 else None
        self.causal = causal
        self.batch = self.q.shape[:-2]
        self.queries, self.keys = self.q.shape[-2], self.k.shape[-2]
        # Query i sees the keys up to i + ahead.
        self.ahead = self.keys - self.queries if causal else self.keys
        rows = prod(self.batch) * self.queries
        height = max(_FEWEST_QUERIES, min(_QUERIES, -(-rows // _TASKS)))
        self.blocks = -(-self.queries // height)
        self.height = -(-self.queries // self.blocks)
        self.tasks = prod(self.batch) * self.blocks
        self.flops = 2 * rows * self.keys * (self.q.shape[-1] + self.v.shape[-1])
        self.wide = np.dtype(np.float64 if self.q.dtype == np.float64 else np.float32)
        self.power, unit = _power()
        self.unit, self.scale = self.wide.type(unit), self.wide.type(scale * unit)
        self.ones = np.ones(_KEYS, self.wide)

    def run(self, low: int, high: int) -> None:
        """Tasks `low` to `high`."""
        while low < high:
            entry, block = divmod(low, self.blocks)
            count = min(high - low, self.blocks - block)
            index = np.unravel_index(entry, self.batch) if self.batch else ()
            _Entry(self, index).run(block, block + count)
            low += count


class _Entry:
    """Some blocks of queries of one batch entry."""

    def __init__(self, job: _Job, index: Any) -> None:
        self.job = job
        self.q, self.out = job.q[index], job.out[index]
        self.mask = job.mask[index] if job.mask is not None else None
        self.k, self.v = (x[index].astype(job.wide, copy=False) for x in (job.k, job.v))
        self.careful = False

    def run(self, low: int, high: int) -> None:
        """Blocks `low` to `high`."""
        for block in range(low, high):
            first = block * self.job.height
            last = min(first + self.job.height, self.job.queries)
            if last + self.job.ahead <= 0:  # no query sees a key
                self.out[first:last] = 0
                continue
            if not self.careful:
                # One block with large logits is rarely alone.
                self.careful = not self.plainly(first, last)
            if self.careful:
                self.carefully(first, last)

    def plainly(self, first: int, last: int) -> bool:
        """Queries `first` to `last`, nothing taken from the logits; False where that may not do."""
        sums = _Sums(self, last - first)
        for z, keys in self.logits(first, last):
            self.job.power(z, out=z)
            sums.add(z, keys)
        if not np.all((sums.total > _SAFE[0]) & (sums.total < _SAFE[1])):
            return False
        sums.divide(self.out[first:last])
        return True

    def carefully(self, first: int, last: int) -> None:
        """The same with the running maximum of each query taken from its logits."""
        sums = _Sums(self, last - first)
        top = np.full(last - first, -np.inf, self.job.wide)
        for z, keys in self.logits(first, last):
            higher = np.maximum(top, z.max(axis=0))
            base = np.where(higher == -np.inf, self.job.wide.type(0), higher)
            if not sums.empty:
                sums.scale(self.job.power(top - base))
            np.subtract(z, base, out=z)
            self.job.power(z, out=z)
            sums.add(z, keys)
            top = higher
        sums.total[sums.total == 0] = 1
        sums.divide(self.out[first:last])

    def logits(self, first: int, last: int) -> Iterator[tuple[Array, slice]]:
        """(scale · q @ kᵀ + mask)ᵀ for queries `first` to `last`, some keys at a time."""
        job = self.job
        q = _scratch("queries", (last - first, self.q.shape[-1]), job.wide)
        q = np.multiply(self.q[first:last], job.scale, out=q, dtype=job.wide).T
        ahead = job.ahead
        for start in range(0, min(job.keys, last + ahead), _KEYS):
            keys = slice(start, min(start + _KEYS, job.keys, last + ahead))
            z = _scratch("scores", (keys.stop - start, last - first), job.wide)
            np.matmul(self.k[keys], q, out=z)
            if self.mask is not None:
                mask = self.mask[first:last, keys].T
                z += np.multiply(mask, job.unit, dtype=job.wide, casting="same_kind")
            if job.causal:
                # From here on, some query does not see the key.
                hidden = max(0, first + ahead + 1 - start)
                key = np.arange(start + hidden, keys.stop)[:, None]
                z[hidden:][key > np.arange(first, last) + ahead] = -np.inf
            yield z, keys


class _Sums:
    """Sums over keys: the weighted values of each query, and the weights themselves."""

    def __init__(self, entry: _Entry, queries: int) -> None:
        self.v, self.ones, wide = entry.v, entry.job.ones, entry.job.wide
        shape = (queries, self.v.shape[-1])
        self.product, self.more = (_scratch(name, shape, wide) for name in ("product", "more"))
        self.total, self.empty = np.zeros(queries, wide), True

    def add(self, z: Array, keys: slice) -> None:
        """Add some keys, whose weights are z."""
        np.matmul(z.T, self.v[keys], out=self.product if self.empty else self.more)
        if not self.empty:
            self.product += self.more
        self.total += np.matmul(self.ones[: len(z)], z)
        self.empty = False

    def scale(self, factors: Array) -> None:
        """Multiply what was added so far, query by query."""
        self.product *= factors[:, None]
        self.total *= factors

    def divide(self, out: Array) -> None:
        """The mean values."""
        np.divide(self.product, self.total[:, None], out=out, casting="same_kind")


def _scratch(name: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Memory of this thread, kept for the next call: fresh pages cost more than the arithmetic."""
    size = prod(shape)
    held: Array | None = getattr(_kept, name, None)
    if held is None or held.size < size or held.dtype != dtype:
        held = np.empty(size, dtype)
        setattr(_kept, name, held)
    return held[:size].reshape(shape)


@cache
def _power() -> tuple[Any, float]:
    """The exponential function that this NumPy has in vectors, and its unit of a logit."""
    try:
        from numpy.lib.introspect import opt_func_info
    except ImportError:
        return np.exp, 1.0
    built = opt_func_info(func_name="^exp2$").get("exp2", {}).get("ff", {})
    scalar = built.get("current", "baseline").startswith("baseline")
    return (np.exp, 1.0) if scalar else (np.exp2, log2(e))


__all__ = ["attention_on_cpu"]
