"""What a run took: when each launch began and ended, as a device measured it."""

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
    """What one run took on a device's own clock: its launches and waits in issue order.

    `host` is what the host did in that run with its times, where it has the same clock.
    """

    launches: tuple[Span, ...]
    waits: tuple[Span, ...] = ()
    host: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True)
class Trace:
    """A measured run of the plan of `graph` on `device`.

    `spans` are the launches, `waits` the times streams stood waiting, `host` what the host did
    ("issue", "wait for the outputs") with its times. `uninstrumented` is what the plan takes from
    its issue to its end when nobody measures it, in microseconds, where that is known; `how` says
    how the times were measured.
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


__all__ = ["RunTimes", "Span", "Trace"]
