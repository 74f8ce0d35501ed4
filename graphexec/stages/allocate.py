"""allocate: a place for every tensor, sharing bytes along happens-before only.

Requires a Synchronized schedule. Guarantees that two tensors share bytes only if all accesses
of one happen before all accesses of the other; so sharing needs no wait that is not there.

Streams that run side by side have no common time, so lifetimes are not intervals. x and y
conflict unless x ends before y begins: with per-stream counters, done(x)[s] is the last access
of x on stream s, and known(y)[s] how much of stream s happens before every access of y; x ends
before y begins iff done(x) ≤ known(y) in every stream.

Offsets are found greedily, best fit, over several orders of the tensors (as surveyed by Pisarchyk
and Lee, "Efficient memory management for deep neural net inference", MLSys 2020 workshop), and
the smallest arena is kept. It is reported beside a lower bound: the heaviest set of mutually
conflicting tensors found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphexec.command import Storage
from graphexec.plan import Buffer
from graphexec.scheduled import Allocation, Synchronized
from graphexec.tensor import Space

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 256
"""Bytes every tensor's offset is a multiple of."""


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a whole number of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Arena:
    """Offsets of the storages of one memory space, and how good they are, in bytes."""

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
    total = 0
    for storage in program.storages.values():
        if storage.role == "weights":
            places[storage.name] = ("weights", total)
            total += aligned(storage.nbytes)
    if total:
        buffers.append(Buffer("weights", total, "device", "weights"))
    for storage in program.storages.values():
        if storage.role in ("input", "output"):
            buffers.append(Buffer(storage.name, storage.nbytes, storage.space, storage.role))
            places[storage.name] = (storage.name, 0)
    device = arenas["arena"]
    return Allocation(tuple(buffers), places, device.bytes, device.lower_bound, device.naive)


# Lifetimes and conflicts ----------------------------------------------------------------------


def _arena(synchronized: Synchronized, space: Space) -> Arena:
    accesses = _accesses(synchronized, space)
    if not accesses:
        return Arena({}, 0, 0, 0)
    storages = [synchronized.schedule.program.storages[name] for name in accesses]
    sizes = [aligned(s.nbytes) for s in storages]
    neighbours = _conflicts(*_lifetimes(synchronized, list(accesses.values())))
    bound = _heaviest_clique(sizes, neighbours)
    offsets, total = _best_offsets(sizes, neighbours, bound)
    names = [s.name for s in storages]
    return Arena(dict(zip(names, offsets, strict=True)), total, bound, sum(sizes))


def _accesses(synchronized: Synchronized, space: Space) -> dict[str, list[int]]:
    """Arena storages of `space` in order of first access, with the commands that touch them."""
    program = synchronized.schedule.program
    wanted: dict[str, Storage] = {
        n: s for n, s in program.storages.items() if s.role == "arena" and s.space == space
    }
    found: dict[str, list[int]] = {}
    for command in synchronized.schedule.order:
        work = program.commands[command]
        for view in (*work.reads, *work.writes):
            if view.storage in wanted:
                users = found.setdefault(view.storage, [])
                if not users or users[-1] != command:
                    users.append(command)
    return found


