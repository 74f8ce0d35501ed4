"""infer: give every tensor a concrete shape, dtype and byte size.

Requires a Graph whose names resolve and that has no cycle (`load` and the builder check this).
Guarantees a TypedGraph in topological order; every tensor's bytes fit into int64. Mistakes of
independent nodes are reported together; nodes that depend on a wrong one are skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from graphexec.base.cycles import topological_order
from graphexec.base.diagnostics import Diagnostic, Mark, Source, did_you_mean, place_within
from graphexec.base.errors import GraphError
from graphexec.base.expressions import ExpressionError, evaluate, evaluate_consts
from graphexec.base.grammar import parse
from graphexec.base.tensor import INT64_MAX, DType, TensorType
from graphexec.frontend.expand import expand
from graphexec.frontend.weight_paths import FileError, OutsideError, WeightError
from graphexec.frontend.weights import WeightFiles
from graphexec.graph.fits import Fits
from graphexec.graph.products import in_expression, without_products
from graphexec.graph.states import does_not_begin, does_not_follow, with_next_nodes
from graphexec.ir.axes import Axes, parse_axes
from graphexec.ir.expression import with_numbers
from graphexec.ir.graph import Dim, Graph, InFile, Input, Node, State, Weight, kind_of
from graphexec.ir.op import Attribute, Op, OpError
from graphexec.ir.typed import TypedGraph, TypedNode, TypedState, TypedWeight

MAX_RANK = 8
_LARGEST_F32 = (2 - 2**-23) * 2.0**127


def infer(graph: Graph) -> TypedGraph:
    """Types for every tensor of `graph`; GraphError with all independent mistakes."""
    return _Inference(expand(graph)).run()


class _Inference:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.errors = with_next_nodes(graph)
        self.nodes: Mapping[str, Node] = {}
        self.types: dict[str, TensorType] = {}
        self.names: Mapping[str, int | float] = {}
        self.outside, self.first_outside = (
            0,
            0,
        )  # weights outside the folder; the error of the first
        self.known: dict[Hashable, TensorType] = {}
        self.fits = Fits(graph.fits)
        self.first_in_block: dict[Mark, int] = {}  # the error at a place in a block, and ...
        self.repeated: Counter[int] = Counter()  # ... how often there is one

    def run(self) -> TypedGraph:
        graph = self.graph
        try:
            self.names = {**graph.dims, **evaluate_consts(graph.consts, graph.dims)}
        except ExpressionError as exc:
            raise GraphError([Diagnostic(f"consts: {exc}", help=exc.help)]) from exc
        inputs = {i.name: t for i in graph.inputs.values() if (t := self.input(i))}
        with WeightFiles() as files:
            weights = {w.name: f for w in graph.weights.values() if (f := self.weight(w, files))}
            states = {s.name: k for s in graph.states.values() if (k := self.state(s, files))}
        self.count_outside()
        self.nodes, taken = without_products(graph)
        self.errors += taken
        nodes = [n for node in topological(graph, self.nodes) if (n := self.node(node))]
        for state in states:
            self.check_next(graph.states[state])
        if not graph.outputs:
            self.errors.append(
                Diagnostic(f"graph '{graph.name}' has no outputs", source=graph.source)
            )
        if self.errors:
            self.count_repeated()
            raise GraphError(self.errors)
        return TypedGraph(
            graph.name, dict(graph.dims), inputs, weights, tuple(nodes), dict(graph.outputs),
            graph.same, states,
        )  # fmt: skip

    def input(self, item: Input) -> TensorType | None:
        shape, dtype = self.shape(item.shape, item), self.dtype(item.dtype, item, "dtype")
        if shape is None or dtype is None:
            return None
        return self.checked(item, TensorType(shape, dtype))

    def weight(self, item: Weight, files: WeightFiles) -> TypedWeight | None:
        known = self.graph.stored.get(item.name)
        if known is not None:
            good = self.asserted(item, item.shape, known.type) and self.checked(item, known.type)
            return known if good else None
        wanted = self.dtype(item.dtype, item, "dtype") if item.dtype else None
        place = InFile(item.file, item.key)
        found = self.in_file(item, place, wanted, files, self.graph.weight_dtype)
        if found is None or not self.asserted(item, item.shape, found.type):
            return None
        return found if self.checked(item, found.type) else None

    def in_file(
        self,
        item: Weight | State,
        place: InFile,
        wanted: DType | None,
        files: WeightFiles,
        converted: str | None = None,
    ) -> TypedWeight | None:
        """The array that a weight is, or that a state begins with."""
        file = self.graph.weight_file if place.file is None else place.file
        assert file is not None  # Graph.add and load see to it
        key = None if place.key is None else self.graph.weight_prefix + place.key
        try:
            found = files.find(self.graph.folder, self.graph.weight_root, file, key, wanted)
        except FileError as exc:
            self.file_error(exc, item)
            return None
        except WeightError as exc:
            field = next((f for f in (exc.field, "file", "key") if f in item.marks), "")
            self.error(str(exc), item, field, help=exc.help)
            return None
        return found.weight(converted)

    def state(self, item: State, files: WeightFiles) -> TypedState | None:
        shape, dtype = self.shape(item.shape, item), self.dtype(item.dtype, item, "dtype")
        if shape is None or dtype is None:
            return None
        type = self.checked(item, TensorType(shape, dtype))
        begin = self.begin(item, dtype, files) if type else None
        if type is None or begin is None:
            return None
        if isinstance(begin, TypedWeight) and not self.asserted(item, item.shape, begin.type):
            return None
        return TypedState(type, item.next, begin)

    def begin(
        self, item: State, dtype: DType, files: WeightFiles
    ) -> int | float | TypedWeight | None:
        """What a state begins with."""
        known = self.graph.stored.get(item.name)
        if known is not None:
            return known
        if isinstance(item.init, InFile):
            return self.in_file(item, item.init, dtype, files)
        try:
            value = _number(item.init, self.names)
        except (ExpressionError, ValueError) as exc:
            self.error(f"init: {exc}", item, "init", help=getattr(exc, "help", ""))
            return None
        why = does_not_begin(value, dtype)
        if why:
            self.error(f"init: {why}", item, "init")
            return None
        return value

    def check_next(self, item: State) -> None:
        """Note a next value that is missing or of another type."""
        if not item.next:
            self.error("it has no next value", item, "", help="Graph.set_next names it")
            return
        found = self.types.get(item.next)
        if found is None:  # its own mistake is noted
            return
        why, help = does_not_follow(self.types[item.name], found)
        if why:
            self.error(f"next: {why}", item, "next", help=help)

    def file_error(self, exc: FileError, item: Weight | State) -> None:
        """Note that a weights file cannot be used: once of the file that weights share."""
        if isinstance(exc, OutsideError):
            self.outside += 1
            if self.outside > 1:  # what helps one helps all
                return
            self.first_outside = len(self.errors)
        place = item.init if isinstance(item, State) else item
        own = getattr(place, "file", None) is not None
        mark = (item.marks if own else self.graph.weight_marks).get("file")
        source = self.graph.source if mark else None
        help = exc.help
        if not help and source and mark and (comment := source.comment(mark.line)):
            help = f"the comment there says: {comment}"  # where the file is from
        if own:
            self.error(str(exc), item, "file", help=help)
            return
        fault = Diagnostic(str(exc), source=source, mark=mark, help=help)
        if fault not in self.errors:
            self.errors.append(fault)

    def count_outside(self) -> None:
        """Say at the first weight outside the folder how many more there are."""
        more = self.outside - 1
        if more > 0:
            each = f"{more} more weights lie" if more > 1 else "1 more weight lies"
            first = self.errors[self.first_outside]
            self.errors[self.first_outside] = replace(first, notes=(f"{each} outside of it",))

    def node(self, node: Node) -> TypedNode | None:
        op = self.graph.ops[node.op]
        if any(name not in self.types for name in node.operands.values()):
            return None
        if self.fits.refuse(node.origin):
            return None
        attrs = self.attrs(op, node)
        if attrs is None:
            return None
        if op.expression is not None:  # a stated shape takes part in broadcasting
            attrs["shape"] = None if node.shape is None else self.shape(node.shape, node)
        operands = _in_order(op, node.operands)
        types = {key: self.types[name] for key, name in operands.items()}
        try:
            type = self.inferred(op, types, attrs)
        except OpError as exc:
            origin = [
                self.origin(node.operands[key], t) for key, t in types.items() if key == exc.key
            ]
            self.error(
                f"{node.op} '{node.name}': {exc}", node, exc.key, placed=True, place=exc.place,
                notes=(*exc.notes, *origin), help=self.help(node, exc.help),
            )  # fmt: skip
            return None
        except GraphError as exc:  # the op is the user's, and at fault
            for fault in exc.diagnostics:
                message = f"{node.op} '{node.name}': {fault.message}"
                self.error(message, node, "op", placed=True, notes=fault.notes, help=fault.help)
            return None
        if not self.asserted(node, node.shape, type) or not self.checked(node, type):
            return None
        if not self.representable(node, attrs, (*types.values(), type)):
            return None
        mark = node.marks.get("")
        line = mark.line if mark else None
        return TypedNode(node.name, op, operands, attrs, type, node.after, line)

    def help(self, node: Node, help: str) -> str:
        """An op's help in the words of the expression that the node comes from, if any."""
        return help if self.graph.nodes.get(node.name) is node else in_expression(node, help)

    def inferred(
        self, op: Op, types: Mapping[str, TensorType], attrs: Mapping[str, Any]
    ) -> TensorType:
        """The type of the op's result. Layers repeat, so equal nodes are inferred once."""
        key = (op, *types.items(), *attrs.values())
        try:
            known = self.known.get(key)
        except TypeError:  # an attribute that cannot be hashed, such as slices
            return op.infer(types, attrs)
        if known is None:
            known = self.known[key] = op.infer(types, attrs)
        return known

    def attrs(self, op: Op, node: Node) -> dict[str, Any] | None:
        """Every attribute of the op, evaluated; None when one is wrong."""
        values, good = {}, True
        for attribute in op.attributes:
            given = node.attrs.get(attribute.name)
            if given is None:
                values[attribute.name] = attribute.default
                continue
            try:
                values[attribute.name] = self.value(attribute, given, node)
            except (ExpressionError, ValueError) as exc:
                help = exc.help if isinstance(exc, ExpressionError) else ""
                message = f"{node.op} '{node.name}': {attribute.name}: {exc}"
                self.error(message, node, attribute.name, placed=True, help=help)
                good = False
        return values if good else None

    def value(self, attribute: Attribute, given: Any, node: Node) -> Any:
        if attribute.kind == "expression":
            tree = parse(given) if isinstance(given, str) else given
            return with_numbers(tree, node.operands, self.names)
        return _VALUES[attribute.kind](given, attribute, self.names)

    def shape(
        self, dims: tuple[Dim, ...], item: Input | Weight | State | Node
    ) -> tuple[int, ...] | None:
        extents = []
        for index, dim in enumerate(dims):
            key = f"shape[{index}]" if f"shape[{index}]" in item.marks else "shape"
            try:
                extent = _integer(dim, self.names)
            except (ExpressionError, ValueError) as exc:
                self.error(f"extent {index} of the shape: {exc}", item, key,
                           help=getattr(exc, "help", ""))  # fmt: skip
                return None
            if extent < 1:
                found = dim if str(dim) == str(extent) else f"{dim} = {extent}"
                self.error(f"an extent must be at least 1, found {found}", item, key)
                return None
            extents.append(extent)
        return tuple(extents)

    def dtype(self, given: str, item: Input | Weight | State | Node, key: str) -> DType | None:
        try:
            return _dtype(given)
        except ValueError as exc:
            self.error(str(exc), item, key, help=did_you_mean(str(given), list(DType)))
            return None

    def asserted(
        self, item: Weight | State | Node, dims: tuple[Dim, ...] | None, found: TensorType
    ) -> bool:
        """Whether the shape the user stated, if any, is the shape found."""
        if dims is None:
            return True
        stated = self.shape(dims, item)
        if stated is not None and stated != found.shape:
            self.error(f"shape is stated as {list(stated)}, but it is {list(found.shape)}", item,
                       "shape")  # fmt: skip
        return stated == found.shape

    def representable(
        self, node: Node, attrs: Mapping[str, Any], types: Sequence[TensorType]
    ) -> bool:
        """Whether every number among the attributes is finite in the type that is computed in."""
        good = True
        for name in node.attrs:  # defaults are
            value = attrs.get(name)
            if not isinstance(value, int | float) or abs(value) <= _LARGEST_F32:
                continue
            if any(t.dtype is DType.F64 for t in types):
                continue
            message = f"{value} is infinite in f32, the type that is computed in"
            self.error(f"{node.op} '{node.name}': {name}: {message}", node, name, placed=True)
            good = False
        return good

    def checked(self, item: Input | Weight | State | Node, type: TensorType) -> TensorType | None:
        """Registers the type of `item` if its rank and bytes are within bounds."""
        if len(type.shape) > MAX_RANK:
            self.error(f"{type} has {len(type.shape)} axes; at most {MAX_RANK} are supported",
                       item, "shape")  # fmt: skip
            return None
        if type.nbytes > INT64_MAX:
            self.error(f"{type} has {type.nbytes} bytes, more than fit into int64", item, "shape")
            return None
        self.types[item.name] = type
        self.errors += self.fits.check(item.name, self.types, self.graph, self.names)
        return type

    def origin(self, tensor: str, type: TensorType) -> str:
        """The origin of a tensor, for a message about it."""
        graph = self.graph
        kinds = (graph.inputs, graph.weights, graph.states, self.nodes)
        item = next(kind[tensor] for kind in kinds if tensor in kind)
        mark = item.marks.get("")
        what = f"{item.op} node" if isinstance(item, Node) else kind_of(item)
        place = f", {graph.source.path}:{mark.line}" if mark and graph.source else ""
        return f"'{tensor}' is {type} ({what}{place})"

    def error(
        self, message: str, item: Input | Weight | State | Node, key: str, placed: bool = False,
        place: tuple[int, int] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        if not placed:
            message = f"{kind_of(item)} '{item.name}': {message}"
        found = self.graph.error(message, item, key, **more)
        if found.mark is None:  # the message names the item already
            found = replace(found, message=message)
        if place is not None and isinstance(item, Node):
            text = str(self.graph.nodes.get(item.name, item).attrs.get(key, ""))
            found = self.inside(found, text, place)
        if found.mark is None or isinstance(item, Input) or item.origin is None:
            self.errors.append(found)
        else:
            self.note_repeated(found)

    def note_repeated(self, error: Diagnostic) -> None:
        """Note an error in a block, which each repetition may have: the first of its place."""
        assert error.mark is not None
        first = self.first_in_block.setdefault(error.mark, len(self.errors))
        if first == len(self.errors):
            self.errors.append(error)
        self.repeated[first] += 1

    def count_repeated(self) -> None:
        """Say at errors in blocks how many more there are of the same place."""
        for place, times in self.repeated.items():
            if times > 1:
                more = f"and {times - 1} more of this block"
                error = self.errors[place]
                self.errors[place] = replace(error, notes=(*error.notes, more))

    def inside(self, error: Diagnostic, text: str, place: tuple[int, int]) -> Diagnostic:
        """The error at a place of an expression: in the file, or in the text alone."""
        if error.mark is not None:
            return replace(error, mark=place_within(self.graph.source, error.mark, text, *place))
        start, length = place
        return replace(error, source=Source("expression", text), mark=Mark(1, start + 1, length))


def _in_order(op: Op, operands: Mapping[str, str]) -> dict[str, str]:
    """The operands in the order in which the op declares them, whatever that of the file."""
    places = {operand.name: number for number, operand in enumerate(op.operands)}

    def place(key: str) -> int:
        list_, bracket, _ = key.partition("[")  # x[0] is a member of a list x
        return places.get(list_ if bracket else key, len(places))

    return {key: operands[key] for key in sorted(operands, key=place)}


def topological(graph: Graph, nodes: Mapping[str, Node]) -> list[Node]:
    """`nodes`, producers first; in the order of the file if that is topological."""
    seen = {*graph.inputs, *graph.weights, *graph.states}
    for name, node in nodes.items():
        if not seen.issuperset((*node.operands.values(), *node.after)):
            break
        seen.add(name)
    else:
        return list(nodes.values())
    needs = {n: (*node.operands.values(), *node.after) for n, node in nodes.items()}
    order, cycles = topological_order(needs)
    if cycles:
        shown = " → ".join([*cycles[0], cycles[0][0]])
        raise GraphError([Diagnostic(f"the graph has a cycle: {shown}")])
    return [nodes[name] for name in order]


# Attribute values by kind; each raises ValueError or ExpressionError.


def _integer(given: Any, names: Mapping[str, int | float]) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, str, float)):
        raise ValueError(f"expected an integer, found {given!r}")
    return int(evaluate(given, names, "int"))


