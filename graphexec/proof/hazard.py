"""A hazard: its kind, instructions, bytes and reason.

The text follows the synchronization validation of the Vulkan layers (LunarG, "Guide to Vulkan
Synchronization Validation", 2024): the kind, the access, the prior access, the barriers between
the two. In addition it names the edge that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from graphexec.base.errors import GraphexecError
from graphexec.base.printable import printable
from graphexec.ir.plan import HostWait, Instruction, Launch, Range, Record

HazardKind = Literal[
    "RAW", "WAR", "WAW", "UNINITIALISED", "HOST", "ORDER", "EVENT", "STREAM", "HANDLE", "BOUNDS",
    "ALIAS", "READONLY", "FORK", "JOIN", "STATE_WAR", "STATE_STEP", "STATE_WRITERS", "STATE_INIT",
    "STATE_PLACE", "STATE_SHARED",
]  # fmt: skip
Relation = Literal["same run", "next run"]


@dataclass(frozen=True, slots=True)
class Site:
    """An instruction of a plan, as reports name it.

    `index` counts the plan's instructions from 0. `command` is "record", "wait" or "host_wait"
    for those; `node` is "" but for a launch; `stream` is None for a host_wait.
    """

    index: int
    node: str
    command: str
    stream: int | None

    @staticmethod
    def of(index: int, instruction: Instruction) -> Site:
        """The site of instruction `index`."""
        match instruction:
            case Launch():
                return Site(index, instruction.node, instruction.command, instruction.stream)
            case HostWait():
                return Site(index, "", "host_wait", None)
            case Record():
                return Site(index, "", "record", instruction.stream)
            case _:
                return Site(index, "", "wait", instruction.stream)

    @property
    def request(self) -> str:
        """Of several requests in flight, that of a launch: what follows # in the name of its node.
        "" elsewhere."""
        return self.node.rpartition("#")[2] if "#" in self.node else ""

    @property
    def name(self) -> str:
        """Its name in messages: the node in quotes, or the instruction's kind."""
        return f"'{self.node}'" if self.node else f"the {self.command}"

    def __str__(self) -> str:
        where = f"instruction {self.index}"
        if self.stream is not None:
            where = f"stream {self.stream}, {where}"
        return f"{self.name} ({self.command}, {where})" if self.node else f"{self.name} ({where})"


@dataclass(frozen=True)
class Hazard:
    """One reason why a plan is not safe.

    `kind` is the class; `first` and `second` are the instructions, in issue order (one or both are
    None if the hazard has fewer than two). `range` are the bytes and `tensors` the names of the
    tensors placed there. With the relation "next run", `second` belongs to the run issued right
    after the run of `first`. `barriers` describes the waits between the two, `missing` the missing
    edge. `message` is the whole report.
    """

    kind: HazardKind
    message: str
    first: Site | None = None
    second: Site | None = None
    tensors: tuple[str, ...] = ()
    range: Range | None = None
    relation: Relation = "same run"
    barriers: str = ""
    missing: str = ""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The instructions that it is about."""
        return tuple(site for site in (self.first, self.second) if site is not None)

    def __str__(self) -> str:
        return printable(f"{self.kind} hazard: {self.message}")


class HazardError(GraphexecError):
    """The verifier found hazards: the plan is not safe to run."""

    def __init__(self, hazards: Sequence[Hazard]) -> None:
        self.hazards = tuple(hazards)
        super().__init__("\n".join(str(h) for h in self.hazards))


def show_range(range: Range) -> str:
    """A byte range as reports write it, e.g. arena[0, 256)."""
    return f"{range.buffer}[{range.low}, {range.high})"
