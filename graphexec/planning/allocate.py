"""allocate: a buffer and an offset for every tensor; tensors share bytes along happens-before only.

Requires a Synchronized schedule. Guarantees that two tensors share bytes only if all accesses of
one happen before all accesses of the other, or if a command that allows it writes one over the
other in place. So sharing adds no wait. Storages of a group lie at its stride; those with buffers
of their own are consecutive in the plan, and sessions keep this order. Deterministic. The arena is
reported beside a lower bound; graphexec.planning.allocation.arena describes the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphexec.base.tensor import Space
from graphexec.ir.plan import Buffer
from graphexec.ir.program import Group, Program, aligned
from graphexec.planning.allocation.arena import place
from graphexec.planning.allocation.lifetimes import Item, items
from graphexec.planning.scheduled import Allocation, Synchronized

_BOTH_UP_TO = 100  # tensors: also tried with nothing in place, which may be smaller


@dataclass(frozen=True)
class Arena:
    """Offsets of the storages of one memory space, the total and a lower bound, in bytes."""

    offsets: dict[str, int]
    bytes: int
    lower_bound: int
    naive: int


def allocate(synchronized: Synchronized) -> Allocation:
    """Place every storage: in an arena, among the weights, or in a buffer of its own."""
    program = synchronized.schedule.program
    arenas = {"arena": _arena(synchronized, "device"), "host_arena": _arena(synchronized, "host")}
    places: dict[str, tuple[str, int]] = {}
    buffers = []
    for id, arena in arenas.items():
        if arena.bytes:
            space: Space = "device" if id == "arena" else "host"
            buffers.append(Buffer(id, arena.bytes, space, "arena"))
            places |= {name: (id, offset) for name, offset in arena.offsets.items()}
    weights = _weights(program)
    if weights.bytes:
        places |= {name: ("weights", offset) for name, offset in weights.offsets.items()}
        buffers.append(Buffer("weights", weights.bytes, "device", "weights"))
    kept = [n for n, storage in program.storages.items() if storage.role == "state"]
    for name in (*kept, *_edges(program)):
        storage = program.storages[name]
        buffers.append(Buffer(name, storage.nbytes, storage.space, storage.role))
        places[name] = (name, 0)
    device = arenas["arena"]
    return Allocation(tuple(buffers), places, device.bytes, device.lower_bound, device.naive)


def _edges(program: Program) -> Iterator[str]:
    """Inputs and outputs, those of a group consecutive: sessions keep this order."""
    groups = _groups(program)
    seen: set[str] = set()
    for name, storage in program.storages.items():
        if storage.role in ("input", "output") and name not in seen:
            together = groups[name].storages if name in groups else (name,)
            seen.update(together)
            yield from together


def _groups(program: Program) -> dict[str, Group]:
    return {name: group for group in program.groups for name in group.storages}


def _weights(program: Program) -> Arena:
    """One after another: weights live from the start to the end."""
    groups = _groups(program)
    offsets: dict[str, int] = {}
    total = 0
    for name, storage in program.storages.items():
        if storage.role != "weights" or name in offsets:
            continue
        group = groups.get(name)
        together, stride = (group.storages, group.stride) if group else ((name,), storage.nbytes)
        offsets |= {each: total + place * stride for place, each in enumerate(together)}
        total += aligned(len(together) * stride)
    return Arena(offsets, total, total, total)


def _arena(synchronized: Synchronized, space: Space) -> Arena:
    found = items(synchronized, space)
    arena = _placed(found, synchronized)
    merged = any(len(item.at) > 1 for item in found)
    if not merged or arena.bytes == arena.lower_bound or len(found) > _BOTH_UP_TO:
        return arena
    # Items in place of one another live longer. This can cost more than it saves.
    apart = _placed(items(synchronized, space, in_place=False), synchronized)
    best = min(arena, apart, key=lambda a: a.bytes)
    bound = min(arena.lower_bound, apart.lower_bound)
    return Arena(best.offsets, best.bytes, bound, best.naive)


def _placed(found: list[Item], synchronized: Synchronized) -> Arena:
    storages = synchronized.schedule.program.storages
    placed = place(found)
    by_name = {
        name: offset + at
        for offset, item in zip(placed.offsets, found, strict=True)
        for name, at in item.at.items()
    }
    naive = sum(aligned(storages[name].nbytes) for name in by_name)
    return Arena(by_name, placed.bytes, placed.lower_bound, naive)
