"""Meetings of ranks on NumPy arrays, made of exchanges of bytes.

A reduction adds in the order of the ranks, so all ranks get the same bits, by every transport.
all_reduce is a reduce_scatter and an all_gather: each rank sends 2 (n - 1) / n of the array, the
least there is (R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication
Operations in MPICH, 2005). Small arrays go to all ranks at once, which is one exchange less.
Halves are added in f32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.runtime.ranks.peer import Position
from graphexec.runtime.ranks.transport import Transport

_SMALL = 1 << 13  # bytes that go to all at once
_ROW = 1 << 16  # elements that are added at a time

_REDUCTIONS: Mapping[str, np.ufunc] = {
    "sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum,
}  # fmt: skip


class Communication:
    """The ranks `ranks` of a transport's group as they meet, this one being one of them.

    Arrays are dense, of any shape; those of `src` and `dst` have the sizes that
    graphexec.ir.program.Collective states. Raises RankFailed if a rank does not come.
    """

    def __init__(self, transport: Transport, ranks: Sequence[int], name: str = "") -> None:
        self._transport, self._ranks, self.name = transport, tuple(ranks), name
        self._me = self._ranks.index(transport.group.rank)

    def all_reduce(self, src: Array, dst: Array, reduction: str) -> None:
        """dst = src of all ranks reduced; dst may be src."""
        flat, out = src.reshape(-1), dst.reshape(-1)
        if flat.nbytes <= _SMALL:
            everything = np.empty((len(self._ranks), flat.size), flat.dtype)
            self.all_gather(flat, everything)
            _reduce(list(everything), out, reduction)
            return
        bounds = self._bounds(flat.size)
        parts = [flat[low:high] for low, high in bounds]
        mine = out[slice(*bounds[self._me])]
        self._reduce_parts(parts, mine, reduction)
        self._exchange(
            dict.fromkeys(range(len(self._ranks)), mine),
            {n: out[low:high] for n, (low, high) in enumerate(bounds)},
        )

    def reduce_scatter(self, src: Array, dst: Array, reduction: str) -> None:
        """dst = this rank's part of src of all ranks reduced."""
        self._reduce_parts(self._parts(src), dst.reshape(-1), reduction)

    def all_gather(self, src: Array, dst: Array) -> None:
        """dst = src of all ranks in their order."""
        flat, parts = src.reshape(-1), self._parts(dst)
        parts[self._me][...] = flat
        self._exchange(dict.fromkeys(range(len(parts)), flat), dict(enumerate(parts)))

    def all_to_all(self, src: Array, dst: Array) -> None:
        """Part n of src goes to rank n, whose place in its dst is that of this rank."""
        parts, places = self._parts(src), self._parts(dst)
        places[self._me][...] = parts[self._me]
        self._exchange(dict(enumerate(parts)), dict(enumerate(places)))

    def _reduce_parts(self, parts: list[Array], mine: Array, reduction: str) -> None:
        """mine = this rank's part of all ranks reduced. It may be a part itself."""
        come = [parts[n] if n == self._me else np.empty(mine.size, mine.dtype)
                for n in range(len(parts))]  # fmt: skip
        self._exchange(dict(enumerate(parts)), dict(enumerate(come)))
        _reduce(come, mine, reduction)

    def _exchange(self, send: Mapping[int, Array], receive: Mapping[int, Array]) -> None:
        """As the transport's, by places in this communicator; nothing is sent to this rank."""
        self._transport.exchange(
            {self._ranks[n]: as_bytes(a) for n, a in send.items() if n != self._me},
            {self._ranks[n]: as_bytes(a) for n, a in receive.items() if n != self._me},
        )

    def _parts(self, array: Array) -> list[Array]:
        return list(array.reshape(len(self._ranks), -1))

    def _bounds(self, size: int) -> list[tuple[int, int]]:
        count = len(self._ranks)
        return [(size * n // count, size * (n + 1) // count) for n in range(count)]


def at_work(transport: Transport, node: str, what: str, work: Callable[[], None]) -> None:
    """Do a collective, while the group knows which."""
    group = transport.group
    group.at = Position(node, what)
    work()
    group.at = replace(group.at, waits_for=())


def _reduce(arrays: Sequence[Array], out: Array, reduction: str) -> None:
    """out = the arrays reduced in their order; it may be one of them."""
    dtype = DType.of(out.dtype)
    halves = dtype in (DType.F16, DType.BF16)
    if dtype is DType.BOOL:
        arrays, out = [a.view(np.uint8) for a in arrays], out.view(np.uint8)
    reduce = _REDUCTIONS[reduction]
    for low in range(0, out.size, _ROW):
        part = slice(low, low + _ROW)
        total = arrays[0][part].astype(np.float32 if halves else out.dtype)
        for array in arrays[1:]:
            reduce(total, array[part].astype(total.dtype, copy=False), out=total)
        out[part] = total


def as_bytes(array: Array) -> Array:
    """The bytes of a dense array."""
    return array.reshape(-1).view(np.uint8)
