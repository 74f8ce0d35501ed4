"""The kernels of append, and the copy of a next value to its state, which heeds the fault word.

The fault word is two i32: the number of the first node whose rows did not fit, or 0, and how many
steps have begun. Who finds it set changes nothing that is kept.
"""

from __future__ import annotations

from functools import partial
from math import gcd
from pathlib import Path

import numpy as np

from graphexec.base.tensor import Array, DType, TensorType, View
from graphexec.ir.program import Kernel, Parallel
from graphexec.ops.kit.launch import Argument, integers, launch
from graphexec.ops.kit.strides import VECTOR_BYTES

CHECK = Path(__file__).with_name("check.hip")
APPEND = Path(__file__).with_name("append.hip")
KEEP = Path(__file__).with_name("keep.hip")
THREADS = 256
FAULT = TensorType((2,), DType.I32)
"""The type of the fault word."""

_PLACES = {DType.I32: "i32", DType.I64: "i64"}


def check(at: View, count: View | None, fault: View, rows: int, capacity: int, node: int,
          first: bool) -> Kernel:  # fmt: skip
    """Sets the fault word to the number `node` if `rows` rows do not fit. `first` of a step counts
    the steps."""
    counts = at if count is None else count
    numbers = (at.elements, 1 if count is None else count.elements, rows, capacity, node)
    compute = partial(_check_on_cpu, rows=rows, capacity=capacity, node=node, first=first,
                      has_count=count is not None)  # fmt: skip
    args: tuple[Argument, ...] = (at, counts, fault, *integers(*numbers, int(first)))
    return launch(CHECK, "append_check", args, 1, 32, _defines(at, count, 1), compute)


def write(x: View, at: View, count: View | None, out: View, fault: View, share: int) -> Kernel:
    """Writes x (outer, rows, row) into out (outer, capacity, row) from row `at` on; `share` entries
    of the outer axis have one place."""
    outer, rows, row = x.shape
    capacity = out.shape[1]
    word = _word(out.dtype, row, x.offset, out.offset)
    width = row * out.dtype.itemsize // word
    counts = at if count is None else count
    numbers = (at.elements, 1 if count is None else count.elements, share, outer, rows, capacity,
               width)  # fmt: skip
    args: tuple[Argument, ...] = (x, at, counts, out, fault, *integers(*numbers))
    blocks = -(-outer * rows * width // THREADS)
    compute = partial(_write_on_cpu, share=share, has_count=count is not None)
    defines = _defines(at, count, word)
    return launch(APPEND, "append_rows", args, blocks, THREADS, defines, compute)


def keep(x: View, out: View, fault: View) -> Kernel:
    """Copies dense bytes unless the fault word is set."""
    nbytes = out.elements * out.dtype.itemsize
    word = _word(out.dtype, nbytes // out.dtype.itemsize, x.offset, out.offset)
    words = nbytes // word
    defines: dict[str, str | int] = {"WORD": word, "THREADS": THREADS}
    args: tuple[Argument, ...] = (x, out, fault, *integers(words))
    return launch(KEEP, "keep", args, -(-words // THREADS), THREADS, defines, _keep_on_cpu)


def _defines(at: View, count: View | None, word: int) -> dict[str, str | int]:
    counts = at if count is None else count
    return {
        "WORD": word, "PLACE": _PLACES[at.dtype], "COUNT": _PLACES[counts.dtype],
        "HAS_COUNT": int(count is not None), "THREADS": THREADS,
    }  # fmt: skip


def _word(dtype: DType, *places: int) -> int:
    """The largest word, in bytes, that rows consist of and begin at."""
    return gcd(VECTOR_BYTES, *(place * dtype.itemsize for place in places))


def counted(count: Array, rows: int) -> Array:
    """How many of the rows count."""
    found: Array = np.clip(count.astype(np.int64), 0, rows)
    return found


def _check_on_cpu(
    arrays: list[Array], parallel: Parallel, *, rows: int, capacity: int, node: int, first: bool,
    has_count: bool,
) -> None:  # fmt: skip
    at, count, fault = arrays
    if fault[0]:
        return
    fault[1] += first
    some = counted(count, rows) if has_count else rows
    place = at.astype(np.int64)
    if np.any((place < 0) | (place > capacity - some)):
        fault[0] = node


def _write_on_cpu(arrays: list[Array], parallel: Parallel, *, share: int, has_count: bool) -> None:
    x, at, count, out, fault = arrays
    if fault[0]:
        return
    rows, capacity = x.shape[1], out.shape[1]
    entries = -(-len(x) // share)
    places = np.broadcast_to(at.reshape(-1).astype(np.int64), (entries,))
    some = counted(count.reshape(-1), rows) if has_count else np.asarray([rows])
    for entry, (place, number) in enumerate(zip(places, np.broadcast_to(some, (entries,)),
                                                strict=True)):  # fmt: skip
        outer = slice(entry * share, (entry + 1) * share)
        low, high = max(0, -place), min(int(number), capacity - place)
        if low < high:
            out[outer, place + low : place + high] = x[outer, low:high]


def _keep_on_cpu(arrays: list[Array], parallel: Parallel) -> None:
    x, out, fault = arrays
    if not fault[0]:
        out[...] = x.reshape(out.shape)
