"""A plan loaded on a GPU: its instructions as HIP calls, captured once as a graph and replayed.

Invariants: streams are non-blocking and the null stream is never used; the only waits are the
plan's; every BLAS handle is bound to one stream and has a workspace of its own; host memory of
transfers is pinned; device memory is allocated before the first run; a run makes only the calls
of the plan.
"""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from graphexec.base.errors import (
    ExecutionError,
    InputError,
    OutOfMemory,
    RankFailed,
    SessionClosed,
    TimedOut,
)
from graphexec.base.interrupts import own
from graphexec.base.tensor import Array, TensorType, View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import HostWait, Launch
from graphexec.ir.program import FAULT, Kernel, TritonKernel
from graphexec.runtime.device import Step, Tap, prepare
from graphexec.runtime.device_array import DeviceArray, NotTaken, take
from graphexec.runtime.hip.access import checked
from graphexec.runtime.hip.bindings import Bindings, HipError, HipOutOfMemory
from graphexec.runtime.hip.kernel_cache import KernelCache
from graphexec.runtime.hip.markers import Markers
from graphexec.runtime.hip.meetings import HipMeetings
from graphexec.runtime.hip.memory import Memory, too_little
from graphexec.runtime.hip.options import HipOptions, Mode
from graphexec.runtime.hip.products import Products
from graphexec.runtime.hip.replay import CaptureWarning, capture
from graphexec.runtime.hip.resources import EXIT_PATIENCE, GRACE, Resources
from graphexec.runtime.hip.steps import Steps, nothing
from graphexec.runtime.hip.timing import LoggedRun, TimedRun, time_step
from graphexec.runtime.how_far import listed, progress
from graphexec.runtime.pinned import is_pinned
from graphexec.runtime.run_log import LOGGER
from graphexec.runtime.trace import RunTimes


