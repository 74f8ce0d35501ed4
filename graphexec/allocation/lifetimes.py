"""When each tensor lives, over a partial order; and who writes over its own input.

Streams that run side by side have no common time, so lifetimes are not intervals. A lifetime
is what must have happened before a tensor's first access (`known`: how much of each stream) and its
last accesses (`done`: one a stream at most). x ends before y begins iff every count of done(x) is
covered by known(y). The first access is a write on which all others depend, so what happens before
it happens before all of them.

In place: a command whose `inplace` pairs a read with a write may write over what it reads when all
other accesses of the input, whoever shares its bytes already included, happen before it. The two
tensors then are one item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphexec.command import Command, Storage
from graphexec.scheduled import Synchronized
from graphexec.tensor import Space

ALIGNMENT = 256
"""Bytes every tensor's offset is a multiple of."""


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a whole number of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass
class Item:
    """Bytes to place: one storage, or several that take turns in place.

    `size` is aligned. `first` and `last` are places in issue order; `known` and `done` as above,
    `done` as (stream, count) pairs.
    """

    storages: list[str]
    size: int
    commands: list[int]
    first: int = 0
    last: int = 0
    known: Sequence[int] = ()
    done: list[tuple[int, int]] = field(default_factory=list)

    def ends_before(self, other: Item) -> bool:
        """Whether all accesses of this item happen before all of the other's."""
        known = other.known
        for stream, count in self.done:  # noqa: SIM110 a generator costs more than the check
            if known[stream] < count:
                return False
        return True


def items(synchronized: Synchronized, space: Space, in_place: bool = True) -> list[Item]:
    """What is to be placed in the arena of `space`, in order of first access."""
    found = _accesses(synchronized, space)
    if in_place:
        _merge_in_place(synchronized, found)
    place = {command: at for at, command in enumerate(synchronized.schedule.order)}
    unique = list({id(item): item for item in found.values()}.values())
    for item in unique:
        _measure(item, synchronized, place)
    return sorted(unique, key=lambda item: item.first)


def _accesses(synchronized: Synchronized, space: Space) -> dict[str, Item]:
    """Arena storages of `space` with the commands that touch them, in issue order."""
    program = synchronized.schedule.program
    wanted: dict[str, Storage] = {
        n: s for n, s in program.storages.items() if s.role == "arena" and s.space == space
    }
    found: dict[str, Item] = {}
    if not wanted:
        return found
    for command in synchronized.schedule.order:
        work = program.commands[command]
        for view in work.reads + work.writes:
            item = found.get(view.storage)
            if item is not None:
                if item.commands[-1] != command:
                    item.commands.append(command)
            elif view.storage in wanted:
                size = aligned(wanted[view.storage].nbytes)
                found[view.storage] = Item([view.storage], size, [command])
    return found


def _merge_in_place(synchronized: Synchronized, found: dict[str, Item]) -> None:
    commands = synchronized.schedule.program.commands
    for index in synchronized.schedule.order:
        command = commands[index]
        for read, write in command.inplace:
            source = found.get(command.reads[read].storage)
            target = found.get(command.writes[write].storage)
            if source is None or target is None or source is target:
                continue
            if target.commands[0] != index or not _alone(command, read, write, synchronized):
                continue
            if _all_before(source, index, synchronized):
                source.storages += target.storages
                source.commands += target.commands[1:]
                for storage in target.storages:
                    found[storage] = source


def _alone(command: Command, read: int, write: int, synchronized: Synchronized) -> bool:
    """Whether both views are all of their storages, of one size, and touched no other way."""
    storages = synchronized.schedule.program.storages
    views = (command.reads[read], command.writes[write])
    sizes = {storages[view.storage].nbytes for view in views}
    if len(sizes) > 1 or any(view.byte_range() != (0, *sizes) for view in views):
        return False
    touched = [view.storage for view in command.reads + command.writes]
    return all(touched.count(view.storage) == 1 and view.is_dense for view in views)


def _all_before(item: Item, command: int, synchronized: Synchronized) -> bool:
    """Whether every access of the item but `command` itself happens before `command`."""
    known, stream = synchronized.before[command], synchronized.schedule.stream
    position = synchronized.position
    return all(known[stream[c]] > position[c] for c in item.commands if c != command)


def _measure(item: Item, synchronized: Synchronized, place: dict[int, int]) -> None:
    stream, position = synchronized.schedule.stream, synchronized.position
    done: dict[int, int] = {}
    for command in item.commands:
        own = stream[command]
        if position[command] >= done.get(own, 0):
            done[own] = position[command] + 1
    item.first, item.last = place[item.commands[0]], place[item.commands[-1]]
    item.known, item.done = synchronized.before[item.commands[0]], list(done.items())


__all__ = ["ALIGNMENT", "Item", "aligned", "items"]
