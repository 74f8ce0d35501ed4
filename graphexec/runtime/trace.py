"""A measured run: start and end of each launch by the device's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """Work on one instruction (its number in the plan), in microseconds since the run began."""

    instruction: int
    start: float
    end: float


@dataclass(frozen=True)
class RunTimes:
    """One run by a device's own clock: its launches and waits in issue order.

    `host` has the host's steps of that run with their times, if they are of the same clock.
    """

    launches: tuple[Span, ...]
    waits: tuple[Span, ...] = ()
    host: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True)
class Trace:
    """A measured run of the plan of `graph` on `device`.

    `spans` are the launches, `waits` the waiting times of streams, `host` the host's steps
    ("issue", "wait for the outputs") with their times. `uninstrumented` is the time of an
    unmeasured run from its issue to its end, in microseconds, if known. `how` describes the
    measurement.
    """

    graph: str
    device: str
    spans: tuple[Span, ...]
    waits: tuple[Span, ...] = ()
    host: tuple[tuple[str, float, float], ...] = ()
    uninstrumented: float | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    how: str = "measured in a run of its own"

    @property
    def total(self) -> float:
        """From the start of the run to the end of the last launch, in microseconds."""
        return max((s.end for s in self.spans), default=0.0)
