"""What the user wrote: a DAG of named nodes over named inputs and weights.

A Graph is read from YAML by `load`, or built in code:

    g = Graph("attention")
    q = g.input("q", (2, 8, 128, 64), "f16")
    s = g.gemm(q, q, trans_b=True, alpha=64**-0.5)
    g.output(out=g.softmax(s))

It is append-only and holds what was written, so a dim may still be an expression over
`dims` ("S // 2"); the stage `infer` makes every shape concrete. Tensors are referred to by
name: a node's name is the name of the tensor it makes.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from enum import Enum
from keyword import iskeyword
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graphexec.base.diagnostics import Diagnostic, Mark, Source, did_you_mean
from graphexec.base.errors import GraphError
from graphexec.base.expressions import evaluate, evaluate_consts
from graphexec.base.grammar import FUNCTIONS, ExpressionError
from graphexec.base.tensor import DType
from graphexec.ir.expression import tensors_of
from graphexec.ir.inner import Use, is_inner
from graphexec.ir.names import NAME, NODE_KEYS, SYMBOL
from graphexec.ir.op_help import method
from graphexec.ir.operand import operand_of
from graphexec.ir.origin import BLOCK, Origin
from graphexec.ir.registry import OWN_OPS, known_ops
from graphexec.ir.repetition import NO_REPETITION, is_numbered
from graphexec.ir.tensor_name import Tensor, call

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from graphexec.ir.op import Op
    from graphexec.ir.typed import TypedWeight

Dim = int | str
"""An extent: a number, or an expression over the graph's dims and consts."""

Marks = Mapping[str, Mark]
"""Places of a declaration in the source: "" for its name, else the key's value, e.g. "alpha"."""


