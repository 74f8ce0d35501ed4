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
class Trace:
    """A measured run of the plan of `graph` on `device`.

    `spans` are the launches, `waits` the times streams stood waiting, `host` what the host did
    ("issue", "wait for the outputs") with its times. `uninstrumented` is what the same run takes
    when nobody measures it, in microseconds, where that was measured too.
    """

    graph: str
    device: str
    spans: tuple[Span, ...]
    waits: tuple[Span, ...] = ()
    host: tuple[tuple[str, float, float], ...] = ()
    uninstrumented: float | None = None
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """From the start of the run to the end of the last launch, in microseconds."""
        return max((s.end for s in self.spans), default=0.0)


__all__ = ["Span", "Trace"]
