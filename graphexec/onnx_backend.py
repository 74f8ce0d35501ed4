"""graphexec as a backend of ONNX: what `onnx.backend.base.Backend` offers, as functions.

    from graphexec import onnx_backend

    rep = onnx_backend.prepare(onnx.load("model.onnx"), device="CPU")
    outputs = rep.run([x, y])

A model is compiled for the shapes that a run is given. Operands that decide shapes (axes, sizes)
are known to the compiler: where they are inputs, there is one cached plan for each of their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

try:
    import onnx
    from onnx.backend.base import Backend, BackendRep, DeviceType
    from onnx.backend.base import Device as OnnxDevice
except ImportError as exc:
    raise ImportError("graphexec.onnx_backend needs the package onnx: "
                      "pip install 'graphexec[onnx]'") from exc  # fmt: skip

from graphexec.api import compile
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError, DeviceUnavailable
from graphexec.base.tensor import Array
from graphexec.frontend.onnx.convert import ConversionError, Converter
from graphexec.frontend.onnx.model import read_model
from graphexec.runtime.executable import Executable
from graphexec.runtime.find import find_device

_MOST_KEPT = 16  # plans of a model


class GraphexecRep(BackendRep):  # type: ignore[misc]
    """A model that is ready to run. Its plans are closed with it."""

    def __init__(self, model: Any, device: str) -> None:
        self._folder = TemporaryDirectory(prefix="graphexec-onnx-")
        self._path = Path(self._folder.name, "model.onnx")
        self._model, self._device = model, device
        self._path.write_bytes(model.SerializeToString())
        weights = {i.name for i in model.graph.initializer}
        self._inputs = [i.name for i in model.graph.input if i.name not in weights]
        self._outputs = [o.name for o in model.graph.output]
        self._bound: frozenset[str] = frozenset()
        self._ready: dict[Any, tuple[Converter, Executable]] = {}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """The outputs in the model's order; `inputs` are arrays in its order, or by name.

        Raises GraphError for a model that graphexec cannot express, with each node and why.
        """
        given = self._named(inputs)
        converter, exe = self._for(given)
        arrays = {own: np.ascontiguousarray(given[name]).reshape(given[name].shape)
                  for name, own in converter.inputs.items()}  # fmt: skip
        found = exe.run(**arrays)
        return tuple(found[converter.outputs[name]] for name in self._outputs)

    def close(self) -> None:
        """Close all plans, and remove the copy of the model."""
        while self._ready:
            self._ready.popitem()[1][1].close()
        self._folder.cleanup()

    def __del__(self) -> None:
        if hasattr(self, "_ready"):
            self.close()

    def _named(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            named = dict(inputs)
        elif isinstance(inputs, np.ndarray):
            named = dict(zip(self._inputs, [inputs], strict=False))
        else:
            named = dict(zip(self._inputs, inputs, strict=False))
        missing = [name for name in self._inputs if name not in named]
        if missing:
            raise DataError([Diagnostic(f"there is no array for the input '{missing[0]}'")])
        return {name: np.asarray(array) for name, array in named.items()}

    def _for(self, given: Mapping[str, Array]) -> tuple[Converter, Executable]:
        while True:
            key = self._key(given)
            if key in self._ready:
                return self._ready[key]
            try:
                converter, exe = self._compiled(given)
            except ConversionError as exc:
                if not exc.inputs - self._bound:
                    raise
                self._bound |= exc.inputs
                continue
            if len(self._ready) >= _MOST_KEPT:
                self._ready.pop(next(iter(self._ready)))[1].close()
            self._ready[key] = converter, exe
            return converter, exe

    def _key(self, given: Mapping[str, Array]) -> Any:
        bound = tuple((n, given[n].tobytes()) for n in sorted(self._bound))
        return bound, tuple((n, a.shape, a.dtype.str) for n, a in given.items())

    def _compiled(self, given: Mapping[str, Array]) -> tuple[Converter, Executable]:
        model = read_model(self._path)
        for item in model.proto.graph.input:
            if item.name in given and item.type.HasField("tensor_type"):
                shape = item.type.tensor_type.shape
                del shape.dim[:]
                shape.SetInParent()
                for extent in given[item.name].shape:
                    shape.dim.add().dim_value = extent
        values = {name: given[name] for name in self._bound if name in given}
        converter = Converter(model, {}, None, "model", values)
        return converter, compile(converter.convert(), device=self._device)


class GraphexecBackend(Backend):  # type: ignore[misc]
    """The functions of this module as a class, as ONNX's test runner takes them."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> GraphexecRep:
        """A model that is ready to run on "CPU", or on a GPU, "CUDA" or "HIP"."""
        return GraphexecRep(model, _device(device))

    @classmethod
    def run_model(
        cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Array, ...]:
        """The outputs of one run."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None, **kwargs: Any,
    ) -> tuple[Array, ...]:  # fmt: skip
        """The outputs of one node; `opset_version` is the newest by default."""
        arrays = [np.asarray(array) for array in inputs]
        names = [name for name in node.input if name]
        values = [onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape,
        ) for name, array in zip(names, arrays, strict=True)]  # fmt: skip
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", values, outputs)
        opset = kwargs.pop("opset_version", 25)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether a device can be used on this machine."""
        try:
            return bool(find_device(_device(device)))
        except (DeviceUnavailable, ValueError, AttributeError):
            return False


def _device(name: str) -> str:
    """Our name of a device by ONNX's."""
    kind = name.partition(":")[0].upper()
    if kind in ("HIP", "ROCM", "GPU"):
        return "hip"
    return "cpu" if OnnxDevice(name).type == DeviceType.CPU else "hip"


prepare = GraphexecBackend.prepare
run_model = GraphexecBackend.run_model
run_node = GraphexecBackend.run_node
supports_device = GraphexecBackend.supports_device

__all__ = ["GraphexecBackend", "GraphexecRep", "prepare", "run_model", "run_node",
           "supports_device"]  # fmt: skip
