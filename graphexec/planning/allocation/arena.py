"""Offsets for items with lifetimes, and a lower bound: the allocator without a program.

The method depends on the number of items. Up to 10 the arena is optimal. Up to 500, and beyond if
few live at a time, it is best fit over several orders with improvement, else one pass with pools
of free blocks. The lower bound is the heaviest set of mutually conflicting items found, exact up
to 100 items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphexec.planning.allocation.conflicts import (
    conflicts,
    grown_peak,
    heaviest_antichain,
    heaviest_clique,
)
from graphexec.planning.allocation.fit import best_offsets
from graphexec.planning.allocation.lifetimes import Item
from graphexec.planning.allocation.pools import pooled_offsets


@dataclass(frozen=True)
class Placement:
    """The offset of each item, the bytes they take together, and a lower bound of these."""

    offsets: Sequence[int]
    bytes: int
    lower_bound: int


def place(items: Sequence[Item]) -> Placement:
    """Offsets for `items`, which come in order of first access. Deterministic."""
    sizes = [item.size for item in items]
    offsets, total = pooled_offsets(items)
    bound = grown_peak(items)
    neighbours = conflicts(items) if total > bound else None
    if neighbours is not None:
        bound = max(bound, heaviest_clique(sizes, neighbours))
        offsets, total = best_offsets(sizes, neighbours, bound, offsets)
        if total > bound:
            bound = heaviest_antichain(items, neighbours) or bound
    return Placement(offsets, total, bound)
