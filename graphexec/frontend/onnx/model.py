"""An ONNX file: its message, and the elements of its tensors, which stay in the file until asked.

Guarantees of `read_model`: it is one graph whose nodes read only what stands before them, so there
is no cycle; every name is made once; functions of the model's own are written out.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.base.reading import open_file
from graphexec.base.tensor import Array, DType
from graphexec.frontend.onnx.skeleton import Buffer, Damaged, Place, skeleton
from graphexec.frontend.weight_paths import WeightError, located

try:
    import onnx as onnx
    from google.protobuf.message import DecodeError
    from onnx import external_data_helper, numpy_helper
except ImportError:  # said by `read_model`
    onnx = None

NEEDED = "pip install 'graphexec[onnx]'"
OLDEST, NEWEST = 13, 28  # opsets
MAX_NODES = 200_000
_LARGEST_MESSAGE = 1 << 30  # without the elements of weights

DTYPES = {1: DType.F32, 2: DType.U8, 3: DType.I8, 6: DType.I32, 7: DType.I64, 9: DType.BOOL,
          10: DType.F16, 11: DType.F64, 16: DType.BF16}  # fmt: skip
"""Ours by the number that ONNX gives to an element type."""


def error(path: object, message: str, *notes: str, help: str = "") -> GraphError:
    """A mistake of a model's file."""
    return GraphError([Diagnostic(f"'{path}': {message}", notes=notes, help=help)])


@dataclass
class Model:
    """A model: `proto` has no elements of large weights, which are at `places` in `data`."""

    path: Path
    proto: Any
    data: Buffer
    places: Mapping[str, Place]
    opset: int
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._folder = self.path.parent

    def array(self, tensor: Any) -> Array:
        """The elements of a tensor. WeightError where its file has other bytes than it says."""
        shape, dtype = tuple(tensor.dims), element_type(tensor)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raw: Any = self._external(tensor)
        elif tensor.name in self.places and not tensor.raw_data:
            place = self.places[tensor.name]
            raw = np.frombuffer(self.data, np.uint8, place.length, place.offset)
        else:
            with _damaged(tensor):
                return np.asarray(numpy_helper.to_array(tensor), dtype.numpy())
        with _damaged(tensor):
            return np.frombuffer(raw, dtype.numpy()).reshape(shape)

    def _external(self, tensor: Any) -> Any:
        with _damaged(tensor):
            info = external_data_helper.ExternalDataInfo(tensor)
            offset, length = int(info.offset or 0), int(info.length or -1)
        path = located(self._folder, None, info.location)
        with _damaged(tensor):
            if length < 0:
                length = path.stat().st_size - offset
            return np.memmap(path, np.uint8, "r", offset, (length,))

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Initializers, and the tensors of nodes `Constant`, by name."""
        for tensor in self.proto.graph.initializer:
            yield tensor.name, tensor
        for node in self.proto.graph.node:
            if node.op_type == "Constant" and node.output:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        yield node.output[0], attribute.t


class _damaged:
    """Errors of bytes that do not fit a tensor as WeightErrors."""

    def __init__(self, tensor: Any) -> None:
        self._name = tensor.name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, exc: BaseException | None, trace: Any) -> None:
        if isinstance(exc, (ValueError, TypeError, OSError, OverflowError, MemoryError)):
            raise WeightError(f"the elements of '{self._name}' are damaged: {exc}") from exc


def element_type(tensor: Any) -> DType:
    """The type of a tensor's elements. WeightError for one that there is not."""
    found = DTYPES.get(tensor.data_type)
    if found is None:
        raise WeightError(f"'{tensor.name}' has elements of type {type_name(tensor.data_type)}")
    return found


def type_name(number: int) -> str:
    """What ONNX calls an element type."""
    with suppress(ValueError):
        return str(onnx.TensorProto.DataType.Name(number).lower())
    return f"number {number}"


