"""The last writes and reads of all bytes: an interval map for each connected set of byte ranges.

The ranges of all launches are grouped into regions, the connected unions of ranges that overlap.
A region is tiled by cells; a cell holds, for each stream, the number of the last launch that
wrote it and of the last that read it since. A write replaces the cells it covers by one. So the
number of cells stays near the number of live tensors.

Guarantees, for accesses in issue order, each with the clock of its launch:
1. when every access so far was ordered, `read` and `write` return False exactly if an earlier
   access conflicts with this one and does not happen before it;
2. after unordered accesses they still return False for every access that has such a conflict
   (an access is dropped only when it happens before the write, or the read of the same stream,
   that replaces it: an access unordered with the one is unordered with the other), but may
   return False for others: a cell represents all the bytes of the write that made it.

Sources: the epochs of C. Flanagan and S. Freund, "FastTrack: Efficient and Precise Dynamic Race
Detection", PLDI 2009, kept for byte ranges instead of variables.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from graphexec.ir.plan import Launch, Plan, Range
from graphexec.proof.clocks import Clock

Epochs: TypeAlias = dict[int, int]
"""For each stream slot the number of a launch of that stream."""


class Cell:
    """Bytes `low` to `high` with the same history."""

    __slots__ = ("high", "low", "reads", "writes")

    def __init__(self, low: int, high: int, writes: Epochs, reads: Epochs) -> None:
        self.low, self.high, self.writes, self.reads = low, high, writes, reads


class Region:
    """The history of bytes `low` to `high` of one buffer."""

    __slots__ = ("_cells", "_lows", "buffer", "initialised")

    def __init__(self, buffer: str, low: int, high: int, initialised: bool) -> None:
        self.buffer, self.initialised = buffer, initialised
        self._lows = [low]
        self._cells = [Cell(low, high, {}, {})]

    def empty(self, *parts: Range) -> None:
        """Before the first access: these bytes hold no value yet, others do."""
        within = [(max(p.low, self._lows[0]), min(p.high, self._cells[-1].high))
                  for p in parts if p.buffer == self.buffer]  # fmt: skip
        within = [(low, high) for low, high in within if low < high]
        if not self.initialised or not within:
            return
        self.initialised = False
        for low, high in within:
            self._tiles(low, high)  # cuts the cells there
        for cell in self._cells:
            if not any(low <= cell.low and cell.high <= high for low, high in within):
                cell.writes = {0: 0}  # by nothing that a launch could not have seen

    def read(
        self, low: int, high: int, slot: int, clock: Clock, holes: list[tuple[int, int]]
    ) -> bool:
        """Note a read; True when every earlier write of these bytes happens before it.

        Bytes that nothing has written are added to `holes`, in ascending order.
        """
        ordered = True
        for cell in self._tiles(low, high):
            if not cell.writes and not self.initialised:
                holes.append((cell.low, cell.high))
            ordered = ordered and _seen(cell.writes, clock)
            cell.reads[slot] = clock[slot]
        return ordered

    def write(self, low: int, high: int, slot: int, clock: Clock) -> bool:
        """Note a write; True when every earlier access of these bytes happens before it."""
        writes: Epochs = {}
        reads: Epochs = {}
        tiles = self._tiles(low, high)
        for cell in tiles:
            _keep_unseen(cell.writes, clock, writes)
            _keep_unseen(cell.reads, clock, reads)
        ordered = not writes and not reads
        writes[slot] = clock[slot]
        if len(tiles) > 1:
            first = bisect_left(self._lows, low)
            self._lows[first : first + len(tiles)] = [low]
            self._cells[first : first + len(tiles)] = [Cell(low, high, writes, reads)]
        else:
            tiles[0].writes, tiles[0].reads = writes, reads
        return ordered

    def ordered(self, low: int, high: int, clock: Clock, *, write: bool) -> bool:
        """What `read` or `write` would return, without noting anything."""
        first, last = bisect_right(self._lows, low) - 1, bisect_left(self._lows, high)
        for cell in self._cells[first:last]:
            if not _seen(cell.writes, clock) or (write and not _seen(cell.reads, clock)):
                return False
        return True

    def _tiles(self, low: int, high: int) -> list[Cell]:
        """The cells that cover exactly these bytes, cut at both ends where needed."""
        cell = self._cells[bisect_right(self._lows, low) - 1]
        if cell.low == low and cell.high == high:  # by far the most frequent case
            return [cell]
        first, last = self._cut(low), self._cut(high)
        return self._cells[first:last]

    def _cut(self, at: int) -> int:
        """The index of the cell that starts at `at`, made if there is none."""
        index = bisect_left(self._lows, at)
        if index < len(self._lows) and self._lows[index] == at:
            return index
        cell = self._cells[index - 1]
        if cell.high > at:
            # The epochs of writes never change in a cell, so the halves may share them.
            self._lows.insert(index, at)
            self._cells.insert(index, Cell(at, cell.high, cell.writes, cell.reads.copy()))
            cell.high = at
        return index


def _seen(epochs: Epochs, clock: Clock) -> bool:
    # A loop, not all(): most cells have one entry, and a generator costs more than the check.
    for slot, number in epochs.items():  # noqa: SIM110
        if clock[slot] < number:
            return False
    return True


def _keep_unseen(epochs: Epochs, clock: Clock, kept: Epochs) -> None:
    for slot, number in epochs.items():
        if clock[slot] < number > kept.get(slot, 0):
            kept[slot] = number


class Regions:
    """The regions of a plan: `find` returns the one that contains a range.

    Ranges that are empty or in no buffer of the plan are left out, and so are bytes that are
    initialised and never written: they cannot have a hazard.
    """

    def __init__(self, plan: Plan) -> None:
        self._of: dict[tuple[str, int, int], Region] = {}
        buffers = {b.id: b.role in ("input", "weights", "state") for b in plan.buffers}
        self._empty = [t.range for t in plan.tensors if t.state and not t.init]
        for buffer, ranges in _ranges(plan).items():
            if buffer in buffers:
                self._add(buffer, ranges, buffers[buffer])

    def find(self, ranges: Iterable[Range]) -> Iterator[tuple[Region, int, int]]:
        """The region, first and past-last byte of each range in a region."""
        for range in ranges:
            region = self._of.get((range.buffer, range.low, range.high))
            if region is not None:
                yield region, range.low, range.high

    def _add(self, buffer: str, ranges: dict[tuple[int, int], bool], initialised: bool) -> None:
        for group in _connected(sorted(ranges)):
            whole = Range(buffer, group[0][0], max(high for _, high in group))
            empty = [part for part in self._empty if part.overlaps(whole)]
            if initialised and not empty and not any(ranges[extent] for extent in group):
                continue
            region = Region(buffer, whole.low, whole.high, initialised)
            region.empty(*empty)
            for low, high in group:
                self._of[buffer, low, high] = region


def _ranges(plan: Plan) -> dict[str, dict[tuple[int, int], bool]]:
    """The distinct ranges of each buffer; True for those that some launch writes."""
    found: dict[str, dict[tuple[int, int], bool]] = {}
    for launch in plan.instructions:
        if not isinstance(launch, Launch):
            continue
        for written, ranges in ((False, launch.reads), (True, launch.writes)):
            for range in ranges:
                if range.low < range.high:
                    of_buffer = found.setdefault(range.buffer, {})
                    extent = (range.low, range.high)
                    of_buffer[extent] = of_buffer.get(extent, False) or written
    return found


def _connected(extents: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Sorted extents, in groups that share no byte."""
    group: list[tuple[int, int]] = []
    end = 0
    for low, high in extents:
        if group and low >= end:
            yield group
            group = []
        end = max(end, high) if group else high
        group.append((low, high))
    if group:
        yield group
