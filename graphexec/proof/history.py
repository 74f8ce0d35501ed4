"""One pass over a plan's launches: the clocks at its end, and the launches that may race.

Guarantees: `suspects` holds every launch with an earlier access that conflicts and does not
happen before it (in a plan with races it may hold others, too). `unwritten` holds every byte range
that is read and not written by an earlier launch. `with_after` holds the clock of every launch
with `after`.
"""

from __future__ import annotations

from graphexec.ir.plan import Launch, Plan, Range
from graphexec.proof.clocks import Clocks, Stamp
from graphexec.proof.regions import Regions


class History:
    """The results of one pass over a run."""

    def __init__(self, plan: Plan) -> None:
        self.clocks, self.regions = Clocks(plan), Regions(plan)
        self.suspects: list[tuple[int, Launch, Stamp]] = []
        self.unwritten: list[tuple[int, Launch, Range]] = []
        self.with_after: list[tuple[int, Launch, Stamp]] = []
        find = self.regions.find
        for index, launch, slot, clock in self.clocks.replay():
            ordered = True
            if launch.after:
                self.with_after.append((index, launch, tuple(clock)))
            # Reads first: a launch reads its operands as they were before it.
            for region, low, high in find(launch.reads):
                holes: list[tuple[int, int]] = []
                ordered &= region.read(low, high, slot, clock, holes)
                for hole in _joined(holes):
                    self.unwritten.append((index, launch, Range(region.buffer, *hole)))
            for region, low, high in find(launch.writes):
                ordered &= region.write(low, high, slot, clock)
            if not ordered:
                self.suspects.append((index, launch, tuple(clock)))


def _joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending extents, adjacent ones merged."""
    found: list[tuple[int, int]] = []
    for low, high in extents:
        if found and found[-1][1] == low:
            low = found.pop()[0]
        found.append((low, high))
    return found
