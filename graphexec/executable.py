"""A compiled graph loaded on a device: NumPy in, NumPy out, one request or several in flight."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphexec.devices.device_array import DeviceArray, NotTaken, is_device_array
from graphexec.diagnostics import Diagnostic, did_you_mean
from graphexec.errors import DataError, ExecutionError, SessionClosed
from graphexec.plan import Plan
from graphexec.requests import in_flight as side_by_side
from graphexec.tensor import TensorType, View
from graphexec.weights import WeightError, read_weight

if TYPE_CHECKING:
    from graphexec.devices.base import Device, Session, Tap
    from graphexec.pipeline import Compiled
    from graphexec.typed import TypedGraph

Array = np.ndarray[Any, Any]


class Executable:
    """A plan with the device memory, streams and events to run it; made by `compile`.

    Owns them until `close()`. Safe to use from several threads, which take turns.
    """

    def __init__(
        self, plan: Callable[[bool], Compiled], device: Device, *, resident: bool = False,
        timeout: float | None = None,
    ) -> None:  # fmt: skip
        """Load what `plan` compiles on `device`: takes memory and uploads the weights."""
        self._compiled = compiled = plan(resident)
        self.device_name = device.name
        self.device = device
        self.inputs: Mapping[str, TensorType] = compiled.graph.inputs
        self.outputs: Mapping[str, TensorType] = {
            n: TensorType(v.shape, v.dtype) for n, v in compiled.program.outputs.items()
        }
        self._plan, self._resident, self._timeout = plan, resident, timeout
        self._twin: Executable | None = None
        self._weights = _read_weights(compiled)
        self._lock = threading.RLock()
        self._closed = False
        self._sessions: list[Session] = [device.open(compiled.plan, self._weights)]
        self._free = list(self._sessions)
        self._pending: deque[Pending] = deque()
        self._proved = 1

    @property
    def graph(self) -> TypedGraph:
        """The graph as the user wrote it, with types."""
        return self._compiled.graph

    @property
    def plan(self) -> Plan:
        """The plan that runs: print it, or see its to_json() and to_dot()."""
        return self._compiled.plan

    @property
    def session(self) -> Session:
        """The device's side of the first request in flight."""
        return self._sessions[0]

    # Running --------------------------------------------------------------------------------

    def run(self, /, **inputs: Array) -> dict[str, Array]:
        """Run the plan once and return the outputs by name, as new arrays.

        Every input must be given, with exactly its shape and dtype (bf16 is ml_dtypes.bfloat16);
        others raise DataError, all mistakes at once. Raises ExecutionError when a command fails;
        the executable stays usable.
        """
        return self._submit(inputs, 1).result()

    def submit(self, /, **inputs: Array) -> Pending:
        """Start a run and return at once; the handle's `result()` gives the outputs.

        At most two requests are in flight, each with memory of its own but for the weights; a
        third waits for the oldest. Inputs are read before `submit` returns.
        """
        return self._submit(inputs, 2)

    def map(
        self, requests: Iterable[Mapping[str, Array]], in_flight: int = 2
    ) -> Iterator[dict[str, Array]]:
        """The outputs of each request, in order, with up to `in_flight` of them on the device.

        So one request's upload, another's compute and a third's download overlap. The plan of
        that many requests side by side is proved free of races before it runs.
        """
        if in_flight < 1:
            raise DataError([Diagnostic(f"in_flight must be at least 1, not {in_flight}")])
        waiting: deque[Pending] = deque()
        for inputs in requests:
            if len(waiting) == in_flight:
                yield waiting.popleft().result()
            waiting.append(self._submit(inputs, in_flight))
        while waiting:
            yield waiting.popleft().result()

    def run_tapped(self, inputs: Mapping[str, Array], tap: Tap) -> dict[str, Array]:
        """As `run`, showing what every launch wrote to `tap`."""
        return self._submit(inputs, 1, tap).result()

    def _submit(
        self, inputs: Mapping[str, Array], in_flight: int, tap: Tap | None = None
    ) -> Pending:
        arrays = self._checked(inputs)
        if not self._resident and any(map(is_device_array, arrays.values())):
            return self._device_twin()._submit(inputs, in_flight, tap)
        with self._lock:
            session = self._take(in_flight)
            try:
                for name, view in self._compiled.program.inputs.items():
                    self._put(session, name, view.storage, arrays[name])
                session.issue(tap)
            except BaseException:
                self._free.append(session)
                raise
            pending = Pending(self, session)
            self._pending.append(pending)
            return pending

    def _take(self, in_flight: int) -> Session:
        """A session that nothing runs on: a free one, a new one, or that of the oldest request."""
        if self._closed:
            raise SessionClosed("the executable is closed")
        if not self._free and len(self._sessions) >= in_flight:
            self._pending[0].collect()
        if not self._free:
            self._add_session()
        return self._free.pop()

    def _add_session(self) -> None:
        from graphexec.verify import verify

        count = len(self._sessions) + 1
        if count > self._proved:
            verify(side_by_side(self.plan, count))
            self._proved = count
        session = self.device.open(self.plan, self._weights, self._sessions[0])
        self._sessions.append(session)
        self._free.append(session)

    def collected(self, pending: Pending, session: Session) -> None:
        """A request is done with its session."""
        self._pending.remove(pending)
        self._free.append(session)

    def outputs_of(self, session: Session) -> dict[str, Array]:
        """Copies of the outputs of the run that `session` has just finished."""
        views = self._compiled.program.outputs
        return {
            name: session.get(view.storage).view(view.dtype.numpy()).reshape(view.shape)
            for name, view in views.items()
        }

    def _put(self, session: Session, name: str, buffer: str, value: Array | DeviceArray) -> None:
        if not is_device_array(value):
            session.put(buffer, np.ascontiguousarray(value).reshape(-1).view(np.uint8))
            return
        try:
            session.take(buffer, value)
        except NotTaken as exc:
            raise DataError([Diagnostic(f"input '{name}' cannot be taken: {exc}")]) from exc

    def _checked(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The arrays of `inputs`, each of the right type; DataError with every mistake."""
        mistakes = [
            Diagnostic(f"there is no input '{name}'", help=did_you_mean(name, self.inputs))
            for name in inputs
            if name not in self.inputs
        ]
        arrays = {}
        for name, type in self.inputs.items():
            if name not in inputs:
                mistakes.append(Diagnostic(f"input '{name}' ({type}) is missing"))
                continue
            given = inputs[name]
            arrays[name] = array = given if is_device_array(given) else np.asarray(given)
            if is_device_array(given) or (
                array.shape == type.shape and array.dtype == type.dtype.numpy()
            ):
                continue
            found = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
            wanted = type.dtype.numpy()
            help = f"convert it: {name}.astype({wanted.name!r})" if array.dtype != wanted else ""
            mistakes.append(Diagnostic(f"input '{name}' must be {type}, found {found}", help=help))
        if mistakes:
            raise DataError(mistakes)
        return arrays

    # Device memory --------------------------------------------------------------------------

    def device_array(self, name: str) -> DeviceArray:
        """Where an input or output lies on the device; only if compiled with `resident=True`.

        Fill the inputs, call `replay`, and read the outputs there: no transfers are made. It has
        a `__cuda_array_interface__`, so CuPy, PyTorch and Numba can use it in place.
        """
        program, session = self._compiled.program, self._sessions[0]
        view = {**program.inputs, **program.outputs}.get(name)
        if view is None or not self._resident or not hasattr(session, "address"):
            raise DataError([Diagnostic(f"'{name}' does not lie on the device for callers to use",
                                        help="compile(graph, device='hip', resident=True)")])  # fmt: skip
        return DeviceArray(session.address(view.storage), TensorType(view.shape, view.dtype), self)

    def replay(self) -> None:
        """Run the plan on what lies in device memory, and wait for it."""
        with self._lock:
            session = self._take(1)
            try:
                session.issue()
                session.wait(self._timeout)
            finally:
                self._free.append(session)

    def _device_twin(self) -> Executable:
        """The same graph with its inputs and outputs in device memory, made when first needed."""
        with self._lock:
            if self._closed:
                raise SessionClosed("the executable is closed")
            if self._twin is None:
                self._twin = Executable(self._plan, self.device, resident=True,
                                        timeout=self._timeout)  # fmt: skip
            return self._twin

    # Ending ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for what is running, then free everything. A second call does nothing.

        Requests in flight are finished: their `result()` can still be asked for.
        """
        with self._lock:
            if self._closed:
                return
            while self._pending:
                self._pending[0].collect()
            self._closed = True
            if self._twin is not None:
                self._twin.close()
            for session in reversed(self._sessions):  # the first one owns the weights
                session.close()

    def __enter__(self) -> Executable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"Executable({self.plan.graph!r} on {self.device_name}{state})"


class Pending:
    """A run in flight, from `Executable.submit`."""

    def __init__(self, exe: Executable, session: Session) -> None:
        self._exe, self._session = exe, session
        self._outputs: dict[str, Array] | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether `result()` would return (or raise) at once."""
        return self._collected or self._session.done()

    def result(self, timeout: float | None = None) -> dict[str, Array]:
        """The outputs, when they are there. Raises TimeoutError after `timeout` seconds (the run
        goes on), and ExecutionError when a command failed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while deadline is not None and not self.done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run is not done after {timeout:g} s")
            time.sleep(5e-5)
        self.collect()
        if self._error is not None:
            raise self._error
        assert self._outputs is not None
        return self._outputs

    @property
    def _collected(self) -> bool:
        return self._outputs is not None or self._error is not None

    def collect(self) -> None:
        """Wait for the run, keep its outputs or its error, and give the session back."""
        exe = self._exe
        with exe._lock:
            if self._collected:
                return
            try:
                self._session.wait(exe._timeout)
                self._outputs = exe.outputs_of(self._session)
            except BaseException as exc:
                self._error = exc
                if not isinstance(exc, ExecutionError):
                    raise
            finally:
                exe.collected(self, self._session)


def _read_weights(compiled: Compiled) -> dict[str, Array]:
    weights, mistakes = {}, []
    for name in compiled.program.weights:
        try:
            weights[name] = read_weight(compiled.graph.weights[name])
        except WeightError as exc:
            mistakes.append(Diagnostic(f"weight '{name}': {exc}", help=exc.help))
    if mistakes:
        raise DataError(mistakes)
    return weights
