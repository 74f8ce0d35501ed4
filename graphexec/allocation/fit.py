"""Offsets for items that conflict: best fit over several orders, improvement, exact for a few.

Best fit puts each item into the tightest gap that the items placed before it leave; which order
they come in decides (surveyed by Pisarchyk and Lee, "Efficient memory management for deep neural
net inference", MLSys 2020 workshop). The improvement lets an item that sticks out at the top come
first, and places all again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from graphexec.allocation.conflicts import Neighbours

EXACT_UP_TO = 10
"""Items up to which the search for the best offsets is complete."""

_BUDGET = 150_000  # pairs of conflicting items to look at in all placements together
_MOST_STEPS = 200_000  # of the exact search: more than 10 items can take in practice
Offsets = list[int]


def best_offsets(
    sizes: Sequence[int], neighbours: Neighbours, bound: int, known: Offsets | None = None
) -> tuple[Offsets, int]:
    """Offsets and total of the smallest arena found; stops at `bound`, a lower bound.

    `known` are offsets that have been found otherwise. Deterministic.
    """
    best, total = known, _total(known, sizes) if known else 1 << 62
    pairs = sum(map(len, neighbours)) + len(sizes)
    left = max(1, _BUDGET // pairs)
    order: Sequence[int] = ()
    for candidate in _orders(sizes, neighbours):
        if total <= bound or not left:
            break
        left -= 1
        offsets = _place(candidate, sizes, neighbours)
        found = _total(offsets, sizes)
        if found < total:
            best, total, order = offsets, found, candidate
    assert best is not None
    if total > bound and len(sizes) <= EXACT_UP_TO:
        return _exact(sizes, neighbours, bound, best, total)
    if total > bound and left and order:
        return _improved(sizes, neighbours, bound, order, best, left)
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


def _improved(
    sizes: Sequence[int], neighbours: Neighbours, bound: int, order: Sequence[int],
    offsets: Offsets, tries: int,
) -> tuple[Offsets, int]:  # fmt: skip
    """Move items that end at the top of the arena forward in the order, again and again."""
    random, best = Random(0), offsets
    total = now = _total(offsets, sizes)
    for _ in range(tries):
        top = [t for t in order if offsets[t] + sizes[t] == now]
        moved = [*(t for t in order if t != top[0])]
        moved.insert(random.randrange(order.index(top[0]) + 1), top[0])
        if random.random() < 0.5:
            a, b = random.randrange(len(moved)), random.randrange(len(moved))
            moved[a], moved[b] = moved[b], moved[a]
        placed = _place(moved, sizes, neighbours)
        found = _total(placed, sizes)
        # A little worse is allowed now and then, or the search would end in the first dip.
        if found <= now or random.random() < 0.05:
            order, offsets, now = moved, placed, found
        if found < total:
            best, total = placed, found
            if total <= bound:
                break
    return best, total


def _exact(
    sizes: Sequence[int], neighbours: Neighbours, bound: int, offsets: Offsets, total: int
) -> tuple[Offsets, int]:
    """The smallest arena, by branch and bound.

    In some smallest arena every item rests on the bytes below or on the floor, so placing the items
    in ascending order of offset, each as low as those before it allow, finds one.
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
                return  # it can only get higher
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


__all__ = ["EXACT_UP_TO", "best_offsets"]