@dataclass(frozen=True)
class Input:
    """A tensor given at every run."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    marks: Marks = field(default_factory=dict, compare=False, repr=False)
    cut: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Weight:
    """A tensor from a file, uploaded once. `shape` and `dtype`, if given, are asserted.

    Without `file` it is in the graph's. The graph's prefix stands before `key`. `dtype: bf16`
    also gives 2-byte void or uint16 data (how NumPy stores bf16) its meaning.
    """

    name: str
    file: str | None = None
    key: str | None = None
    shape: tuple[Dim, ...] | None = None
    dtype: str | None = None
    marks: Marks = field(default_factory=dict, compare=False, repr=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)
    cut: Mapping[str, str] | None = None


@dataclass(frozen=True)
class InFile:
    """The array that a state begins with: as of a Weight."""

    file: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class State:
    """A tensor that is kept from run to run.

    `init` is its value before the first run: a number, an expression over dims and consts, or an
    array in a file. `next` names the tensor that is its value when the next run begins. It may be
    an expression: then `operands` are the tensors in it, by their names in it.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    next: str
    init: int | float | str | InFile = 0
    operands: Mapping[str, str] | None = None
    marks: Marks = field(default_factory=dict, compare=False, repr=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)
    cut: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Node:
    """One op applied to tensors. `after` orders without data; `shape` is an assertion.

    A use of a block is a node of the op "block": its operands are the block's inputs, its
    attributes the block's name as `block`, and `repeat` if it is repeated.
    """

    name: str
    op: str
    operands: Mapping[str, str]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    shape: tuple[Dim, ...] | None = None
    marks: Marks = field(default_factory=dict, compare=False, repr=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Fit:
    """What must be so where blocks meet: `tensor` has this shape, or the type of another tensor.

    It is given for `input` of a block in a repetition, by the node `user`; `mark` is the place in
    the block.
    """

    tensor: str
    like: str | tuple[Dim, ...]
    input: str
    origin: Origin
    user: Node
    mark: Mark | None = None


class Graph:
    """A named DAG. Equality compares content, not places in files."""

    def __init__(
        self,
        name: str = "graph",
        *,
        dims: Mapping[str, int] | None = None,
        consts: Mapping[str, int | float | str] | None = None,
        ops: Mapping[str, Op] | None = None,
        folder: Path | None = None,
        weight_root: Path | None = None,
        source: Source | None = None,
        file: str | Path | None = None,
        prefix: str = "",
        weight_dtype: str | None = None,
        mesh: Mapping[str, int] | None = None,
        cut: Mapping[str, str] | None = None,
    ) -> None:
        """An empty graph.

        `consts` may be expressions over `dims`. `ops` are the known ops (the built-in and
        installed ones by default). Weight files are looked up relative to `folder` (the
        working directory by default) and must lie inside `weight_root` (by default `folder`).
        `file` is the file of weights that name none; `prefix` stands before the keys of weights.
        Weights of floats are converted to `weight_dtype`, if it is given, as they are read. `mesh`
        says how ranks are laid out, `cut` along which of its axes the dims of tensors are cut.
        """
        given = {"dims": dims, "consts": consts, "ops": ops}
        _check_kinds(given, {"the name": name, "folder": folder, "file": file, "prefix": prefix})
        if ops is None:
            ops = known_ops()
        if not name or not name.isprintable():
            raise _mistake(f"{name!r} is not a name for a graph; it must be a printable line")
        for symbol in (*(dims or {}), *(consts or {})):
            if not SYMBOL.match(symbol) or iskeyword(symbol):
                raise _mistake(f"'{symbol}' is not a name for a dim or const",
                               help="a letter or '_', then letters, digits, '_'")  # fmt: skip
        _check_literal("the file of weights", file)
        _check_literal("the prefix of keys", prefix)
        self.name = name
        self.dims: dict[str, int] = dict(dims or {})
        self.consts: dict[str, int | float | str] = dict(consts or {})
        self.inputs: dict[str, Input] = {}
        self.weights: dict[str, Weight] = {}
        self.states: dict[str, State] = {}
        self.nodes: dict[str, Node] = {}
        self.outputs: dict[str, str] = {}
        self.blocks: dict[str, Block] = {}
        self.fits: tuple[Fit, ...] = ()  # of a graph whose blocks are expanded, and ...
        self.same: dict[str, str] = {}  # ... its other names of tensors
        self.ops = ops
        self.folder = folder or Path()
        self.weight_root = weight_root
        self.weight_file = None if file is None else str(file)
        self.weight_prefix = prefix
        self.weight_dtype = None if weight_dtype is None else str(weight_dtype)
        self.mesh: dict[str, int] = dict(mesh or {})
        self.cut: dict[str, str] = dict(cut or {})
        self.cut_marks: dict[str, Mark] = {}
        self.source = source
        self.output_marks: dict[str, Mark] = {}
        self.weight_marks: dict[str, Mark] = {}  # of "file" and "prefix"
        self.warnings: list[Diagnostic] = []
        self.stored: Mapping[str, TypedWeight] = {}  # whose files are not looked at any more
        self._numbers: dict[str, int] = {}  # of each op, below which no name made from it is free

    # Building ---------------------------------------------------------------------------

    def input(self, name: str, shape: Sequence[Dim], dtype: DTypeLike = "f32") -> Tensor:
        """Declare an input; returns its name, to be used as an operand.

        `dtype` is f16, bf16, f32, f64, i8, u8, i32, i64 or bool, or one of NumPy's: np.float32.
        """
        self.add(Input(name, _dims(shape), _plain_dtype(dtype)))
        return Tensor.of(name, self)

    def weight(
        self,
        name: str,
        file: str | Path | None = None,
        key: str | None = None,
        shape: Sequence[Dim] | None = None,
        dtype: DTypeLike | None = None,
    ) -> Tensor:
        """Declare a weight read from `file`; returns its name.

        A file is .npy, .npz, .safetensors or the index of a sharded model,
        .safetensors.index.json; by default it is the graph's.
        """
        stated = None if shape is None else _dims(shape)
        path = None if file is None else str(file)
        self.add(Weight(name, path, key, stated, _plain_dtype(dtype)))
        return Tensor.of(name, self)

    def state(
        self,
        name: str,
        shape: Sequence[Dim],
        dtype: DTypeLike = "f32",
        *,
        init: float | str | Mapping[str, str | Path] = 0,
        next: str | None = None,
    ) -> Tensor:
        """Declare a tensor that is kept from run to run; returns its name.

        `init` is its value before the first run: a number, or {"file": …, "key": …}. `next` is the
        name of its value when the next run begins, or an expression over tensors of the graph. As
        that tensor often reads the state, `next` may be given later: `set_next`.
        """
        start = _init(init)
        if isinstance(start, InFile):
            self._check_file(f"state '{name}'", start)
        self.add(State(name, _dims(shape), _plain_dtype(dtype), "", start))
        if next is not None:
            self.set_next(name, next)
        return Tensor.of(name, self)

    def set_next(self, state: str, next: str) -> None:
        """Name the value that a state has when the next run begins, or give its expression."""
        if state not in self.states:
            help = did_you_mean(str(state), self.states)
            raise _mistake(f"the graph has no state '{state}'", help=help)
        found = self.states[state]
        if found.next:
            raise _mistake(f"state '{state}' has a next value already: '{found.next}'")
        text, operands = str(next), None
        if text not in self:
            operands = self._expression(text, {})
        self.states[_plain_name(state)] = replace(found, next=text, operands=operands)

    def node(
        self,
        op: str,
        *operands: str | Sequence[str],
        name: str | None = None,
        after: Sequence[str] = (),
        shape: Sequence[Dim] | None = None,
        **settings: Any,
    ) -> Tensor:
        """Add a node; returns its name (made from the op's name when none is given).

        Positional operands follow the order of the op's definition; `settings` are further
        operands and attributes by name. An operand that is a list of tensors is given as one.
        Raises GraphError for unknown ones.
        """
        definition = self.ops.get(op)
        if definition is None:
            raise _mistake(f"unknown op '{op}'", help=did_you_mean(op, self.ops) or OWN_OPS)
        given = _given(definition, operands, settings)
        tensors = {key: _plain_name(t) for key, t in _tensors(definition, given).items()}
        if definition.expression is not None:
            tensors |= self._read_by(given.get(definition.expression), definition, tensors)
        name = name or self._fresh_name(op)
        kinds = {a.name: _plain_dtype if a.kind == "dtype" else _plain
                 for a in definition.attributes}  # fmt: skip
        attrs = {k: kinds[k](v) for k, v in given.items() if k in kinds and v is not None}
        if isinstance(after, str) or not isinstance(after, Iterable):
            raise _mistake(f"'after' is a list of nodes, not {after!r:.60}")
        after, asserted = tuple(map(_plain_name, after)), None if shape is None else _dims(shape)
        for tensor in (*tensors.values(), *after):
            self._check_reference(name, tensor)
        self.add(Node(name, op, tensors, attrs, after, asserted))
        return Tensor.of(name, self)

    def block(
        self,
        name: str,
        inputs: Sequence[str] | Mapping[str, Sequence[Dim]] = (),
        *,
        file: str | Path | None = None,
        prefix: str = "",
    ) -> Block:
        """Declare a block: a graph of its own, to be filled like this one and then used like an op.

            layer = g.block("layer", inputs=["x"], prefix="layers.{i}.")
            w = layer.weight("w", key="weight")
            layer.output(x=layer.silu(layer["x"] @ w.T))
            y = layer(x, repeat="L", name="trunk")

        `inputs` are names, or the shapes that the inputs must have by name. It sees the dims and
        consts of the graph, and nothing else of it. `file` and `prefix` are of its own weights; in
        these and in keys, {i} is the number of a repetition.
        """
        _check_name(name)
        if name in self.blocks:
            raise _mistake(f"the block '{name}' is declared twice")
        block = self.blocks[name] = Block(name, self, file=file, prefix=prefix)
        for given in inputs:
            block.input(given, inputs[given] if isinstance(inputs, Mapping) else None)
        return block

    def use(
        self, block: Block | str, /, *operands: str, name: str | None = None,
        repeat: Dim | None = None, after: Sequence[str] = (), **inputs: str,
    ) -> Any:  # fmt: skip
        """Add a node that is a block, once or `repeat` times; returns what it makes.

        Operands follow the order of the block's inputs, or have their names. An output with the
        name of an input is that input of the next repetition. The result is one tensor, or a tuple
        of tensors in the order of the outputs.
        """
        called = block.name if isinstance(block, Block) else block
        found = self.blocks.get(called)
        if found is None:
            raise _mistake(f"unknown block '{called}'", help=did_you_mean(called, self.blocks))
        given = _given_to(found, operands, inputs)
        name = name or self._fresh_name(called)
        for tensor in (*given.values(), *after):
            self._check_reference(name, tensor)
        attrs = {BLOCK: called} | ({} if repeat is None else {"repeat": _plain(repeat)})
        tensors = {key: _plain_name(t) for key, t in given.items()}
        self.add(Node(name, BLOCK, tensors, attrs, tuple(map(_plain_name, after))))
        if len(found.outputs) == 1:
            return Tensor.of(name, self)
        return tuple(Tensor.of(f"{name}.{output}", self) for output in found.outputs)

    def output(self, /, *names: str, **outputs: str) -> None:
        """Declare outputs: `g.output("ctx")`, or under another name, `g.output(out="ctx")`."""
        for name, tensor in [*((n, n) for n in names), *outputs.items()]:
            _check_name(name)
            if tensor not in self:
                raise _mistake(f"output '{name}' names no tensor of the graph: '{tensor}'")
            if name in self.outputs:
                raise _mistake(f"output '{name}' is declared twice")
            self.outputs[_plain_name(name)] = _plain_name(tensor)

    def add(self, item: Input | Weight | State | Node) -> None:
        """Append a declaration as it is; its name must be new and well-formed."""
        _check_name(item.name)
        if item.name in self:
            raise _mistake(f"the name '{item.name}' is used twice")
        if isinstance(item, Input):
            self.inputs[item.name] = item
        elif isinstance(item, Weight):
            self._check_weight(item)
            self.weights[item.name] = item
        elif isinstance(item, State):
            self.states[item.name] = item
        else:
            self.nodes[item.name] = item

    def _check_reference(self, user: str, tensor: Any) -> None:
        if not isinstance(tensor, str) or tensor not in self:
            raise _mistake(
                f"node '{user}' refers to {tensor!r}, which is not a tensor of the graph",
                help=did_you_mean(str(tensor), self._names()),
            )

    def _check_weight(self, item: Weight) -> None:
        self._check_file(f"weight '{item.name}'", InFile(item.file, item.key))

    def _check_file(self, what: str, item: InFile) -> None:
        if item.file is None and not self._has_file():
            raise _mistake(
                f"{what} names no file, and the graph has none",
                help="Graph(file=…) is the file of weights that name none",
            )
        if not isinstance(self, Block):
            _check_literal(f"the file of {what}", item.file)
            _check_literal(f"the key of {what}", item.key)

    def _has_file(self) -> bool:
        return self.weight_file is not None

    def __getattr__(self, name: str) -> Any:
        # g.gemm(...), g.softmax(...), and every op of the user's own.
        ops = self.__dict__.get("ops", {})
        if not name.startswith("_") and name in ops:
            return method(ops[name], self.node)
        if name in FUNCTIONS and name not in ("index", "cast", "T"):
            return lambda *terms, **settings: call(self, name, terms, settings)
        hint = "" if name.startswith("_") else did_you_mean(name, [*ops, *FUNCTIONS])
        raise AttributeError(f"'Graph' has no attribute or op '{name}'" + (hint and f": {hint}"))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.ops, *FUNCTIONS]

    def _read_by(self, text: Any, op: Op, tensors: Mapping[str, str]) -> dict[str, str]:
        """The tensors of an expression: those given under names of their own, and the graph's."""
        given = {k: t for k, t in tensors.items() if operand_of(op.operands, k) is None}
        if not isinstance(text, str):
            raise _mistake(f"op '{op.name}' needs '{op.expression}', an expression")
        found = self._expression(str(text), given)  # a tensor is a text with its own operators
        for name in given:
            if name not in found:
                help = did_you_mean(name, found)
                raise _mistake(f"the expression '{text}' has no name '{name}'", help=help)
        return found

    def _expression(self, text: str, given: Mapping[str, str]) -> dict[str, str]:
        """The tensors of an expression by their names in it."""
        try:
            return tensors_of(text, given, self._names(), {*self.dims, *self.consts})
        except ExpressionError as exc:
            source = Source("expression", text)
            mark = None if exc.start is None else Mark(1, exc.start + 1, exc.length)
            more = {} if mark is None else {"source": source, "mark": mark}
            raise _mistake(exc.message, help=exc.help, **more) from exc

    def _names(self) -> Mapping[str, object]:
        """Every tensor by name."""
        return ChainMap[str, Any](self.nodes, self.states, self.inputs, self.weights)

    def _fresh_name(self, op: str) -> str:
        if op not in self:
            return op
        number = self._numbers.get(op, 1)
        while f"{op}_{number}" in self:
            number += 1
        self._numbers[op] = number
        return f"{op}_{number}"

    # Looking ----------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        if any(name in kind for kind in (self.nodes, self.inputs, self.weights, self.states)):
            return True
        if not self.blocks or not isinstance(name, str):
            return False
        return is_inner(_Names(self), {n: _Names(b) for n, b in self.blocks.items()}, name)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of this name, to be used as an operand; also one inside of a block."""
        if name not in self:
            help = did_you_mean(str(name), self._names())
            raise _mistake(f"there is no tensor '{name}'", help=help)
        return Tensor.of(str(name), self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> tuple[object, ...]:
        parts = (self.dims, self.consts, self.inputs, self.weights, self.nodes, self.outputs)
        more = (self.states, self.blocks)
        files = (self.weight_file, self.weight_prefix, self.weight_dtype)
        return (self.name, *files, self.mesh, self.cut, *parts, *more)

    def __repr__(self) -> str:
        return (
            f"Graph({self.name!r}: {len(self.inputs)} inputs, {len(self.weights)} weights, "
            f"{len(self.nodes)} nodes, outputs {', '.join(self.outputs) or 'none'})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from graphexec.views.notebook import graph_cell

        return graph_cell(self)

    def with_dims(self, /, **dims: int) -> Graph:
        """A copy, with other values of dims that are given; unknown names are a GraphError.

        It shares nothing with this graph that can be changed.
        """
        for name in dims:
            if name not in self.dims:
                raise _mistake(f"the graph has no dim '{name}'", help=did_you_mean(name, self.dims))
        other = Graph(
            self.name, dims={**self.dims, **dims}, consts=self.consts, ops=dict(self.ops),
            folder=self.folder, weight_root=self.weight_root, source=self.source,
            file=self.weight_file, prefix=self.weight_prefix, weight_dtype=self.weight_dtype,
            mesh=self.mesh, cut=self.cut,
        )  # fmt: skip
        self._copy_to(other)
        for name, block in self.blocks.items():
            copy = other.block(name, file=block.weight_file, prefix=block.weight_prefix)
            block._copy_to(copy)
            copy.shapes, copy.mark = dict(block.shapes), block.mark
        other.stored = self.stored
        return other

    def _copy_to(self, other: Graph) -> None:
        """Give another graph the declarations of this one."""
        other.weight_marks, other.cut_marks = dict(self.weight_marks), dict(self.cut_marks)
        other.inputs, other.weights = dict(self.inputs), dict(self.weights)
        other.nodes = {
            name: replace(node, operands=dict(node.operands), attrs=deepcopy(dict(node.attrs)))
            for name, node in self.nodes.items()
        }
        other.states, other.outputs = dict(self.states), dict(self.outputs)
        other.output_marks, other.warnings = dict(self.output_marks), list(self.warnings)

    def to_yaml(self) -> str:
        """The graph as YAML that `load` reads back as an equal graph."""
        from graphexec.frontend.yaml.write import to_yaml

        return to_yaml(self)

    def error(
        self,
        message: str,
        item: Input | Weight | State | Node | None = None,
        key: str = "",
        **more: Any,
    ) -> Diagnostic:
        """A diagnostic that points at `key` of `item` in the source, or names it in words."""
        mark = (item.marks.get(key) or item.marks.get("")) if item is not None else None
        if mark is None and item is not None:
            message = f"{kind_of(item)} '{item.name}': {message}"
        if item is not None and not isinstance(item, Input) and item.origin is not None:
            more["notes"] = (*more.get("notes", ()), *item.origin.notes(self.source))
        return Diagnostic(message, source=self.source if mark else None, mark=mark, **more)


class Block(Graph):
    """A graph with names of its own that is used like an op, as often as said: `g.block(...)`.

    `shapes` are those that its inputs must have, where they are stated. Calling it with tensors
    adds a node to their graph.
    """

    def __init__(
        self, name: str, graph: Graph, *, file: str | Path | None = None, prefix: str = ""
    ) -> None:
        """An empty block of a graph, whose dims, consts, ops and blocks it has."""
        super().__init__(name, ops=graph.ops, folder=graph.folder, weight_root=graph.weight_root,
                         source=graph.source)  # fmt: skip
        self.graph = graph
        self.dims, self.consts, self.blocks = graph.dims, graph.consts, graph.blocks
        self.weight_file = None if file is None else str(file)
        self.weight_prefix = prefix
        self.shapes: dict[str, tuple[Dim, ...]] = {}
        self.mark: Mark | None = None

    def input(
        self, name: str, shape: Sequence[Dim] | None = None, dtype: DTypeLike | None = None
    ) -> Tensor:
        """Declare an input; returns its name. It has the dtype of what it is given, and its shape,
        which must be `shape` if that is stated."""
        if dtype is not None:
            raise _mistake(f"the input '{name}' of a block has the dtype of what it is given")
        if name in NODE_KEYS:
            raise _mistake(f"an input of a block cannot be named '{name}', a key of nodes")
        self.add(Input(name, (), ""))
        if shape is not None:
            self.shapes[name] = _dims(shape)
        return Tensor.of(name, self)

    def __call__(self, *operands: str, **settings: Any) -> Any:
        """Use this block in the graph of the tensors given: see Graph.use."""
        given = [t for t in (*operands, *settings.values()) if isinstance(t, Tensor)]
        graph = given[0].graph if given else self.graph
        return cast("Graph", graph).use(self, *operands, **settings)

    def _content(self) -> tuple[object, ...]:
        parts = (self.name, self.weight_file, self.weight_prefix, self.weights, self.states,
                 self.nodes)  # fmt: skip
        return (*parts, list(self.inputs), self.shapes, self.outputs)

    def _has_file(self) -> bool:
        return self.weight_file is not None or self.graph.weight_file is not None


class _Names:
    """The names of a graph or block, as those inside of blocks are looked up."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.outputs = graph, graph.outputs

    def uses(self, name: str) -> Use | None:
        """What the node of this name uses, if it uses a block."""
        node = self.graph.nodes.get(name)
        if node is None or node.op != BLOCK:
            return None
        repeat = node.attrs.get("repeat")
        return Use(node.attrs[BLOCK], None if repeat is None else self.times(repeat))

    def makes(self, name: str) -> bool:
        """Whether a weight, state or node has this name."""
        graph = self.graph
        return any(name in kind for kind in (graph.nodes, graph.weights, graph.states))

    def times(self, repeat: Dim) -> int:
        """How often a block is repeated; 0 where that has no value, which expanding tells."""
        graph = self.graph
        try:
            names = {**graph.dims, **evaluate_consts(graph.consts, graph.dims)}
            return int(evaluate(repeat, names, "int"))
        except ExpressionError:
            return 0


