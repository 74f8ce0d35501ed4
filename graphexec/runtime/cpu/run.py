"""A run in progress on the CPU: its events, how far it is, and what went wrong in it."""

from __future__ import annotations

import threading
import time

from graphexec.base.errors import ExecutionError
from graphexec.ir.plan import Launch, Plan
from graphexec.runtime.device import Tap
from graphexec.runtime.how_far import told

_SLICE = 0.1  # seconds


class Run:
    """One run of a plan with so many `events`, none of which is set yet."""

    def __init__(self, events: int, tap: Tap | None) -> None:
        self.events = [threading.Event() for _ in range(events)]
        self.tap = tap
        self.completed: list[int] = []  # launches, by the numbers of their instructions
        self.failure: ExecutionError | None = None
        self.cancelled = False

    @property
    def stopped(self) -> bool:
        """Whether launches that have not begun are passed over."""
        return self.cancelled or self.failure is not None

    def is_set(self, event: int, timeout: float | None) -> bool:
        """Whether an event is set in time. It waits in slices: a signal that arrives just before
        the thread blocks is noticed at the next."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.events[event].wait(_SLICE if timeout is None else min(_SLICE, timeout)):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def abandon(self) -> None:
        """Give up a run that is not issued whole: nobody will record the rest of its events."""
        self.cancelled = True
        for event in self.events:
            event.set()

    def how_far(self, plan: Plan) -> str:
        """Which nodes are done and which are not, in words."""
        launches = {n: i for n, i in enumerate(plan.instructions) if isinstance(i, Launch)}
        completed = list(self.completed)
        pending = [i for n, i in launches.items() if n not in set(completed)]
        return told([launches[n] for n in completed], pending)


__all__ = ["Run"]
