"""Places for the boxes of a graph: rows by longest path, order in a row by barycentres.

K. Sugiyama, S. Tagawa and M. Toda, "Methods for Visual Understanding of Hierarchical System
Structures", IEEE Trans. SMC 11(2), 1981, in its simplest form: arrows that pass several rows get
a bend in each (one for all arrows of a box), a few sweeps order the rows, and boxes move towards
their neighbours as far as their row allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

Edge = tuple[int, int]
_SWEEPS = 6
_GAP = 26.0
_BEND = 12.0  # the width of a bend
_MOST_BENDS = 20_000  # beyond, arrows go straight


@dataclass(frozen=True)
class Placed:
    """The centre of each box, its row, and the bends of each edge from its source on."""

    x: tuple[float, ...]
    row: tuple[int, ...]
    bends: tuple[tuple[float, ...], ...]
    rows: int
    width: float


def place(widths: Sequence[float], edges: Sequence[Edge]) -> Placed:
    """Places of boxes numbered in a topological order."""
    rows = _rows(len(widths), edges)
    sizes, row_of = list(widths), list(rows)
    last: dict[int, int] = {}
    for a, b in edges:
        last[a] = max(last.get(a, 0), rows[b])
    bendable = sum(last[a] - rows[a] - 1 for a in last) <= _MOST_BENDS
    trunks: dict[int, list[int]] = {}  # a bend in each row, which all edges of one box share
    for a in last:
        passed = range(rows[a] + 1, last[a]) if bendable else ()
        trunks[a] = [a, *range(len(sizes), len(sizes) + len(passed))]
        sizes += [_BEND] * len(passed)
        row_of += passed
    chains = [[*trunks[a][: rows[b] - rows[a]], b] for a, b in edges]
    links = list(dict.fromkeys(link for chain in chains for link in itertools.pairwise(chain)))
    levels: list[list[int]] = [[] for _ in range(max(rows, default=-1) + 1)]
    for n, row in enumerate(row_of):
        levels[row].append(n)
    x = _order(levels, sizes, links, len(widths))
    left = min((x[n] - sizes[n] / 2 for n in range(len(sizes))), default=0.0)
    x = [at - left for at in x]
    width = max((x[n] + sizes[n] / 2 for n in range(len(sizes))), default=0.0)
    bends = tuple(tuple(x[n] for n in chain[1:-1]) for chain in chains)
    return Placed(tuple(x[: len(widths)]), tuple(rows), bends, len(levels), width)


def _rows(boxes: int, edges: Sequence[Edge]) -> list[int]:
    """The longest path to each box; boxes without predecessors are directly above their readers."""
    rows = [0] * boxes
    before: list[list[int]] = [[] for _ in range(boxes)]
    for a, b in edges:
        before[b].append(a)
    for b in range(boxes):
        rows[b] = max((rows[a] + 1 for a in before[b]), default=0)
    first_use: dict[int, int] = {}
    for a, b in edges:
        first_use[a] = min(first_use.get(a, rows[b]), rows[b])
    for a in range(boxes):
        if not before[a] and a in first_use:
            rows[a] = first_use[a] - 1
    return rows


def _order(
    levels: list[list[int]], sizes: Sequence[float], links: Sequence[Edge], boxes: int
) -> list[float]:
    up: list[list[int]] = [[] for _ in sizes]
    down: list[list[int]] = [[] for _ in sizes]
    for a, b in links:
        up[b].append(a)
        down[a].append(b)
    for near in (up, down):  # boxes follow boxes and bends bends, or a chain would lie aslant
        for n, those in enumerate(near):
            near[n] = [m for m in those if (m < boxes) == (n < boxes)] or those
    x = [0.0] * len(sizes)
    for level in levels:
        _pack(level, [0.0] * len(level), sizes, x)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        near = up if downwards else down
        for level in levels if downwards else reversed(levels):
            wanted = {n: sum(x[m] for m in near[n]) / len(near[n]) if near[n] else x[n]
                      for n in level}  # fmt: skip
            level.sort(key=lambda n: wanted[n])
            _pack(level, [wanted[n] for n in level], sizes, x)
    return x


def _pack(
    level: Sequence[int], wanted: Sequence[float], sizes: Sequence[float], x: list[float]
) -> None:
    """Place the boxes of a row without overlap, near their wanted places: the mean of packing
    from the left and packing from the right."""
    right = _packed(level, wanted, sizes)
    mirrored = _packed(level[::-1], [-w for w in wanted[::-1]], sizes)
    for n, a, b in zip(level, right, mirrored[::-1], strict=True):
        x[n] = (a - b) / 2


def _packed(level: Sequence[int], wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    found, edge = [], float("-inf")
    for n, want in zip(level, wanted, strict=True):
        at = max(want, edge + sizes[n] / 2)
        found.append(at)
        edge = at + sizes[n] / 2 + (_GAP if sizes[n] > _BEND else _BEND)
    return found
