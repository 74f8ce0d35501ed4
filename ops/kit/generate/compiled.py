"""Bodies compiled by the system's C compiler for this CPU.

A call computes some rows without the interpreter's lock, so that threads run in parallel.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from operator import is_

import numpy as np

from graphexec.base.atomic_file import scratch_folder
from graphexec.base.host_compiler import NATIVE, HostCompilerError, load_library
from graphexec.base.tensor import Array, DType, merge_axes
from graphexec.ir.body import Body
from graphexec.ir.program import Parallel
from graphexec.ops.kit.generate.c import source

LOGGER = logging.getLogger("graphexec.generate")
# What is computed is what is written: products and sums are not contracted, NaN and signed zeros
# count. Integers wrap. Nothing looks at floating-point exceptions or errno.
FLAGS = (
    "-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv",
    "-fvisibility=hidden",
)  # fmt: skip
LONGEST = 2_000  # steps; compilers take too long for more
_TURNED = 32  # rows that are turned at once, as in elements.h
_LONGEST_TURNED = 1 << 15  # elements of a row: more would not stay in a cache
_PIECE = 1 << 14  # elements of a run; a multiple of CHUNK
_SERIAL = 1 << 21  # times 0.05 ns; less is done before another thread has woken up
_SPECIAL = {DType.F32: 10, DType.F64: 100}
_PLAIN = frozenset(("load", "constant", "index", "cast"))
_FUNCTIONS = frozenset(("exp", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "erfc",
                        "pow"))  # fmt: skip

_word = ctypes.c_ssize_t


class Library:
    """The functions of a compiled body. AttributeError if one is missing."""

    def __init__(self, code: ctypes.CDLL) -> None:
        self.run = code.run
        self.run.argtypes = (*(ctypes.c_void_p,) * 3, _word, _word)
        self.run.restype = None
        code.kept.restype = _word
        self.kept: int = code.kept()


_asked = threading.Lock()


def library(body: Body) -> Library | None:
    """The body for this CPU, compiled once a process; None if it cannot be compiled."""
    with _asked:
        return _make(body)


@cache
def _make(body: Body) -> Library | None:
    if len(body.steps) > LONGEST:
        return None
    try:
        with scratch_folder() as folder:
            path = folder / "body.c"
            path.write_text(source(body), "utf-8")
            return load_library(path, (*FLAGS, NATIVE), Library)
    except (HostCompilerError, OSError) as error:
        LOGGER.debug("a body is computed by NumPy: %s", error)
        return None


@dataclass(frozen=True)
class Layout:
    """How the arrays of a body lie: `told` as in c.py, how many pieces there are, the extent of a
    row or a run, and the bytes that turned rows need."""

    told: Array
    pieces: int
    extent: int
    elements: int
    turned: int = 0


def layout(
    body: Body, shapes: Sequence[tuple[int, ...]], steps: Sequence[tuple[int, ...]]
) -> Layout:
    """The layout of arrays that broadcast to one iteration shape, with strides in bytes.

    An index is like one more array, whose stride is 1 along its axis. Rows are merged with one
    another; without reductions the elements of a row are too.
    """
    shape = np.broadcast_shapes(*shapes) or (1,)
    rank = len(shape)
    walked = [_along(shape, s, t) for s, t in zip(shapes, steps, strict=True)]
    walked += [tuple(int(n == rank + axis) for n in range(rank)) for axis in body.indexes]
    outer, extent, last = _split(shape, walked, body.reduces)
    merged, strides = outer
    piece = extent if body.reduces else min(extent, _PIECE)
    by_axis = [s[axis] for axis in range(len(merged)) for s in strides]
    turned = _turned(body, extent, last, [s[-1] for s in strides]) if merged else 0
    told = np.array([extent, piece, turned > 0, len(merged), *merged, *last, *by_axis], np.intp)
    pieces = prod(merged) * -(-extent // piece)
    if turned:
        pieces = prod(merged[:-1]) * -(-merged[-1] // _TURNED)
    return Layout(told, pieces, extent, prod(shape), turned)


def _turned(body: Body, extent: int, steps: Sequence[int], nexts: Sequence[int]) -> int:
    """Bytes for rows of which 0 or more arrays are turned: rows that lie side by side, while the
    elements of one are apart. A cache line would be read anew for each of its elements."""
    if not body.reduces or extent > _LONGEST_TURNED:
        return 0
    found = 0
    for dtype, step, near in zip((*body.operands, *body.dtypes), steps, nexts, strict=False):
        size = dtype.itemsize
        if near == size and step not in (0, size):
            found += _TURNED * ((extent * size + 127) // 64 * 64)
    return found


_Axes = tuple[tuple[int, ...], list[tuple[int, ...]]]


def work(body: Body) -> int:
    """About what an element costs, in 0.05 ns."""
    found = 2
    for step in body.steps:
        if step.function in _FUNCTIONS:
            found += _SPECIAL[step.dtype.accumulator]
        elif step.function not in _PLAIN:
            found += 1
    return found


def _split(
    shape: tuple[int, ...], walked: list[tuple[int, ...]], rows: bool
) -> tuple[_Axes, int, list[int]]:
    """The outer axes, merged, with strides; the extent and the strides of the row, or run."""
    if rows:
        outer = merge_axes(shape[:-1], *(s[:-1] for s in walked))
        return outer, shape[-1], [s[-1] for s in walked]
    merged, strides = merge_axes(shape, *walked)
    if not merged:
        return ((), [() for _ in walked]), 1, [0 for _ in walked]
    return (merged[:-1], [s[:-1] for s in strides]), merged[-1], [s[-1] for s in strides]


def _along(
    shape: tuple[int, ...], own: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...]:
    """Strides over a shape that an array broadcasts to."""
    kept = (0 if extent == 1 else stride for extent, stride in zip(own, strides, strict=True))
    return (0,) * (len(shape) - len(own)) + tuple(kept)


@dataclass(frozen=True)
class _Bound:
    """Arrays, where they are and how they lie."""

    arrays: tuple[Array, ...]
    data: ctypes.Array[ctypes.c_void_p]
    told: int
    layout: Layout


class Compiled:
    """A compiled body, for arrays in the order of its operands and results."""

    def __init__(self, body: Body, code: Library) -> None:
        self._body, self._code, self._work = body, code, work(body)
        self._last: _Bound | None = None  # a plan gives the same arrays in every run

    def compute(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute the results. They are the same however the work is shared."""
        last = self._last
        bound = last if last and all(map(is_, last.arrays, arrays)) else self._bind(arrays)
        found, code = bound.layout, self._code.run
        size = 8 * self._code.kept * found.extent + found.turned

        def run(low: int, high: int) -> None:
            code(bound.told, bound.data, _scratch(size).ctypes.data if size else None, low, high)

        if found.elements * self._work < _SERIAL or found.pieces == 1:
            run(0, found.pieces)
        else:
            parallel(found.pieces, run)

    def _bind(self, arrays: list[Array]) -> _Bound:
        found = layout(self._body, [a.shape for a in arrays], [a.strides for a in arrays])
        data = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        self._last = _Bound(tuple(arrays), data, found.told.ctypes.data, found)
        return self._last


class _Kept(threading.local):
    """Memory of a thread, kept for the next call: fresh pages cost more than the arithmetic."""

    array: Array | None = None


_kept = _Kept()


def _scratch(size: int) -> Array:
    if _kept.array is None or _kept.array.size < size:
        _kept.array = np.empty(size, np.uint8)
    return _kept.array
