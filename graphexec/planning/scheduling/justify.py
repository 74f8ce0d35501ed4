"""Improve a schedule by building it backwards and forwards again (justification).

Backwards, the commands are listed by their ends, the last first, and each goes as late as it can.
Forwards, they are listed by the starts found there, and each goes as early as it can. This closes
gaps and gives more weight to the end of the schedule, such as copies to the host that share one
engine. Li and Willis, "An iterative scheduling technique for
resource-constrained project scheduling", EJOR 56, 1992; Valls, Ballestín and Quintanilla,
"Justification and RCPSP: a technique that pays", EJOR 165, 2005.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from graphexec.machine.simulate import Tasks, Timeline, successors_of
from graphexec.planning.scheduling.assignment import Assignment
from graphexec.planning.scheduling.greedy import listed

_SPREADS = (0.03, 0.1, 0.2)  # of the makespan, by which ends are perturbed
_FEWER = 0.4


class Justifier:
    """Makes schedules of `tasks` from other schedules."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks, self._backwards = tasks, _mirrored(tasks)
        self._random = Random(0)

    def justified(self, end: Sequence[float], streams: int, patient: bool) -> Assignment:
        """On `streams` streams, from a schedule whose command c ends at `end[c]`."""
        last = len(self.tasks) - 1
        latest_first = sorted(range(last + 1), key=lambda c: (-end[c], c))
        _, late = listed(self._backwards, streams, [last - c for c in latest_first], patient)
        urgency = sorted(range(last + 1), key=lambda c: (-late[last - c], c))
        return listed(self.tasks, streams, urgency, patient)[0]

    def shaken(self, timeline: Timeline, streams: int, patient: bool) -> Assignment:
        """The same from slightly perturbed ends, sometimes on fewer streams: each stream forks, and
        takes part of the device."""
        random = self._random
        most = timeline.makespan * random.choice(_SPREADS)
        end = [at + random.uniform(-most, most) for at in timeline.end]
        if random.random() < _FEWER:
            streams = random.randint(max(1, streams // 2), streams)
        return self.justified(end, streams, patient)


def _mirrored(tasks: Tasks) -> Tasks:
    """The same commands with time running backwards; command c becomes n - 1 - c."""
    last = len(tasks) - 1
    needs = tuple(tuple(last - s for s in tasks.successors[c]) for c in range(last, -1, -1))
    return Tasks(
        tasks.time[::-1], tasks.share[::-1], tasks.engine[::-1], tasks.launch, tasks.event, needs,
        successors_of(needs),
    )  # fmt: skip
