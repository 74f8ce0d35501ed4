"""The choice of a softmax kernel for a shape, with its blocks and vectors.

Rows whose elements are neighbours go to softmax.hip: each to a part of a wavefront when short,
else to a block. Other axes go to columns.hip. Both keep what they have read in registers if it
fits (ONE_PASS).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from graphexec.base.tensor import View
from graphexec.ir.program import Compute, Kernel
from graphexec.ops.kit.launch import Argument, accumulated, integers, launch
from graphexec.ops.kit.strides import axes, collapse, index_type, pieces, power_of_two

ROWS = Path(__file__).with_name("softmax.hip")
COLUMNS = Path(__file__).with_name("columns.hip")

LANES = 32  # that shuffle with one another, in wavefronts of 32 and of 64
MOST_THREADS = 1024  # of a block
HELD = 128  # bytes of accumulators that a thread keeps at most
AT_EASE = 64  # ... as a rule, so that more blocks fit beside one another
IN_FLIGHT = 64  # bytes that a thread loads before it needs the first: that many hide the latency
SHORT_ROW_THREADS = 256
LONG_ROW_THREADS = 512
COLUMN_THREADS = (64, 128, 256, 512, 1024)
COLUMN_BYTES = (128, 64, 32)  # of neighbouring columns that a block takes, best first


@dataclass(frozen=True)
class Problem:
    """The operands and attributes: x and out have one shape, out is dense, mask is broadcast to
    it."""

    x: View
    out: View
    mask: View | None
    axis: int
    scale: float
    causal: bool

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.x.shape[self.axis]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.x.elements // self.length

    @property
    def views(self) -> tuple[View, ...]:
        """The views among the kernel's arguments, in order."""
        return (self.x, self.out) if self.mask is None else (self.x, self.out, self.mask)

    def step(self, view: View | None) -> int:
        """Elements of `view` from one element of a row to the next."""
        return 0 if view is None else view.strides[self.axis]

    def across(self, *views: View | None) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """The axes of rows, as few as possible, and the strides of each view along them."""
        others = [i for i in range(len(self.x.shape)) if i != self.axis]
        strides = [tuple(v.strides[i] if v else 0 for i in others) for v in views]
        shape = tuple(self.x.shape[i] for i in others)
        collapsed: tuple[tuple[int, ...], list[tuple[int, ...]]] = collapse(shape, *strides)
        return collapsed

    @property
    def loaded(self) -> int:
        """How many elements a thread loads as a rule."""
        return min(IN_FLIGHT // self.x.dtype.itemsize, self.held(HELD))

    def held(self, nbytes: int) -> int:
        """How many accumulators `nbytes` hold."""
        return nbytes // self.x.dtype.accumulator.itemsize


def choose(problem: Problem, compute: Compute) -> Kernel:
    """The kernel for a problem."""
    if problem.step(problem.out) == 1:
        return _rows(problem, compute, _row_block(problem, _row_vector(problem)))
    return _columns(problem, compute)


def others(problem: Problem, compute: Compute) -> list[Kernel]:
    """Kernels for the same problem with other blocks, to be measured; some for rows."""
    if problem.step(problem.out) != 1:
        return []
    vector = _row_vector(problem)
    chosen = _row_block(problem, vector)
    blocks = dict.fromkeys(_row_blocks(problem, vector))
    return [_rows(problem, compute, block) for block in blocks if block != chosen]


def _row_vector(p: Problem) -> int:
    """Elements that a thread reads at once."""
    if p.step(p.x) != 1:
        return 1
    _, strides = p.across(*([p.x] if p.mask is None else [p.x, p.mask]))
    vector: int = min(pieces(p.x, (*strides[0], p.length)), pieces(p.out, ()))
    return vector


def _rows(p: Problem, compute: Compute, block: tuple[int, int, int]) -> Kernel:
    shape, strides = p.across(*([p.x] if p.mask is None else [p.x, p.mask]))
    vector, (threads, lanes, per_thread) = _row_vector(p), block
    defines = {
        **_common(p, vector, per_thread, one_pass=lanes * vector * per_thread >= p.length),
        "THREADS": threads,
        "LANES": lanes,
        "CAUSAL": int(p.causal),
        "RANK": len(shape),
        "ROW_INDEX": index_type(p.rows),
    }
    if p.mask is not None and p.step(p.mask) == 1:
        defines["MASK_VECTOR"] = min(vector, pieces(p.mask, strides[1]))
    numbers = (p.rows, p.length, p.x.shape[-2] if p.causal else 1)
    steps = (p.step(p.x), p.step(p.mask))
    args: tuple[Argument, ...] = (
        *p.views, *integers(*numbers), accumulated(p.scale, p.x.dtype), *integers(*steps),
        *axes(shape, *strides),
    )  # fmt: skip
    blocks = -(-p.rows * lanes // threads)
    return launch(ROWS, "softmax_rows", args, blocks, threads, defines, compute)


def _row_block(p: Problem, vector: int) -> tuple[int, int, int]:
    """(threads of a block, threads of a row, vectors of a thread)."""
    vectors = p.length // vector
    if p.length <= LANES * p.held(HELD):
        lanes = min(LANES, power_of_two(-(-vectors // max(1, p.loaded // vector))))
        return SHORT_ROW_THREADS, lanes, -(-vectors // lanes)
    for elements, most in ((p.loaded, MOST_THREADS // 2), (p.held(HELD), MOST_THREADS)):
        threads = -(-p.length // elements // 64) * 64
        if threads <= most:
            return threads, threads, -(-vectors // threads)
    return LONG_ROW_THREADS, LONG_ROW_THREADS, max(1, p.held(AT_EASE) // vector)


def _row_blocks(p: Problem, vector: int) -> Iterator[tuple[int, int, int]]:
    """Blocks as of `_row_block` that can do the same: parts of a wavefront or blocks for a row, in
    one pass where a thread can hold its part, else in two."""
    vectors = p.length // vector
    if p.length <= LANES * p.held(HELD):
        for lanes in (8, 16, 32):
            per_thread = -(-vectors // lanes)
            if per_thread * vector <= p.held(HELD):
                yield from ((threads, lanes, per_thread) for threads in (128, 256, 512))
        return
    for nbytes in (HELD // 4, AT_EASE, HELD):
        threads = -(-p.length // p.held(nbytes) // 64) * 64
        if threads <= MOST_THREADS:
            yield threads, threads, -(-vectors // threads)
    for threads in (256, LONG_ROW_THREADS, MOST_THREADS):
        yield threads, threads, max(1, p.held(AT_EASE) // vector)


def _columns(p: Problem, compute: Compute) -> Kernel:
    shape, strides = p.across(p.x, p.out, p.mask)
    width, x_column, mask_column = shape[-1], strides[0][-1], strides[2][-1]
    slabs, slab_strides = shape[:-1] or (1,), [s[:-1] or (0,) for s in strides]
    vector = 1
    if x_column == 1:
        vector = min(
            pieces(p.x, (width, p.step(p.x), *slab_strides[0])),
            pieces(p.out, (p.step(p.out), *slab_strides[1])),
        )
    threads, columns, per_thread = _column_block(p, width, vector)
    tiles = -(-width // (columns * vector))
    blocks = prod(slabs) * tiles
    one_pass = threads // columns * per_thread >= p.length
    defines = {
        **_common(p, vector, per_thread, one_pass=one_pass),
        "THREADS": threads,
        "COLUMNS": columns,
        "RANK": len(slabs),
        "ROW_INDEX": index_type(blocks),
    }
    if p.mask is not None and mask_column == 1:
        mask_steps = (p.step(p.mask), *slab_strides[2])
        defines["MASK_VECTOR"] = min(vector, pieces(p.mask, mask_steps))
    steps = (p.step(p.x), p.step(p.out), p.step(p.mask), x_column, mask_column)
    args: tuple[Argument, ...] = (
        *p.views, *integers(p.length), accumulated(p.scale, p.x.dtype),
        *integers(*steps, width, tiles, blocks), *axes(slabs, *slab_strides),
    )  # fmt: skip
    return launch(COLUMNS, "softmax_columns", args, blocks, threads, defines, compute)


def _column_block(p: Problem, width: int, vector: int) -> tuple[int, int, int]:
    """(threads of a block, threads beside one another, elements of a column that one holds)."""
    needed = power_of_two(-(-width // vector))
    room = [nbytes // (vector * p.x.dtype.itemsize) for nbytes in COLUMN_BYTES]
    most = max(1, p.held(HELD) // vector)
    for beside in room:
        columns = min(LANES, needed, beside)
        for threads in COLUMN_THREADS:
            depth = threads // columns
            if depth * most >= p.length:
                return threads, columns, -(-p.length // depth)
    return LONG_ROW_THREADS, min(LANES, needed, room[1]), max(1, most // 2)


def _common(p: Problem, vector: int, per_thread: int, one_pass: bool) -> dict[str, str | int]:
    types = {"X_TYPE": p.x.dtype.value}
    if p.mask is not None:
        types |= {"MASK_TYPE": p.mask.dtype.value, "MASK_VECTOR": "1"}
    return {
        **types,
        "VECTOR": vector,
        "PER_THREAD": per_thread,
        "ONE_PASS": int(one_pass),
        # The last chunk of a row may reach past its end.
        "INDEX": "int" if index_type(p.length + (1 << 16)) == "u32" else "i64",
    }
