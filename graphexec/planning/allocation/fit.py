"""Offsets for items that conflict: best fit over several orders, improvement, exact for a few.

Best fit puts each item into the tightest gap that the items placed before it leave; the result
depends on the order of the items (surveyed by Pisarchyk and Lee, "Efficient memory management for
deep neural net inference", MLSys 2020 workshop). The improvement places items lowest first, as
Burke, Kendall and Whitwell fill a strip ("A new placement heuristic for the orthogonal
stock-cutting problem", Oper. Res. 52(4), 2004). It repeats this and gives more priority to items
that end above the bound (Joslin and Clements, "Squeaky wheel optimization", JAIR 10, 1999).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from random import Random

from graphexec.planning.allocation.conflicts import Neighbours

EXACT_UP_TO = 10
"""Items up to which the search for the best offsets is complete."""

_BUDGET = 500_000  # pairs of conflicting items compared in all placements together
_MOST_TRIES = 300  # placements
_MOST_STEPS = 200_000  # of the exact search; 10 items take fewer in practice
Offsets = list[int]


def best_offsets(
    sizes: Sequence[int], neighbours: Neighbours, bound: int, known: Offsets | None = None
) -> tuple[Offsets, int]:
    """Offsets and total of the smallest arena found; stops at `bound`, a lower bound.

    `known` are offsets found by another method. Deterministic.
    """
    best, total = known, _total(known, sizes) if known else 1 << 62
    pairs = sum(map(len, neighbours)) + len(sizes)
    left = min(max(1, _BUDGET // pairs), _MOST_TRIES)
    for candidate in _orders(sizes, neighbours):
        if total <= bound or not left:
            break
        left -= 1
        offsets = _place(candidate, sizes, neighbours)
        found = _total(offsets, sizes)
        if found < total:
            best, total = offsets, found
    assert best is not None
    if total > bound and len(sizes) <= EXACT_UP_TO:
        return _exact(sizes, neighbours, bound, best, total)
    if total > bound and left:
        return _squeaky(sizes, neighbours, bound, best, left)
    return best, total


def _total(offsets: Offsets, sizes: Sequence[int]) -> int:
    return max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0)


def _orders(sizes: Sequence[int], neighbours: Neighbours) -> Iterator[Sequence[int]]:
    items = range(len(sizes))
    crowd = [sizes[t] + sum([sizes[n] for n in neighbours[t]]) for t in items]
    yield sorted(items, key=lambda t: (-sizes[t], t))
    yield sorted(items, key=lambda t: (-crowd[t], t))
    yield list(items)  # order of first access
    yield sorted(items, key=lambda t: (-sizes[t] * crowd[t], t))
    yield list(reversed(items))
    yield sorted(items, key=lambda t: (-len(neighbours[t]), -sizes[t], t))


def _place(order: Sequence[int], sizes: Sequence[int], neighbours: Neighbours) -> Offsets:
    """Put each item of `order` into the tightest gap that its placed neighbours leave."""
    offsets = [-1] * len(sizes)
    for item in order:
        taken = sorted([(offsets[n], sizes[n]) for n in neighbours[item] if offsets[n] >= 0])
        size, end, best, gap = sizes[item], 0, -1, 1 << 62
        for start, length in taken:
            if size <= start - end < gap:
                best, gap = end, start - end
            end = max(end, start + length)
        offsets[item] = best if best >= 0 else end
    return offsets


def _lowest_first(
    urgency: Sequence[float], sizes: Sequence[int], neighbours: Neighbours
) -> Offsets:
    """Place next the item that can lie lowest (among equals the most urgent), on top of its placed
    neighbours. No gap that a later item could fill is left."""
    offsets, floor = [-1] * len(sizes), [0] * len(sizes)
    heap = [(0, -urgency[item], item) for item in range(len(sizes))]
    heapify(heap)
    while heap:
        at, _, item = heappop(heap)
        if offsets[item] >= 0 or at < floor[item]:
            continue  # placed, or moved up by a neighbour placed since
        offsets[item], top = at, at + sizes[item]
        for near in neighbours[item]:
            if floor[near] < top and offsets[near] < 0:
                floor[near] = top
                heappush(heap, (top, -urgency[near], near))
    return offsets


def _squeaky(
    sizes: Sequence[int], neighbours: Neighbours, bound: int, offsets: Offsets, tries: int
) -> tuple[Offsets, int]:
    """Place all items lowest first, repeatedly; items that end above `bound` become more urgent."""
    random, best, total = Random(0), offsets, _total(offsets, sizes)
    crowd = [float(sizes[t] + sum([sizes[n] for n in neighbours[t]])) for t in range(len(sizes))]
    count = [1.0 + len(near) for near in neighbours]
    for number in range(tries):
        urgency = count if number % 2 else crowd
        found = _lowest_first([u * random.uniform(0.9, 1.1) for u in urgency], sizes, neighbours)
        reached = _total(found, sizes)
        if reached < total:
            best, total = found, reached
            if total <= bound:
                break
        for item, offset in enumerate(found):
            above = offset + sizes[item] - bound
            if above > 0:
                urgency[item] *= 1 + 2 * above / max(bound, 1)
    return best, total


def _exact(
    sizes: Sequence[int], neighbours: Neighbours, bound: int, offsets: Offsets, total: int
) -> tuple[Offsets, int]:
    """The smallest arena, by branch and bound.

    In some smallest arena every item lies directly above another or at 0. So placing the items in
    ascending order of offset, each as low as the earlier ones allow, finds it.
    """
    best, steps = (offsets, total), 0
    placed = [-1] * len(sizes)

    def search(lowest: int, top: int, left: int) -> None:
        nonlocal best, steps
        steps += 1
        if not left:
            best = (placed.copy(), top)
            return
        options = []
        for item in range(len(sizes)):
            if placed[item] >= 0:
                continue
            at = max((placed[n] + sizes[n] for n in neighbours[item] if placed[n] >= 0), default=0)
            if max(at, lowest) + sizes[item] >= best[1]:
                return  # the total only grows
            if at >= lowest:
                options.append((at, -sizes[item], item))
        for at, size, item in sorted(options):
            if best[1] <= bound or steps > _MOST_STEPS:
                return
            placed[item] = at
            if max(top, at - size) < best[1]:
                search(at, max(top, at - size), left - 1)
            placed[item] = -1

    search(0, 0, len(sizes))
    return best
