"""A model to a Graph: walks the nodes in order, and asks the table of handlers for each.

Every node becomes nodes of the graph, or is computed now because it is arithmetic of shapes. What
cannot be expressed is said at once, with the names of all such nodes; nothing falls back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from graphexec.base.collector import collector_paused
from graphexec.base.diagnostics import Diagnostic, did_you_mean
from graphexec.base.errors import GraphError
from graphexec.base.tensor import Array, DType
from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.extents import Extent, Poly, Undecided, stated
from graphexec.frontend.onnx.fold import folded, split
from graphexec.frontend.onnx.handlers import HANDLERS, Handler
from graphexec.frontend.onnx.library import expansion, since_when
from graphexec.frontend.onnx.model import DTYPES, Model, error, onnx, type_name
from graphexec.frontend.onnx.naming import Names, common_folder
from graphexec.frontend.onnx.prune import pruned
from graphexec.frontend.onnx.values import NeedsConstant, Node, Unsupported, Value, constant, empty
from graphexec.frontend.weight_paths import WeightError
from graphexec.ir.graph import Graph
from graphexec.ir.op import Op

_MOST_SHOWN = 50  # nodes that are not supported
_MOST_DEEP = 8  # functions within one another


class ConversionError(GraphError):
    """A model cannot be expressed; `inputs` are those whose values would have to be known."""

    inputs: frozenset[str] = frozenset()


class _Unread(Exception):
    """A node reads what a node makes that could not be read."""


class Converter:
    """Reads one model. `names` are those of inputs and outputs in the graph, by the model's."""

    def __init__(
        self, model: Model, dims: Mapping[str, int], ops: Mapping[str, Op] | None, name: str,
        values: Mapping[str, Array],
    ) -> None:  # fmt: skip
        self.model, self._dims, self._given = model, dims, values
        graph = Graph(name, ops=ops, folder=model.path.parent, file=model.path.name)
        made = (name for node in model.proto.graph.node for name in node.output)
        self._names = Names(common_folder(made))
        self._build = Builder(graph, self._names)
        self._values: dict[str, Value | None] = {"": None}
        self._symbols: dict[str, str] = {}
        self._problems: list[Diagnostic] = []
        self._needed: frozenset[str] = frozenset()
        self._unread: set[str] = set()
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}

    def convert(self) -> Graph:
        """The graph. Raises ConversionError with everything that is not supported."""
        with collector_paused():
            self._read_dims()
            self._read_weights()
            self._read_inputs()
            graph = self.model.proto.graph
            self._build.uses.update(name for node in graph.node for name in node.input)
            self._build.uses.update(output.name for output in graph.output)
            for proto in self.model.proto.graph.node:
                self._read_node(proto, self._values, 0)
            self._read_outputs()
        if self._problems:
            raise self._failure()
        return pruned(self._build.graph)

    # Inputs -------------------------------------------------------------------------------

    def _read_dims(self) -> None:
        """Names of dims are taken first, so that they stay as they are."""
        for item in self.model.proto.graph.input:
            for dim in item.type.tensor_type.shape.dim:
                if _says_which(dim.dim_param) and dim.dim_param not in self._symbols:
                    self._symbols[dim.dim_param] = self._names.symbol(dim.dim_param)
        for name in self._symbols.values():
            self._build.graph.dims[name] = self._dims.get(name, 1)

    def _read_weights(self) -> None:
        for tensor in self.model.proto.graph.initializer:
            self._values[tensor.name] = self._stored(tensor.name, tensor)

    def _stored(self, name: str, tensor: Any) -> Value | None:
        dtype = DTYPES.get(tensor.data_type)
        if dtype is None:
            return self._refuse(f"'{name}' has elements of type {type_name(tensor.data_type)}",
                                [name])  # fmt: skip
        shape = tuple(int(e) for e in tensor.dims)
        load = partial(self._loaded, tensor)
        return Value(name, dtype, shape, key=name, _data=load)

    def _loaded(self, tensor: Any) -> Array:
        try:
            return self.model.array(tensor)
        except WeightError as exc:
            raise error(self.model.path, str(exc), help=exc.help) from exc

    def _read_inputs(self) -> None:
        for item in self.model.proto.graph.input:
            if item.name in self._values:  # a weight with a default
                continue
            self._values[item.name] = self._input(item)
        for name, extent in self._dims.items():
            if not isinstance(extent, int) or isinstance(extent, bool) or extent < 1:
                self._problems.append(
                    Diagnostic(f"dim '{name}' is {extent!r}, not a whole number from 1 on")
                )
        unknown = [d for d in self._dims if d not in self._build.graph.dims]
        for name in unknown:
            self._problems.append(Diagnostic(
                f"'{self.model.path}': the model has no dim '{name}'",
                help=did_you_mean(name, self._build.graph.dims)))  # fmt: skip

    def _input(self, item: Any) -> Value | None:
        type = item.type.tensor_type
        dtype = DTYPES.get(type.elem_type) if item.type.HasField("tensor_type") else None
        given = self._given.get(item.name)
        if dtype is None:
            kind = type_name(type.elem_type) if item.type.HasField("tensor_type") else "no tensor"
            return self._refuse(f"the input '{item.name}' is {kind}", [item.name])
        if given is not None:
            return constant(item.name, given.astype(dtype.numpy()), dtype)
        if not type.HasField("shape"):
            return self._refuse(f"the input '{item.name}' has no shape", [item.name])
        name = self._names.new(item.name)
        shape = tuple(self._extent(d, name, n) for n, d in enumerate(type.shape.dim))
        if 0 in shape:  # it says nothing but its shape
            return empty(item.name, shape, dtype)
        self._build.graph.input(name, [stated(e) for e in shape], dtype.value)
        self.inputs[item.name] = name
        return Value(item.name, dtype, shape, tensor=name, inputs=frozenset((item.name,)))

    def _extent(self, dim: Any, tensor: str, axis: int) -> Extent:
        if dim.HasField("dim_value") and dim.dim_value >= 0:  # some write -1 for any
            return int(dim.dim_value)
        if _says_which(dim.dim_param):
            return Poly.named(self._symbols[dim.dim_param])
        name = self._names.symbol(f"{tensor}_{axis}")
        self._build.graph.dims[name] = self._dims.get(name, 1)
        return Poly.named(name)

    # Nodes --------------------------------------------------------------------------------

    def _read_node(self, proto: Any, values: dict[str, Value | None], depth: int) -> None:
        outputs = tuple(proto.output)
        try:
            node = self._node(proto, values)
            made = self._made(node, proto, values, depth)
            for name, value in zip(outputs, made, strict=False):
                values[name] = value
            missing = [n for n, v in zip_longest(outputs, made) if n and v is None]
            if missing:
                raise Unsupported(f"its output '{missing[0]}'")
        except _Unread:
            self._unread.update(outputs)
        except (Unsupported, Undecided, WeightError, ValueError, TypeError, GraphError) as exc:
            if isinstance(exc, NeedsConstant):
                self._needed |= exc.inputs
            reason = exc.diagnostics[0].message if isinstance(exc, GraphError) else str(exc)
            if isinstance(exc, Undecided):
                reason = f"the model must say {reason}"
            self._refuse(f"node {_called(proto)}: {reason}", outputs)

    def _node(self, proto: Any, values: Mapping[str, Value | None]) -> Node:
        if any(name in self._unread for name in proto.input):
            raise _Unread
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        missing = [name for name in proto.input if name not in values]
        if missing:
            raise Unsupported(f"nothing makes '{missing[0]}'")
        inputs = tuple(values[name] for name in proto.input)
        return Node(proto.op_type, proto.name, inputs, tuple(proto.output), attrs,
                    self.model.opset)  # fmt: skip

    def _made(
        self, node: Node, proto: Any, values: Mapping[str, Value | None], depth: int
    ) -> list[Value | None]:
        if proto.domain not in ("", "ai.onnx"):
            raise Unsupported(f"the operators of '{proto.domain}' are not known")
        since = since_when(node.op, node.opset)
        if node.opset < since:
            raise Unsupported(f"this operator was another one before opset {since}")
        if node.op == "Constant":
            return [self._constant(node)]
        known = folded(node) if len(node.outputs) == 1 else None
        if known is not None:
            return [known]
        parts = split(node) if node.op == "Split" else None
        if parts is not None:
            return [*parts]
        handler = HANDLERS.get(node.op)
        self._build.node = node
        self._build.inline = lambda graph, given, part: self._inlined(
            graph, given, part, values, node, depth
        )
        if handler is not None:
            found = _asked(handler, self._build, node)
            if found is not None:
                return [found] if isinstance(found, Value) else list(found)
        return self._expanded(node, proto, depth)

    def _expanded(self, node: Node, proto: Any, depth: int) -> list[Value | None]:
        """What the operator's definition by other operators makes."""
        body = expansion(node, proto) if depth < _MOST_DEEP else None
        if body is None:
            raise Unsupported("this operator is not supported")
        values: dict[str, Value | None] = {"": None}
        padded = (*node.inputs, *(None,) * len(body.input))
        values |= dict(zip(body.input, padded, strict=False))
        inner = []
        for one in body.node:
            copied = onnx.NodeProto()
            copied.CopyFrom(one)
            _fill_attributes(copied, proto, body)
            inner.append(copied)
        names = body.output[: len(node.outputs)]
        made = self._read_inner(inner, names, values, node, "", depth)
        while made and made[-1] is None:
            made.pop()
        return made

    def _inlined(
        self, graph: Any, given: Sequence[Value | None], part: str,
        outer: Mapping[str, Value | None], node: Node, depth: int,
    ) -> list[Value]:  # fmt: skip
        """What a graph within a node makes of the values that it is given, and of outer ones."""
        if depth >= _MOST_DEEP:
            raise Unsupported("graphs nested too deeply")
        values = dict(outer)
        for tensor in graph.initializer:
            values[tensor.name] = stored = self._stored(tensor.name, tensor)
            if stored is not None:
                stored.key = None
        values |= dict(zip((i.name for i in graph.input), given, strict=False))
        names = [output.name for output in graph.output]
        made = self._read_inner(graph.node, names, values, node, part, depth)
        self._build.node = node
        if None in made:
            raise Unsupported("a graph within it that makes nothing")
        return [value for value in made if value is not None]

    def _read_inner(
        self, nodes: Iterable[Any], names: Sequence[str], values: dict[str, Value | None],
        node: Node, part: str, depth: int,
    ) -> list[Value | None]:  # fmt: skip
        """Read nodes within a node; the values of `names`. Their problems are those of the node."""
        renamed = {} if part else dict(zip(names, node.outputs, strict=False))
        before = len(self._problems)
        for one in nodes:
            copied = onnx.NodeProto()
            copied.CopyFrom(one)
            self._read_renamed(copied, values, renamed, node, part, depth)
        if len(self._problems) > before:
            reason = self._problems[before].message.rpartition(": ")[2]
            del self._problems[before:]
            raise Unsupported(f"within it, something is not supported: {reason}")
        return [values.get(name) for name in names]

    def _read_renamed(
        self, inner: Any, values: dict[str, Value | None], renamed: Mapping[str, str], node: Node,
        part: str, depth: int,
    ) -> None:  # fmt: skip
        """Read a node within a node, after which its tensors are named."""
        own = list(inner.output)
        base = ".".join(filter(None, (node.outputs[0] or node.name or node.op, part)))
        inner.output[:] = [renamed.get(n, f"{base}.{n}") if n else "" for n in own]
        outer = list(inner.output)
        self._read_node(inner, values, depth + 1)
        for name, made in zip(own, outer, strict=True):
            if made in values:
                values[name] = values[made]
            elif made in self._unread:
                self._unread.add(name)

    def _constant(self, node: Node) -> Value:
        if isinstance(node.attrs.get("value"), onnx.TensorProto):
            found = self._stored(node.outputs[0], node.attrs["value"])
            if found is None:
                raise _Unread
            if node.outputs[0] not in self._stored_names():
                found.key = None  # of a definition: it is in no file
            return found
        for key, dtype in (("value_int", DType.I64), ("value_float", DType.F32),
                           ("value_ints", DType.I64), ("value_floats", DType.F32)):  # fmt: skip
            if key in node.attrs:
                data = np.asarray(node.attrs[key], dtype.numpy())
                return constant(node.outputs[0], data, dtype)
        raise Unsupported("a constant of this type")

    def _stored_names(self) -> set[str]:
        if not hasattr(self, "_stored_keys"):
            self._stored_keys = {name for name, _ in self.model.tensors()}
        return self._stored_keys

    # Outputs ------------------------------------------------------------------------------

    def _read_outputs(self) -> None:
        for item in self.model.proto.graph.output:
            value = self._values.get(item.name)
            if value is None or item.name in self._unread:
                continue
            name = Names.new(self._output_names(), item.name)
            self._build.node = Node("Output", item.name, (), (item.name,))
            try:
                self._build.graph.output(**{name: self._build.tensor(value)})
                self.outputs[item.name] = name
            except (Unsupported, GraphError) as exc:
                self._refuse(f"the output '{item.name}': {exc}", [])

    def _output_names(self) -> Names:
        if not hasattr(self, "_outputs_named"):
            self._outputs_named = Names()
        return self._outputs_named

    def _refuse(self, message: str, outputs: Iterable[str]) -> Value | None:
        self._problems.append(Diagnostic(f"'{self.model.path}': {message}"))
        self._unread.update(n for n in outputs if n)
        return None

    def _failure(self) -> ConversionError:
        shown = self._problems[:_MOST_SHOWN]
        if len(self._problems) > len(shown):
            more = f"{len(self._problems) - len(shown)} more nodes are not supported"
            shown.append(Diagnostic(f"'{self.model.path}': {more}"))
        failure = ConversionError(shown)
        failure.inputs = self._needed
        return failure