class HipSession:
    """A plan loaded on a GPU. `mode` is the one in use; `fallback` is the reason if not "graph"."""

    device_memory = True

    def __init__(
        self, bound: BoundPlan, weights: Mapping[str, Array], options: HipOptions,
        bindings: Bindings, sibling: HipSession | None = None, states: HipSession | None = None,
    ) -> None:  # fmt: skip
        self._bound, self._plan, self._options = bound, bound.plan, options
        self._hip, self._sibling, self._states = bindings, sibling, states
        self._resources = Resources(bindings, options.index)
        self._closed, self._hung = False, False
        self._running = False  # a run may be on the streams
        self._unused: set[str] = set()  # buffers filled for a run that was not issued yet
        self._taken: list[DeviceArray | Array] = self._resources.kept  # arrays that the run reads
        self._fetched: dict[str, Array] = {}
        self._memory: Memory
        self._meetings: HipMeetings | None = None
        self._prepared: list[Step] = []  # one for each instruction
        self._steps: list[Step] = []  # those that issue a call
        self._run: list[Step] = []  # the steps of a run: those, or one launch of their graph
        self._clock: list[Any] = []  # two timing events, made when first needed
        self._logged: LoggedRun | None = None  # issued instead of `_run`, to log completions
        self.mode: Mode = "stream"
        self.fallback = ""
        self._end = weakref.finalize(self, self._resources.close, EXIT_PATIENCE)
        try:
            self._load(weights)
        except BaseException as exc:
            self._closed = True
            if options.group is not None and not isinstance(exc, InputError | RankFailed):
                options.group.fail(f"rank {options.group.rank}: {exc}")  # others wait for it
            with suppress(ExecutionError):  # report the first failure
                self._resources.close(GRACE if self._hung else EXIT_PATIENCE)
            self._end.detach()
            if isinstance(exc, HipOutOfMemory):
                raise OutOfMemory(too_little(bound.plan, bindings, exc)) from exc
            raise

    # Input and output -----------------------------------------------------------------------

    def put(self, buffer: str, array: Array, lent: bool = False) -> None:
        """Through pinned memory; to a buffer in device memory by a copy on stream 0. A pinned
        `array` is read in place."""
        self._make_ready(buffer)
        if buffer in self._memory.host:
            self._memory.host[buffer][...] = array
        elif is_pinned(array):
            self._taken.append(array)
            self._memory.prepare_upload(buffer, self._hip.pointer(array.ctypes.data))()
        else:
            staging, upload = self._memory.staging(buffer)
            staging[...] = array
            upload()

    def apart(self, buffer: str, array: Array) -> Array:
        """The array: nobody is given the buffers in pinned memory."""
        return array

    def accept(self, value: object) -> DeviceArray:
        """`value`, an array in device memory, as one for `take`. Raises NotTaken."""
        self._make_ready()
        return take(value, int(self.origin), self._options.index)

    def take(self, arrays: Mapping[str, DeviceArray]) -> None:
        """Copies on stream 0, after the streams that wrote the arrays; none if one is the buffer,
        two through spare memory if it lies in buffers that are overwritten."""
        for buffer in arrays:
            self._make_ready(buffer)
        hip, origin = self._hip, self.origin
        streams = {s for a in arrays.values() if (s := a.stream) is not None and s != int(origin)}
        for stream in streams:
            hip.prepare_record(self._arrival, hip.pointer(stream))()
            hip.prepare_wait(origin, self._arrival)()
        self._taken += arrays.values()
        for copy in self._memory.assignment({b: a.address for b, a in arrays.items()}):
            copy()

    def fetch(self, buffer: str) -> None:
        """A copy on stream 0 to pinned memory, unless the buffer is pinned."""
        if buffer not in self._memory.host:
            self._fetched[buffer] = block = self._memory.outgoing.take(self._memory.sizes[buffer])
            self._memory.prepare_download(buffer, self._hip.pointer(block.ctypes.data))()

    def get(self, buffer: str) -> Array:
        """A copy of the pinned bytes, or the fetched ones."""
        self._resources.enter_thread()
        if buffer in self._memory.host:
            return self._memory.host[buffer].copy()
        return self._fetched[buffer]

    def array(self, view: View, owner: object) -> DeviceArray:
        """An input or output, written by runs, which begin and end on stream 0."""
        type = TensorType(view.shape, view.dtype)
        return DeviceArray(self._memory.address(view.storage), type, owner, int(self.origin))

    def host_array(self, view: View) -> Array:
        """Always refused: inputs and outputs are copied from and to the device."""
        raise NotTaken(f"'{view.storage}' lies in the memory of the GPU")

    def holds(self, array: DeviceArray) -> bool:
        """Whether an array shares bytes with inputs or outputs on the device."""
        low, high = self._memory.edge
        return array.address < high and low < array.address + array.type.nbytes

    @property
    def state_buffers(self) -> Sequence[str]:
        """Those of the role."""
        return [buffer.id for buffer in self._plan.buffers if buffer.role == "state"]

    def read_state(self, buffer: str) -> Array:
        """A copy through pinned memory."""
        self._make_ready()
        return self._memory.contents(buffer)

    def write_state(self, buffer: str, content: Array | None) -> None:
        """Through pinned memory; zeros are a fill."""
        self._make_ready()
        if content is None:
            self._memory.zero(buffer)
        else:
            self._memory.replace(buffer, content)

    @contextmanager
    def _states_unchanged(self) -> Iterator[None]:
        """Around runs that are no steps."""
        before = {buffer: self.read_state(buffer) for buffer in self.state_buffers}
        try:
            yield
        finally:
            for buffer, content in before.items():
                self.write_state(buffer, content)

    @contextmanager
    def _states_held(self) -> Iterator[None]:
        """The same, without copies of all states where there is a fault word: who finds it set
        writes to none."""
        if FAULT not in self.state_buffers:
            with self._states_unchanged():
                yield
            return
        before = self.read_state(FAULT)
        self.write_state(FAULT, np.array([-1, 0], np.int32).view(np.uint8))
        try:
            yield
        finally:
            self.write_state(FAULT, before)

    @property
    def origin(self) -> Any:
        """Stream 0: every run begins and ends on it."""
        return self._resources.streams[0]

    # Running --------------------------------------------------------------------------------

    def issue(self, tap: Tap | None = None, times: int = 1) -> None:
        """Enqueue runs after earlier ones; returns at once. With `tap`, call by call, waiting after
        each launch."""
        if tap is not None:
            with self._issuing():
                self._issue_tapped(tap)
            return
        # Not in `_issuing`: that costs a third of a graph launch.
        self._begin()
        try:
            for _ in range(times):
                for step in self._run:
                    step()
        except BaseException:
            self._resources.drain()
            raise

    @contextmanager
    def _issuing(self) -> Iterator[None]:
        self._begin()
        try:
            yield
        except BaseException:
            # Only part of the run is on the streams, and they are not joined.
            self._resources.drain()
            raise

    def _begin(self) -> None:
        self._enter()
        self._unused.clear()
        self._fetched.clear()
        self._running = True

    def done(self) -> bool:
        """Whether `wait` would return, or raise, at once."""
        self._resources.enter_thread()
        try:
            return self._hip.stream_is_done(self.origin)
        except HipError:
            return True

    def wait(self, timeout: float | None = None) -> None:
        """Block until the last `issue` is done. Raises TimedOut after `timeout` seconds."""
        self._resources.enter_thread()
        if not self._waited(timeout):
            self._hung = True
            if self._logged is not None:
                self._logged.log()
            late = TimedOut(f"the run did not finish within {timeout:g} s; {self._progress()}")
            if self._meetings is not None:
                assert timeout is not None
                raise self._meetings.late(timeout, late)
            raise late
        if self._meetings is not None:
            self._meetings.done()
        # Makes the device's writes to pinned memory visible to the host.
        self._hip.synchronize_stream(self.origin)
        if self._logged is not None:
            self._resources.drain()  # joined streams may still process their last event
            self._logged.log()
        self._running = False
        self._taken.clear()

    def _waited(self, timeout: float | None) -> bool:
        try:
            return self._resources.wait([self.origin], timeout)
        except HipError as exc:
            if self._meetings is None:
                raise
            raise self._meetings.broken(exc) from exc

    def abandon(self) -> None:
        """Nothing: the next run waits for what is on the streams."""

    def close(self) -> None:
        """Drain, then free. Resources of a hanging device cannot be freed and are kept."""
        if self._closed:
            return
        self._closed = True
        self._prepared, self._steps, self._run = [], [], []
        try:
            self._resources.close(GRACE if self._hung else None)
            self._end.detach()  # after Ctrl-C in `close`, it frees what is left
        finally:
            self._memory.forget()
            self._fetched.clear()

    def _enter(self) -> None:
        if self._closed:
            raise SessionClosed("the executable is closed")
        self._resources.enter_thread()
        if self._hung and not self._resources.drain(GRACE):
            raise ExecutionError("an earlier run of this executable never finished")
        self._hung = False

    def _make_ready(self, buffer: str | None = None) -> None:
        """Wait for an earlier run before `buffer` is filled."""
        self._enter()
        if self._running or buffer in self._unused:
            self._resources.drain()
            self._unused.clear()
        self._running = False
        if buffer is not None:
            self._unused.add(buffer)

    # Loading --------------------------------------------------------------------------------

    def _load(self, weights: Mapping[str, Array]) -> None:
        plan, hip, resources = self._plan, self._hip, self._resources
        resources.enter_thread()
        kernels = KernelCache(
            hip, hip.properties(self._options.index).architecture, self._options.index
        )
        for _ in plan.streams:
            resources.stream()
        lender = self._sibling._memory if self._sibling else None
        states = self._states._memory if self._states else None
        self._memory = Memory(hip, self._bound, resources, lender, states)
        self._arrival = resources.own(hip.create_event, hip.destroy_event)
        products = Products(hip, self._bound, resources, self._memory, self._options.algorithms,
                            self._options.reproducible)  # fmt: skip
        self._meetings = self._meet()
        self._calls = Steps(hip, plan, resources, self._memory, kernels, products, self._meetings)
        self._memory.clear()
        if self._sibling is None:
            self._memory.upload(weights)
        timeout = self._options.timeout
        if not resources.wait([self.origin], timeout):  # from here on others may write there
            self._hung = True
            raise TimedOut(f"the device did not answer within {timeout:g} s")
        works = self._bound.work.values()
        kernels.compile(work for work in works if isinstance(work, Kernel | TritonKernel))
        markers = Markers(hip.platform.runtime_path) if self._options.markers else None
        self._prepared = prepare(self._bound, self._calls)
        if self._options.check_access:
            self._prepared = checked(self._bound, self._prepared, self._memory, resources)
        if markers:
            self._prepared = markers.around_launches(plan, self._prepared)
        self._run = self._steps = [s for s in self._prepared if s is not nothing]
        if LOGGER.isEnabledFor(logging.DEBUG):
            logged = resources.own(
                lambda: LoggedRun(hip, plan, self._prepared, resources.streams), LoggedRun.close
            )
            self._logged, self._run = logged, [logged.issue]
        elif self._options.mode == "graph" and not self._options.check_access:
            self._capture()
            if markers and self.mode == "graph":
                self._run = [markers.around(f"replay {plan.graph}", s) for s in self._run]

    def _meet(self) -> HipMeetings | None:
        group, rccl = self._options.group, self._hip.rccl
        if group is None:
            return None
        assert rccl is not None  # the device has asked
        meetings = HipMeetings(self._bound, group, rccl, self._resources)
        self._resources.look = meetings.look
        return meetings

    def _capture(self) -> None:
        """Run once, so that the libraries do their lazy loading, then capture."""
        with self._states_held():
            self.issue()
            self.wait(self._options.timeout)
        try:
            self._run = [capture(self._hip, self._steps, self.origin, self._resources.stack())]
            self.mode = "graph"
        except HipError as exc:
            self.fallback = str(exc)
            warnings.warn(
                f"{self._plan.graph} runs in stream mode: it cannot be captured: {exc}",
                CaptureWarning, stacklevel=2,
            )  # fmt: skip

    # Measuring ------------------------------------------------------------------------------

    def timed(self) -> RunTimes:
        """Run three times or more, the last one measured by events, whatever the mode."""
        with self._states_unchanged():
            return self._timed()

    def _timed(self) -> RunTimes:
        timeout = self._options.timeout
        streams = self._resources.streams
        with ExitStack() as owned:
            run = own(owned, lambda: TimedRun(self._hip, self._plan, self._prepared, streams),
                      TimedRun.close)  # fmt: skip
            with self._issuing():
                seconds = run.issue()
            self.wait(timeout)
            with self._issuing():
                if self.mode == "graph":
                    run.issue_behind(self._run[0], seconds)
                else:
                    run.issue()
            self.wait(timeout)
            times: RunTimes = run.times()
            return times

    def time_command(self, instruction: int, repeats: int = 20) -> float:
        """Measured by events around batches of the command; see `time_step`."""
        launch = self._plan.instructions[instruction]
        assert isinstance(launch, Launch)
        stream = self._resources.streams[launch.stream]

        def wait() -> None:
            if not self._resources.wait([stream], self._options.timeout):
                self._hung = True
                raise TimedOut(f"the command did not finish: node '{launch.node}'")

        with self._states_unchanged(), self._issuing():
            return time_step(self._hip, self._prepared[instruction], stream, wait, repeats)

    def time_run(self) -> float:
        """By events before and after it on stream 0, behind another run, so that the host's launch
        is not measured."""
        hip = self._hip
        while len(self._clock) < 2:
            timed = partial(hip.create_event, timing=True)
            self._clock.append(self._resources.own(timed, hip.destroy_event))
        begin, end = (hip.prepare_record(event, self.origin) for event in self._clock)
        with self._states_unchanged():
            self.issue()
            with self._issuing():
                begin()
                for step in self._run:
                    step()
                end()
            timeout = self._options.timeout
            self.wait(None if timeout is None else 2 * timeout)
        return hip.elapsed(*self._clock) / 1e3

    # Inspecting -----------------------------------------------------------------------------

    def _issue_tapped(self, tap: Tap) -> None:
        steps = iter(self._steps)
        for instruction in self._plan.instructions:
            if isinstance(instruction, HostWait):
                continue
            next(steps)()
            if isinstance(instruction, Launch):
                stream = self._resources.streams[instruction.stream]
                for node, span in instruction.results:
                    tap(node, self._memory.read(span.buffer, span.low, span.high, stream))

    def _progress(self) -> str:
        if self.mode == "stream":
            events = self._calls.events
            return progress(self._plan, lambda event: self._hip.event_is_done(events[event]))
        nodes = list(dict.fromkeys(
            name for i in self._plan.launches.values() for name in i.members
        ))  # fmt: skip
        return f"a graph does not say how far it came, mode 'stream' does; pending: {listed(nodes)}"
