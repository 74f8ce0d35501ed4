"""The data between Program and Plan: dependencies, schedules with streams, events, allocations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphexec.ir.plan import Buffer, HostWait, Record, Wait
from graphexec.ir.program import Program
from graphexec.machine.bounds import Bounds
from graphexec.machine.simulate import Tasks, Timeline


@dataclass(frozen=True)
class Prediction:
    """The simulated times of a schedule, and the candidate that made it.

    `candidate` is the name of the candidate that won, `costs` the cost model or profile; `bounds`
    are for the number of streams allowed. The timeline begins with the first command, `start`
    microseconds after the launch of the plan. `one_stream` is its makespan for the same program on
    one stream.
    """

    candidate: str
    costs: str
    timeline: Timeline
    bounds: Bounds
    tasks: Tasks
    start: float = 0.0
    one_stream: float = 0.0

    @property
    def makespan(self) -> float:
        """From the launch of the plan to the end of its last command."""
        return self.start + self.timeline.makespan


@dataclass(frozen=True)
class Schedule:
    """A program with an issue order and a stream for each command.

    `predecessors[c]` are the commands that command c must come after: data dependencies, WAR,
    WAW and `after`. `order` lists commands in issue order, a topological order; `stream[c]` is
    the stream of command c, numbered by first use.
    """

    program: Program
    predecessors: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]
    stream: tuple[int, ...]
    prediction: Prediction | None = None

    @property
    def streams(self) -> int:
        """How many streams are used, at least one."""
        return max(self.stream, default=0) + 1


Step = int | Record | Wait | HostWait
"""A command (its index in the program), or an instruction that synchronizes."""


@dataclass(frozen=True)
class Synchronized:
    """A schedule with its events.

    `before[c][s]` counts the commands of stream s that happen before command c (c excluded);
    `position[c]` is the place of c in its stream, from 0.
    """

    schedule: Schedule
    steps: tuple[Step, ...]
    before: tuple[tuple[int, ...], ...]
    position: tuple[int, ...]
    cross_stream_edges: int


@dataclass(frozen=True)
class Allocation:
    """Buffers, and the buffer and offset of every storage; figures of the device arena in bytes.

    `lower_bound` is what no allocation of the same schedule can go below; `naive_bytes` the sum
    of all tensors.
    """

    buffers: tuple[Buffer, ...]
    places: Mapping[str, tuple[str, int]]
    arena_bytes: int
    lower_bound: int
    naive_bytes: int

    @property
    def device_bytes(self) -> int:
        """Bytes of device memory of the plan: arena, weights, and resident inputs and outputs."""
        return sum(buffer.bytes for buffer in self.buffers if buffer.space == "device")
