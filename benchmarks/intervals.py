"""Buffers with lifetimes from CSV files, as MiniMalloc publishes its inputs.

Its repository (github.com/google/minimalloc, folder `benchmarks`) has eleven challenging ones, A to
K (Moffitt, "MiniMalloc: a lightweight memory allocator for hardware-accelerated machine learning",
ASPLOS 2023). A line is `id,lower,upper,size`: the buffer lives from `lower` up to, but not at,
`upper`. The capacity that is known to suffice is part of the file's name: `A.1048576.csv`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from graphexec.planning.allocation.lifetimes import Item

_COLUMNS = (("id", "lower", "upper", "size"), ("buffer", "start", "end", "size"))


def read(path: Path) -> list[Item]:
    """The items to place, in order of first access: intervals are lifetimes on one stream."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if tuple(header) not in _COLUMNS:
        raise ValueError(f"{path}: the columns are {header}, not {list(_COLUMNS[0])}")
    found = [item(name, int(lower), int(upper), int(size)) for name, lower, upper, size in rows]
    return sorted(found, key=lambda item: item.first)


def item(name: str, lower: int, upper: int, size: int) -> Item:
    """`size` bytes that live from `lower` up to, but not at, `upper`."""
    return Item({name: 0}, size, first=lower, last=upper - 1, known=(lower,), done=[(0, upper)])


def capacity(path: Path) -> int:
    """The bytes that suffice, from the file's name."""
    return int(path.name.split(".")[-2])