def _given_to(block: Block, operands: Sequence[str], inputs: Mapping[str, str]) -> dict[str, str]:
    """What a block is given, by the names of its inputs."""
    if len(operands) > len(block.inputs):
        raise _mistake(
            f"block '{block.name}' takes {len(block.inputs)} inputs, got {len(operands)}"
        )
    given = dict(zip(block.inputs, operands, strict=False))
    for name, tensor in inputs.items():
        if name not in block.inputs:
            help = did_you_mean(name, block.inputs)
            raise _mistake(f"block '{block.name}' has no input '{name}'", help=help)
        if name in given:
            raise _mistake(f"block '{block.name}' got the input '{name}' twice")
        given[name] = tensor
    for name in block.inputs:
        if name not in given:
            raise _mistake(f"block '{block.name}' needs the input '{name}'")
    return given


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise _mistake(f"a name is a string, not {name!r}")
    if not NAME.match(name):
        raise _mistake(
            f"'{name}' is not a name",
            help="letters, digits, '_', '-' and '.', beginning with a letter or '_'",
        )


def _check_kinds(mappings: Mapping[str, object], texts: Mapping[str, object]) -> None:
    """All arguments of a Graph that are of another kind, at once."""
    wrong = [f"'{name}' is a mapping, not {value!r:.60}" for name, value in mappings.items()
             if not isinstance(value, Mapping | None)]  # fmt: skip
    wrong += [f"{name} is a text, not {value!r:.60}" for name, value in texts.items()
              if not isinstance(value, str | PathLike | None)]  # fmt: skip
    ops = mappings["ops"]
    if isinstance(ops, Mapping):
        wrong += [f"op '{name}' is not an Op, but {op!r:.60}" for name, op in ops.items()
                  if not hasattr(op, "operands")]  # fmt: skip
    if wrong:
        raise GraphError([Diagnostic(f"Graph: {text}") for text in wrong])


