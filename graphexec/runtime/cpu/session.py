"""A plan loaded on the CPU, stream-ordered like on a GPU.

A stream is a worker thread with a queue, an event is a thread event, tensors are views into one
arena at the plan's offsets, inputs and outputs go through staging buffers. So a wrong wait or a
wrong offset gives wrong numbers here too; `delays` and `poison` of the device make this certain.

Cores are shared: while plans run, BLAS libraries use one thread, and a command splits its own work
into parts that idle cores take over. The parts depend on the shapes and on the number of cores for
which work is cut (`split`), so results do not depend on the load of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

import numpy as np

from graphexec.base.errors import SessionClosed, TimedOut
from graphexec.base.tensor import Array, View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Launch, Record, Wait
from graphexec.runtime.cpu.commands import prepare_command
from graphexec.runtime.cpu.cores import single_threaded_blas
from graphexec.runtime.cpu.engine import CpuOptions, Engine
from graphexec.runtime.cpu.memory import Memory
from graphexec.runtime.device import Tap, prepare
from graphexec.runtime.device_array import DeviceArray, NotTaken
from graphexec.runtime.ranks.agree import together
from graphexec.runtime.trace import RunTimes, Span


class CpuSession:
    """A plan loaded on the CPU."""

    mode = None
    device_memory = False

    def __init__(
        self, bound: BoundPlan, weights: Mapping[str, Array], options: CpuOptions,
        sibling: CpuSession | None = None, states: CpuSession | None = None,
    ) -> None:  # fmt: skip
        self._bound, self._plan, self._options = bound, bound.plan, options
        lender = sibling._memory if sibling else None
        kept = states._memory if states else None
        self._memory: Memory = together(options.group, lambda: Memory(bound, weights, lender, kept))
        self._engine = engine = Engine(bound, self._memory, options)
        # The engine must not refer to its steps.
        self._steps = together(options.group, lambda: prepare(bound, engine))
        self._streams = self._engine.streams
        self._streams.start()
        self._closed, self._idle, self._awaited = False, True, True

    # The session's interface ----------------------------------------------------------------

    def put(self, buffer: str, array: Array, lent: bool = False) -> None:
        """Copy to the input buffer; a lent array may replace it."""
        self._drain()
        self._memory.fill(buffer, array, lent and self._engine.access is None)

    def take(self, arrays: Mapping[str, DeviceArray]) -> None:
        """Nothing: `accept` refuses every array."""

    def apart(self, buffer: str, array: Array) -> Array:
        """The array, or a copy if it lies in buffers that `host_array` gives."""
        return self._memory.apart(buffer, array)

    def accept(self, value: object) -> DeviceArray:
        """Always refused: this device has no memory of its own."""
        raise NotTaken("the array lies in the memory of a GPU, but the plan runs on the CPU")

    def array(self, view: View, owner: object) -> DeviceArray:
        """Always refused: this device has no memory of its own."""
        raise NotTaken(f"'{view.storage}' lies in the memory of the host: the plan runs on the CPU")

    def host_array(self, view: View) -> Array:
        """An input or output in place."""
        self._drain()
        return self._memory.in_place(view)

    def holds(self, array: DeviceArray) -> bool:
        """Never: this device has no memory of its own."""
        return False

    def fetch(self, buffer: str) -> None:
        """Nothing to do: `get` reads every buffer directly."""

    def get(self, buffer: str) -> Array:
        """The output buffer, which a new one replaces, or a copy."""
        return self._memory.hand_over(buffer)

    @property
    def state_buffers(self) -> Sequence[str]:
        """Those of the role."""
        return [buffer.id for buffer in self._plan.buffers if buffer.role == "state"]

    def read_state(self, buffer: str) -> Array:
        """A copy."""
        self._drain()
        return self._memory.read(buffer)

    def write_state(self, buffer: str, content: Array | None) -> None:
        """In place."""
        self._drain()
        self._memory.write(buffer, np.uint8(0) if content is None else content)

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
        engine, self._idle = self._engine, False
        run = engine.begin(tap)
        try:
            for number, step in enumerate(self._steps):
                engine.number = number
                step()
        except BaseException:
            run.abandon()
            raise
        self._awaited = False

    @contextmanager
    def _states_unchanged(self) -> Iterator[None]:
        """Around runs that are measured and no steps."""
        before = {buffer: self.read_state(buffer) for buffer in self.state_buffers}
        try:
            yield
        finally:
            for buffer, content in before.items():
                self.write_state(buffer, content)

    def timed(self) -> RunTimes:
        """Run once more, measured with the workers' clocks."""
        with self._states_unchanged():
            return self._timed()

    def _timed(self) -> RunTimes:
        found: dict[int, tuple[float, float]] = {}

        def recorder(number: int, start: float, end: float) -> None:
            found[number] = (start, end)  # each key by one thread: no lock needed

        engine = self._engine
        before, engine.recorder = engine.recorder, recorder
        try:
            zero = time.perf_counter()
            self.issue()
            issued = time.perf_counter()
            self.wait()
            end = time.perf_counter()
        finally:
            engine.recorder = before
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
        cores, found = self._engine.cores, []
        command = prepare_command(launch, work, self._memory, cores, self._engine.meetings)
        with self._states_unchanged(), single_threaded_blas(), cores.busy():
            for _ in range(2 + repeats):
                start = time.perf_counter()
                command()
                found.append(time.perf_counter() - start)
        return median(found[2:])

    def time_run(self) -> float:
        """By the host's clock."""
        with self._states_unchanged():
            start = time.perf_counter()
            self.issue()
            self.wait()
            return time.perf_counter() - start

    def done(self) -> bool:
        """Whether the last `issue` is done."""
        return all(self._engine.run.events[event].is_set() for event in self._engine.host_events)

    def wait(self, timeout: float | None = None) -> None:
        """Block until the last record the host waits for."""
        self._awaited = True
        run = self._engine.run
        try:
            for event in self._engine.host_events:
                if not run.is_set(event, timeout):
                    assert timeout is not None
                    far = run.how_far(self._plan)
                    late = TimedOut(f"the run did not finish within {timeout:g} s; {far}")
                    meetings = self._engine.meetings
                    raise late if meetings is None else meetings.late(timeout, late)
        except BaseException:
            run.cancelled = True  # Ctrl-C: workers skip queued launches
            raise
        finally:
            run.release_blas()
        failure, run.failure = run.failure, None  # it refers to frames that refer to the run
        if failure is not None:
            try:
                raise failure
            finally:
                del failure
        self._idle = True  # every stream has joined before the event that the host waited for

    def abandon(self) -> None:
        """Give the BLAS libraries their threads back."""
        self._awaited = True
        self._engine.run.release_blas()

    def close(self) -> None:
        """Stop the workers and free the memory."""
        if self._closed:
            return
        self._closed = True
        self._drain()
        self._streams.close()
        self._engine.cores.close()
        if self._engine.meetings is not None:
            self._engine.meetings.close()
        self._steps = []
        self._memory.free()

    def _drain(self) -> None:
        """Wait until the workers have finished an interrupted run."""
        if self._idle:
            return
        self._streams.drain()
        self._idle = True
