"""The kernel of a concat: blocks of neighbouring bytes, whatever their type.

Along the axes from the concatenated one on, the elements of a part are neighbours: a block. Blocks
are moved in words of up to 16 bytes, the largest at whose multiples all of them begin and end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from pathlib import Path

import numpy as np

from graphexec.base.tensor import Array, View, merge_axes
from graphexec.ir.program import Kernel, Parallel
from graphexec.ops.kit.launch import Argument, integers, launch
from graphexec.ops.kit.strides import VECTOR_BYTES, divisor, index_type

SOURCE = Path(__file__).with_name("concat.hip")
MOST_PARTS = 16
THREADS = 256
UNDER_WAY = 4  # words that a thread has under way,
MANY_WORDS = 1 << 19  # ... if there are enough for every thread of a large GPU
_CPU_BLOCK = 1 << 16  # elements; more of them are shared among threads


@dataclass(frozen=True)
class Concatenate:
    """The kernel over parts and the result, or `apart`, over parts and a window for each.

    `axis` is counted from the last one, so that a batch may have further axes in front.
    """

    axis: int
    apart: bool = False

    def __call__(self, *views: View) -> Kernel:
        """The kernel that writes every part where it belongs."""
        parts, targets = _split(views, self.axis, self.apart)
        blocks = [_needed(view, self.axis) for view in (*parts, *targets)]
        word = _word(blocks)
        sources, written = blocks[: len(parts)], blocks[len(parts) :]
        rows, begin = sources[0].shape[0], 0
        args: list[Argument] = []
        for x, y in zip(sources, written, strict=True):
            begin += x.shape[1] * x.dtype.itemsize // word
            steps = (v.strides[0] * v.dtype.itemsize // word for v in (x, y))
            args += [x, y, *integers(begin, *steps)]
        words = rows * begin
        per_thread = UNDER_WAY if words >= MANY_WORDS else 1
        defines: dict[str, str | int] = {
            "WORD": word,
            "PARTS": len(parts),
            "THREADS": THREADS,
            "PER_THREAD": per_thread,
            "INDEX": index_type(words),
        }
        launched = integers(words, begin, *divisor(begin))
        threads = THREADS * per_thread
        return launch(
            SOURCE, "concat", (*launched, *args), -(-words // threads), THREADS, defines,
            _copy_on_cpu,
        )  # fmt: skip


def _split(views: Sequence[View], axis: int, apart: bool) -> tuple[list[View], list[View]]:
    """The parts, and where each is written."""
    if apart:
        half = len(views) // 2
        return list(views[:half]), list(views[half:])
    *parts, whole = views
    targets, first = [], 0
    for part in parts:
        offset = whole.offset + first * whole.strides[axis]
        targets.append(replace(whole, shape=part.shape, offset=offset))
        first += part.shape[axis]
    return parts, targets


def block_of(view: View, axis: int) -> View | None:
    """The view as (rows, block), the block being what lies side by side from `axis` on; None if
    there is no such form."""
    inner = replace(view, shape=view.shape[axis:], strides=view.strides[axis:])
    rows, (steps,) = merge_axes(view.shape[:axis], view.strides[:axis])
    if not inner.is_dense or len(rows) > 1 or any(step < 0 for step in steps):
        return None
    block = prod(inner.shape)
    return replace(view, shape=(rows or (1,)) + (block,), strides=(steps or (block,)) + (1,))


def _needed(view: View, axis: int) -> View:
    found = block_of(view, axis)
    assert found is not None, "Concat.accepts"
    return found


def _word(blocks: Sequence[View]) -> int:
    """The largest word, in bytes, at whose multiples every block begins and ends."""
    places = (n for v in blocks for n in (v.offset, v.strides[0], v.shape[1]))
    return gcd(VECTOR_BYTES, *(place * blocks[0].dtype.itemsize for place in places))


def _copy_on_cpu(arrays: list[Array], parallel: Parallel) -> None:
    for x, y in zip(arrays[::2], arrays[1::2], strict=True):
        _copy(x, y, parallel)


def _copy(x: Array, y: Array, parallel: Parallel) -> None:
    if x.size <= _CPU_BLOCK:
        np.copyto(y, x)
        return
    if len(x) == 1:
        x, y = x[0], y[0]

    def body(low: int, high: int) -> None:
        np.copyto(y[low:high], x[low:high])

    parallel(len(x), body)
