"""The kernel of a gather: rows of neighbouring bytes, whatever their type, in words of up to 16.

x is (outer, extent, row), index (count,), the result (outer, count, row), all dense. A batch has
one further axis in front of each; its members may share x or index.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np

from graphexec.base.tensor import Array, DType, View
from graphexec.ir.program import Kernel, Parallel
from graphexec.ops.kit.launch import Argument, integers, launch
from graphexec.ops.kit.strides import VECTOR_BYTES, divisor, index_type

SOURCE = Path(__file__).with_name("gather.hip")
THREADS = 256
UNDER_WAY = 4  # words that a thread has under way,
MANY_WORDS = 1 << 19  # ... if there are enough for every thread of a large GPU
NAN = {DType.F16: 0x7E00, DType.BF16: 0x7FC0, DType.F32: 0x7FC00000, DType.F64: 0x7FF8 << 48}
"""The bits of what an index outside gives; 0 for other types."""
PLACES = {DType.I32: "int", DType.I64: "i64"}
_CPU_ROWS = 1 << 16  # of a block: what is computed for each row stays in the cache
_SERIAL = 1 << 15  # elements; fewer are not worth another thread


@dataclass(frozen=True)
class GatherRows:
    """The kernel over x, index and the result."""

    def __call__(self, x: View, index: View, out: View) -> Kernel:
        """The kernel; a result of four axes is that of a batch."""
        batch = len(out.shape) == 4
        x_step, index_step = (view.strides[0] if batch else 0 for view in (x, index))
        outer, count, row = out.shape[-3:]
        word = _word(out.dtype, row, x.offset, out.offset, x_step)
        width = row * out.dtype.itemsize // word
        words = out.elements * out.dtype.itemsize // word
        per_thread = UNDER_WAY if words >= MANY_WORDS else 1
        defines: dict[str, str | int] = {
            "WORD": word,
            "PLACE": PLACES[index.dtype],
            "NOTHING": _pattern(out.dtype),
            "BATCH": int(batch),
            "THREADS": THREADS,
            "PER_THREAD": per_thread,
            "INDEX": index_type(words),
        }
        numbers = integers(
            words, x.shape[-2], outer, x_step * x.dtype.itemsize // word, index_step,
            width, *divisor(width), count, *divisor(count),
        )  # fmt: skip
        blocks = -(-words // (THREADS * per_thread))
        args: tuple[Argument, ...] = (x, index, out, *numbers)
        return launch(SOURCE, "gather_rows", args, blocks, THREADS, defines, _gather_on_cpu)


def _word(dtype: DType, *places: int) -> int:
    """The largest word, in bytes, that rows consist of and begin at."""
    return gcd(VECTOR_BYTES, *(place * dtype.itemsize for place in places))


def _pattern(dtype: DType) -> str:
    """Eight bytes of what an index outside gives."""
    bits, size = NAN.get(dtype, 0), dtype.itemsize
    whole = sum(bits << (8 * size * place) for place in range(8 // size))
    return f"0x{whole:016x}ull"


def _gather_on_cpu(arrays: list[Array], parallel: Parallel) -> None:
    x, index, out = arrays
    if out.ndim == 3:
        _gather_one(x, index, out, parallel)
        return
    for member in zip(x, index, out, strict=True):
        _gather_one(*member, parallel)


def _gather_one(x: Array, index: Array, out: Array, parallel: Parallel) -> None:
    outer, extent, row = x.shape
    count = len(index)
    source, target = x.reshape(outer * extent, row), out.reshape(outer * count, row)
    nothing = 0 if out.dtype.kind in "iub" else np.nan

    def body(low: int, high: int) -> None:
        for first in range(low, high, _CPU_ROWS):
            number = np.arange(first, min(first + _CPU_ROWS, high))
            place = index[number % count].astype(np.int64)
            place[place < 0] += extent
            outside = (place < 0) | (place >= extent)
            place[outside] = 0
            rows = target[first : first + len(number)]
            np.take(source, place + number // count * extent, 0, rows, mode="clip")
            if outside.any():
                rows[outside] = nothing

    if out.size < _SERIAL:
        body(0, len(target))
    else:
        parallel(len(target), body)