def read_model(path: str | Path) -> Model:
    """The model in a file. GraphError where it is damaged, or of an opset that is not read."""
    if onnx is None:
        raise error(path, "reading .onnx needs another package", help=NEEDED)
    model = opened(Path(path))
    _check(model)
    return model


def opened(path: Path) -> Model:
    """The model in a file, unchecked. GraphError where it is no message."""
    try:
        with open_file(path) as file:
            file.seek(0, 2)
            size = file.tell()
            data: Buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise GraphError([Diagnostic(f"cannot read '{path}': {reason}")]) from exc
    return _parsed(path, data)


def _parsed(path: Path, data: Buffer) -> Model:
    try:
        message, places = skeleton(data)
        if len(message) > _LARGEST_MESSAGE:
            raise Damaged("it has more than 1 GiB beside the elements of its weights")
        proto = onnx.ModelProto.FromString(message)
    except (Damaged, DecodeError) as exc:
        raise error(path, f"this is no ONNX model, or it is damaged: {exc}") from exc
    if not proto.graph.node and not proto.graph.output:
        raise error(path, "this is no ONNX model: it has no graph")
    if proto.functions:
        proto = _without_functions(path, proto)
    found = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    return Model(path, proto, data, places, max(found, default=NEWEST))


def _without_functions(path: Path, proto: Any) -> Any:
    from onnx import inliner

    _check_functions(path, proto)
    try:
        return inliner.inline_local_functions(proto)
    except Exception as exc:
        raise error(path, f"its functions cannot be written out: {exc}") from exc


def _check_functions(path: Path, proto: Any) -> None:
    """GraphError where functions call one another in a circle, or would make too many nodes."""
    bodies = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    open_: set[tuple[str, str]] = set()

    def size(nodes: Any) -> int:
        return sum(body_size((n.domain, n.op_type)) for n in nodes)

    def body_size(name: tuple[str, str]) -> int:
        if name not in bodies:
            return 1
        if name in open_ or len(open_) > 100:
            raise error(path, f"the function '{name[1]}' calls itself, or too many others")
        if name not in sizes:
            open_.add(name)
            sizes[name] = size(bodies[name].node)
            open_.discard(name)
        return sizes[name]

    if size(proto.graph.node) > MAX_NODES:
        raise error(path, f"its functions written out are more than {MAX_NODES:,} nodes")


def _check(model: Model) -> None:
    path, graph = model.path, model.proto.graph
    if model.opset > NEWEST:
        raise error(path, f"the model is of opset {model.opset}; {OLDEST} to {NEWEST} are read",
                    help="onnx.version_converter converts models")  # fmt: skip
    if len(graph.node) > MAX_NODES:
        raise error(path, f"the model has more than {MAX_NODES:,} nodes")
    if not all(isinstance(text, str) for text in _texts(graph)):
        raise error(path, "this is no ONNX model, or it is damaged: a name is no text")
    problems = list(_order(graph))
    if problems:
        raise GraphError([Diagnostic(f"'{path}': {p}") for p in problems[:20]])


def _texts(graph: Any) -> Iterator[Any]:
    """All names; the parser leaves what is not UTF-8 as bytes."""
    for item in (*graph.input, *graph.output, *graph.initializer):
        yield item.name
    for item in graph.input:
        yield from (dim.dim_param for dim in item.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            yield attribute.ref_attr_name
            if attribute.HasField("g"):
                yield from _texts(attribute.g)


def _order(graph: Any) -> Iterator[str]:
    """What is wrong with the order of nodes and with names."""
    made = {i.name for i in graph.initializer} | {i.name for i in graph.input} | {""}
    for node in graph.node:
        called = f"node '{node.name or node.op_type}' ({node.op_type})"
        for name in node.input:
            if name not in made:
                yield f"{called} reads '{name}', which nothing before it makes"
                made.add(name)
        for name in node.output:
            if name and name in made:
                yield f"{called} makes '{name}', which exists already"
            made.add(name)
    for output in graph.output:
        if output.name not in made:
            yield f"nothing makes the output '{output.name}'"