def _lifetimes(
    synchronized: Synchronized, accesses: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """done and known of each tensor, as (tensors, streams) arrays of counts."""
    import numpy as np

    streams = synchronized.schedule.streams
    done = np.zeros((len(accesses), streams), dtype=np.int64)
    known = np.empty((len(accesses), streams), dtype=np.int64)
    stream, position = synchronized.schedule.stream, synchronized.position
    for tensor, commands in enumerate(accesses):
        known[tensor] = synchronized.before[commands[0]]
        for command in commands:
            s = stream[command]
            done[tensor, s] = max(done[tensor, s], position[command] + 1)
        for command in commands[1:]:
            np.minimum(known[tensor], synchronized.before[command], out=known[tensor])
    return done, known


def _conflicts(done: np.ndarray, known: np.ndarray) -> list[list[int]]:
    """Who conflicts with whom. Tensors come in order of first access, so only the earlier of two
    can end before the other begins, and one that ends before all later ones begin is retired."""
    import numpy as np

    neighbours: list[list[int]] = [[] for _ in done]
    later = np.minimum.accumulate(known[::-1])[::-1]  # what every tensor from i on comes after
    active = np.empty(0, dtype=np.int64)
    for tensor in range(len(done)):
        active = active[(done[active] > later[tensor]).any(axis=1)]
        rivals = active[(done[active] > known[tensor]).any(axis=1)].tolist()
        neighbours[tensor] += rivals
        for rival in rivals:
            neighbours[rival].append(tensor)
        active = np.append(active, tensor)
    return neighbours


_CLIQUE_TRIES = 32  # tensors to grow a clique from


def _heaviest_clique(sizes: Sequence[int], neighbours: Sequence[Sequence[int]]) -> int:
    """Bytes of the heaviest set of mutually conflicting tensors that greedy growth finds."""
    weight = [sizes[t] + sum(sizes[n] for n in neighbours[t]) for t in range(len(sizes))]
    seeds = sorted(range(len(sizes)), key=lambda t: -weight[t])[:_CLIQUE_TRIES]
    best = max(sizes)
    sets: dict[int, set[int]] = {}
    for seed in seeds:
        if weight[seed] <= best:
            break  # not even all its neighbours together weigh more
        total, common = sizes[seed], set(neighbours[seed])
        # Of those that conflict with all members so far, the one that leaves most to add.
        for rival in sorted(common, key=lambda t: (-sizes[t], -weight[t], t)):
            if rival in common:
                total += sizes[rival]
                if rival not in sets:
                    sets[rival] = set(neighbours[rival])
                common &= sets[rival]
        best = max(best, total)
    return best


# Offsets --------------------------------------------------------------------------------------


_SEVERAL_ORDERS = 5000  # tensors; beyond this the first order has to do


def _best_offsets(
    sizes: Sequence[int], neighbours: Sequence[Sequence[int]], bound: int
) -> tuple[list[int], int]:
    """Offsets and total of the best of several orders; stops at the lower bound."""
    import numpy as np

    near = [np.array(n, dtype=np.int64) for n in neighbours]
    tensors = range(len(sizes))
    crowd = [sum(sizes[n] for n in neighbours[t]) for t in tensors]
    orders = [
        sorted(tensors, key=lambda t: (-sizes[t], t)),
        sorted(tensors, key=lambda t: (-crowd[t] - sizes[t], t)),
        list(tensors),
    ]
    best: tuple[list[int], int] | None = None
    for order in orders:
        offsets = _place(order, sizes, near)
        total = max(offsets[t] + sizes[t] for t in tensors)
        if best is None or total < best[1]:
            best = offsets, total
        if best[1] == bound or len(sizes) > _SEVERAL_ORDERS:
            break
    assert best is not None
    return best


def _place(
    order: Sequence[int], sizes: Sequence[int], neighbours: Sequence[np.ndarray]
) -> list[int]:
    """Put each tensor of `order` into the tightest gap that its placed neighbours leave."""
    import numpy as np

    starts, ends = np.full(len(sizes), -1), np.zeros(len(sizes), dtype=np.int64)
    for tensor in order:
        near = neighbours[tensor]
        near = near[starts[near] >= 0]
        near = near[np.argsort(starts[near], kind="stable")]
        # Free bytes lie between what the tensors so far cover and the next one's start.
        covered = np.concatenate(([0], np.maximum.accumulate(ends[near])))
        gaps = starts[near] - covered[:-1]
        fitting = np.flatnonzero(gaps >= sizes[tensor])
        gap = fitting[np.argmin(gaps[fitting])] if fitting.size else -1
        starts[tensor] = covered[gap]
        ends[tensor] = starts[tensor] + sizes[tensor]
    return [int(s) for s in starts]
