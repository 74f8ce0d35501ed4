"""Several requests in flight as one plan, which is proved."""

from __future__ import annotations

from dataclasses import replace

from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    Plan,
    Range,
    Record,
    Stream,
    Wait,
)


def in_flight(plan: Plan, requests: int) -> Plan:
    """`requests` copies of `plan` side by side: the plan of that many requests in flight.

    Each request has its own streams, events, BLAS handles and memory; weights and states
    are shared. Stream 0 is a new origin that every request forks from and joins, which orders no
    two requests.
    """
    copies = [_Copy(plan, r) for r in range(requests)]
    events = requests * _events(plan)
    instructions: list[Instruction] = [Record(0, events)]
    for copy in copies:
        instructions.append(Wait(copy.stream(0), events, "fork"))
    for copy in copies:
        instructions += copy.instructions()
    for copy in copies:
        instructions += [Record(copy.stream(0), events + 1 + copy.request),
                         Wait(0, events + 1 + copy.request, "join")]  # fmt: skip
    end = events + 1 + requests
    instructions += [Record(0, end), HostWait(end)]
    buffers: dict[str, Buffer] = {}
    for copy in copies:
        buffers |= {b.id: b for b in copy.buffers()}
    streams = [Stream(0), *(s for copy in copies for s in copy.streams())]
    return replace(
        plan, streams=tuple(streams), buffers=tuple(buffers.values()), tensors=(),
        instructions=tuple(instructions), stats=None,
    )  # fmt: skip


def _events(plan: Plan) -> int:
    return 1 + max((i.event for i in plan.instructions if isinstance(i, Record)), default=-1)


class _Copy:
    """One request's names for the plan's streams, events and buffers."""

    def __init__(self, plan: Plan, request: int) -> None:
        self.plan, self.request = plan, request
        self.shared = {b.id for b in plan.buffers if b.role in ("weights", "state")}

    def stream(self, id: int) -> int:
        return 1 + self.request * len(self.plan.streams) + id

    def event(self, id: int) -> int:
        return self.request * _events(self.plan) + id

    def buffer(self, id: str) -> str:
        return id if id in self.shared else f"{id}#{self.request}"

    def buffers(self) -> list[Buffer]:
        return [replace(b, id=self.buffer(b.id)) for b in self.plan.buffers]

    def streams(self) -> list[Stream]:
        return [
            Stream(self.stream(s.id), None if s.blas_handle is None else self.stream(s.blas_handle))
            for s in self.plan.streams
        ]

    def instructions(self) -> list[Instruction]:
        return [self.renamed(i) for i in self.plan.instructions if not isinstance(i, HostWait)]

    def renamed(self, instruction: Instruction) -> Instruction:
        match instruction:
            case Launch():
                handle = instruction.blas_handle
                return replace(
                    instruction,
                    stream=self.stream(instruction.stream),
                    node=self.name(instruction.node),
                    nodes=tuple(map(self.name, instruction.nodes)),
                    after=tuple(map(self.name, instruction.after)),
                    reads=self.ranges(instruction.reads),
                    writes=self.ranges(instruction.writes),
                    blas_handle=None if handle is None else self.stream(handle),
                )
            case Record(stream, event):
                return Record(self.stream(stream), self.event(event))
            case Wait(stream, event, role):
                return Wait(self.stream(stream), self.event(event), role)
            case HostWait(event):
                return HostWait(self.event(event))

    def name(self, node: str) -> str:
        return f"{node}#{self.request}"

    def ranges(self, ranges: tuple[Range, ...]) -> tuple[Range, ...]:
        return tuple(replace(r, buffer=self.buffer(r.buffer)) for r in ranges)
