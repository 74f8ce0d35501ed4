"""Attention by NumPy: blocks of queries and keys whose scores stay in the second-level cache.

A block's scores have the keys in rows, so that the BLAS needs no transposition. A softmax does not
change when a number is subtracted from all its logits. So nothing is subtracted as long as the sums
of the weights stay far from the limits of the type and the sums of the values are finite. Else the
queries are computed again: their running maximum is subtracted, earlier sums are corrected when it
grows (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135), and the
weights of all keys add up to less than one, so that no sum exceeds the largest value.

Threads contend for the interpreter's lock around every call of NumPy. So there are few, large calls
with little work between them: blocks and memory are prepared beforehand.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from math import e, log, log2, prod
from typing import Any, NamedTuple

import numpy as np

from graphexec.base.casts import cast_into
from graphexec.base.tensor import Array, DType
from graphexec.ir.program import Parallel
from graphexec.ops.attention.problem import Problem, addend
from graphexec.ops.attention.seen import keys_seen

_QUERIES, _KEYS = 512, 512  # of a block, at most: 1 MiB of scores in f32
_CAUSAL_QUERIES = 256  # at most: larger blocks have more keys that only some queries see
_FEWEST_QUERIES = 64
_ALIGNMENT = 64  # of the first key that not all of a block's queries see
_TASKS = 8  # at least, if there are enough queries: work for every core
# Smaller problems are done before another thread wakes up.
_SERIAL_FLOPS = 1 << 25
_SAFE = 2.0**-30, 2.0**30  # sums of weights: beyond, they lose precision or overflow


class _Keys(NamedTuple):
    """Some keys, and the hidden (keys, queries) of a block, or None if every query sees every
    key."""

    rows: slice
    hidden: Array | None


class _Block(NamedTuple):
    """Some queries, and all keys that any of them sees."""

    rows: slice
    keys: tuple[_Keys, ...]


class ByNumpy:
    """A problem as tasks: blocks of queries of one batch entry, numbered through."""

    def __init__(self, problem: Problem) -> None:
        self.scale, self.causal = problem.scale, problem.causal
        *self.batch, self.queries, self.head = problem.q.shape
        self.keys, self.value = problem.v.shape[-2:]
        self._fewer: dict[int, ByNumpy] = {}

    @cached_property
    def entries(self) -> list[Any]:
        """Indices of the batch entries."""
        return list(np.ndindex(*self.batch))

    @cached_property
    def blocks(self) -> list[_Block]:
        """The blocks of a batch entry: all queries that see a key."""
        wanted = -(-prod(self.batch) * self.queries // _TASKS)
        most = _CAUSAL_QUERIES if self.causal else _QUERIES
        bounds = _cut(self.blind, self.queries, max(_FEWEST_QUERIES, min(most, wanted)))
        return [_Block(slice(*ends), tuple(self._seen(*ends))) for ends in pairwise(bounds)]

    @property
    def blind(self) -> int:
        """The queries without a key: causal query i sees keys up to i + keys - queries."""
        return max(0, self.queries - self.keys) if self.causal else 0

    def _seen(self, first: int, last: int) -> Iterator[_Keys]:
        """The keys that queries `first` to `last` see: those that all of them see, then others."""
        ahead = self.keys - self.queries if self.causal else self.keys
        seen, border = min(self.keys, last + ahead), first + ahead + 1
        if border < seen:
            border -= border % _ALIGNMENT
        for low, high in pairwise(_cut(0, min(border, seen), _KEYS)):
            yield _Keys(slice(low, high), None)
        for low, high in pairwise(_cut(border, seen, _KEYS)):
            hidden = _hidden(low - first - ahead, high - low, last - first)
            yield _Keys(slice(low, high), hidden)

    def _with_keys(self, keys: int) -> ByNumpy:
        """The same with fewer keys."""
        if keys not in self._fewer:
            self._fewer[keys] = other = copy(self)
            other.keys, other._fewer = keys, {}
            other.__dict__.pop("blocks", None)
        return self._fewer[keys]

    def compute(self, arrays: list[Array], parallel: Parallel) -> None:
        """The arrays are q, k, v, the result, and the mask if there is one."""
        if len(arrays) > 4 and not self.causal and (keys := keys_seen(arrays[4])) < self.keys:
            q, k, v, out, mask = arrays
            shorter = [q, k[..., :keys, :], v[..., :keys, :], out, mask[..., :keys]]
            self._with_keys(keys).compute(shorter, parallel)
            return
        arrays[3][..., : self.blind, :] = 0

        def run(low: int, high: int) -> None:
            while low < high:
                entry, block = divmod(low, len(self.blocks))
                blocks = self.blocks[block : block + high - low]
                _Entry(arrays, self.entries[entry], self.scale).run(blocks)
                low += len(blocks)

        tasks = len(self.entries) * len(self.blocks)
        pairs = prod(self.batch) * self.queries * self.keys
        if 2 * pairs * (self.head + self.value) < _SERIAL_FLOPS:
            run(0, tasks)
        else:
            parallel(tasks, run)


class _Entry:
    """One batch entry."""

    def __init__(self, arrays: list[Array], index: Any, scale: float) -> None:
        self.q, k, v, self.out, *masks = (array[index] for array in arrays)
        self.wide = np.dtype(np.float64 if k.dtype == np.float64 else np.float32)
        self.k, self.v = (x if x.dtype == self.wide else x.astype(self.wide) for x in (k, v))
        self.mask = masks[0] if masks else None
        self.scale = scale

    def run(self, blocks: Sequence[_Block]) -> None:
        """Fill the result for the queries of some blocks."""
        careful = False
        for block in blocks:
            if not careful:
                # One block with large logits is rarely alone.
                careful = not self.plainly(block)
            if careful:
                self.carefully(block)

    def plainly(self, block: _Block) -> bool:
        """Without subtracting from the logits; False if this may overflow or underflow."""
        power, unit = _power() if self.mask is None else (np.exp, 1.0)
        sums = _Sums(self.v)
        for z, keys in self.logits(block, unit):
            power(z, out=z)
            if keys.hidden is not None:
                np.copyto(z, 0, where=keys.hidden)
            sums.add(z, keys.rows)
        if not _SAFE[0] < sums.total.min() <= sums.total.max() < _SAFE[1]:
            return False
        if not np.isfinite(sums.product).all():  # in the values, or by adding them up
            return False
        sums.divide(self.out[block.rows])
        return True

    def carefully(self, block: _Block) -> None:
        """The same with the running maximum of each query subtracted from its logits, and so much
        more that all weights add up to less than one."""
        sums, top = _Sums(self.v), self.wide.type(-np.inf)
        more = self.wide.type(log(2 * len(self.v)))
        for z, keys in self.logits(block, 1.0):
            if keys.hidden is not None:
                np.copyto(z, -np.inf, where=keys.hidden)
            higher = np.maximum(top, z.max(axis=0))
            base = np.where(higher == -np.inf, self.wide.type(0), higher)
            sums.scale(np.exp(top - base))
            np.subtract(z, base, out=z)
            np.subtract(z, more, out=z)
            np.exp(z, out=z)
            sums.add(z, keys.rows)
            top = higher
        sums.total[sums.total == 0] = 1
        sums.divide(self.out[block.rows])

    def logits(self, block: _Block, unit: float) -> Iterator[tuple[Array, _Keys]]:
        """unit · (scale · q @ kᵀ + mask)ᵀ for a block, some keys at a time: (keys, queries)."""
        some = self.q[block.rows]
        q = _scratch("queries", some.shape, self.wide)
        np.multiply(some, self.wide.type(self.scale * unit), out=q, dtype=self.wide)
        for keys in block.keys:
            k = self.k[keys.rows]
            z = np.matmul(k, q.T, out=_scratch("scores", (len(k), len(q)), self.wide))
            if self.mask is not None:
                mask = self.mask[block.rows, keys.rows].T
                z += mask if mask.dtype == self.wide else addend(mask).astype(self.wide)
            yield z, keys


class _Sums:
    """Sums over keys: the weighted values of each query, and the weights themselves."""

    product: Array
    total: Array

    def __init__(self, v: Array) -> None:
        self.v, self.empty = v, True

    def add(self, z: Array, keys: slice) -> None:
        """Add some keys, whose weights are z."""
        name = "product" if self.empty else "more"
        product = _scratch(name, (z.shape[1], self.v.shape[1]), z.dtype)
        np.matmul(z.T, self.v[keys], out=product)
        total = np.matmul(_ones(len(z), z.dtype), z)
        if self.empty:
            self.product, self.total, self.empty = product, total, False
        else:
            self.product += product
            self.total += total

    def scale(self, factors: Array) -> None:
        """Scale the sums so far, query by query."""
        if not self.empty:
            self.product *= factors[:, None]
            self.total *= factors

    def divide(self, out: Array) -> None:
        """The mean values."""
        if out.dtype == DType.BF16.numpy() and self.product.dtype == np.float64:
            cast_into(out, self.product / self.total[:, None])
        else:
            np.divide(self.product, self.total[:, None], out=out, casting="same_kind")


def _cut(low: int, high: int, most: int) -> list[int]:
    """Bounds of as few equal parts as have up to `most` elements each."""
    parts = max(0, -(-(high - low) // most))
    return [low + (high - low) * i // parts for i in range(parts + 1)] if parts else []


@lru_cache(maxsize=32)
def _hidden(offset: int, keys: int, queries: int) -> Array:
    """Whether key j + offset comes after query i: (keys, queries)."""
    found: Array = np.arange(offset, offset + keys)[:, None] > np.arange(queries)
    return found


class _Kept(threading.local):
    """Memory of a thread, kept for the next call: fresh pages cost more than the arithmetic."""

    def __init__(self) -> None:
        self.arrays: dict[Any, Array] = {}


_kept = _Kept()


def _scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size, held = prod(shape), _kept.arrays.get((name, dtype))
    if held is None or held.size < size:  # one for all shapes
        held = _kept.arrays[name, dtype] = np.empty(size, dtype)
    return held[:size].reshape(shape)


@cache
def _ones(size: int, dtype: np.dtype[Any]) -> Array:
    return np.ones(size, dtype)


@cache
def _power() -> tuple[Any, float]:
    """The fastest exponential function of this NumPy for numbers of ordinary size, and its unit of
    a logit. exp2, where there is one for vectors, takes half as long as exp, but ten times as long
    for a result of zero."""
    try:
        from numpy.lib.introspect import opt_func_info
    except ImportError:
        return np.exp, 1.0
    built = opt_func_info(func_name="^exp2$").get("exp2", {}).get("ff", {})
    scalar = built.get("current", "baseline").startswith("baseline")
    return (np.exp, 1.0) if scalar else (np.exp2, log2(e))
