"""A compiled graph loaded on a device: NumPy in, NumPy out, one request or several in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError, ExecutionError, SessionClosed
from graphexec.base.progress import tracked
from graphexec.base.tensor import Array, TensorType
from graphexec.frontend.expand import expand
from graphexec.frontend.weight_paths import WeightError
from graphexec.frontend.weights import WeightFiles
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Plan
from graphexec.ir.typed import TypedWeight
from graphexec.proof import prove, prove_together
from graphexec.runtime.device_array import DeviceArray, is_device_array
from graphexec.runtime.indexes import check_indexes, index_inputs
from graphexec.runtime.pending import Pending, in_order
from graphexec.runtime.pinned import is_pinned
from graphexec.runtime.plan_cache import PlanCache, does_not_fit, solve_dims
from graphexec.runtime.process import Process
from graphexec.runtime.requests import in_flight as side_by_side
from graphexec.runtime.run_inputs import (
    Ports,
    accepted,
    at_least_one,
    checked,
    no_port,
    shapes_of,
)
from graphexec.runtime.states import Faults, States
from graphexec.runtime.tap import typed

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.ir.typed import TypedGraph
    from graphexec.planning.pipeline import Compiled
    from graphexec.runtime.device import Device, Session, Tap

Planning = Callable[["Graph", bool], "Compiled"]


class Executable:
    """A plan with the device memory, streams and events to run it; made by `compile`.

    Owns them until `close()`. Safe to use from several threads, which take turns.
    """

    _compiled: Compiled
    _weights: dict[str, Array]
    _source: Graph
    state: States
    lock: threading.RLock  # held by whoever uses the sessions; one for all that share states

    def __init__(
        self, source: Graph, plan: Planning, device: Device, *,
        resident: bool = False, timeout: float | None = None, base: Executable | None = None,
        weights_from: Executable | None = None,
    ) -> None:  # fmt: skip
        """Load what `plan` compiles of `source` on `device`: takes memory, uploads the weights.

        `plan(source, resident)` makes the plan. Later changes of `source` and of its weights files
        do not count: what is needed later is kept. `base` is an executable of the same graph that
        lives longer; it lends what it read, its states, and its weights on the device if they have
        the same places. `weights_from` lends the latter alone, and may be closed first.
        """
        source = source.with_dims()
        if weights_from is not None:
            source.stored = weights_from._source.stored
        compiled = plan(source, resident)
        source.stored = stored(compiled.graph)
        if base is not None and base.state.active:
            prove_together([base.plan, compiled.plan])
            base.state.settle()  # loading may run the plan, and give states back as they were
        self._asked = device
        self._open(compiled, device, base, base or weights_from)
        self.inputs: Mapping[str, TensorType] = compiled.graph.inputs
        self.outputs: Mapping[str, TensorType] = {
            n: TensorType(v.shape, v.dtype) for n, v in compiled.program.outputs.items()
        }
        self._ins = Ports(self.inputs, compiled.program.inputs)
        self._outs = Ports({}, compiled.program.outputs)
        self._indexes = index_inputs(compiled.graph)
        self.timeout = timeout
        self.lock = threading.RLock() if base is None or not base.state.active else base.lock
        self._lent, self._lender = 0, weights_from
        self._closing = threading.Lock()  # held while sessions are closed
        self._source, self._plan, self._resident = source, plan, resident
        self._derived = base is not None
        self._twin: Executable | None = None
        self._resized: PlanCache[Executable] = PlanCache(source)
        self._process = Process()
        self._closed = False
        self._numbers = count()
        # By their numbers, so the oldest first; one whose handle is dropped leaves by itself.
        self._pending: WeakValueDictionary[int, Pending] = WeakValueDictionary()
        self._proved = 1
        self._last: Executable | None = None  # of another size, if that ran last
        self._group = device.group
        self._faults = Faults(compiled.program.faults)
        if base is not None:
            self.state = base.state
        else:
            with self._closing_after_failure():
                flat, session = expand(source), self._sessions[0]
                self.state = States(compiled.graph.states, flat, session, self.lock,
                                    bool(compiled.program.faults), device.group)  # fmt: skip
        if weights_from is not None:
            weights_from._lent += 1

    @contextmanager
    def _closing_after_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._sessions[0].close()
            raise

    def _open(
        self, compiled: Compiled, device: Device, states: Executable | None,
        base: Executable | None,
    ) -> None:  # fmt: skip
        if compiled.profile is not None and compiled.profile.algorithms:
            device = device.tuned(compiled.profile.algorithms)
        lender = base if base is not None and _same_weights(base._compiled, compiled) else None
        weights = _read_weights(compiled, {} if base is None else base._weights)
        lending = lender._sessions[0] if lender else None
        kept = states._sessions[0] if states is not None and states.state.active else None
        self._sessions: list[Session] = [device.open(compiled.bound, weights, lending, kept)]
        self._compiled, self._weights = compiled, weights
        self.device, self.device_name = device, device.name

    @property
    def graph(self) -> TypedGraph:
        """The graph as the user wrote it, with types."""
        return self._compiled.graph

    @property
    def rewritten(self) -> TypedGraph:
        """The graph as it is computed, after the rewrites."""
        return self._compiled.rewritten

    @property
    def plan(self) -> Plan:
        """The plan that runs: print it, or see its to_json() and to_dot()."""
        return self._compiled.plan

    @property
    def bound(self) -> BoundPlan:
        """The plan with the work of its launches and the planner's prediction."""
        return self._compiled.bound

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def session(self) -> Session:
        """The device's side of the first request in flight."""
        self._process.check()
        return self._sessions[0]

    # Running --------------------------------------------------------------------------------

    def run(self, /, **inputs: Array) -> dict[str, Array]:
        """Run the plan once and return the outputs by name, as new arrays.

        Every input must be given, with exactly its dtype (bf16 is ml_dtypes.bfloat16), and stay as
        it is until `run` returns: the CPU reads it where it lies. Tensors of other libraries are
        taken by NumPy's protocols or DLPack, also torch.bfloat16. Shapes that the graph has with
        other values of its dims are taken too: the plan for those is made, and the last few such
        plans are kept. Others raise DataError, all mistakes at once. Raises
        ExecutionError when a command fails; the executable stays usable. In a fork of the process
        that compiled, every method raises it.
        """
        return self._submit(inputs, 1, lent=True).result()

    def submit(self, /, **inputs: Array) -> Pending:
        """Start a run and return at once; the handle's `result()` gives the outputs.

        At most two requests are in flight, each with memory of its own but for the weights; a
        third waits for the oldest. Inputs are read before `submit` returns, except arrays in
        device memory or from `pinned_empty`: they must stay as they are until the run is done.
        """
        return self._submit(inputs, 2)

    def map(
        self, requests: Iterable[Mapping[str, Array]], in_flight: int = 2
    ) -> Iterator[dict[str, Array]]:
        """The outputs of each request, in order, with up to `in_flight` of them on the device.

        So one request's upload, another's compute and a third's download overlap. The plan of
        that many requests side by side is proved free of races before it runs. A request maps the
        names of inputs to arrays; DataError says which one is wrong.
        """
        self._process.check()
        at_least_one("in_flight", in_flight)
        return in_order(requests, in_flight, lambda inputs: self._submit(inputs, in_flight))

    def run_tapped(self, inputs: Mapping[str, Array], tap: Tap) -> dict[str, Array]:
        """As `run`, showing what every launch wrote to `tap`, with the type of its node.

        What is of another size, as a temporary tensor, is shown as bytes. Inputs that are copied
        are nodes called "<input>.h2d".
        """
        return self._submit(inputs, 1, tap, lent=True).result()

    def _submit(
        self, inputs: Mapping[str, Array], in_flight: int, tap: Tap | None = None, *,
        lent: bool = False,
    ) -> Pending:  # fmt: skip
        self._process.check()
        plain = self._ins.are(inputs)
        arrays = inputs if plain else checked(inputs, self.inputs)
        with self.lock:
            self._check_open()
            other = None if plain else self._other_for(arrays)
            self._last = other
            if other is not None:
                return other._submit(arrays, in_flight, tap, lent=lent)
            check_indexes(self._indexes, arrays)
            if self.state.active:
                self.state.begin()
                in_flight = 1  # runs that share states follow one another
            elif self._group is not None:
                self._group.check()
            session = self._take(in_flight)
            found = arrays if plain else accepted(session, arrays, self.inputs)
            lent_here = not plain and self._lies_in_other(session, found.values())
            if lent_here:
                self._collect_all()
            self._ins.put(session, found, lent)
            with self.state.at_stake() if self.state.active else nullcontext():
                session.issue(None if tap is None else typed(tap, self.rewritten))
                for storage in self._outs.storages:
                    session.fetch(storage)
            finish = partial(_finish, self._outs, self.timeout)
            if self.state.active:
                finish = partial(_finish_step, self._outs, self.timeout, self.state, self._faults)
            number = next(self._numbers)
            release = partial(self._pending.pop, number, None)
            pending = Pending(session, finish, release, self.lock, self._closing)
            self._pending[number] = pending
            if self.state.active:
                self.state.flies(pending)
            if lent_here:  # before another request overwrites what this one reads
                pending.collect()
            return pending

    def _lies_in_other(self, session: Session, inputs: Iterable[Array | DeviceArray]) -> bool:
        """Whether some of the inputs lie in the memory of requests on other sessions."""
        others = [other for other in self._sessions if other is not session]
        arrays = [array for array in inputs if isinstance(array, DeviceArray)]
        return any(other.holds(array) for other in others for array in arrays)

    def _collect_all(self) -> None:
        for pending in list(self._pending.values()):
            pending.collect()

    def _take(self, in_flight: int) -> Session:
        """A session that no request uses: an idle one, a new one, or that of the oldest request."""
        in_use = list(self._pending.values())
        if not in_use:
            return self._sessions[0]
        busy = {id(pending.session) for pending in in_use}
        if len(busy) == len(self._sessions):
            if len(self._sessions) < in_flight:
                self._add_session()
            else:
                in_use[0].collect()
                return in_use[0].session
        return next(s for s in self._sessions if id(s) not in busy)

    def _add_session(self) -> None:
        count = len(self._sessions) + 1
        if count > self._proved:
            prove(side_by_side(self.plan, count))
            self._proved = count
        session = self.device.open(self.bound, self._weights, self._sessions[0])
        self._sessions.append(session)

    def outputs_of(self, session: Session) -> dict[str, Array]:
        """The outputs of the run that `session` has just finished, the caller's own."""
        return self._outs.get(session)

    def _check_open(self) -> None:
        self._process.check()
        if self._closed:
            raise SessionClosed("the executable is closed")

    def _other_for(self, arrays: Mapping[str, Array]) -> Executable | None:
        """The executable for inputs like these; None if it is this one."""
        shapes = shapes_of(arrays)
        odd = {n: (shape, self.inputs[n].shape) for n, shape in shapes.items()
               if shape != self.inputs[n].shape}  # fmt: skip
        if odd:
            if self.state.active and not self._derived:
                self.state.check_fixed(solve_dims(self._source, shapes))
            other = None if self._derived else self._resized.find(shapes, self._like)
            if other is None:
                raise does_not_fit(self._source, self._compiled.graph.dims, odd)
            return other
        on_gpu = self.session.device_memory
        if not self._resident and any(
            is_device_array(a) or (on_gpu and is_pinned(a)) for a in arrays.values()
        ):
            return self._device_twin()
        return None

    # Device memory --------------------------------------------------------------------------

    def device_array(self, name: str) -> DeviceArray:
        """The array of an input or output in the memory of a GPU. It needs `resident=True`.

        Fill the inputs, call `replay`, and read the outputs there: no transfers are made. It has
        a `__cuda_array_interface__`, so CuPy, PyTorch and Numba can use it in place.
        Raises DataError for another name, and where it lies in the memory of the host.
        """
        program, session = self._compiled.program, self._sessions[0]
        self._check_open()
        ports = {**program.inputs, **program.outputs}
        if name not in ports:
            raise no_port(name, ports)
        if not session.device_memory:
            message = f"'{name}' lies in the memory of the host: the plan runs on the CPU"
            help = "device_array is for GPUs, host_array for the CPU"
            raise DataError([Diagnostic(message, help=help)])
        if not self._resident:
            message = f"'{name}' lies in the memory of the host: a run copies it to or from the GPU"
            help = "compile(graph, device='hip', resident=True)"
            raise DataError([Diagnostic(message, help=help)])
        return session.array(ports[name], self)

    def host_array(self, name: str) -> Array:
        """An input or output where it lies on the CPU; only if compiled for it with
        `resident=True`.

        Fill the inputs, call `replay`, and read the outputs there: nothing is copied, nor does
        `run` copy an input that is given there. Raises DataError for another name, and on a GPU.
        """
        self._check_open()
        program, session = self._compiled.program, self._sessions[0]
        ports = {**program.inputs, **program.outputs}
        if name not in ports:
            raise no_port(name, ports)
        if session.device_memory or not self._resident:
            where = "in the memory of the GPU" if session.device_memory else "in the arena"
            message = f"'{name}' lies {where}: host_array is for plans on the CPU that are resident"
            raise DataError(
                [Diagnostic(message, help="compile(graph, device='cpu', resident=True)")]
            )
        return session.host_array(ports[name])

    def replay(self, times: int = 1) -> None:
        """Run the plan on what lies in device memory `times` times, and wait for the last. Without
        `resident`, the inputs are those of the last run; the CPU reads them where they lie.

        On a GPU the runs are issued back to back: the proof covers a run behind itself. The caller
        must have waited for the work that fills the inputs. All of them may take `times` times as
        long as one. Raises DataError unless `times` is at least 1.

        If the graph has states, each run is a step that begins where the one before ended, with the
        plan and the inputs of the last `run`.
        """
        self._process.check()
        at_least_one("times", times)
        with self.lock:
            self._check_open()
            if self._last is not None and self.state.active:
                self._last.replay(times)
                return
            if self.state.active:
                self._steps(times)
                return
            self._collect_all()  # `device_array` is the first session's memory
            self._sessions[0].issue(times=times)
            self._sessions[0].wait(None if self.timeout is None else self.timeout * times)

    def _steps(self, times: int) -> None:
        """As `replay`, with states."""
        self.state.begin()
        self._collect_all()
        session = self._sessions[0]
        with self.state.at_stake():
            session.issue(times=times)
            session.wait(None if self.timeout is None else self.timeout * times)
        self.state.end(self._faults, times)

    # States ---------------------------------------------------------------------------------

    def reset(self) -> None:
        """Give every state the value that it had before the first run."""
        self._check_open()
        self.state.reset()

    def save_state(self, path: str | Path) -> None:
        """Write all states to an .npz file. Raises DataError if it cannot be written."""
        self._check_open()
        self.state.save(path)

    def load_state(self, path: str | Path) -> None:
        """Give every state the value in a file that `save_state` wrote for this graph.

        Raises DataError, and changes nothing, if the file is of another graph, or not sound.
        """
        self._check_open()
        self.state.load(path)

    def lends_to(self, graph: Graph, device: Device) -> None:
        """DataError unless an executable of `graph` on `device` can use the weights of this one."""
        self._check_open()
        why = "" if graph == self._source else "the graph is another one"
        why = why or ("" if device == self._asked else "the device is another one")
        if why:
            message = f"weights cannot be those of this executable: {why}"
            raise DataError([Diagnostic(message)])

    def _device_twin(self) -> Executable:
        """The same graph with its inputs and outputs in device memory, made when first needed."""
        if self._twin is None:
            self._twin = self._like(self._source, resident=True)
        return self._twin

    def _like(self, graph: Graph, resident: bool | None = None) -> Executable:
        return Executable(
            graph, self._plan, self.device, timeout=self.timeout, base=self,
            resident=self._resident if resident is None else resident,
        )  # fmt: skip

    # Ending ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for what is running, then free everything. A second call does nothing.

        Requests in flight are finished: `result()` still returns their outputs.
        """
        self._process.check()
        with self.lock:
            if self._closed:
                return
            self._collect_all()
            self._closed = True
            self._release()

    def _release(self) -> None:
        """Free everything, unless the weights are lent to others: then when the last one closes."""
        if self._lent:
            return
        with self._closing, ExitStack() as steps:  # in reverse order, whatever fails
            if self._lender is not None:
                steps.callback(self._lender._given_back)
            for session in self._sessions:  # the first one owns the weights
                steps.callback(session.close)
            steps.callback(self._resized.close)
            if self._twin is not None:
                steps.callback(self._twin.close)

    def _given_back(self) -> None:
        """One to which weights were lent is closed."""
        with self.lock:
            self._lent -= 1
            if self._closed:
                self._release()

    def __enter__(self) -> Executable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._process.here:  # what is to be freed is not in a fork
            return
        try:
            self.close()
        except ExecutionError:
            if exc is None:  # else the first error is raised
                raise

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from graphexec.views.notebook import plan_cell

        return plan_cell(self.plan, repr(self))

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"Executable({self.plan.graph!r} on {self.device_name}{state})"


def _finish(outputs: Ports, timeout: float | None, session: Session) -> dict[str, Array]:
    session.wait(timeout)
    return outputs.get(session)


def _finish_step(
    outputs: Ports, timeout: float | None, states: States, faults: Faults, session: Session
) -> dict[str, Array]:
    with states.at_stake():
        session.wait(timeout)
    states.end(faults)
    return outputs.get(session)


def stored(graph: TypedGraph) -> dict[str, TypedWeight]:
    """The weights, and what states begin with, that are in files."""
    begins = {name: state.init for name, state in graph.states.items()}
    found = {**graph.weights, **{n: b for n, b in begins.items() if isinstance(b, TypedWeight)}}
    return {name: weight.whole for name, weight in found.items()}


def _same_weights(one: Compiled, other: Compiled) -> bool:
    """Whether two programs have the same weights at the same places."""
    mine, theirs = one.program.weights, other.program.weights
    return bool(mine) and mine == theirs and all(
        one.bound.places[v.storage] == other.bound.places[v.storage] for v in mine.values()
    )  # fmt: skip


def _read_weights(compiled: Compiled, read: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of a program by name; those that were `read` before are not read again."""
    names = compiled.program.weights
    weights, mistakes = {name: read[name] for name in names if name in read}, []
    missing = [name for name in names if name not in read]
    with WeightFiles() as files:
        for name in tracked("reading weights", missing, len(missing)):
            try:
                weights[name] = files.read(compiled.graph.weights[name])
            except WeightError as exc:
                mistakes.append(Diagnostic(f"weight '{name}': {exc}", help=exc.help))
    if mistakes:
        raise DataError(mistakes)
    return weights
