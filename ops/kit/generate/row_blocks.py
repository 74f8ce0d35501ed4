"""How threads share the rows that a kernel with reductions goes over.

Where the elements of a row are neighbours, part of a wavefront or a whole block takes a row. Where
they lie apart and those of neighbouring rows are neighbours, a block takes some of these *columns*:
neighbouring threads take neighbouring columns, and several share one. A row that fits into
registers crosses memory once. Others are read again in each pass (see the module stages).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from graphexec.base.tensor import View
from graphexec.ir.body import Body
from graphexec.ops.kit.generate.elementwise import Places, memory_order
from graphexec.ops.kit.generate.stages import Stages, along_rows, stages
from graphexec.ops.kit.strides import VECTOR_BYTES, collapse, pieces, power_of_two

IN_FLIGHT = 64  # bytes of operands that a thread loads before it needs the first
HELD = 256  # bytes that a thread keeps of a row at most,
HELD_BY_MANY = 128  # ... in blocks of more than 512 threads, which have fewer registers each
WARP = 32  # lanes that shuffle with one another
MOST_THREADS = 1024
SHORT_ROW_THREADS = 256
LONG_ROW_THREADS = 512
COLUMN_THREADS = 256
MANY_BLOCKS = 256  # fill a large GPU; fewer blocks get more threads
SHARED = 32 << 10  # bytes of shared memory of a block at most
FEW_LANES = 8  # that share a row at least: their accesses lie side by side
FEW_COLUMNS = 8  # are not worth a block of them


@dataclass(frozen=True)
class Block:
    """How threads share rows: `threads` a block, `lanes` a row, each of which holds `per_thread`
    vectors of `vector` elements at a time. Lanes of a row are neighbours, or `columns` apart."""

    threads: int
    lanes: int
    per_thread: int
    vector: int
    columns: int = 0

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return self.columns or self.threads // self.lanes

    @property
    def chunk(self) -> int:
        """Elements of a row that are held at a time."""
        return self.lanes * self.per_thread * self.vector


class Rows:
    """The choices for one set of views."""

    def __init__(self, body: Body, reads: tuple[View, ...], writes: tuple[View, ...]) -> None:
        self.body, self.reads, self.writes = body, reads, writes
        self.views = (*reads, *writes)
        shape = reads[0].shape if reads else writes[0].shape
        shape = (*shape[:-1], max(view.shape[-1] for view in self.views))
        self.length, self.rows = shape[-1], prod(shape[:-1])
        self.along = [0 if v.shape[-1] == 1 else v.strides[-1] for v in self.views]
        outer = [replace(v, shape=shape[:-1], strides=v.strides[:-1]) for v in self.views]
        order = memory_order(outer[self._main(outer)])
        turned = [view.transpose(order) for view in outer]
        inner = [index for index in body.indexes if index != -1]
        coordinates = [
            tuple(int(axis == len(shape) + index) for axis in order) for index in inner
        ]  # fmt: skip
        self.extents, self.strides = collapse(
            tuple(shape[axis] for axis in order), *(v.strides for v in turned), *coordinates
        )
        places = Places()
        self.place = [places.of(s) for s in self.strides]
        self.places = places.found
        self.indexes = dict(zip(inner, self.place[len(self.views) :], strict=True))

    def _main(self, outer: Sequence[View]) -> int:
        """The view of most bytes that varies along a row; neighbours in it should be so in a
        block."""

        def size(number: int) -> int:
            view = outer[number]
            extents = (e for e, s in zip(view.shape, view.strides, strict=True) if s)
            return prod(extents) * view.dtype.itemsize * bool(self.along[number])

        return max(range(len(outer)), key=size)

    # What is where ----------------------------------------------------------------------

    def varies(self, number: int) -> bool:
        """Whether view `number` has an element for each of a row."""
        return self.along[number] != 0

    @cached_property
    def alike(self) -> list[bool]:
        """For each step, whether it is the same along a row."""
        same = [not self.varies(n) for n in range(len(self.reads))]
        return along_rows(self.body, same, self.length)

    @cached_property
    def stored(self) -> list[int]:
        """The results with an element for each of a row."""
        return [n for n in range(len(self.writes)) if self.varies(len(self.reads) + n)]

    def stages(self, keep: bool) -> Stages:
        """The passes."""
        varying = [self.body.results[n] for n in self.stored]
        return stages(self.body, self.alike, varying, keep)

    @cached_property
    def _can_be_late(self) -> list[int]:
        """Operands that all rows share, so that a cache has them, and that only results need."""
        *reducing, _ = self.stages(keep=True).passes
        early = {n for each in reducing for n in each.steps}
        loads = enumerate(self.body.steps)
        needed = {s.value for n, s in loads if s.function == "load" and n in early}
        return [n for n in range(len(self.reads))
                if self.varies(n) and not any(self.strides[n]) and n not in needed]  # fmt: skip

    @cached_property
    def late(self) -> list[int]:
        """Operands that are loaded when results are computed, because registers are scarce."""
        elements = self.block.per_thread * self.block.vector
        scarce = elements * self._held() > self._room(self.block.threads)
        return self._can_be_late if self.one_pass and scarce else []

    def piece(self, number: int) -> int:
        """Elements of view `number` that one instruction moves."""
        if self.along[number] != 1:
            return 1
        return min(self.block.vector, pieces(self.views[number], self.strides[number]))

    # The block --------------------------------------------------------------------------

    @cached_property
    def block(self) -> Block:
        """How threads share rows."""
        return self._columns() or self._lanes()

    @cached_property
    def one_pass(self) -> bool:
        """Whether a row stays in registers."""
        return self.block.chunk >= self.length

    def _columns(self) -> Block | None:
        main = self._main([replace(v, shape=v.shape[:-1], strides=v.strides[:-1])
                           for v in self.views])  # fmt: skip
        beside = self.strides[main][-1], self.extents[-1]
        if abs(self.along[main]) <= 1 or abs(beside[0]) != 1 or beside[1] < FEW_COLUMNS:
            return None
        columns = min(WARP, power_of_two(beside[1]))
        few = -(-self.rows // columns) < MANY_BLOCKS
        depth = (MOST_THREADS if few else COLUMN_THREADS) // columns
        depth = min(depth, power_of_two(self.length))
        while depth > 1 and columns * depth * self._shared_bytes() > SHARED:
            depth //= 2
        threads = columns * depth
        held = -(-self.length // depth)
        if not self._fits(held, HELD_BY_MANY):
            held = max(1, min(held, IN_FLIGHT // self._loaded()))
        while held > 1 and not self._fits(held, HELD):
            held //= 2
        return Block(threads, depth, held, 1, columns)

    def _lanes(self) -> Block:
        vector = self._vector()
        each = max(vector, IN_FLIGHT // self._loaded() // vector * vector)
        while each > vector and not self._fits(each, HELD):
            each = max(vector, each // 2 // vector * vector)
        lanes = max(-(-self.length // each), min(FEW_LANES, -(-self.length // vector)))
        if lanes <= WARP:
            lanes = power_of_two(lanes)
            return self._shared(SHORT_ROW_THREADS, lanes, vector)
        threads = min(MOST_THREADS, -(-lanes // WARP) * WARP)
        block = self._shared(threads, threads, vector)
        if self._fits(block.per_thread * vector, self._room(threads)):
            return block
        return Block(LONG_ROW_THREADS, LONG_ROW_THREADS, each // vector, vector)

    def _shared(self, threads: int, lanes: int, vector: int) -> Block:
        """A row at a time, all of it."""
        return Block(threads, lanes, -(-self.length // (lanes * vector)), vector)

    def _vector(self) -> int:
        """Elements of a vector: none of its accesses has more than 16 bytes, and what moves from
        row to row is moved at once."""
        near = [n for n in range(len(self.views)) if self.along[n] == 1]
        if not near:
            return 1
        width = VECTOR_BYTES // max(self.views[n].dtype.itemsize for n in near)
        for n in near:
            if any(self.strides[n]) or n >= len(self.reads):
                width = min(width, pieces(self.views[n], self.strides[n]))
        while self.length % width:
            width //= 2
        return width

    def _loaded(self) -> int:
        """Bytes of one element of all operands that come from memory, and not from a cache."""
        moving = [n for n in range(len(self.reads)) if self.varies(n)]
        streamed = [n for n in moving if any(self.strides[n])]
        return sum(self.views[n].dtype.itemsize for n in streamed or moving) or 4

    def _fits(self, elements: int, room: int) -> bool:
        """Whether a thread can keep so many elements; what can be late need not be kept."""
        return elements * self._held(self._can_be_late) <= room

    def _held(self, late: Sequence[int] = ()) -> int:
        """Bytes that an element of a row takes in registers: 4 at least, since 16 bits are computed
        with as 32."""
        kept = self.stages(keep=True).kept
        sizes = [max(4, self.body.steps[n].dtype.itemsize) for n in kept]
        sizes += [v.dtype.itemsize for n, v in enumerate(self.reads)
                  if self.varies(n) and n not in late]  # fmt: skip
        return max(4, sum(sizes))

    def _shared_bytes(self) -> int:
        """Bytes that a thread puts into shared memory for all reductions."""
        return sum(16 if "arg" in s.function else 8 for s in self.body.steps if s.reduces)

    def _room(self, threads: int) -> int:
        return HELD_BY_MANY if threads > LONG_ROW_THREADS else HELD

    @cached_property
    def steps(self) -> list[int]:
        """Strides along a row that are arguments: all but 0 and 1."""
        return sorted({step for step in self.along if step not in (0, 1)})
