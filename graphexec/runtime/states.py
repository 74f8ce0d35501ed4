"""The states of an executable: tensors on the device that are kept from run to run.

They belong to the executable that was compiled; those for other sizes of its inputs use the same
memory. Runs that change them follow one another. With several ranks, all of them call each method;
rank 0 writes files.

A run that fails because rows do not fit (the fault word says so) leaves them as the last good step
did. After any other failure of a run they are lost: it may have changed some of them. Then runs are
refused until `reset`, `load`, or every state is assigned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from graphexec.base.diagnostics import Diagnostic, did_you_mean
from graphexec.base.errors import DataError, ExecutionError
from graphexec.base.npy import NpyError, NpzFile
from graphexec.base.tensor import Array, DType, TensorType
from graphexec.formats.arrays import write_archive
from graphexec.frontend.weight_paths import WeightError
from graphexec.frontend.weights import WeightFiles
from graphexec.graph.states import dims_of_states
from graphexec.ir.names import port_buffer
from graphexec.ir.program import FAULT
from graphexec.ir.typed import TypedState, TypedWeight
from graphexec.runtime.ranks.agree import agree, together
from graphexec.runtime.ranks.parts import Assembly, taken

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.runtime.device import Session
    from graphexec.runtime.pending import Pending
    from graphexec.runtime.ranks.group import Group

_HASH = "#graph"  # the entry of a file with the hash of the graph; no state has such a name
_HASH_TYPE = TensorType((32,), DType.U8)


@dataclass(frozen=True)
class Faults:
    """The nodes that may set the fault word of a plan, by their numbers from 1."""

    nodes: Sequence[str]

    def error(self, number: int, step: int, steps: int) -> ExecutionError:
        """What a fault word says: the node, and the step of so many."""
        node = self.nodes[number - 1] if 0 < number <= len(self.nodes) else None
        where = f" in step {step} of {steps}" if steps > 1 else ""
        return ExecutionError(f"its rows do not fit into the tensor{where}; the states are those "
                              "of the last good step", node)  # fmt: skip


class States(Mapping[str, Array]):
    """The states by name, as copies in the host's memory; assignment replaces one.

    `lock` is held by whoever uses the sessions of the executable.
    """

    def __init__(self, states: Mapping[str, TypedState], graph: Graph, session: Session,
                 lock: RLock, has_fault: bool, group: Group | None = None) -> None:  # fmt: skip
        self._parts = {name: state.part for name, state in states.items() if state.part}
        self._local = {name: state.type for name, state in states.items()}
        self.types = {
            name: replace(type, shape=self._parts[name].shape) if name in self._parts else type
            for name, type in self._local.items()
        }
        self._assembly = None if group is None else Assembly(group)
        self.fixed = {dim: (state, graph.dims[dim]) for dim, state in dims_of_states(graph).items()}
        self._graph = graph
        self._session, self._lock, self._group = session, lock, group
        zeros = {name for name, state in states.items() if state.init == 0}
        self._begin: dict[str, Array | None] = {
            name: None if name in zeros else array for name, array in beginnings(states).items()
        }
        self._pending: Pending | None = None
        self._unset: set[str] = set()  # lost, and not assigned since
        self._why = ""
        self._steps = 0  # that the fault word has counted
        self._frozen = False
        self._has_fault = has_fault
        self._restart(self._begin)

    # Values ---------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Array:
        """A copy of a state, with its shape and dtype. Waits for runs in flight."""
        with self._lock:
            self._known(name)
            self.settle()
            self._check_lost()
            found, part = self._read(name), self._parts.get(name)
            if part is None:
                return found
            assert self._assembly is not None
            return self._assembly.whole(found, part)

    def __setitem__(self, name: str, value: Array) -> None:
        """Replace a state by an array of exactly its shape and dtype. Waits for runs in flight."""
        with self._lock:
            self._known(name)
            array = _fitting(name, value, self.types[name])
            self.settle()
            self._write(name, self._own(name, array))
            self._unset.discard(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.types)

    def __len__(self) -> int:
        return len(self.types)

    @property
    def active(self) -> bool:
        """Whether runs change what is kept: a state, or the fault word of rows that may not fit."""
        return bool(self.types) or self._has_fault

    @cached_property
    def hash(self) -> bytes:
        """Equal for graphs that are the same but for dims that states do not have."""
        free = {dim: 1 for dim in self._graph.dims if dim not in self.fixed}
        return sha256(self._graph.with_dims(**free).to_yaml().encode()).digest()

    def __repr__(self) -> str:
        return f"States({', '.join(f'{name}: {type}' for name, type in self.types.items())})"

    def check_fixed(self, dims: Mapping[str, int]) -> None:
        """DataError if inputs imply another value for a dim of a state."""
        mistakes = [
            self._graph.error(
                f"the inputs imply {dim}={dims[dim]}, but state '{state}' has {dim}={extent}",
                self._graph.states[state], "shape",
                help="dims of states are fixed when the executable is compiled",
            )
            for dim, (state, extent) in self.fixed.items() if dims.get(dim, extent) != extent
        ]  # fmt: skip
        if mistakes:
            raise DataError(mistakes)

    def reset(self) -> None:
        """Give every state the value that it had before the first run."""
        with self._lock:
            self.settle()
            self._restart(self._begin)

    def save(self, path: str | Path) -> None:
        """Write all states to an .npz file, with the hash of the graph."""
        place = Path(path)
        if place.suffix.lower() != ".npz":
            raise DataError([Diagnostic(f"states are saved in one .npz file, not in '{path}'")])
        found = {name: self[name] for name in self}
        arrays = {n: a.view(np.uint16) if a.dtype == DType.BF16.numpy() else a
                  for n, a in found.items()}  # fmt: skip
        arrays[_HASH] = np.frombuffer(self.hash, np.uint8)
        first = self._group is None or self._group.rank == 0
        together(self._group, lambda: write_archive(place, arrays) if first else None)

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote: all states, or none if anything is wrong (DataError)."""
        arrays = together(self._group, lambda: self._loaded(Path(path)))
        if self._group is not None:
            contents = sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values()))
            agree(self._group, {f"what is in '{path}'": contents.hexdigest()[:12]})
        with self._lock:
            self.settle()
            self._restart({name: self._own(name, array) for name, array in arrays.items()})

    def _loaded(self, path: Path) -> dict[str, Array]:
        mistakes: list[Diagnostic] = []
        found: dict[str, Array] = {}
        try:
            with closing(NpzFile(path)) as archive:
                self._check_file(path, archive)
                for name, type in self.types.items():
                    try:
                        found[name] = archive.fetch(name, type)
                    except NpyError as exc:
                        mistakes.append(exc.diagnostic(f"state '{name}': "))
        except NpyError as exc:
            mistakes.append(exc.diagnostic())
        if mistakes:
            raise DataError(mistakes)
        return found

    def _check_file(self, path: Path, archive: NpzFile) -> None:
        if _HASH not in archive.keys:
            raise NpyError(f"'{path}' is no file of states",
                           help="save_state and run --save-state write one")  # fmt: skip
        missing = [name for name in self.types if name not in archive.keys]
        if bytes(archive.fetch(_HASH, _HASH_TYPE)) != self.hash or missing:
            lacks = f": it lacks '{missing[0]}'" if missing else ""
            raise NpyError(f"'{path}' has the states of another graph{lacks}")

    # Runs -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait for the run in flight, if there is one. Its error is its own."""
        if self._pending is not None:
            self._pending.collect()
            self._pending = None

    def begin(self) -> None:
        """Before a run: wait for the one before, and refuse if a state is lost."""
        self.settle()
        if self._group is not None:
            with self.at_stake():
                self._group.check()
        self._check_lost()

    def flies(self, pending: Pending) -> None:
        """A run that was issued, for which the next one waits."""
        self._pending = pending

    @contextmanager
    def at_stake(self) -> Iterator[None]:
        """Where a run may fail: then the states are lost."""
        try:
            yield
        except BaseException as exc:
            self._unset, self._why = set(self.types), str(exc) or type(exc).__name__
            raise

    def end(self, faults: Faults, steps: int = 1) -> None:
        """After a run of so many steps: raise ExecutionError if rows did not fit."""
        if not self._has_fault or self._frozen:
            return
        with self.at_stake():
            number, counted = self._session.read_state(FAULT).view(np.int32).tolist()
            step, self._steps = counted - self._steps, counted
            if number:
                self._clear_fault()
        if number:
            raise faults.error(number, step, steps)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """States are afterwards as they were: for runs that are only measured."""
        with self._lock:
            self.settle()
            before = {name: self._read(name) for name in self}
            try:
                yield
            finally:
                self.settle()
                self._restart(before)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every run is the same step: for measuring many of them. Where rows may not fit, the fault
        word is set meanwhile, so that nothing is written to states; elsewhere they change, and are
        as they were afterwards."""
        with self.unchanged():
            self._frozen = self._has_fault
            try:
                if self._has_fault:
                    self._session.write_state(FAULT, np.array([-1, 0], np.int32).view(np.uint8))
                yield
            finally:
                self.settle()
                self._frozen = False

    # Memory ---------------------------------------------------------------------------------

    def _restart(self, values: Mapping[str, Array | None]) -> None:
        """Give every state a value; None is zeros."""
        with self.at_stake():
            for name, value in values.items():
                self._write(name, value)
            if self._has_fault:
                self._clear_fault()
        self._unset.clear()

    def _clear_fault(self) -> None:
        self._session.write_state(FAULT, None)
        self._steps = 0

    def _write(self, name: str, value: Array | None) -> None:
        content = None
        if value is not None:
            content = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        self._session.write_state(port_buffer(name, "state"), content)

    def _own(self, name: str, value: Array) -> Array:
        """This rank's part of a value."""
        part = self._parts.get(name)
        return value if part is None else taken(value, part.begin, self._local[name].shape)

    def _read(self, name: str) -> Array:
        type = self._local[name]
        raw = self._session.read_state(port_buffer(name, "state"))
        return raw.view(type.dtype.numpy()).reshape(type.shape)

    def _known(self, name: str) -> None:
        if name not in self.types:
            help = did_you_mean(str(name), self.types) or f"there are {', '.join(self.types)}"
            raise DataError([Diagnostic(f"the graph has no state '{name}'", help=help)])

    def _check_lost(self) -> None:
        if self._unset:
            names = ", ".join(f"'{name}'" for name in sorted(self._unset)[:5])
            raise ExecutionError(
                f"the states are lost since a run failed ({self._why}); reset(), load_state() or "
                f"assigning them gives them a value again: {names}"
            )


def _fitting(name: str, value: Array, type: TensorType) -> Array:
    found = np.asarray(value)
    if found.shape != type.shape or found.dtype != type.dtype.numpy():
        shape = ", ".join(map(str, found.shape))
        message = f"state '{name}' must be {type}, found {found.dtype}[{shape}]"
        raise DataError([Diagnostic(message)])
    return found


def beginnings(states: Mapping[str, TypedState]) -> dict[str, Array]:
    """What each state begins with."""
    found: dict[str, Array] = {}
    mistakes = []
    with WeightFiles() as files:
        for name, state in states.items():
            type = state.type
            try:
                if isinstance(state.init, TypedWeight):
                    found[name] = files.read(state.init)
                else:
                    one = np.array(state.init, type.dtype.numpy())
                    found[name] = np.broadcast_to(one, type.shape)  # takes no memory
            except WeightError as exc:
                mistakes.append(Diagnostic(f"state '{name}': {exc}", help=exc.help))
    if mistakes:
        raise DataError(mistakes)
    return found