def _asked(handler: Handler, build: Builder, node: Node) -> Value | Sequence[Value] | None:
    """What a handler makes. A node may have anything for operands and attributes: where that does
    not fit together the handler fails in whatever way, and the node is wrong."""
    try:
        return handler(build, node)
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError,
    ) as exc:  # fmt: skip
        raise Unsupported(f"its operands or attributes do not fit the operator ({exc})") from exc


def _says_which(name: str) -> bool:
    """Whether a dim is named: "?" stands for any, and each may be another one."""
    return any(c.isalnum() for c in name)


def _called(proto: Any) -> str:
    name = proto.name or next(filter(None, proto.output), "")
    return f"'{name}' ({proto.op_type})"


def _fill_attributes(inner: Any, outer: Any, body: Any) -> None:
    """References to attributes of the node that is defined."""
    given = {a.name: a for a in outer.attribute}
    defaults = {a.name: a for a in body.attribute_proto}
    for attribute in list(inner.attribute):
        if not attribute.ref_attr_name:
            continue
        name, wanted = attribute.name, attribute.ref_attr_name
        found = given.get(wanted) or defaults.get(wanted)
        inner.attribute.remove(attribute)
        if found is not None:
            made = inner.attribute.add()
            made.CopyFrom(found)
            made.name, made.ref_attr_name = name, ""
