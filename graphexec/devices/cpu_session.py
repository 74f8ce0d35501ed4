"""A plan loaded on the CPU, stream-ordered like on a GPU.

A stream is a worker thread with a queue, an event is an event, tensors are views into one arena at
the plan's offsets, which inputs are copied into and outputs out of. So a wrong wait or a wrong
offset gives wrong numbers here too; `delays` and `poison` of the device make that certain.

Cores are shared like this: while plans run, BLAS libraries use one thread, and a command splits
its own work, if it is worth waking a thread, into parts that idle cores take over. The parts depend
on the shapes alone, so results do not depend on how busy the machine is.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from graphexec.command import Gemm, GemmBatch, Kernel, Memcpy, TritonKernel
from graphexec.devices.base import Step, Tap, prepare
from graphexec.devices.cpu_cores import Cores, silence_numpy, single_threaded_blas
from graphexec.devices.cpu_gemm import in_turn, prepare_gemm
from graphexec.devices.device_array import NotTaken
from graphexec.devices.how_far import told
from graphexec.errors import ExecutionError, OutOfMemory, SessionClosed, TimedOut
from graphexec.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.run_log import completions
from graphexec.tensor import View
from graphexec.trace import RunTimes, Span

if TYPE_CHECKING:
    from graphexec.devices.cpu import CpuDevice

Array = np.ndarray[Any, Any]
Recorder = Callable[[int, float, float], None]
"""Called with the number of an instruction and when work on it began and ended, in seconds of
`time.perf_counter`. Calls come from several threads."""
_ALIGNMENT = 64  # bytes, a cache line
_MEMCPY_PART = 1 << 20  # bytes
_MEMCPY_SERIAL = 1 << 22  # less is done before another thread has woken up and been waited for
_SLICE = 0.1  # seconds


class _Run:
    """One run in progress: its events, and what went wrong in it."""

    def __init__(self, events: int, tap: Tap | None) -> None:
        self.events = [threading.Event() for _ in range(events)]
        self.tap = tap
        self.completed: list[int] = []  # launches, by the numbers of their instructions
        self.failure: ExecutionError | None = None
        self.cancelled = False

    @property
    def stopped(self) -> bool:
        return self.cancelled or self.failure is not None


class CpuSession:
    """A plan loaded on the CPU."""

    def __init__(
        self, plan: Plan, weights: Mapping[str, Array], device: CpuDevice,
        sibling: CpuSession | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._device = plan, device
        shared = {"weights": sibling._memory["weights"]} if sibling and weights else {}
        self._memory: dict[str, Array] = {
            b.id: shared[b.id] if b.id in shared else _allocate(b.id, b.bytes) for b in plan.buffers
        }
        for name, array in ({} if shared else weights).items():
            buffer, offset = plan.places[name]
            raw = array.reshape(-1).view(np.uint8)
            self._memory[buffer][offset : offset + raw.size] = raw
        launches = [i for i in plan.instructions if isinstance(i, Launch)]
        fixed = {
            r.buffer for i in launches if not isinstance(i.work, Memcpy) for r in i.reads + i.writes
        }
        # Those that only copies touch, which ask where they lie when they run.
        movable = [b for b in plan.buffers if b.id not in fixed]
        self._inputs = {b.id: self._memory[b.id] for b in movable if b.role == "input"}
        self._outputs = {b.id for b in movable if b.role == "output"}
        self._events = sum(isinstance(i, Record) for i in plan.instructions)
        self._cores = Cores(device.cores)
        self._random = random.Random(device.delays)
        self._recorder: Recorder | None = completions(plan)
        self._number = 0  # of the instruction being issued
        self._queues: list[SimpleQueue[Step | None]] = [SimpleQueue() for _ in plan.streams]
        self._run: _Run | None = None
        self._blas = ExitStack()
        self._host_events: list[int] = []
        self._steps = prepare(plan, self)
        self._workers = [
            threading.Thread(target=_work, args=(q,), name=f"graphexec-stream-{s}", daemon=True)
            for s, q in enumerate(self._queues)
        ]
        for worker in self._workers:
            worker.start()
        self._closed, self._idle, self._awaited = False, True, True

    # What a session offers ------------------------------------------------------------------

    def put(self, buffer: str, array: Array, lent: bool = False) -> None:
        """Copy to the input buffer; an array that is lent may take its place."""
        self._drain()
        if buffer in self._inputs:
            self._memory[buffer] = array if lent else self._inputs[buffer]
        if self._memory[buffer] is not array:
            self._memory[buffer][...] = array

    def take(self, buffer: str, value: object) -> None:
        """No array lies in the memory of this device already."""
        raise NotTaken("the array lies in the memory of a GPU, but the plan runs on the CPU")

    def fetch(self, buffer: str) -> None:
        """Every buffer is where `get` finds it."""

    def get(self, buffer: str) -> Array:
        """The output buffer, for which another takes its place, or a copy."""
        memory = self._memory[buffer]
        if buffer not in self._outputs:
            return memory.copy()
        self._memory[buffer] = _allocate(buffer, memory.size)
        return memory

    def issue(self, tap: Tap | None = None, times: int = 1) -> None:
        """Queue the plan on the workers, after the end of a run that nobody has waited for."""
        for _ in range(times):
            self._issue(tap)

    def _issue(self, tap: Tap | None) -> None:
        if self._closed:
            raise SessionClosed("the executable is closed")
        if not self._awaited:
            self.wait()
        self._drain()
        if self._device.poison:
            self._poison()
        self._idle, self._run = False, _Run(self._events, tap)
        run = self._run
        self._blas.enter_context(single_threaded_blas())
        try:
            for number, step in enumerate(self._steps):
                self._number = number
                step()
        except BaseException:
            run.cancelled = True
            for event in run.events:
                event.set()  # nobody will record those not issued yet
            self._blas.close()
            raise
        self._awaited = False

    def timed(self) -> RunTimes:
        """Run once more, measured with the workers' clocks."""
        found: dict[int, tuple[float, float]] = {}

        def recorder(number: int, start: float, end: float) -> None:
            found[number] = (start, end)  # by one thread each: nothing to lock

        before, self._recorder = self._recorder, recorder
        try:
            zero = time.perf_counter()
            self.issue()
            issued = time.perf_counter()
            self.wait()
            end = time.perf_counter()
            self._idle = False  # a worker may still be telling of a join
            self._drain()
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
        """Run one command by itself, on as many cores as it takes."""
        launch = self._plan.instructions[instruction]
        assert isinstance(launch, Launch)
        self._drain()
        command, found = self._command(launch), []
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
                if not _is_set(run.events[event], timeout):
                    raise TimedOut(
                        f"the run did not finish within {timeout:g} s; {self._how_far(run)}"
                    )
        except BaseException:
            run.cancelled = True  # Ctrl-C: workers pass over what is still queued
            raise
        finally:
            self._blas.close()
        if run.failure is not None:
            raise run.failure
        self._idle = True  # every stream has joined before what the host waited for

    def _how_far(self, run: _Run) -> str:
        launches = {n: i for n, i in enumerate(self._plan.instructions) if isinstance(i, Launch)}
        completed = list(run.completed)
        pending = [i for n, i in launches.items() if n not in set(completed)]
        return told([launches[n] for n in completed], pending)

    def close(self) -> None:
        """Stop the workers and give the memory back."""
        if self._closed:
            return
        self._closed = True
        self._drain()
        for queue in self._queues:
            queue.put(None)
        for worker in self._workers:
            worker.join()
        self._cores.close()
        self._steps = []
        self._memory = {}

    def _drain(self) -> None:
        """Wait until no worker has anything left of an interrupted run."""
        if self._idle:
            return
        barriers = [threading.Event() for _ in self._queues]
        for queue, barrier in zip(self._queues, barriers, strict=True):
            queue.put(barrier.set)
        for barrier in barriers:
            barrier.wait()
        self._idle = True

    def _poison(self) -> None:
        for buffer in self._plan.buffers:
            if buffer.role in ("arena", "output"):
                self._memory[buffer.id].fill(0xFF)  # NaN in every dtype

    # Instructions ---------------------------------------------------------------------------

    def launch(self, instruction: Launch) -> Step:
        """Queue the command; its failure stops the run but not the session."""
        command = self._command(instruction)
        put = self._queues[instruction.stream].put

        def perform(run: _Run, number: int) -> None:
            if run.stopped:
                return
            try:
                if self._device.delays is not None:
                    time.sleep(self._random.choice((0, 0, 0.0005, 0.002)))
                with self._cores.busy():
                    command()
                if run.tap is not None:
                    for node, span in instruction.results:
                        run.tap(node, self._memory[span.buffer][span.low : span.high])
                run.completed.append(number)
            except BaseException as exc:  # whatever an op raises must not end the worker
                failure = ExecutionError(f"{type(exc).__name__}: {exc}", instruction.node)
                failure.__cause__ = exc
                run.failure = run.failure or failure

        return lambda: put(self._timed(partial(perform, self._current(), self._number)))

    def record(self, instruction: Record) -> Step:
        """Queue setting the event."""
        put, event = self._queues[instruction.stream].put, instruction.event
        return lambda: put(self._timed(self._current().events[event].set))

    def wait_event(self, instruction: Wait) -> Step:
        """Queue waiting for the event: it blocks the stream's worker, not the host."""
        put, event = self._queues[instruction.stream].put, instruction.event
        return lambda: put(self._timed(self._current().events[event].wait))

    def host_wait(self, instruction: HostWait) -> Step:
        """Nothing to queue: `wait` blocks the host."""
        self._host_events.append(instruction.event)
        return lambda: None

    def _timed(self, task: Step) -> Step:
        """The task as it is or, if somebody wants to know, with its times told."""
        recorder, number = self._recorder, self._number
        if recorder is None:
            return task

        def timed() -> None:
            start = time.perf_counter()
            task()
            recorder(number, start, time.perf_counter())

        return timed

    def _current(self) -> _Run:
        assert self._run is not None
        return self._run

    def _command(self, instruction: Launch) -> Callable[[], None]:
        parallel = self._cores.parallel
        match instruction.work:
            case Gemm() as gemm:
                return self._gemm(gemm)
            case GemmBatch(members):
                flops = sum(2 * gemm.out.elements * gemm.a.shape[-1] for gemm in members)
                return in_turn([self._gemm(gemm) for gemm in members], flops, self._cores)
            case (Kernel() | TritonKernel()) as kernel:
                arrays = [self._array(v) for v in kernel.args if isinstance(v, View)]
                return partial(kernel.compute, arrays, parallel)
            case Memcpy() as copy:
                return lambda: _memcpy(self._bytes(copy.dst), self._bytes(copy.src), parallel)
            case None:
                raise ExecutionError("a plan read from a file has no commands to run")

    def _gemm(self, gemm: Gemm) -> Callable[[], None]:
        views = (self._array(gemm.a), self._array(gemm.b), self._array(gemm.out))
        return prepare_gemm(*views, gemm.alpha, gemm.beta, self._cores)

    def _array(self, view: View) -> Array:
        buffer, offset = self._plan.places[view.storage]
        size = view.dtype.itemsize
        return np.ndarray(
            view.shape,
            view.dtype.numpy(),
            buffer=self._memory[buffer].data,
            offset=offset + view.offset * size,
            strides=tuple(s * size for s in view.strides),
        )

    def _bytes(self, view: View) -> Array:
        buffer, offset = self._plan.places[view.storage]
        low, high = view.byte_range()
        return self._memory[buffer][offset + low : offset + high]


def _is_set(event: threading.Event, timeout: float | None) -> bool:
    """Whether an event is set in time. It waits in slices: a signal that arrives just before the
    thread blocks is noticed at the next."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not event.wait(_SLICE if timeout is None else min(_SLICE, timeout)):
        if deadline is not None and time.monotonic() >= deadline:
            return False
    return True


def _work(queue: SimpleQueue[Step | None]) -> None:
    silence_numpy()
    while (task := queue.get()) is not None:
        task()


def _memcpy(target: Array, source: Array, parallel: Any) -> None:
    if target.size < _MEMCPY_SERIAL:
        target[...] = source
        return

    def body(low: int, high: int) -> None:
        first, last = low * _MEMCPY_PART, high * _MEMCPY_PART
        target[first:last] = source[first:last]

    parallel(-(-target.size // _MEMCPY_PART), body)


def _allocate(id: str, nbytes: int) -> Array:
    try:
        raw = np.empty(nbytes + _ALIGNMENT, dtype=np.uint8)
    except MemoryError as exc:
        raise OutOfMemory(f"buffer '{id}' needs {nbytes} bytes, more than the host has") from exc
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + nbytes]


__all__ = ["CpuSession"]
