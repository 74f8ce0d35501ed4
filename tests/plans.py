"""Small plans written by hand, for tests that need one instruction to be different."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from graphexec.base.tensor import DType
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stream,
    Wait,
    WaitRole,
)
from graphexec.ir.program import WorkKind


def at(low: int, high: int, buffer: str = "arena") -> Range:
    return Range(buffer, low, high)


class Draft:
    """A plan in the making. Methods issue instructions; `record` returns the event it made."""

    def __init__(self, streams: int = 2, device: str = "cpu") -> None:
        self.device = device
        self.streams = [Stream(i, i) for i in range(streams)]
        self.buffers = [
            Buffer("arena", 1024, "device", "arena"),
            Buffer("in", 64, "host", "input"),
            Buffer("weights", 64, "device", "weights"),
        ]
        self.tensors: list[PlacedTensor] = []
        self.instructions: list[Instruction] = []
        self.events = 0

    def output(self, bytes: int = 64) -> Range:
        """Add an output buffer; its whole range."""
        self.buffers.append(Buffer("out", bytes, "host", "output"))
        return at(0, bytes, "out")

    def tensor(self, name: str, range: Range) -> Range:
        bytes = range.high - range.low
        self.tensors.append(
            PlacedTensor(name, range.buffer, range.low, bytes, (max(bytes // 4, 1),), DType.F32)
        )
        return range

    def launch(
        self,
        stream: int,
        node: str,
        reads: Iterable[Range] = (),
        writes: Iterable[Range] = (),
        command: str = "kernel",
        handle: int | None = None,
        after: tuple[str, ...] = (),
        kind: WorkKind | None = None,
    ) -> None:
        self.instructions.append(
            Launch(stream, node, command, tuple(reads), tuple(writes), handle, after, kind=kind)
        )

    def record(self, stream: int, event: int | None = None) -> int:
        if event is None:
            event = self.events
            self.events += 1
        self.instructions.append(Record(stream, event))
        return event

    def wait(self, stream: int, event: int, role: WaitRole = "dependency") -> None:
        self.instructions.append(Wait(stream, event, role))

    def host_wait(self, event: int) -> None:
        self.instructions.append(HostWait(event))

    def edge(self, first: int, second: int, role: WaitRole = "dependency") -> None:
        """Later work on stream `second` starts after the work on stream `first` so far."""
        self.wait(second, self.record(first), role)

    def fork(self) -> None:
        event = self.record(0)
        for stream in self.streams[1:]:
            self.wait(stream.id, event, "fork")

    def join(self) -> None:
        """Join all streams into the origin, and let the host wait."""
        for stream in self.streams[1:]:
            self.edge(stream.id, 0, "join")
        self.host_wait(self.record(0))

    def plan(self) -> Plan:
        return Plan(
            "test", self.device, {"S": 16}, tuple(self.streams), tuple(self.buffers),
            tuple(self.tensors), tuple(self.instructions),
        )  # fmt: skip


def pair(
    first: tuple[Iterable[Range], Iterable[Range]],
    second: tuple[Iterable[Range], Iterable[Range]],
    ordered: bool,
) -> Plan:
    """'first' on stream 0 and 'second' on stream 1, each given by what it reads and writes.

    Everything they read has been written before the streams fork.
    """
    draft = Draft()
    draft.launch(0, "init", writes=[at(0, 1024)])
    draft.fork()
    draft.launch(0, "first", *first)
    if ordered:
        draft.edge(0, 1)
    draft.launch(1, "second", *second)
    draft.join()
    return draft.plan()


def layered(launches: int, streams: int, seed: int = 0) -> Plan:
    """A safe plan: two arenas of slots in turn, each launch reading slots of the layer before."""
    random, width, size = Random(seed), 2 * streams, 64
    draft = Draft(streams)
    draft.buffers = [Buffer("arena", 2 * width * size, "device", "arena")]
    draft.fork()
    slots = [at(n * size, (n + 1) * size) for n in range(2 * width)]
    for layer in range(launches // width):
        here, before = slots[layer % 2 * width :][:width], slots[(layer + 1) % 2 * width :][:width]
        for n in range(width):
            reads = random.sample(before, 3) if layer else []
            draft.launch(n % streams, f"n{layer}_{n}", reads, [here[n]])
        for stream in range(1, streams):
            draft.edge(stream, 0)
        event = draft.record(0)
        for stream in range(1, streams):
            draft.wait(stream, event)
    draft.join()
    return draft.plan()
