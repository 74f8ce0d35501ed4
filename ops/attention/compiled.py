"""Attention by a kernel in C (flash.c), compiled on this machine by the system's C compiler.

A call computes a range of blocks without the interpreter's lock, so that threads run in parallel.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from functools import cache
from math import prod
from pathlib import Path

import numpy as np

from graphexec.base.host_compiler import NATIVE, HostCompilerError, load_library
from graphexec.base.tensor import Array, DType, View
from graphexec.ir.program import Parallel
from graphexec.ops.attention.problem import Problem
from graphexec.ops.attention.seen import keys_seen

LOGGER = logging.getLogger("graphexec.attention")
SOURCE = Path(__file__).parent / "flash.c"
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fvisibility=hidden")
_DTYPES = {  # as in the source
    DType.F32: 0, DType.F16: 1, DType.BF16: 2, DType.F64: 3, DType.BOOL: 4,
}  # fmt: skip
_QUERIES = 128  # of a block, at most
_TASKS = 8  # at least, if there are enough queries: work for every core
# With fewer queries, reading keys and values dominates, and a BLAS is faster. For half precision,
# NumPy would have to widen them first.
_FEWEST_QUERIES_F32 = 3
# Smaller problems are done before another thread wakes up.
_SERIAL_FLOPS = 1 << 23

_NAMES = ("q", "k", "v", "out", "mask")  # in the order of a problem's views
_word = ctypes.c_ssize_t


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("entries", ctypes.c_void_p),
        ("row", _word), ("column", _word), ("dtype", _word),
    )  # fmt: skip


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in _NAMES),
        *((name, _word) for name in ("queries", "keys", "head", "value", "block", "causal")),
        ("scale", ctypes.c_float),
    )


class Kernel:
    """The functions of the compiled library. AttributeError if it lacks one."""

    def __init__(self, code: ctypes.CDLL) -> None:
        self.attention, self.memory = code.attention, code.attention_memory
        self.attention.argtypes = (ctypes.POINTER(_Problem), ctypes.c_void_p, _word, _word)
        self.attention.restype = None
        self.memory.argtypes, self.memory.restype = (ctypes.POINTER(_Problem),), _word
        code.attention_tile.restype = _word
        self.tile: int = code.attention_tile()


_asked = threading.Lock()


def native_kernel() -> Kernel | None:
    """The kernel for this CPU, compiled once a process; None if it cannot be compiled."""
    with _asked:
        return _make()


@cache
def _make() -> Kernel | None:
    try:
        return load_library(SOURCE, (*FLAGS, NATIVE), Kernel)
    except HostCompilerError as error:
        LOGGER.debug("attention is computed by NumPy: %s", error)
        return None


def fits(problem: Problem) -> bool:
    """Whether the kernel computes the problem: not for f64, nor for a few queries in f32."""
    dtype, queries = problem.q.dtype, problem.q.shape[-2]
    return dtype is not DType.F64 and (dtype is not DType.F32 or queries >= _FEWEST_QUERIES_F32)


class Compiled:
    """A problem for a kernel: its blocks of queries, of all batch entries, numbered through."""

    def __init__(self, problem: Problem, kernel: Kernel) -> None:
        *batch, queries, head = problem.q.shape
        keys, value = problem.v.shape[-2:]
        self._kernel, self._entries = kernel, prod(batch)
        wanted = -(-self._entries * queries // _TASKS)
        tiles = min(-(-wanted // kernel.tile), _QUERIES // kernel.tile)
        block = tiles * kernel.tile
        self._tasks = self._entries * -(-queries // block)
        self._serial = 2 * self._entries * queries * keys * (head + value) < _SERIAL_FLOPS
        views = problem.views()
        self._offsets = [_offsets(view) for view in views]  # the matrices point to these
        matrices = [
            _Matrix(None, offsets.ctypes.data, *view.strides[-2:], _DTYPES[view.dtype])
            for view, offsets in zip(views, self._offsets, strict=True)
        ]
        matrices += [_Matrix()] * (5 - len(matrices))
        sizes = queries, keys, head, value, block, int(problem.causal)
        self._problem = _Problem(*matrices, *sizes, problem.scale)
        self._memory = kernel.memory(ctypes.byref(self._problem))

    def compute(self, arrays: list[Array], parallel: Parallel) -> None:
        """The arrays are q, k, v, the result, and the mask if there is one."""
        problem = _Problem.from_buffer_copy(self._problem)  # plans may run concurrently
        for name, array in zip(_NAMES, arrays, strict=False):
            getattr(problem, name).data = array.ctypes.data
        if len(arrays) > 4 and not problem.causal:
            problem.keys = keys_seen(arrays[4])
        told = ctypes.byref(problem)

        def run(low: int, high: int) -> None:
            self._kernel.attention(told, _scratch(self._memory).ctypes.data, low, high)

        if self._serial:
            run(0, self._tasks)
        else:
            parallel(self._tasks, run)


def _offsets(view: View) -> Array:
    """Where each batch entry begins, in elements."""
    found = np.zeros((), np.intp)
    for extent, stride in zip(view.shape[:-2], view.strides[:-2], strict=True):
        found = np.add.outer(found, np.arange(extent, dtype=np.intp) * stride)
    return np.ascontiguousarray(found)


class _Kept(threading.local):
    """Memory of a thread, kept for the next call: fresh pages cost more than the arithmetic."""

    array: Array | None = None


_kept = _Kept()


def _scratch(size: int) -> Array:
    if _kept.array is None or _kept.array.size < size:
        _kept.array = np.empty(size, np.uint8)
    return _kept.array
