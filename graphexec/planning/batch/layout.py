"""Where operands lie relative to one another, and which storages are bound together for it.

Views of the members of a batch can be seen as one view with a leading axis if

1. they are windows on one storage, at offsets in an arithmetic progression (one and the same
   window has the stride 0);
2. or at the same offset of storages that stand in one group at equal distances;
3. or at the same offset of storages that are in no group yet, of one size and role, all in the
   device's memory: then they are made a group.

A storage is in one group only, so what is decided first holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphexec.base.tensor import View
from graphexec.ir.program import Command, Group, Storage, aligned


class Layout:
    """The groups made so far."""

    def __init__(self, storages: Mapping[str, Storage]) -> None:
        self.groups: list[Group] = []
        self._storages = storages
        self._place: dict[str, tuple[int, int]] = {}  # group and place in it

    def stacked(self, views: Sequence[View]) -> View | None:
        """One view over all of `views`, which have one shape, in this order; None if there is none.

        It belongs to the first one's storage and may reach beyond that. Makes a group if needed.
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
        """Elements from one of different storages to the next."""
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

    def in_order(self, alike: Sequence[int], commands: Sequence[Command]) -> list[int]:
        """The commands in the order in which their operands lie, as far as that is known."""
        return sorted(alike, key=lambda c: (*map(self._position, views_of(commands[c])), c))

    def _position(self, view: View) -> tuple[int, int, int]:
        group, place = self._place.get(view.storage, (-1, 0))
        return group, place, view.offset

    def company(self, storage: str) -> object:
        """What storages must have in common to be stacked: their group, or if they are in none yet,
        their role."""
        place = self._place.get(storage)
        return self._storages[storage].role if place is None else place[0]


def views_of(command: Command) -> tuple[View, ...]:
    """All operands."""
    return (*command.reads, *command.writes)


def _progression(numbers: Sequence[int]) -> int | None:
    """The common difference, not below 0, of numbers in an arithmetic progression."""
    step = numbers[1] - numbers[0]
    for at in range(1, len(numbers)):
        if numbers[at] - numbers[at - 1] != step:
            return None
    return step if step >= 0 else None


__all__ = ["Layout", "views_of"]
