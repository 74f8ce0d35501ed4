"""The HIP device: a plan's instructions as HIP calls, captured once as a graph and replayed.

Kept by construction: streams are non-blocking and the null stream is never used; the only waits
are the plan's; every BLAS handle is bound to one stream and has a workspace of its own; host
memory of transfers is pinned; all memory is taken before the first run, one allocation a buffer;
a run makes the calls of the plan and no others. Works on whatever platform `hip_bindings.load`
finds: AMD, CUDA behind HIP's functions, or the emulator of the tests.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from graphexec.command import Gemm, Kernel, Memcpy, Scalar
from graphexec.devices.base import DeviceInfo, Session, Step, Tap, prepare
from graphexec.devices.device_array import DeviceArray, take
from graphexec.devices.hip_bindings import Bindings, HipError, HipOutOfMemory, load
from graphexec.devices.hip_gemm import gemm_call
from graphexec.devices.hip_kernel_cache import KernelCache
from graphexec.errors import DeviceUnavailable, ExecutionError, OutOfMemory, SessionClosed, TimedOut
from graphexec.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.tensor import View

Array = np.ndarray[Any, Any]
Mode = Literal["graph", "stream"]
Pointer = Any

WORKSPACE = 32 << 20
"""Bytes of the workspace of one BLAS handle; what the libraries ask for on large GPUs."""
_SPIN = 2e-3  # seconds of asking without a pause: longer than most runs of one graph
_CTYPES: dict[str, Any] = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "f32": ctypes.c_float,
           "f64": ctypes.c_double}  # fmt: skip


@dataclass(frozen=True)
class HipDevice:
    """Runs plans on a GPU through hip-python.

    `mode` "graph" captures the plan once and replays it; "stream" issues it call by call.
    """

    index: int = 0
    mode: Mode = "graph"
    name: str = "hip"

    def describe(self) -> str:
        """Name, architecture and memory; DeviceUnavailable where there is no GPU."""
        bindings = load()
        p = bindings.properties(self.index)
        gib = p.total_memory / 2**30
        return f"{p.name} ({p.architecture}, {gib:.0f} GiB), {bindings.platform.name}"

    def open(
        self, plan: Plan, weights: Mapping[str, Array], sibling: Session | None = None
    ) -> HipSession:
        """Load a plan; OutOfMemory when the device has too little."""
        assert sibling is None or isinstance(sibling, HipSession)
        bindings = load()
        if self.index >= bindings.platform.devices:
            raise DeviceUnavailable(
                f"there is no HIP device {self.index}; found {bindings.platform.devices}"
            )
        return HipSession(plan, weights, self, bindings, sibling)


def info() -> DeviceInfo:
    """The HIP device of this machine, or why there is none."""
    try:
        return DeviceInfo("hip", True, HipDevice().describe())
    except (DeviceUnavailable, HipError) as exc:
        return DeviceInfo("hip", False, "GPU through hip-python", (str(exc),))


class HipSession:
    """A plan loaded on a GPU. `mode` is the one in use; `fallback` says why it is not "graph"."""

    def __init__(
        self, plan: Plan, weights: Mapping[str, Array], device: HipDevice, bindings: Bindings,
        sibling: HipSession | None = None,
    ) -> None:  # fmt: skip
        self._sibling = sibling
        self._plan, self._device, self._hip = plan, device, bindings
        self._threads = threading.local()
        self._owned = ExitStack()
        self._closed, self._hung = False, False
        self.mode: Mode = "stream"
        self._replay: list[Step] = []
        self._staged: dict[str, tuple[Array, Step, Step]] = {}
        self._taken: dict[str, DeviceArray] = {}
        self.fallback = ""
        try:
            self._enter_thread()
            self._load(weights)
            if device.mode == "graph":
                self._capture()
        except BaseException:
            self._owned.close()
            raise

    # What a session offers ------------------------------------------------------------------

    def put(self, buffer: str, array: Array) -> None:
        """Through pinned memory; to a buffer in device memory with a copy on stream 0."""
        self._enter_thread()
        self._staging(buffer)[...] = array
        if buffer not in self._host:
            self._staged[buffer][1]()

    def take(self, buffer: str, value: object) -> None:
        """A copy on stream 0, behind the stream that wrote `value`; none if it lies there."""
        self._enter_thread()
        hip, origin = self._hip, self._streams[0]
        array = take(value, int(origin))
        if array.stream is not None:
            event = hip.create_event()
            hip.prepare_record(event, hip.pointer(array.stream))()
            hip.prepare_wait(origin, event)()
            hip.destroy_event(event)  # the runtime keeps it until the wait is over
        if array.address != self.address(buffer):
            source, size = hip.pointer(array.address), self._plan.buffer(buffer).bytes
            hip.prepare_copy(self._pointers[buffer], source, size, "on_device", origin)()
        self._taken[buffer] = array

    def get(self, buffer: str) -> Array:
        """A copy of the pinned bytes, brought from device memory first where they lie there."""
        self._enter_thread()
        staging = self._staging(buffer)
        if buffer not in self._host:
            self._staged[buffer][2]()
            self._hip.synchronize_stream(self._streams[0])
        return staging.copy()

    def address(self, buffer: str) -> int:
        """The address of a buffer."""
        return int(self._pointers[buffer])

    def _staging(self, buffer: str) -> Array:
        """Pinned bytes for a buffer: itself, or a twin that is made when first needed."""
        if buffer in self._host:
            return self._host[buffer]
        if buffer not in self._staged:
            hip, origin, size = self._hip, self._streams[0], self._plan.buffer(buffer).bytes
            pinned = self._own(hip.host_malloc(size), hip.host_free)
            here = self._pointers[buffer]
            self._staged[buffer] = (
                np.frombuffer(hip.host_view(pinned, size), dtype=np.uint8),
                hip.prepare_copy(here, pinned, size, "to_device", origin),
                hip.prepare_copy(pinned, here, size, "to_host", origin),
            )
        return self._staged[buffer][0]

    def issue(self, tap: Tap | None = None) -> None:
        """Enqueue one run; returns at once. With `tap`, call by call with stops to look."""
        self.check_usable()
        if tap is not None:
            self._issue_tapped(tap)
            return
        for step in self._replay if self.mode == "graph" else self._steps:
            step()

    def check_usable(self) -> None:
        """Raise SessionClosed after close, ExecutionError after a hang."""
        if self._closed:
            raise SessionClosed("the executable is closed")
        if self._hung:
            raise ExecutionError("an earlier run of this executable never finished")
        self._enter_thread()

    def done(self) -> bool:
        """Whether the last `issue` is done."""
        self._enter_thread()
        return self._hip.stream_is_done(self._streams[0])

    def wait(self, timeout: float | None = None) -> None:
        """Block until the last `issue` is done. Raises TimedOut after `timeout` seconds.

        It asks rather than blocks in the library, so that Ctrl-C and other threads get through.
        """
        self._enter_thread()
        origin, start, pause = self._streams[0], time.monotonic(), 5e-5
        while not self._hip.stream_is_done(origin):
            waited = time.monotonic() - start
            if timeout is not None and waited > timeout:
                self._hung = True
                raise TimedOut(self._progress(timeout))
            if waited > _SPIN:
                time.sleep(pause)
                pause = min(2 * pause, 1e-3)
        # Makes what the device wrote to pinned memory visible to the host.
        self._hip.synchronize_stream(origin)

    def close(self) -> None:
        """Drain, then free. After a hang nothing can be freed, so nothing is."""
        if self._closed:
            return
        self._closed = True
        if self._hung:
            self._owned.pop_all()
            return
        self._enter_thread()
        for stream in self._streams:
            self._hip.synchronize_stream(stream)
        self._owned.close()

    # Loading --------------------------------------------------------------------------------

    def _enter_thread(self) -> None:
        # The current device belongs to the thread.
        if not getattr(self._threads, "ready", False):
            self._hip.set_device(self._device.index)
            self._threads.ready = True

    def _load(self, weights: Mapping[str, Array]) -> None:
        plan, hip = self._plan, self._hip
        self._kernels = KernelCache(hip, hip.properties(self._device.index).architecture)
        self._streams = [self._own(hip.create_stream(), hip.destroy_stream) for _ in plan.streams]
        self._events = {
            i.event: self._own(hip.create_event(), hip.destroy_event)
            for i in plan.instructions
            if isinstance(i, Record)
        }
        self._pointers: dict[str, Pointer] = {}
        self._host: dict[str, Array] = {}
        try:
            self._take_memory()
        except HipOutOfMemory as exc:
            raise OutOfMemory(self._memory_report()) from exc
        self._upload(weights)
        work = (i.work for i in plan.instructions if isinstance(i, Launch))
        self._kernels.compile(w for w in work if isinstance(w, Kernel))
        self._steps = [s for s in prepare(plan, self) if s is not _nothing]

    def _own(self, resource: Any, release: Any) -> Any:
        self._owned.callback(release, resource)
        return resource

    def _take_memory(self) -> None:
        hip = self._hip
        for buffer in self._plan.buffers:
            if buffer.role == "weights" and self._sibling is not None:
                pointer = self._sibling._pointers[buffer.id]  # read only, so they are shared
            elif buffer.space == "device":
                pointer = self._own(hip.malloc(buffer.bytes), hip.free)
            else:
                pointer = self._own(hip.host_malloc(buffer.bytes), hip.host_free)
                self._host[buffer.id] = np.frombuffer(
                    hip.host_view(pointer, buffer.bytes), dtype=np.uint8
                )
            self._pointers[buffer.id] = pointer
        self._handles = {}
        for stream in self._plan.streams:
            if stream.blas_handle is not None:
                handle = self._own(hip.blas.create(), hip.blas.destroy)
                workspace = self._own(hip.malloc(WORKSPACE), hip.free)
                # In this order: binding the stream resets the workspace.
                hip.blas.set_stream(handle, self._streams[stream.id])
                hip.blas.set_workspace(handle, workspace, WORKSPACE)
                self._handles[stream.blas_handle] = handle

    def _memory_report(self) -> str:
        on_device = {b.id: b.bytes for b in self._plan.buffers if b.space == "device"}
        handles = sum(s.blas_handle is not None for s in self._plan.streams)
        needed = sum(on_device.values()) + handles * WORKSPACE
        self._owned.close()  # so that what is free is said as the user will find it
        free, total = self._hip.memory_info()
        parts = ", ".join(f"{name} {_mib(size)}" for name, size in on_device.items())
        return (
            f"the device has too little memory: {_mib(needed)} needed ({parts}; "
            f"{handles} BLAS workspaces of {_mib(WORKSPACE)}), {_mib(free)} free of {_mib(total)}. "
            "The arena is the plan's peak; fewer streams need less"
        )

    def _upload(self, weights: Mapping[str, Array]) -> None:
        """Weights once, through one pinned buffer the size of the largest; zeros elsewhere."""
        hip, stream = self._hip, self._streams[0]
        for buffer in self._plan.buffers:
            if buffer.space == "device" and buffer.role != "weights":
                hip.prepare_fill(self._pointers[buffer.id], 0, buffer.bytes, stream)()
        if not weights or self._sibling is not None:
            return
        largest = max(array.nbytes for array in weights.values())
        with ExitStack() as staging:
            pinned = hip.host_malloc(largest)
            staging.callback(hip.host_free, pinned)
            view = np.frombuffer(hip.host_view(pinned, largest), dtype=np.uint8)
            for name, array in weights.items():
                view[: array.nbytes] = array.reshape(-1).view(np.uint8)
                home, offset = self._plan.places[name]
                target = hip.pointer(int(self._pointers[home]) + offset)
                hip.prepare_copy(target, pinned, array.nbytes, "to_device", stream)()
                hip.synchronize_stream(stream)

    # Graph mode -----------------------------------------------------------------------------

    def _capture(self) -> None:
        """Issue the plan once to warm up what the libraries load lazily, then capture it."""
        graphs, origin = self._hip.graphs, self._streams[0]
        for step in self._steps:
            step()
        for stream in self._streams:
            self._hip.synchronize_stream(stream)
        try:
            graph = self._captured()
            nodes = graphs.nodes(graph)
            if nodes == 0:
                raise HipError("hipStreamEndCapture", 0, "empty", "the captured graph is empty")
            executable = graphs.instantiate(graph)
        except HipError as exc:
            self.fallback = str(exc)
            return
        self._owned.callback(graphs.destroy_exec, executable)
        graphs.upload(executable, origin)
        self._replay = [graphs.prepare_launch(executable, origin)]
        self.mode = "graph"

    def _captured(self) -> Any:
        graphs, origin = self._hip.graphs, self._streams[0]
        graphs.begin_capture(origin)
        try:
            for step in self._steps:
                step()
        except BaseException:
            try:
                graphs.end_capture(origin)  # also takes the streams out of capture
            except HipError:
                pass  # it reports what the failed step reported
            raise
        graph = graphs.end_capture(origin)
        self._owned.callback(graphs.destroy, graph)
        return graph

    # Instructions ---------------------------------------------------------------------------

    def launch(self, instruction: Launch) -> Step:
        """A kernel launch, a BLAS call or a copy on the instruction's stream."""
        stream, node = self._streams[instruction.stream], instruction.node
        match instruction.work:
            case Gemm() as work:
                return self._gemm(work, instruction)
            case Kernel() as work:
                arguments = self._hip.kernels.pack([self._argument(a) for a in work.args])
                return self._hip.kernels.prepare_launch(
                    self._kernels.function(work, self._owned), work.grid, work.block,
                    work.shared_bytes, stream, arguments, node,
                )  # fmt: skip
            case Memcpy() as work:
                low, high = work.dst.byte_range()
                return self._hip.prepare_copy(
                    self._pointer(work.dst), self._pointer(work.src), high - low,
                    self._direction(work), stream, node,
                )  # fmt: skip
            case None:
                raise ExecutionError("a plan read from a file has no commands to run")

    def record(self, instruction: Record) -> Step:
        """Record the event on the stream."""
        return self._hip.prepare_record(
            self._events[instruction.event], self._streams[instruction.stream]
        )

    def wait_event(self, instruction: Wait) -> Step:
        """Let the stream wait for the event."""
        return self._hip.prepare_wait(
            self._streams[instruction.stream], self._events[instruction.event]
        )

    def host_wait(self, instruction: HostWait) -> Step:
        """Nothing to issue: `wait` waits for stream 0, where the plan's last record is."""
        return _nothing

    def _gemm(self, work: Gemm, instruction: Launch) -> Step:
        call = gemm_call(work)
        assert instruction.blas_handle is not None
        handle, blas = self._handles[instruction.blas_handle], self._hip.blas
        operands = [self._pointer(v) for v in (call.a, call.b, call.c)]
        if call.offsets is None:
            return blas.gemm(handle, call.gemm, *operands, instruction.node)
        tables = [
            self._device_table([int(base) + o for o in offsets])
            for base, offsets in zip(operands, call.offsets, strict=True)
        ]
        return blas.gemm_batched(handle, call.gemm, *tables, instruction.node)

    def _device_table(self, addresses: list[int]) -> Pointer:
        """An array of pointers in device memory."""
        hip, table = self._hip, np.array(addresses, dtype=np.uint64)
        pointer = self._own(hip.malloc(table.nbytes), hip.free)
        with ExitStack() as staging:
            pinned = hip.host_malloc(table.nbytes)
            staging.callback(hip.host_free, pinned)
            np.frombuffer(hip.host_view(pinned, table.nbytes), dtype=np.uint64)[:] = table
            stream = self._streams[0]
            hip.prepare_copy(pointer, pinned, table.nbytes, "to_device", stream)()
            hip.synchronize_stream(stream)
        return pointer

    def _argument(self, argument: View | Scalar) -> Any:
        if isinstance(argument, View):
            return ctypes.c_void_p(int(self._pointer(argument)))
        return _CTYPES[argument.type](argument.value)

    def _pointer(self, view: View) -> Pointer:
        buffer, offset = self._plan.places[view.storage]
        start = offset + view.offset * view.dtype.itemsize
        return self._hip.pointer(int(self._pointers[buffer]) + start)

    def _direction(self, work: Memcpy) -> Any:
        source, target = (
            self._plan.buffer(self._plan.places[v.storage][0]).space for v in (work.src, work.dst)
        )
        return _DIRECTIONS[source, target]

    # Looking --------------------------------------------------------------------------------

    def _issue_tapped(self, tap: Tap) -> None:
        steps = iter(self._steps)
        for instruction in self._plan.instructions:
            if isinstance(instruction, HostWait):
                continue
            next(steps)()
            if isinstance(instruction, Launch):
                tap(instruction.node, self._written(instruction))

    def _written(self, instruction: Launch) -> Array:
        """A copy of the bytes a launch wrote, taken on its stream right behind it."""
        span, stream, hip = instruction.writes[-1], self._streams[instruction.stream], self._hip
        if span.buffer in self._host:
            hip.synchronize_stream(stream)
            return self._host[span.buffer][span.low : span.high].copy()
        size = span.high - span.low
        with ExitStack() as staging:
            pinned = hip.host_malloc(size)
            staging.callback(hip.host_free, pinned)
            source = hip.pointer(int(self._pointers[span.buffer]) + span.low)
            hip.prepare_copy(pinned, source, size, "to_host", stream)()
            hip.synchronize_stream(stream)
            return np.frombuffer(hip.host_view(pinned, size), dtype=np.uint8).copy()

    def _progress(self, timeout: float) -> str:
        """What a hung run was doing, as far as the plan's events tell."""
        nodes = [i.node for i in self._plan.instructions if isinstance(i, Launch)]
        message = f"the run did not finish within {timeout:g} s"
        if self.mode == "graph":
            return (
                f"{message}; a graph replay does not say how far it came (pending: "
                f"{_listed(nodes)}); mode 'stream' does"
            )
        done: list[str] = []
        last: dict[int, list[str]] = {}
        for instruction in self._plan.instructions:
            if isinstance(instruction, Launch):
                last.setdefault(instruction.stream, []).append(instruction.node)
            elif isinstance(instruction, Record):
                if not self._hip.event_is_done(self._events[instruction.event]):
                    continue
                done += last.pop(instruction.stream, [])
        pending = [node for node in dict.fromkeys(nodes) if node not in done]
        return f"{message}; completed last: {done[-1] if done else 'nothing'}; pending: " + _listed(
            pending
        )


def _nothing() -> None:
    """A step with nothing to issue."""


_DIRECTIONS = {
    ("host", "device"): "to_device",
    ("device", "host"): "to_host",
    ("device", "device"): "on_device",
    ("host", "host"): "on_host",
}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
