"""What the instructions of a plan do on the CPU: tasks for the queues of its streams.

Queued tasks refer to the engine and never to the session. So a session that is dropped is freed at
once, and the memory and the threads of its plan as soon as the tasks in its queues are done.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from graphexec.base.errors import ExecutionError
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.op_fault import frames, told
from graphexec.ir.plan import HostWait, Launch, Record, Wait
from graphexec.ir.program import Collective, Work
from graphexec.runtime.check_access import AccessCheck
from graphexec.runtime.cpu.commands import prepare_command
from graphexec.runtime.cpu.cores import Cores
from graphexec.runtime.cpu.memory import Memory
from graphexec.runtime.cpu.run import Run
from graphexec.runtime.cpu.streams import Streams
from graphexec.runtime.device import Step, Tap
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.meetings import Meetings
from graphexec.runtime.run_log import completions

Recorder = Callable[[int, float, float], None]
"""Called with the number of an instruction and the start and end of its work, in seconds of
`time.perf_counter`. Calls come from several threads."""


REPRODUCIBLE_SPLIT = 16
"""For how many cores work is cut where results must not depend on the number of cores. More cores
than that share a product of two matrices no further, and each part costs fewer a little time."""


@dataclass(frozen=True)
class CpuOptions:
    """What a session is told; the fields of CpuDevice."""

    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    split: int | None = None
    delays: int | None = None
    poison: bool = False
    check_access: bool = False
    group: Group | None = None


class Engine:
    """The memory, cores, streams and events of a plan, and the run that was issued last."""

    def __init__(self, bound: BoundPlan, memory: Memory, options: CpuOptions) -> None:
        plan = bound.plan
        self.meetings = None if options.group is None else Meetings(bound, options.group)
        self.memory, self.cores = memory, Cores(options.cores, options.split)
        self.streams = Streams(len(plan.streams))
        self.access = AccessCheck(plan, memory) if options.check_access else None
        self.recorder: Recorder | None = completions(plan)
        self.number = 0  # of the instruction being issued
        self.host_events: list[int] = []
        self._options, self._random = options, random.Random(options.delays)
        self._events = sum(isinstance(i, Record) for i in plan.instructions)
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The run that was issued last."""
        assert self._run is not None
        return self._run

    def begin(self, tap: Tap | None) -> Run:
        """A new run, whose steps are to be issued."""
        self._run = Run(self._events, tap)
        return self._run

    def launch(self, instruction: Launch, work: Work) -> Step:
        """Queue the command; its failure stops the run but not the session."""
        try:
            command = prepare_command(instruction, work, self.memory, self.cores, self.meetings)
        except (Exception, SystemExit) as exc:  # of a `compute` that wanted to be told
            raise _failure(exc, instruction) from exc
        if self.access is not None:
            command = partial(self.access.run, instruction, work, command)
        put = self.streams.put[instruction.stream]
        # Who waits for other ranks needs no core.
        busy = nullcontext if isinstance(work, Collective) else self.cores.busy

        def perform(run: Run, number: int) -> bool:
            if run.stopped:
                return False
            try:
                if self._options.delays is not None:
                    time.sleep(self._random.choice((0, 0, 0.0005, 0.002)))
                with busy():
                    command()
                if run.tap is not None:
                    for node, span in instruction.results:
                        run.tap(node, self.memory.range(span))
                run.completed.append(number)
            except BaseException as exc:  # an exception of an op must not end the worker
                failure = _failure(exc, instruction)
                run.failure = run.failure or failure
                if self.meetings is not None:
                    self.meetings.failed(failure)
                return False
            return True

        return lambda: put(self._timed(partial(perform, self.run, self.number)))

    def record(self, instruction: Record) -> Step:
        """Queue setting the event."""
        put, event = self.streams.put[instruction.stream], instruction.event

        def step() -> None:
            wake = self.run.events[event].set
            recorder, number = self.recorder, self.number
            put(wake if recorder is None else partial(_tell_and, wake, recorder, number))

        return step

    def wait_event(self, instruction: Wait) -> Step:
        """Queue waiting for the event: it blocks the stream's worker, not the host."""
        put, event = self.streams.put[instruction.stream], instruction.event
        return lambda: put(self._timed(self.run.events[event].wait))

    def host_wait(self, instruction: HostWait) -> Step:
        """Nothing to queue: `wait` blocks the host."""
        self.host_events.append(instruction.event)
        return lambda: None

    def _timed(self, task: Callable[[], bool]) -> Step:
        """The task, wrapped to report its times if there is a listener. A skipped task reports
        nothing."""
        recorder, number = self.recorder, self.number
        if recorder is None:
            return task

        def timed() -> None:
            start = time.perf_counter()
            if task():
                recorder(number, start, time.perf_counter())

        return timed


def _failure(exc: BaseException, launch: Launch) -> ExecutionError:
    """What a command raised, as a failure of its node."""
    if isinstance(exc, ExecutionError):
        return exc
    failure = ExecutionError("\n  ".join((told(exc), *frames(exc.__traceback__))), launch.node)
    failure.__cause__ = exc
    return failure


def _tell_and(wake: Step, recorder: Recorder, number: int) -> None:
    """Report a record before doing it: its waiters continue, and report, at once."""
    now = time.perf_counter()
    recorder(number, now, now)
    wake()