def _number(given: Any, names: Mapping[str, int | float]) -> int | float:
    if isinstance(given, bool) or not isinstance(given, (int, str, float)):
        raise ValueError(f"expected a number, found {given!r}")
    value = evaluate(given, names, "number")
    if not isfinite(value):
        raise ValueError(f"expected a finite number, found {value}")
    return value


def _one_of(names: Sequence[str] | type[DType]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _dtype(given: Any) -> DType:
    try:
        return DType(given)
    except ValueError:
        raise ValueError(f"unknown dtype '{given}'; expected {_one_of(DType)}") from None


def _dtype_among(given: Any, choices: Sequence[str]) -> DType:
    found = _dtype(given)
    if choices and found not in choices:
        raise ValueError(f"expected {_one_of(choices)}; found {found}")
    return found


def _bool(given: Any) -> bool:
    if not isinstance(given, bool):
        raise ValueError(f"expected true or false, found {given!r}")
    return given


def _choice(given: Any, attribute: Attribute) -> str:
    if given not in attribute.choices:
        raise ValueError(f"expected one of {', '.join(attribute.choices)}; found {given!r}")
    return str(given)


def _list(given: Any, names: Mapping[str, int | float]) -> tuple[int, ...]:
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"expected a list, found {given!r}")
    return tuple(_integer(v, names) for v in given)


