"""Operands of a batch as one strided view, and the groups of storages this needs.

Views of the members of a batch form one view with a leading axis if

1. they are windows on one storage, at offsets in an arithmetic progression (equal windows have the
   stride 0);
2. or they are at the same offset of storages at equal distances in one group;
3. or they are at the same offset of storages in no group yet, of one size and role, all in device
   memory: these become a group.

A storage is in one group only, so the first decision holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphexec.base.tensor import View
from graphexec.ir.program import Group, Storage, aligned


class Layout:
    """The groups made so far."""

    def __init__(self, storages: Mapping[str, Storage], groups: Sequence[Group] = ()) -> None:
        self.groups = list(groups)
        self._storages = storages
        self._place = {  # group and place in it
            name: (number, place)
            for number, group in enumerate(groups)
            for place, name in enumerate(group.storages)
        }

    def stacked(self, views: Sequence[View]) -> View | None:
        """One view over all of `views`, which have one shape, in this order; None if there is none.

        Its storage is that of the first view; it may reach beyond it. Makes a group if needed.
        """
        first = views[0]
        names = [view.storage for view in views]
        if len(set(names)) == 1:
            step = _progression([view.offset for view in views])
        elif len(set(names)) < len(names) or any(v.offset != first.offset for v in views):
            return None
        else:
            step = self._between(names, first.dtype.itemsize)
        if step is None:
            return None
        return replace(first, shape=(len(views), *first.shape), strides=(step, *first.strides))

    def _between(self, names: Sequence[str], itemsize: int) -> int | None:
        """The stride between views on different storages, in elements."""
        places = [self._place.get(name) for name in names]
        known = [place for place in places if place is not None]
        if not known:
            return self._bind(names, itemsize)
        if len(known) < len(places) or len({group for group, _ in known}) > 1:
            return None
        step = _progression([place for _, place in known])
        return None if step is None else step * self.groups[known[0][0]].stride // itemsize

    def _bind(self, names: Sequence[str], itemsize: int) -> int | None:
        found = [self._storages[name] for name in names]
        first = found[0]
        if first.role == "state":  # each has an address of its own, the same in several plans
            return None
        if any((s.nbytes, s.role) != (first.nbytes, first.role) for s in found):
            return None
        stride = aligned(first.nbytes)
        self._place |= {name: (len(self.groups), place) for place, name in enumerate(names)}
        self.groups.append(Group(tuple(names), stride))
        return stride // itemsize

    def forget(self, count: int) -> None:
        """Undo the groups after the first `count`."""
        for group in self.groups[count:]:
            for name in group.storages:
                del self._place[name]
        del self.groups[count:]

    def position(self, view: View) -> tuple[int, int, int]:
        """A key that sorts operands by their known places."""
        group, place = self._place.get(view.storage, (-1, 0))
        return group, place, view.offset

    def company(self, storage: str) -> object:
        """Equal for storages that may be stacked: their group, or their role if in none."""
        place = self._place.get(storage)
        return self._storages[storage].role if place is None else place[0]


def _progression(numbers: Sequence[int]) -> int | None:
    """The common difference (at least 0) of numbers in an arithmetic progression."""
    step = numbers[1] - numbers[0]
    for at in range(1, len(numbers)):
        if numbers[at] - numbers[at - 1] != step:
            return None
    return step if step >= 0 else None
