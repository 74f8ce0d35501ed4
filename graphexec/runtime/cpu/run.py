"""A run in progress on the CPU: its events, its progress, and its failure."""

from __future__ import annotations

import threading
import time

from graphexec.base.errors import ExecutionError
from graphexec.ir.plan import Plan
from graphexec.runtime.cpu.cores import limit_blas
from graphexec.runtime.device import Tap
from graphexec.runtime.how_far import told

_SLICE = 0.1  # seconds


class Run:
    """One run of a plan with `events` events, none of them set yet.

    BLAS libraries use one thread until `release_blas` is called: when the run is waited for, or
    nobody will. Not by a worker: there are BLAS libraries that only the main thread can set.
    """

    def __init__(self, events: int, tap: Tap | None) -> None:
        self.events = [threading.Event() for _ in range(events)]
        self.tap = tap
        self.completed: list[int] = []  # launches, by the numbers of their instructions
        self.failure: ExecutionError | None = None
        self.cancelled = False
        self.release_blas = limit_blas()

    @property
    def stopped(self) -> bool:
        """Whether launches that have not begun are skipped."""
        return self.cancelled or self.failure is not None

    def is_set(self, event: int, timeout: float | None) -> bool:
        """Whether an event is set in time. Waits in slices, so that a signal that arrives just
        before the thread blocks is handled after the slice."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.events[event].wait(_SLICE if timeout is None else min(_SLICE, timeout)):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def abandon(self) -> None:
        """Give up a run that is only partly issued: its remaining events are never recorded."""
        self.cancelled = True
        self.release_blas()
        for event in self.events:
            event.set()

    def how_far(self, plan: Plan) -> str:
        """The completed and the pending nodes, in words."""
        launches = plan.launches
        completed = list(self.completed)
        pending = [i for n, i in launches.items() if n not in set(completed)]
        return told([launches[n] for n in completed], pending)
