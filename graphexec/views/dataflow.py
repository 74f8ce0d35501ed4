"""Data edges of a plan, derived from its byte ranges alone.

An edge runs from the last launch in issue order that wrote a byte, or from the buffer that held it
before the run, to each launch that reads it. Whether the reader waits for the writer is checked by
`verify`, not here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from graphexec.ir.plan import Launch, PlacedTensor, Plan, Range
from graphexec.views.transfers import Transfers


@dataclass(frozen=True, slots=True)
class Edge:
    """Bytes that go from `writer` to `reader`, both numbers of launches in issue order.

    `writer` is None for bytes that `buffer` held before the run. `tensor` is their name, if the
    plan names them.
    """

    writer: int | None
    reader: int
    buffer: str
    tensor: PlacedTensor | None


class _Written:
    """The last writer of each byte of a buffer: sorted, disjoint segments."""

    def __init__(self) -> None:
        self.starts = [0]
        self.writers: list[int | None] = [None]

    def write(self, low: int, high: int, writer: int) -> None:
        first, last = self._split(low), self._split(high)
        self.starts[first:last] = [low]
        self.writers[first:last] = [writer]

    def read(self, low: int, high: int) -> list[int | None]:
        first = bisect_right(self.starts, low) - 1
        last = bisect_right(self.starts, high - 1)
        return list(dict.fromkeys(self.writers[first:last]))

    def _split(self, at: int) -> int:
        """Make a segment begin at `at`; its index."""
        index = bisect_right(self.starts, at) - 1
        if self.starts[index] != at:
            index += 1
            self.starts.insert(index, at)
            self.writers.insert(index, self.writers[index - 1])
        return index


class _Named:
    """The tensors of a plan, by name and by bytes."""

    def __init__(self, plan: Plan) -> None:
        self.transfers = Transfers(plan)
        self.by_name = {tensor.name: tensor for tensor in plan.tensors}
        self.by_range: dict[Range, list[PlacedTensor]] = {}
        self.by_buffer: dict[str, list[PlacedTensor]] = {}
        for t in plan.tensors:
            self.by_range.setdefault(t.range, []).append(t)
            self.by_buffer.setdefault(t.buffer, []).append(t)

    def find(self, r: Range, writer: Launch | None, reader: Launch) -> PlacedTensor | None:
        """The tensor of a range: that of the transfer, else the one with the writer's name, else
        the only one on these bytes."""
        names = [self.transfers.tensor(reader)] if self.transfers.of(reader) == "d2h" else []
        names += [] if writer is None else [writer.node_of(r), self.transfers.tensor(writer)]
        for name in names:
            tensor = self.by_name.get(name)
            if tensor is not None and tensor.range.overlaps(r):
                return tensor
        same = self.by_range.get(r, [])
        if not same:
            same = [t for t in self.by_buffer.get(r.buffer, []) if t.range.overlaps(r)]
        return same[0] if len(same) == 1 else None


def data_edges(plan: Plan) -> list[Edge]:
    """The data edges of `plan`, ordered by reader; at most one a pair of writer and tensor."""
    launches = [*plan.launches.values()]
    named = _Named(plan)
    written: dict[str, _Written] = {}
    edges: list[Edge] = []
    for reader, launch in enumerate(launches):
        edges += dict.fromkeys(_edges_to(reader, launches, written, named))
        for r in launch.writes:
            if 0 <= r.low < r.high:
                written.setdefault(r.buffer, _Written()).write(r.low, r.high, reader)
    return edges


def _edges_to(
    reader: int, launches: list[Launch], written: dict[str, _Written], named: _Named
) -> Iterator[Edge]:
    launch = launches[reader]
    for r in launch.reads:
        if not 0 <= r.low < r.high:
            continue
        for writer in written.setdefault(r.buffer, _Written()).read(r.low, r.high):
            source = None if writer is None else launches[writer]
            yield Edge(writer, reader, r.buffer, named.find(r, source, launch))
