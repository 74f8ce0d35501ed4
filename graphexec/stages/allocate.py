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


_CLIQUE_TRIES = 2000  # tensors to grow a clique from
_CLIQUE_WIDTH = 256  # neighbours looked at for each


def _heaviest_clique(sizes: Sequence[int], neighbours: Sequence[Sequence[int]]) -> int:
    """Bytes of the heaviest set of mutually conflicting tensors that greedy growth finds."""
    weight = [sizes[t] + sum(sizes[n] for n in neighbours[t]) for t in range(len(sizes))]
    seeds = sorted(range(len(sizes)), key=lambda t: -weight[t])[:_CLIQUE_TRIES]
    sets = {}
    best = max(sizes)
    for seed in seeds:
        if weight[seed] <= best:
            break  # not even all its neighbours together weigh more
        total, clique = sizes[seed], [seed]
        for rival in sorted(neighbours[seed], key=lambda t: -sizes[t])[:_CLIQUE_WIDTH]:
            if rival not in sets:
                sets[rival] = set(neighbours[rival])
            if all(member in sets[rival] for member in clique):
                clique.append(rival)
                total += sizes[rival]
        best = max(best, total)
    return best


# Offsets --------------------------------------------------------------------------------------


def _best_offsets(
    sizes: Sequence[int], neighbours: Sequence[Sequence[int]], bound: int
) -> tuple[list[int], int]:
    """Offsets and total of the best of several orders; stops at the lower bound."""
    tensors = range(len(sizes))
    crowd = [sum(sizes[n] for n in neighbours[t]) for t in tensors]
    orders = [
        sorted(tensors, key=lambda t: (-sizes[t], t)),
        sorted(tensors, key=lambda t: (-crowd[t] - sizes[t], t)),
        sorted(tensors, key=lambda t: (-sizes[t] * (1 + len(neighbours[t])), t)),
        list(tensors),
        list(reversed(tensors)),
    ]
    best: tuple[list[int], int] | None = None
    for order in orders:
        offsets = _place(order, sizes, neighbours)
        total = max(offsets[t] + sizes[t] for t in tensors)
        if best is None or total < best[1]:
            best = offsets, total
        if best[1] == bound:
            break
    assert best is not None
    return best


def _place(
    order: Sequence[int], sizes: Sequence[int], neighbours: Sequence[Sequence[int]]
) -> list[int]:
    """Put each tensor of `order` into the tightest gap that its placed neighbours leave."""
    offsets = [-1] * len(sizes)
    for tensor in order:
        taken = sorted((offsets[n], sizes[n]) for n in neighbours[tensor] if offsets[n] >= 0)
        size, top, best, slack = sizes[tensor], 0, -1, None
        for offset, length in taken:
            gap = offset - top
            if gap >= size and (slack is None or gap - size < slack):
                best, slack = top, gap - size
            top = max(top, offset + length)
        offsets[tensor] = top if best < 0 else best
    return offsets
