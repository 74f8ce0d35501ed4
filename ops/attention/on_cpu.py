"""Attention by NumPy: blocks of queries go through both GEMMs while their scores are in cache."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from graphexec.command import Parallel
from graphexec.ops.attention.problem import Problem
from graphexec.ops.launch import Compute

Array = np.ndarray[Any, Any]
_BLOCK = 1 << 17  # scores of a block of queries: 512 KiB in f32
_QUERIES = 16  # in a block, at least


def attention_on_cpu(problem: Problem) -> Compute:
    """The function that computes `problem` on arrays of its views."""
    scale, causal = problem.scale, problem.causal

    def compute(arrays: list[Array], parallel: Parallel) -> None:
        job = _Job(arrays, scale, causal)
        parallel(job.tasks, job.run)

    return compute


class _Job:
    """Tasks are blocks of queries of one batch entry, numbered through."""

    def __init__(self, arrays: list[Array], scale: float, causal: bool) -> None:
        self.q, self.k, self.v, self.out = arrays[:4]
        self.mask = arrays[4] if len(arrays) > 4 else None
        self.scale, self.causal = scale, causal
        self.batch = self.q.shape[:-2]
        self.queries, self.keys = self.q.shape[-2], self.k.shape[-2]
        self.height = min(self.queries, max(_QUERIES, _BLOCK // self.keys))
        self.blocks = -(-self.queries // self.height)
        self.tasks = prod(self.batch) * self.blocks
        self.wide = np.dtype(np.float64 if self.q.dtype == np.float64 else np.float32)

    def run(self, low: int, high: int) -> None:
        """Tasks `low` to `high`."""
        z = np.empty((self.height, self.keys), self.wide)
        known, k, v = -1, self.k, self.v
        for task in range(low, high):
            entry, block = divmod(task, self.blocks)
            index = np.unravel_index(entry, self.batch) if self.batch else ()
            if entry != known:
                k = self.k[index].astype(self.wide, copy=False).T
                v = self.v[index].astype(self.wide, copy=False)
                known = entry
            first = block * self.height
            rows = slice(first, min(first + self.height, self.queries))
            self.block(index, rows, k, v, z)

    def block(self, index: Any, rows: slice, k: Array, v: Array, z: Array) -> None:
        q = np.multiply(self.q[index][rows], self.wide.type(self.scale), dtype=self.wide)
        seen = min(self.keys, rows.stop + self.keys - self.queries) if self.causal else self.keys
        out = self.out[index][rows]
        if seen <= 0:
            out[...] = 0
            return
        z = z.reshape(-1)[: len(q) * seen].reshape(len(q), seen)
        np.matmul(q, k[:, :seen], out=z)
        if self.mask is not None:
            z += self.mask[index][rows, :seen].astype(self.wide, copy=False)
        if self.causal:
            last = np.arange(rows.start, rows.stop) + (self.keys - self.queries)
            z[np.arange(seen) > last[:, None]] = -np.inf
        top = z.max(axis=1, keepdims=True)
        top[top == -np.inf] = 0
        np.subtract(z, top, out=z)
        np.exp(z, out=z)
        total = z.sum(axis=1, keepdims=True)
        total[total == 0] = 1
        np.multiply(z @ v[:seen], 1 / total, out=out, casting="same_kind")


__all__ = ["attention_on_cpu"]
