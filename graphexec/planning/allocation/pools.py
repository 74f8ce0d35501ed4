"""Offsets for very many items, in one pass along the issue order, without comparing all pairs.

Blocks of the arena keep the last accesses of their last tenant. An item takes the tightest run of
neighbouring free blocks whose tenants end before it begins. While there are many blocks, it takes
the oldest such block of its own size. Otherwise it takes new bytes at the top. Earlier tenants
need no check: the last one began after they ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from graphexec.planning.allocation.lifetimes import Item

_LOOKS = 8  # blocks of the right size that are checked
_FEW = 32  # free blocks up to which all are checked
_SCANS = 16  # blocks that may be scanned for runs, an item on average


@dataclass(slots=True, eq=False)
class _Block:
    """Bytes whose last tenant may still be in use."""

    offset: int
    size: int
    tenant: Item


class _Pool:
    def __init__(self, budget: int) -> None:
        self.top, self.budget = 0, budget
        self.free: dict[int, deque[_Block]] = {}
        self.free_bytes = self.count = 0

    def give(self, block: _Block) -> None:
        self.free_bytes += block.size
        self.count += 1
        self.free.setdefault(block.size, deque()).append(block)

    def take(self, item: Item) -> int:
        """The offset for `item`."""
        if self.count > _FEW:  # too many to search the tightest run every time
            for block in islice(self.free.get(item.size, ()), _LOOKS):
                if block.tenant.ends_before(item):
                    self._remove(block)
                    return block.offset
        if self.free_bytes >= item.size and self.budget > 0:
            run = self._run(item)
            if run:
                return self._split(run, item)
        self.top += item.size
        return self.top - item.size

    def _remove(self, block: _Block) -> None:
        self.free[block.size].remove(block)
        self.free_bytes -= block.size
        self.count -= 1

    def _run(self, item: Item) -> list[_Block]:
        """The tightest run of neighbouring free blocks that `item` may use; empty if none."""
        blocks = sorted((b for same in self.free.values() for b in same), key=lambda b: b.offset)
        self.budget -= len(blocks)
        best: list[_Block] = []
        least, run, held = 1 << 62, list[_Block](), 0
        for block in blocks:
            if not block.tenant.ends_before(item):
                run, held = [], 0
                continue
            if run and run[-1].offset + run[-1].size != block.offset:
                run, held = [], 0
            run.append(block)
            held += block.size
            while held - run[0].size >= item.size:
                held -= run.pop(0).size
            if item.size <= held < least:
                best, least = list(run), held
        return best

    def _split(self, run: Sequence[_Block], item: Item) -> int:
        for block in run:
            self._remove(block)
        last = run[-1]
        rest = sum(b.size for b in run) - item.size
        if rest:
            self.give(_Block(last.offset + last.size - rest, rest, last.tenant))
        return run[0].offset


def pooled_offsets(items: Sequence[Item]) -> tuple[list[int], int]:
    """Offsets and total; `items` come in order of first access."""
    pool = _Pool(_SCANS * len(items))
    by_end = sorted(range(len(items)), key=lambda i: items[i].last)
    offsets, ended = [0] * len(items), 0
    for index, item in enumerate(items):
        while items[by_end[ended]].last < item.first:
            old = by_end[ended]
            pool.give(_Block(offsets[old], items[old].size, items[old]))
            ended += 1
        offsets[index] = pool.take(item)
    return offsets, pool.top
