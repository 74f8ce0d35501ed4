"""A compiled graph loaded on a device: NumPy in, NumPy out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphexec.diagnostics import Diagnostic, did_you_mean
from graphexec.errors import DataError, SessionClosed
from graphexec.plan import Plan
from graphexec.tensor import TensorType, View
from graphexec.weights import WeightError, read_weight

if TYPE_CHECKING:
    from graphexec.devices.base import Device, Tap
    from graphexec.pipeline import Compiled
    from graphexec.typed import TypedGraph

Array = np.ndarray[Any, Any]


class Executable:
    """A plan with the device memory, streams and events to run it; made by `compile`.

    Owns them until `close()`. Runs from several threads take turns.
    """

    def __init__(self, compiled: Compiled, device: Device) -> None:
        """Load `compiled` on `device`: takes memory and uploads the weights."""
        self._compiled = compiled
        self.device_name = device.name
        self.device = device
        self.inputs: Mapping[str, TensorType] = compiled.graph.inputs
        self.outputs: Mapping[str, TensorType] = {
            name: TensorType(v.shape, v.dtype, "host") for name, v in compiled.program.outputs.items()
        }
        weights = {}
        for name in compiled.program.weights:
            try:
                weights[name] = read_weight(compiled.graph.weights[name])
            except WeightError as exc:
                raise DataError([Diagnostic(str(exc), help=exc.help)]) from exc
        self._session = device.open(compiled.plan, weights)
        self._lock = threading.Lock()
        self._closed = False

    @property
    def graph(self) -> TypedGraph:
        """The graph as the user wrote it, with types."""
        return self._compiled.graph

    @property
    def plan(self) -> Plan:
        """The plan that runs: print it, or see its to_json() and to_dot()."""
        return self._compiled.plan

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Run the plan once and return the outputs by name, as new arrays.

        Every input must be given, with exactly its shape and dtype (bf16 is ml_dtypes.bfloat16);
        others raise DataError, all mistakes at once. Raises ExecutionError when a command fails;
        the executable stays usable.
        """
        return self.run_tapped(inputs, None)

    def run_tapped(self, inputs: Mapping[str, Array], tap: Tap | None) -> dict[str, Array]:
        """As `run`, showing what every launch wrote to `tap`."""
        arrays = self._checked(inputs)
        with self._lock:
            if self._closed:
                raise SessionClosed("the executable is closed")
            for name, view in self._compiled.program.inputs.items():
                self._host(view)[...] = arrays[name]
            self._session.run(tap)
            return {n: self._host(v).copy() for n, v in self._compiled.program.outputs.items()}

    def close(self) -> None:
        """Wait for a run in progress, then free everything. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._session.close()

    def __enter__(self) -> Executable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"Executable({self.plan.graph!r} on {self.device_name}{state})"

    def _host(self, view: View) -> Array:
        raw = self._session.host(view.storage)
        return raw.view(view.dtype.numpy()).reshape(view.shape)

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
            arrays[name] = array = np.asarray(inputs[name])
            if array.shape != type.shape or array.dtype != type.dtype.numpy():
                found = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
                help = ""
                if array.dtype != type.dtype.numpy():
                    help = f"convert it: {name}.astype({type.dtype.numpy().name!r})"
                mistakes.append(
                    Diagnostic(f"input '{name}' must be {type}, found {found}", help=help)
                )
        if mistakes:
            raise DataError(mistakes)
        return arrays