def _check_literal(what: str, text: object) -> None:
    if is_numbered(str(text)):
        raise _mistake(f"{what} has '{{i}}': '{text}'", help=NO_REPETITION)


def kind_of(item: Input | Weight | State | Node) -> str:
    """The kind of a declaration, for messages."""
    return type(item).__name__.lower()


def _given(op: Op, operands: Sequence[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a node is given, by the names of operands and attributes. After the operands, an
    expression may be given by position, and the tensors in it by name."""
    expressions = [a.name for a in op.attributes if a.kind == "expression"]
    by_position = [o.name for o in op.operands] + expressions
    if len(operands) > len(by_position):
        most = len(op.operands)
        raise _mistake(f"op '{op.name}' takes at most {most} operands, got {len(operands)}")
    given = dict(zip(by_position, operands, strict=False))
    known = [o.name for o in op.operands] + [a.name for a in op.attributes]
    for key, value in settings.items():
        if key not in known and not expressions:
            raise _mistake(
                f"op '{op.name}' has no operand or attribute '{key}'",
                help=did_you_mean(key, known),
            )
        if key in given:
            raise _mistake(f"op '{op.name}' got operand '{key}' twice")
        given[key] = value
    return given


def _tensors(op: Op, given: Mapping[str, Any]) -> dict[str, str]:
    """The operands of a node; the tensors of a list one by one."""
    tensors: dict[str, str] = {}
    for operand in op.operands:
        value = given.get(operand.name)
        if value is None:
            if not operand.optional:
                raise _mistake(f"op '{op.name}' needs operand '{operand.name}'")
        elif not operand.many:
            tensors[operand.name] = value
        elif isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise _mistake(
                f"operand '{operand.name}' of op '{op.name}' is a list of tensors, not {value!r}"
            )
        else:
            tensors |= {operand.member(i).name: tensor for i, tensor in enumerate(value)}
    known = {*(o.name for o in op.operands), *(a.name for a in op.attributes)}
    return tensors | {k: v for k, v in given.items() if k not in known and v is not None}


def _plain_name(name: Any) -> Any:
    """A name as a text that takes no operators."""
    return str(name) if isinstance(name, str) else name


def _init(given: Any) -> int | float | str | InFile:
    """What a state begins with, as it is kept."""
    if not isinstance(given, Mapping):
        return _plain(given)  # type: ignore[no-any-return]
    unknown = [key for key in given if key not in ("file", "key")]
    if unknown:
        raise _mistake(f"init has no key {unknown[0]!r}", help="known keys: file, key")
    return InFile(*(None if given.get(key) is None else str(given[key]) for key in ("file", "key")))


def _dims(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise _mistake(f"a shape is a sequence of extents, not {shape!r}", help="(3,) has one axis")
    return tuple(_plain(extent) for extent in shape)


def _plain_dtype(dtype: Any) -> Any:
    """The name of a dtype, also of one of NumPy's or Python's; `infer` judges it."""
    if dtype is None or isinstance(dtype, str):
        return _plain(dtype)
    for known in DType:
        with suppress(TypeError, ValueError):
            if known.numpy() == dtype:
                return known.value
    return getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or _plain(dtype)


def _plain(value: Any) -> Any:
    """Attribute values as YAML would give them, so a built graph equals a loaded one."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):  # a NumPy scalar
        return value.item()
    return value


def _mistake(message: str, **more: Any) -> GraphError:
    return GraphError([Diagnostic(message, **more)])


__all__ = [
    "Block", "Dim", "Fit", "Graph", "InFile", "Input", "Mark", "Marks", "Node", "State", "Weight",
]  # fmt: skip
