"""Which items conflict (may not share bytes), and the lower bound of the arena that follows.

"Ends before" is a partial order, so the sets of items that all conflict with one another are its
antichains, and the heaviest is a lower bound of every arena. Three ways to find one:

1. live bytes along the issue order (items whose intervals there overlap conflict), and other items
   that conflict with all that live at the peak: no table of conflicts is needed;
2. greedy growth from the heaviest neighbourhoods;
3. exactly: by Dilworth's theorem, weighted, the heaviest antichain is the total weight less a
   maximum flow between the left and right copies of comparable items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import le

from graphexec.planning.allocation.lifetimes import Item

Neighbours = Sequence[Sequence[int]]

_ALL_PAIRS_UP_TO = 500
_MOST_OVERLAP = 16  # items that live at the same time, on average
_MOST_LOOKS = 64  # comparisons of an item, on average
_LAST = 4  # members that are compared first
_EXACT_UP_TO = 100  # items: tens of milliseconds
_CLIQUE_TRIES = 16


def conflicts(items: Sequence[Item]) -> list[list[int]] | None:
    """For each item the items it conflicts with, in ascending order.

    Few items are compared in pairs, O(n²) on arrays of bits; more items along the issue order, if
    not too many live at a time. None if that would take too long.
    """
    if len(items) <= _ALL_PAIRS_UP_TO:
        return _all_pairs(items)
    overlapping = sum(item.last - item.first for item in items)
    return _sweep(items) if overlapping <= _MOST_OVERLAP * len(items) else None


def _all_pairs(items: Sequence[Item]) -> list[list[int]]:
    import numpy as np

    streams = len(items[0].known) if items else 0
    known = np.array([item.known for item in items], dtype=np.int32)
    done = np.zeros((len(items), streams), dtype=np.int32)
    for index, item in enumerate(items):
        for stream, count in item.done:
            done[index, stream] = count
    before = np.ones((len(items), len(items)), dtype=bool)
    for stream in range(streams):
        before &= done[:, stream, None] <= known[None, :, stream]
    beside = ~(before | before.T)
    np.fill_diagonal(beside, False)
    return [np.flatnonzero(row).tolist() for row in beside]


def _sweep(items: Sequence[Item]) -> list[list[int]] | None:
    """Items come in order of first access, so only the earlier of two can end before the other; one
    that ends before all later ones begin is never looked at again. None if more than _MOST_LOOKS
    are looked at for an item on average: streams that nothing joins keep all their items alive."""
    import numpy as np

    known = np.array([item.known for item in items], dtype=np.int32)
    later = np.minimum.accumulate(known[::-1])[::-1].tolist()  # what happens before all from i on
    found: list[list[int]] = [[] for _ in items]
    active: list[int] = []
    looks = _MOST_LOOKS * len(items)
    for index, item in enumerate(items):
        covered = later[index]
        active = [a for a in active if any(covered[s] < n for s, n in items[a].done)]
        looks -= len(active)
        if looks < 0:
            return None
        rivals = [a for a in active if not items[a].ends_before(item)]
        for rival in rivals:
            found[rival].append(index)
        found[index] = rivals
        active.append(index)
    return found


def peak(items: Sequence[Item]) -> int:
    """The peak of live bytes along the issue order."""
    return _peak(items)[0]


def grown_peak(items: Sequence[Item]) -> int:
    """Bytes of the clique at that peak, with other items that conflict with all of it."""
    total, at = _peak(items)
    clique = _Clique(items)
    for item in items:
        if item.first <= at <= item.last:
            clique.add(item)
    near = sorted(
        (item for item in items if not item.first <= at <= item.last),
        key=lambda item: (-item.size, max(item.first - at, at - item.last), item.first),
    )
    for item in near:
        if clique.admits(item):
            clique.add(item)
            total += item.size
    return total


class _Clique:
    """Items that conflict with one another, and which others conflict with all of them.

    Few numbers tell most of it: the most of each stream that any member comes after, and the first
    ends of the members that end on the same streams. Where these do not decide, items are compared
    one by one; after _MOST_LOOKS comparisons an item on average none is admitted any more.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.members: list[Item] = []
        self.most_known = [0] * (len(items[0].known) if items else 0)
        self.ending: dict[tuple[int, ...], _Ending] = {}  # by the streams they end on
        self.looks = _MOST_LOOKS * len(items) + _ALL_PAIRS_UP_TO**2

    def add(self, item: Item) -> None:
        self.members.append(item)
        self.most_known = list(map(max, self.most_known, item.known))
        streams, counts = zip(*sorted(item.done), strict=True)
        ending = self.ending.setdefault(streams, _Ending([], counts))
        ending.members.append(item)
        ending.first = tuple(map(min, ending.first, counts))

    def admits(self, item: Item) -> bool:
        """Whether the item conflicts with every member, as far as that may be looked at."""
        # Of those added last one is the likeliest not to conflict.
        for member in self.members[: -_LAST - 1 : -1]:
            if item.ends_before(member) or member.ends_before(item):
                return False
        return not self._follows_one(item) and not self._precedes_one(item) and self.looks >= 0

    def _follows_one(self, item: Item) -> bool:
        self.looks -= len(self.ending)
        known = item.known
        for streams, ending in self.ending.items():
            if ending.first[0] > known[streams[0]]:
                continue
            if len(streams) == 1 or (
                all(map(le, ending.first, (known[stream] for stream in streams)))
                and self._any(ending.members, lambda m: m.ends_before(item))
            ):
                return True
        return False

    def _precedes_one(self, item: Item) -> bool:
        if any(self.most_known[stream] < count for stream, count in item.done):
            return False
        return len(item.done) == 1 or self._any(self.members, item.ends_before)

    def _any(self, members: Sequence[Item], found: Callable[[Item], bool]) -> bool:
        """Whether it is so of a member; of those added last it is the likeliest."""
        for member in reversed(members):
            self.looks -= 1
            if self.looks < 0 or found(member):
                return True
        return False


