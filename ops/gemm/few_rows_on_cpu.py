"""Products of few rows on the CPU, by a kernel in C (few_rows.c) or by NumPy.

The system's C compiler makes the kernel for this CPU. A call computes a range of columns without
the interpreter's lock, so that threads run in parallel.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from operator import is_
from pathlib import Path

import numpy as np

from graphexec.base.casts import cast_into
from graphexec.base.host_compiler import NATIVE, HostCompilerError, load_library
from graphexec.base.tensor import Array, DType
from graphexec.ir.program import Compute, Parallel
from graphexec.ops.gemm.few_rows_launch import End
from graphexec.ops.kit.generate.on_cpu import OnCpu
from graphexec.ops.kit.strides import power_of_two

LOGGER = logging.getLogger("graphexec.gemm")
SOURCE = Path(__file__).with_name("few_rows.c")
FLAGS = (
    "-std=gnu11", "-O2", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
    "-fvisibility=hidden",
)  # fmt: skip
_DTYPES = {DType.F32: 0, DType.F16: 1, DType.BF16: 2}  # as in the source
_SERIAL = 1 << 22  # bytes; fewer are read before another thread has woken up
_BLOCK = 1 << 18  # elements that NumPy widens at a time

_word = ctypes.c_ssize_t


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("entries", ctypes.c_void_p),
        ("row", _word), ("column", _word), ("dtype", _word),
    )  # fmt: skip


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("x", "w", "y", "c", "bias")),
        ("packed", ctypes.c_void_p),
        *((name, _word) for name in ("entries", "rows", "padded", "n", "k")),
        ("alpha", ctypes.c_float), ("beta", ctypes.c_float),
    )  # fmt: skip


class Library:
    """The functions of the compiled library. AttributeError if it lacks one."""

    def __init__(self, code: ctypes.CDLL) -> None:
        self.run = code.few_rows
        self.run.argtypes = (ctypes.POINTER(_Problem), _word, _word)
        self.run.restype = None
        self.pack = code.few_rows_pack
        self.pack.argtypes = (ctypes.POINTER(_Problem),)
        self.pack.restype = None
        code.few_rows_unit.restype = _word
        self.unit: int = code.few_rows_unit()


_asked = threading.Lock()


def library() -> Library | None:
    """The kernel for this CPU, compiled once a process; None if it cannot be compiled."""
    with _asked:
        return _make()


@cache
def _make() -> Library | None:
    try:
        return load_library(SOURCE, (*FLAGS, NATIVE), Library)
    except HostCompilerError as error:
        LOGGER.debug("products of few rows are computed by NumPy: %s", error)
        return None


@dataclass(frozen=True)
class FewRowsOnCpu:
    """A product of few rows, of the arrays x (…, M, K), w (…, K, N), the result, and the others."""

    end: End

    def prepare(self) -> Compute:
        """What computes it on this CPU."""
        code = library()
        product = partial(_by_numpy, self.end) if code is None else Compiled(self.end, code).compute
        if self.end.body is None:
            return product
        return _WithBody(self.end, product, OnCpu(self.end.body).prepare())

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        """Compute it, unprepared."""
        self.prepare()(arrays, parallel)


def _by_numpy(end: End, arrays: list[Array], parallel: Parallel) -> None:
    """Some columns at a time are widened."""
    x, w, y, *addends = arrays
    wide = x.astype(np.float32)
    step = max(1, _BLOCK // (w.size // w.shape[-1]))

    def columns(low: int, high: int) -> None:
        for first in range(low, high, step):
            part = (..., slice(first, min(first + step, high)))
            found = np.matmul(wide, w[part].astype(np.float32)) * np.float32(end.alpha)
            for addend, factor in zip(addends, (end.beta, 1.0), strict=False):
                found += np.float32(factor) * addend[part].astype(np.float32)
            cast_into(y[part], found)

    if w.nbytes < _SERIAL:
        columns(0, y.shape[-1])
    else:
        parallel(y.shape[-1], columns)


@dataclass(frozen=True)
class _WithBody:
    """A product in f32, and a body of it."""

    end: End
    product: Compute
    body: Compute

    def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
        x, w, y, *others = arrays
        addends, more = others[: self.end.addends], iter(others[self.end.addends :])
        sums = np.empty((*y.shape[:-1], w.shape[-1]), np.float32)
        self.product([x, w, sums, *addends], parallel)
        width = y.shape[-1]
        given = [next(more) if p is None else sums[..., p : p + width] for p in self.end.parts]
        self.body([*given, y], parallel)


@dataclass(frozen=True)
class _Bound:
    """Arrays, how the library is told of them, and what that points to."""

    arrays: tuple[Array, ...]
    problem: _Problem
    kept: list[Array]
    tasks: int
    serial: bool


class Compiled:
    """A product for the library."""

    def __init__(self, end: End, code: Library) -> None:
        self._end, self._code = end, code
        self._last: _Bound | None = None  # a plan gives the same arrays in every run

    def compute(self, arrays: list[Array], parallel: Parallel) -> None:
        """The arrays are x, w, y and the addends."""
        last = self._last
        bound = last if last and all(map(is_, last.arrays, arrays)) else self._bind(arrays)
        problem = _Problem.from_buffer_copy(bound.problem)  # plans may run concurrently
        told, run = ctypes.byref(problem), self._code.run
        packed = np.empty(problem.entries * problem.padded * problem.k, np.float32)
        problem.packed = packed.ctypes.data
        self._code.pack(told)
        if bound.serial:
            run(told, 0, bound.tasks)
        else:
            parallel(bound.tasks, lambda low, high: run(told, low, high))

    def _bind(self, arrays: Sequence[Array]) -> _Bound:
        kept: list[Array] = []
        matrices = [_matrix(array, kept) for array in arrays]
        matrices += [_Matrix()] * (5 - len(matrices))
        x, w, y = arrays[:3]
        entries, (rows, n) = prod(y.shape[:-2]), y.shape[-2:]
        sizes = entries, rows, power_of_two(rows), n, x.shape[-1]
        problem = _Problem(*matrices, None, *sizes, self._end.alpha, self._end.beta)
        tasks = entries * -(-n // self._code.unit)
        self._last = _Bound(tuple(arrays), problem, kept, tasks, w.nbytes < _SERIAL)
        return self._last


def _matrix(array: Array, kept: list[Array]) -> _Matrix:
    """A matrix as the library takes it; `kept` gets where its entries begin."""
    size = array.dtype.itemsize
    begin = np.zeros((), np.intp)
    for extent, stride in zip(array.shape[:-2], array.strides[:-2], strict=True):
        begin = np.add.outer(begin, np.arange(extent, dtype=np.intp) * (stride // size))
    kept.append(np.ascontiguousarray(begin))
    row, column = (stride // size for stride in array.strides[-2:])
    dtype = _DTYPES[DType.of(array.dtype)]
    return _Matrix(array.ctypes.data, kept[-1].ctypes.data, row, column, dtype)
