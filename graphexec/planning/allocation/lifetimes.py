"""Lifetimes of tensors over a partial order, and commands that write over their input.

Parallel streams have no common time, so lifetimes are not intervals. A lifetime
consists of what happens before a tensor's first access (`known`: a count for each stream) and its
last accesses (`done`: at most one a stream). x ends before y begins iff known(y) covers every
count of done(x). The first access is a write on which all others depend, so what happens before it
happens before all of them. A storage that is written in parts begins with each of these writes.

In place: a command whose `inplace` pairs a read with a write may write over its input when all
other accesses of the input's bytes happen before it, also those of tensors that already share
them. The two tensors are then one item.

A group of storages (Program.groups) is one item. It lives from the first access of any member to
the last of any. What happens before it is what happens before every member's first access. A group
replaces another whole group in place, member by member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphexec.base.tensor import Space, View
from graphexec.ir.program import Command, Program, Storage, aligned
from graphexec.planning.scheduled import Synchronized


@dataclass
class Item:
    """Bytes to place: one storage, several that follow one another in place, or a group.

    `at` are the storages with their offsets from the item's first byte. `size` is aligned.
    `begins` are the first accesses of the first storages, `first` and `last` the places of the
    first and last access in issue order, `latest` for each stream the position on it of the last
    one; `known` and `done` as above, `done` as (stream, count) pairs.
    """

    at: dict[str, int]
    size: int
    begins: list[int] = field(default_factory=list)
    first: int = -1
    last: int = -1
    latest: dict[int, int] = field(default_factory=dict)
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
    """The items of the arena of `space`, in order of first access."""
    found = _accesses(synchronized, space)
    if in_place:
        _merge_in_place(synchronized, found)
    unique = list({id(item): item for item in found.values()}.values())
    for item in unique:
        item.known = _known(item.begins, synchronized)
        item.done = [(stream, position + 1) for stream, position in item.latest.items()]
    return sorted(unique, key=lambda item: item.first)


def _accesses(synchronized: Synchronized, space: Space) -> dict[str, Item]:
    """Arena storages of `space` with their first and last accesses."""
    program, stream = synchronized.schedule.program, synchronized.schedule.stream
    items = _untouched(program, space)
    found: dict[str, Item] = {}
    if not items:
        return found
    for place, command in enumerate(synchronized.schedule.order):
        work = program.commands[command]
        for view in work.reads + work.writes:
            item = found.get(view.storage)
            if item is None:
                item = items.get(view.storage)
                if item is None:
                    continue
                found[view.storage] = item
                item.begins.append(command)
            if item.first < 0:
                item.first = place
            item.last = place
            item.latest[stream[command]] = synchronized.position[command]
        for view in work.writes:
            if view.storage in found and _is_part(view, program.storages[view.storage]):
                found[view.storage].begins.append(command)
    return found


def _is_part(view: View, storage: Storage) -> bool:
    return view.elements * view.dtype.itemsize < storage.nbytes


def _untouched(program: Program, space: Space) -> dict[str, Item]:
    """An item without commands for every arena storage of `space`; a group is one item."""
    items = {
        n: Item({n: 0}, aligned(s.nbytes)) for n, s in program.storages.items()
        if s.role == "arena" and s.space == space
    }  # fmt: skip
    for group in program.groups:
        if group.storages[0] in items:
            at = {name: place * group.stride for place, name in enumerate(group.storages)}
            items |= dict.fromkeys(group.storages, Item(at, group.stride * len(at)))
    return items


def _merge_in_place(synchronized: Synchronized, found: dict[str, Item]) -> None:
    commands = synchronized.schedule.program.commands
    for index in synchronized.schedule.order:
        command = commands[index]
        pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for read, write in command.inplace:
            source = found.get(command.reads[read].storage)
            target = found.get(command.writes[write].storage)
            if source is not None and target is not None and source is not target:
                pairs.setdefault((id(source), id(target)), []).append((read, write))
        for some in pairs.values():
            source = found[command.reads[some[0][0]].storage]
            target = found[command.writes[some[0][1]].storage]
            if _fits(command, some, source, target, index) and (
                all(_alone(command, *pair, synchronized) for pair in some)
                and _all_before(source, index, synchronized)
            ):
                source.at |= target.at
                source.last = target.last  # all of the target comes later
                source.latest |= target.latest
                for storage in target.at:
                    found[storage] = source


def _fits(
    command: Command, pairs: Sequence[tuple[int, int]], source: Item, target: Item, index: int
) -> bool:
    """Whether `command` begins all of the target, each storage in place of its operand."""
    made = {command.writes[w].storage: source.at[command.reads[r].storage] for r, w in pairs}
    return (
        set(target.begins) == {index} and made == target.at and source.size == target.size
    )  # fmt: skip


def _alone(command: Command, read: int, write: int, synchronized: Synchronized) -> bool:
    """Whether both views cover their storages, have one size and are accessed no other way."""
    storages = synchronized.schedule.program.storages
    views = (command.reads[read], command.writes[write])
    sizes = {storages[view.storage].nbytes for view in views}
    if len(sizes) > 1 or any(view.byte_range() != (0, *sizes) for view in views):
        return False
    touched = [view.storage for view in command.reads + command.writes]
    return all(touched.count(view.storage) == 1 and view.is_dense for view in views)


def _all_before(item: Item, command: int, synchronized: Synchronized) -> bool:
    """Whether every access of the item but `command` itself happens before `command`."""
    own, position = synchronized.schedule.stream[command], synchronized.position[command]
    known = synchronized.before[command]
    return all(
        last < known[stream] or (stream == own and last == position)
        for stream, last in item.latest.items()
    )


def _known(begins: Sequence[int], synchronized: Synchronized) -> Sequence[int]:
    """What happens before every one of the commands."""
    clocks = [synchronized.before[command] for command in dict.fromkeys(begins)]
    return clocks[0] if len(clocks) == 1 else tuple(map(min, *clocks))
