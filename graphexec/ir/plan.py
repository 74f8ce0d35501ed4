"""A stream-ordered plan: instructions on streams, events between them, and the places of bytes.

It is plain data and needs no device. It may have been read from a file of another program.
Happens-before is the transitive closure of the order of each stream, record → wait, and record →
host_wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from graphexec.base.tensor import DType, Space
from graphexec.ir.program import Cost, Role, WorkKind
from graphexec.ir.ranks import Ranks

WaitRole = Literal["dependency", "fork", "join"]


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream; `blas_handle` is the BLAS handle bound to it, or None when it has none."""

    id: int
    blas_handle: int | None = None


@dataclass(frozen=True, slots=True)
class Buffer:
    """One allocation. Inputs, weights and states hold data before the run; the host reads outputs
    after it, and states keep theirs for the next run."""

    id: str
    bytes: int
    space: Space
    role: Role


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """A named tensor and the bytes `offset` to `offset + bytes` of `buffer` it occupies.

    `state` names the state of which it is the value when a run begins, `next` the state of which it
    is the value when the next run begins. `init` says of the former whether it has a value before
    the first run.
    """

    name: str
    buffer: str
    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: DType
    state: str = ""
    next: str = ""
    init: bool = True

    @property
    def range(self) -> Range:
        """Its bytes."""
        return Range(self.buffer, self.offset, self.offset + self.bytes)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes `low` to `high` (past the last) of a buffer."""

    buffer: str
    low: int
    high: int

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.high - self.low

    def overlaps(self, other: Range) -> bool:
        """Whether the two share bytes."""
        return self.buffer == other.buffer and self.low < other.high and other.low < self.high


def title(node: str, nodes: tuple[str, ...]) -> str:
    """The node, or the first and the last of several and how many, for people."""
    return node if len(nodes) < 2 else f"{node} … {nodes[-1]} ({len(nodes)})"


@dataclass(frozen=True, slots=True)
class Launch:
    """Enqueue a command; `command` is its label for people. `kind` is what executes it, `cost` its
    operations and bytes; both are None in a plan that does not state them. `blas_handle` is set for
    what the BLAS executes. `after` names nodes all of whose launches must happen before this one
    although they may share no bytes with it. A launch that does the work of several nodes lists
    them in `nodes`, `node` being the first; writes[i] then is the result of nodes[i], and writes
    may have more."""

    stream: int
    node: str
    command: str
    reads: tuple[Range, ...]
    writes: tuple[Range, ...]
    blas_handle: int | None = None
    after: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    kind: WorkKind | None = None
    cost: Cost | None = None

    @property
    def members(self) -> tuple[str, ...]:
        """The nodes whose work this is: usually one."""
        return self.nodes or (self.node,)

    @property
    def results(self) -> tuple[tuple[str, Range], ...]:
        """Each member with the last range written for it, if there is one."""
        if not self.nodes:
            return tuple((self.node, written) for written in self.writes[-1:])
        return tuple(zip(self.nodes, self.writes, strict=False))

    def node_of(self, written: Range) -> str:
        """The node whose result this range is."""
        return next((node for node, own in self.results if own == written), self.node)

    @property
    def title(self) -> str:
        """The node, or the first and the last of several and how many, for people."""
        return title(self.node, self.nodes)


@dataclass(frozen=True, slots=True)
class Record:
    """The event marks everything issued to the stream so far."""

    stream: int
    event: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Later work on the stream starts after the event's record."""

    stream: int
    event: int
    role: WaitRole = "dependency"


@dataclass(frozen=True, slots=True)
class HostWait:
    """The host blocks until the event's record is reached."""

    event: int


Instruction: TypeAlias = Launch | Record | Wait | HostWait


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of a plan, for its order and streams. `waits` counts dependency waits only;
    `cross_stream_edges` the dependencies between streams before reduction. `arena_lower_bound` is a
    number of bytes no allocation of the same schedule can go below; `naive_bytes` the sum of all
    arena tensors. `predicted_ns` is the simulated time of a run, `makespan_lower_bound_ns` a lower
    bound for any schedule on as many streams, both by the times of `costs`. `schedule` names the
    scheduling method that won. These four are None or empty in a plan that does not state them."""

    streams: int
    waits: int
    events: int
    arena_bytes: int
    cross_stream_edges: int | None = None
    arena_lower_bound: int | None = None
    naive_bytes: int | None = None
    predicted_ns: int | None = None
    makespan_lower_bound_ns: int | None = None
    costs: str = ""
    schedule: str = ""


@dataclass(frozen=True)
class Plan:
    """A plan. `tensors` and `instructions` are in issue order. `stats` is None in a plan that was
    read from a file without figures. graphexec.ir.bound_plan adds what a device needs to execute
    it."""

    graph: str
    device: str
    dims: Mapping[str, int]
    streams: tuple[Stream, ...]
    buffers: tuple[Buffer, ...]
    tensors: tuple[PlacedTensor, ...]
    instructions: tuple[Instruction, ...]
    stats: Stats | None = None
    ranks: Ranks | None = None

    @cached_property
    def launches(self) -> Mapping[int, Launch]:
        """The launches by the number of their instruction."""
        return {n: i for n, i in enumerate(self.instructions) if isinstance(i, Launch)}

    def buffer(self, id: str) -> Buffer:
        """The buffer called `id`."""
        return next(b for b in self.buffers if b.id == id)

    def to_json(self) -> str:
        """The plan in the documented format (docs/plan-format.md)."""
        from graphexec.formats.plan_file import dumps

        return dumps(self)

    @staticmethod
    def from_json(text: str, path: str = "<plan>") -> Plan:
        """Read a plan; GraphError with the place of each mistake when it is not one."""
        from graphexec.formats.plan_file import loads

        return loads(text, path)

    def to_dot(self) -> str:
        """The plan as Graphviz DOT, of at most 150 launches: more become blocks."""
        from graphexec.views.dot import to_dot

        return to_dot(self)

    def to_svg(self) -> str:
        """The picture of the plan as SVG: a lane a stream."""
        from graphexec.views.lanes import to_svg

        return to_svg(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from graphexec.views.notebook import plan_cell

        return plan_cell(self)

    def __str__(self) -> str:
        from graphexec.views.text import to_text

        return to_text(self)