def _slices(
    given: Any, names: Mapping[str, int | float]
) -> dict[int, tuple[int | None, int | None, int | None]]:
    if not isinstance(given, Mapping):
        raise ValueError(f"expected a mapping from axis to [start, stop, step], found {given!r}")
    slices = {}
    for axis, bounds in given.items():
        if not isinstance(bounds, (list, tuple)) or not 1 <= len(bounds) <= 3:
            raise ValueError(f"axis {axis}: expected [start, stop, step], found {bounds!r}")
        values = [None if v is None else _integer(v, names) for v in bounds]
        start, stop, step = values + [None] * (3 - len(values))
        slices[_integer(axis, names)] = (start, stop, step)
    return slices


def _named(given: Any, names: Mapping[str, int | float]) -> Axes:
    if not isinstance(given, str):
        raise ValueError(f"expected axes such as 'B S (H D) -> B H S D', found {given!r}")
    return parse_axes(given, names)


_VALUES: dict[str, Any] = {
    "bool": lambda given, attribute, names: _bool(given),
    "int": lambda given, attribute, names: _integer(given, names),
    "number": lambda given, attribute, names: _number(given, names),
    "dtype": lambda given, attribute, names: _dtype_among(given, attribute.choices),
    "choice": lambda given, attribute, names: _choice(given, attribute),
    "axes": lambda given, attribute, names: _list(given, names),
    "axis": lambda given, attribute, names: (
        _list(given, names) if isinstance(given, list | tuple) else (_integer(given, names),)
    ),
    "dims": lambda given, attribute, names: _list(given, names),
    "slices": lambda given, attribute, names: _slices(given, names),
    "named": lambda given, attribute, names: _named(given, names),
}