@dataclass
class _Ending:
    """Members that end on the same streams, and the least count of any on each of these."""

    members: list[Item]
    first: tuple[int, ...]


def _peak(items: Sequence[Item]) -> tuple[int, int]:
    """The peak of live bytes, and a place in issue order where it is reached."""
    changes = [(item.first, item.size) for item in items]
    changes += [(item.last + 1, -item.size) for item in items]
    live = most = at = 0
    for place, change in sorted(changes):  # ends sort before begins at the same place
        live += change
        if live > most:
            most, at = live, place
    return most, at


def heaviest_clique(sizes: Sequence[int], neighbours: Neighbours) -> int:
    """Bytes of the heaviest set of mutually conflicting items that greedy growth finds."""
    weight = [sizes[t] + sum([sizes[n] for n in neighbours[t]]) for t in range(len(sizes))]
    seeds = sorted(range(len(sizes)), key=lambda t: -weight[t])[:_CLIQUE_TRIES]
    best = max(sizes, default=0)
    sets: dict[int, set[int]] = {}
    for seed in seeds:
        if weight[seed] <= best:
            break  # not even all its neighbours together weigh more
        total, common = sizes[seed], set(neighbours[seed])
        # The heaviest candidate that conflicts with all members, then the best connected.
        for rival in sorted(common, key=lambda t: (-sizes[t], -weight[t], t)):
            if rival in common:
                total += sizes[rival]
                if rival not in sets:
                    sets[rival] = set(neighbours[rival])
                common &= sets[rival]
        best = max(best, total)
    return best


def heaviest_antichain(items: Sequence[Item], neighbours: Neighbours) -> int | None:
    """Bytes of the heaviest set of mutually conflicting items; None for more than 100 items."""
    if len(items) > _EXACT_UP_TO:
        return None
    count = len(items)
    later = []
    for index in range(count):
        beside = set(neighbours[index])
        # Items come in order of first access, so only the earlier of two can end before the other.
        later.append([other for other in range(index + 1, count) if other not in beside])
    sizes = [item.size for item in items]
    return sum(sizes) - _maximum_flow(sizes, later)


def _maximum_flow(sizes: Sequence[int], later: Neighbours) -> int:
    """Source → left copies → right copies → sink, capacities `sizes` at both ends. Augments along
    shortest paths (Edmonds and Karp, J. ACM 19(2), 1972)."""
    left, right = list(sizes), list(sizes)
    back: list[dict[int, int]] = [{} for _ in sizes]  # flow into each right copy, by its left copy
    total = 0
    for index, others in enumerate(later):  # most of the flow needs no search
        for other in others:
            pushed = min(left[index], right[other])
            if pushed:
                left[index] -= pushed
                right[other] -= pushed
                back[other][index] = pushed
                total += pushed
    while True:
        pushed = _augment(left, right, later, back)
        if not pushed:
            return total
        total += pushed


def _augment(
    left: list[int], right: list[int], later: Neighbours, back: list[dict[int, int]]
) -> int:
    """Push along one shortest path; how much, 0 if there is none."""
    from_left = {v: -1 for v, free in enumerate(left) if free}  # right copy it was reached from
    from_right: dict[int, int] = {}  # left copy it was reached from
    queue = deque(from_left)
    while queue:
        vertex = queue.popleft()
        for other in later[vertex]:
            if other in from_right:
                continue
            from_right[other] = vertex
            if right[other]:
                return _push(other, left, right, back, from_left, from_right)
            for previous, flow in back[other].items():
                if flow and previous not in from_left:
                    from_left[previous] = other
                    queue.append(previous)
    return 0


def _push(
    end: int, left: list[int], right: list[int], back: list[dict[int, int]],
    from_left: dict[int, int], from_right: dict[int, int],
) -> int:  # fmt: skip
    path, amount, at = [], right[end], end
    while True:
        vertex = from_right[at]
        path.append((vertex, at))
        at = from_left[vertex]
        if at < 0:
            amount = min(amount, left[vertex])
            left[vertex] -= amount
            break
        amount = min(amount, back[at][vertex])
        path.append((vertex, -1 - at))
    right[end] -= amount
    for vertex, other in path:
        if other >= 0:
            back[other][vertex] = back[other].get(vertex, 0) + amount
        else:
            back[-1 - other][vertex] -= amount
    return amount
