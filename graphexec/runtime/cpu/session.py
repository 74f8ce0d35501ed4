"""A plan loaded on the CPU, stream-ordered like on a GPU.

A stream is a worker thread with a queue, an event is a thread event, tensors are views into one
arena at the plan's offsets, inputs and outputs go through staging buffers. So a wrong wait or a
wrong offset gives wrong numbers here too; `delays` and `poison` of the device make this certain.

Cores are shared: while plans run, BLAS libraries use one thread, and a command splits its own work
into parts that idle cores take over. The parts depend on the shapes alone, so results do not
depend on the load of the machine.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from graphexec.base.errors import ExecutionError, SessionClosed, TimedOut
from graphexec.base.tensor import View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import HostWait, Launch, Record, Wait
from graphexec.ir.program import Work
from graphexec.runtime.check_access import AccessCheck
from graphexec.runtime.cpu.commands import prepare_command
from graphexec.runtime.cpu.cores import Cores, single_threaded_blas
from graphexec.runtime.cpu.memory import Memory
from graphexec.runtime.cpu.run import Run
from graphexec.runtime.cpu.streams import Streams
from graphexec.runtime.device import Step, Tap, prepare
from graphexec.runtime.device_array import DeviceArray, NotTaken
from graphexec.runtime.run_log import completions
from graphexec.runtime.trace import RunTimes, Span

Array = np.ndarray[Any, Any]
Recorder = Callable[[int, float, float], None]
"""Called with the number of an instruction and the start and end of its work, in seconds of
`time.perf_counter`. Calls come from several threads."""


@dataclass(frozen=True)
class CpuOptions:
    """What a session is told; the fields of CpuDevice."""

    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    delays: int | None = None
    poison: bool = False
    check_access: bool = False


class CpuSession:
    """A plan loaded on the CPU."""

    mode = None
    device_memory = False

    def __init__(
        self, bound: BoundPlan, weights: Mapping[str, Array], options: CpuOptions,
        sibling: CpuSession | None = None,
    ) -> None:  # fmt: skip
        plan = bound.plan
        self._bound, self._plan, self._options = bound, plan, options
        self._memory: Memory = Memory(bound, weights, sibling._memory if sibling else None)
        self._events = sum(isinstance(i, Record) for i in plan.instructions)
        self._cores = Cores(options.cores)
        self._access = AccessCheck(plan, self._memory) if options.check_access else None
        self._random = random.Random(options.delays)
        self._recorder: Recorder | None = completions(plan)
        self._number = 0  # of the instruction being issued
        self._streams = Streams(len(plan.streams))
        self._run: Run | None = None
        self._blas = ExitStack()
        self._host_events: list[int] = []
        self._steps = prepare(bound, self)
        self._streams.start()
        self._closed, self._idle, self._awaited = False, True, True

    # The session's interface ----------------------------------------------------------------

    def put(self, buffer: str, array: Array, lent: bool = False) -> None:
        """Copy to the input buffer; a lent array may replace it."""
        self._drain()
        self._memory.fill(buffer, array, lent and self._access is None)

    def take(self, arrays: Mapping[str, DeviceArray]) -> None:
        """Nothing: `accept` refuses every array."""

    def accept(self, value: object) -> DeviceArray:
        """Always refused: this device has no memory of its own."""
        raise NotTaken("the array lies in the memory of a GPU, but the plan runs on the CPU")

    def array(self, view: View, owner: object) -> DeviceArray:
        """Always refused: this device has no memory of its own."""
        raise NotTaken(f"'{view.storage}' lies in the memory of the host: the plan runs on the CPU")

    def holds(self, array: DeviceArray) -> bool:
        """Never: this device has no memory of its own."""
        return False

    def fetch(self, buffer: str) -> None:
        """Nothing to do: `get` reads every buffer directly."""

    def get(self, buffer: str) -> Array:
        """The output buffer, which a new one replaces, or a copy."""
        return self._memory.hand_over(buffer)

    def issue(self, tap: Tap | None = None, times: int = 1) -> None:
        """Queue the plan on the workers, after waiting for an earlier run."""
        for _ in range(times):
            self._issue(tap)

    def _issue(self, tap: Tap | None) -> None:
        if self._closed:
            raise SessionClosed("the executable is closed")
        if not self._awaited:
            self.wait()
        self._drain()
        if self._options.poison:
            self._memory.poison()
        self._idle, self._run = False, Run(self._events, tap)
        run = self._run
        self._blas.enter_context(single_threaded_blas())
        try:
            for number, step in enumerate(self._steps):
                self._number = number
                step()
        except BaseException:
            run.abandon()
            self._blas.close()
            raise
        self._awaited = False

    def timed(self) -> RunTimes:
        """Run once more, measured with the workers' clocks."""
        found: dict[int, tuple[float, float]] = {}

        def recorder(number: int, start: float, end: float) -> None:
            found[number] = (start, end)  # each key by one thread: no lock needed

        before, self._recorder = self._recorder, recorder
        try:
            zero = time.perf_counter()
            self.issue()
            issued = time.perf_counter()
            self.wait()
            end = time.perf_counter()
        finally:
            self._recorder = before
        spans: dict[type, list[Span]] = {Launch: [], Wait: [], Record: []}
        for number in sorted(found):
            span = Span(number, *((at - zero) * 1e6 for at in found[number]))
            spans[type(self._plan.instructions[number])].append(span)
        steps = (("issue", zero, issued), ("wait for the outputs", issued, end))
        host = tuple((name, (a - zero) * 1e6, (b - zero) * 1e6) for name, a, b in steps)
        return RunTimes(tuple(spans[Launch]), tuple(spans[Wait]), host)

    def time_command(self, instruction: int, repeats: int = 20) -> float:
        """Run one command by itself, on as many cores as it uses."""
        self._drain()
        launch, work = self._plan.instructions[instruction], self._bound.work[instruction]
        assert isinstance(launch, Launch)
        command = prepare_command(launch, work, self._memory, self._cores)
        found = []
        with single_threaded_blas(), self._cores.busy():
            for _ in range(2 + repeats):
                start = time.perf_counter()
                command()
                found.append(time.perf_counter() - start)
        return median(found[2:])

    def time_run(self) -> float:
        """By the host's clock."""
        start = time.perf_counter()
        self.issue()
        self.wait()
        return time.perf_counter() - start

    def done(self) -> bool:
        """Whether the last `issue` is done."""
        return all(self._current().events[event].is_set() for event in self._host_events)

    def wait(self, timeout: float | None = None) -> None:
        """Block until the last record the host waits for."""
        self._awaited = True
        run = self._current()
        try:
            for event in self._host_events:
                if not run.is_set(event, timeout):
                    far = run.how_far(self._plan)
                    raise TimedOut(f"the run did not finish within {timeout:g} s; {far}")
        except BaseException:
            run.cancelled = True  # Ctrl-C: workers skip queued launches
            raise
        finally:
            self._blas.close()
        if run.failure is not None:
            raise run.failure
        self._idle = True  # every stream has joined before the event that the host waited for

    def close(self) -> None:
        """Stop the workers and free the memory."""
        if self._closed:
            return
        self._closed = True
        self._drain()
        self._streams.close()
        self._cores.close()
        self._steps = []
        self._memory.free()

    def _drain(self) -> None:
        """Wait until the workers have finished an interrupted run."""
        if self._idle:
            return
        self._streams.drain()
        self._idle = True

    # Instructions ---------------------------------------------------------------------------

    def launch(self, instruction: Launch, work: Work) -> Step:
        """Queue the command; its failure stops the run but not the session."""
        command = prepare_command(instruction, work, self._memory, self._cores)
        if self._access is not None:
            command = partial(self._access.run, instruction, work, command)
        put = self._streams.put[instruction.stream]

        def perform(run: Run, number: int) -> bool:
            if run.stopped:
                return False
            try:
                if self._options.delays is not None:
                    time.sleep(self._random.choice((0, 0, 0.0005, 0.002)))
                with self._cores.busy():
                    command()
                if run.tap is not None:
                    for node, span in instruction.results:
                        run.tap(node, self._memory.range(span))
                run.completed.append(number)
            except BaseException as exc:  # an exception of an op must not end the worker
                failure = _failure(exc, instruction)
                run.failure = run.failure or failure
                return False
            return True

        return lambda: put(self._timed(partial(perform, self._current(), self._number)))

    def record(self, instruction: Record) -> Step:
        """Queue setting the event."""
        put, event = self._streams.put[instruction.stream], instruction.event

        def step() -> None:
            wake = self._current().events[event].set
            recorder, number = self._recorder, self._number
            put(wake if recorder is None else partial(_tell_and, wake, recorder, number))

        return step

    def wait_event(self, instruction: Wait) -> Step:
        """Queue waiting for the event: it blocks the stream's worker, not the host."""
        put, event = self._streams.put[instruction.stream], instruction.event
        return lambda: put(self._timed(self._current().events[event].wait))

    def host_wait(self, instruction: HostWait) -> Step:
        """Nothing to queue: `wait` blocks the host."""
        self._host_events.append(instruction.event)
        return lambda: None

    def _timed(self, task: Callable[[], bool]) -> Step:
        """The task, wrapped to report its times if there is a listener. A skipped task reports
        nothing."""
        recorder, number = self._recorder, self._number
        if recorder is None:
            return task

        def timed() -> None:
            start = time.perf_counter()
            if task():
                recorder(number, start, time.perf_counter())

        return timed

    def _current(self) -> Run:
        assert self._run is not None
        return self._run


def _failure(exc: BaseException, launch: Launch) -> ExecutionError:
    """What a command raised, as a failure of its node."""
    if isinstance(exc, ExecutionError):
        return exc
    failure = ExecutionError(f"{type(exc).__name__}: {exc}", launch.node)
    failure.__cause__ = exc
    return failure


def _tell_and(wake: Step, recorder: Recorder, number: int) -> None:
    """Report a record before doing it: its waiters continue, and report, at once."""
    now = time.perf_counter()
    recorder(number, now, now)
    wake()


__all__ = ["CpuSession"]
