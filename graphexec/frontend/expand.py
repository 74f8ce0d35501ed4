"""expand: a graph with blocks → the same graph without.

    trunk: {block: layer, x: x0, repeat: 2}    becomes    trunk.0.h, trunk.0.y, trunk.1.h, …

Requires a graph whose names resolve, as `load` and the builder check. Guarantees: no node uses a
block; every operand is an input, weight or node; each declaration from a block knows its origin;
no name is made twice. `same` has the names that stand for other tensors: "trunk", "trunk.x".
Weights of one use that name the same array are one weight. `fits` says what must be so of shapes,
which `infer` checks. All independent mistakes come in one GraphError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphexec.base.cycles import topological_order
from graphexec.base.diagnostics import Diagnostic, Mark, did_you_mean
from graphexec.base.errors import GraphError
from graphexec.base.expressions import ExpressionError, Number, evaluate, evaluate_consts, names_in
from graphexec.ir.graph import Block, Fit, Graph, InFile, Input, Node, State, Weight
from graphexec.ir.origin import BLOCK, Origin, at
from graphexec.ir.repetition import NUMBER, Numbers, numbered

MAX_NODES = 1_000_000  # in blocks; uses of blocks count, too
MAX_DEPTH = 100  # of blocks within one another


def expand(graph: Graph) -> Graph:
    """The graph without blocks; itself if it uses none. Raises GraphError."""
    if all(node.op != BLOCK for node in graph.nodes.values()):
        return graph
    return _Expansion(graph).run()


@dataclass(frozen=True)
class _Scope:
    """A graph, or one repetition of a block in it. `given` has the full names of what its inputs
    are. The first nodes of a use wait for its `after`: pairs of the use and a full name."""

    body: Graph
    prefix: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    numbers: Numbers = field(default_factory=dict)
    after: tuple[tuple[str, str], ...] = ()

    def full(self, name: str) -> str:
        """The full name of a tensor of the scope."""
        return self.given.get(name, self.prefix + name)


class _Expansion:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.flat = _without_declarations(graph)
        self.errors: list[Diagnostic] = []
        self.places: dict[str, tuple[str, Mark | None]] = {}  # every name, and who makes it
        self.same: dict[str, str] = {}
        self.nodes: list[tuple[Node, _Scope]] = []
        self.states: list[tuple[State, _Scope]] = []
        self.made: set[str] = set()  # names of nodes
        self.fits: list[Fit] = []
        self.names: Mapping[str, Number] = {}

    def run(self) -> Graph:
        graph, flat = self.graph, self.flat
        self.names = {**graph.dims, **evaluate_consts(graph.consts, graph.dims)}
        _check_cycles(graph)
        self.check_size()
        numbers: dict[str, int | None] = {f"{name}.{NUMBER}": None for name in graph.blocks}
        self.declare()
        self.scope(_Scope(graph, numbers={**numbers, NUMBER: None}))
        self.stop()
        self.made = {node.name for node, _ in self.nodes}
        flat.states = {state.name: state for state, _ in self.states}
        for state, scope in self.states:
            flat.states[state.name] = self.followed(state, scope)
        for node, scope in self.nodes:
            flat.nodes[node.name] = self.resolved(node, scope)
        for name, tensor in graph.outputs.items():
            flat.outputs[name] = self.find(tensor, mark=graph.output_marks.get(name))
        self.stop()
        flat.fits = tuple(self.fit(f) for f in self.fits)
        flat.same = {name: self.resolve(name) for name in self.same}
        return flat

    def declare(self) -> None:
        """Note the names that the user has given."""
        graph = self.graph
        declared: list[Input | Weight | State | Node] = [
            *graph.inputs.values(), *graph.weights.values(), *graph.states.values(),
        ]  # fmt: skip
        for item in (*declared, *graph.nodes.values()):
            mark = item.marks.get("")
            self.places[item.name] = at(item.name, mark, graph.source), mark

    def stop(self) -> None:
        if self.errors:
            raise GraphError(self.errors)

    def check_size(self) -> None:
        """Refuse graphs that would not fit into memory."""
        uses, sizes, depths = _uses(self.graph), dict[str, int](), dict[str, int]()
        for name in topological_order(uses)[0]:
            sizes[name] = self.size(self.graph.blocks[name], sizes)
            depths[name] = 1 + max((depths[inner] for inner in uses[name]), default=0)
            if depths[name] > MAX_DEPTH:
                text = f"blocks lie more than {MAX_DEPTH} deep within one another, as in '{name}'"
                raise GraphError([Diagnostic(text, source=self.graph.source,
                                             mark=self.graph.blocks[name].mark)])  # fmt: skip
        size = self.size(self.graph, sizes)
        self.stop()
        if size > MAX_NODES:
            text = (
                f"with its blocks the graph has {size:,} nodes; at most {MAX_NODES:,} are allowed"
            )
            raise GraphError([Diagnostic(text, source=self.graph.source)])

    def size(self, body: Graph, sizes: Mapping[str, int]) -> int:
        """How many nodes and uses of blocks are in a graph or block; what it repeats is checked."""
        return sum(
            (self.times(node) or 1) * (1 + sizes[node.attrs[BLOCK]]) if node.op == BLOCK else 1
            for node in body.nodes.values()
        )

    def times(self, node: Node) -> int | None:
        """How often a block is repeated; None without `repeat`. Mistakes are noted."""
        repeat = node.attrs.get("repeat")
        if repeat is None:
            return None
        try:
            times = int(evaluate(repeat, self.names, "int"))
        except ExpressionError as exc:
            self.fault(f"repeat: {exc.message}", node, "repeat", help=exc.help)
            return None
        if times < 1:
            equal = f" = {times}" if isinstance(repeat, str) else ""
            self.fault(f"repeat must be at least 1, found {repeat}{equal}", node, "repeat")
        return times

    # Declarations -----------------------------------------------------------------------

    def scope(self, scope: _Scope) -> None:
        """Add what a scope declares, and what the blocks in it do."""
        self.weights(scope)
        for kept in scope.body.states.values():
            state = kept if scope.origin is None else self.state(kept, scope)
            if scope.origin is None or self.new(state.name, state):
                self.states.append((state, scope))
        for item in scope.body.nodes.values():
            node = item if scope.origin is None else replace(
                item, name=scope.prefix + item.name, origin=scope.origin)  # fmt: skip
            if item.op == BLOCK:
                self.use(node, scope)
            elif scope.origin is None or self.new(node.name, node):
                self.nodes.append((node, scope))

    def weights(self, scope: _Scope) -> None:
        body, origin = scope.body, scope.origin
        for item in body.weights.values():
            weight = item if origin is None else self.weight(item, scope)
            if origin is not None and not self.new(weight.name, weight):
                continue
            first = self.first_of(weight, item)
            if first is None:
                self.flat.weights[weight.name] = weight
            else:
                self.same[weight.name] = first

    def state(self, item: State, scope: _Scope) -> State:
        """A state of a block in one repetition."""
        state = replace(item, name=scope.prefix + item.name, origin=scope.origin)
        if not isinstance(item.init, InFile):
            return state
        place = item.init
        found = self.weight(Weight(item.name, place.file, place.key, marks=item.marks), scope)
        return replace(state, init=InFile(found.file, found.key))

    def followed(self, state: State, scope: _Scope) -> State:
        """The state with the full names of what its next value is, or reads."""
        if state.operands is None:
            return replace(state, next=self.find(scope.full(state.next), state, "next"))
        operands = {k: self.find(scope.full(t), state, "next") for k, t in state.operands.items()}
        return replace(state, operands=operands)

    def first_of(self, weight: Weight, item: Weight) -> str | None:
        """The weight of an earlier repetition that is the same array."""
        if weight.origin is None or weight.origin.number in (None, 0):
            return None
        first = self.flat.weights.get(f"{weight.origin.use}.0.{item.name}")
        same = first is not None and replace(first, name=weight.name) == weight
        return first.name if first is not None and same else None

    def weight(self, item: Weight, scope: _Scope) -> Weight:
        """A weight of a block in one repetition."""
        body, key = scope.body, item.key
        file = body.weight_file if item.file is None else item.file
        texts = {"file": file, "prefix": body.weight_prefix if key is not None else None,
                 "key": key}  # fmt: skip
        weight = replace(item, name=scope.prefix + item.name, origin=scope.origin)
        for name, text in texts.items():
            try:
                texts[name] = None if text is None else numbered(text, scope.numbers)
            except ExpressionError as exc:
                mark = item.marks.get(name) or body.weight_marks.get(name)
                at_name = replace(weight, marks={**weight.marks, **({"": mark} if mark else {})})
                self.fault(f"{name}: {exc.message}", at_name, help=exc.help)
        if key is not None:
            key = f"{texts['prefix']}{texts['key']}"
        return replace(weight, file=texts["file"], key=key)

    def new(self, name: str, item: Node | Weight | State) -> bool:
        """Note that a block makes a name; whether nothing else has it."""
        source, origin, mark = self.graph.source, item.origin, item.marks.get("")
        here = at(name, mark, source)
        if origin is not None:
            user = at(origin.use, origin.mark, source)
            here = f"{here} in block '{origin.block}', used by {user}"
        if name not in self.places:
            self.places[name] = here, mark
            return True
        other, first = self.places[name]
        self.fault(
            f"the name '{name}' is used twice", mark=first, help="rename one of them",
            notes=(f"one is {other}", f"the other is {here}"),
        )  # fmt: skip
        return False

    # Uses -------------------------------------------------------------------------------

    def use(self, node: Node, scope: _Scope) -> None:
        """Add the repetitions of a block, and the names of what it makes."""
        block = self.graph.blocks[node.attrs[BLOCK]]
        times = self.times(node)
        carried = [name for name in block.outputs if name in block.inputs]
        self.check(node, block, times, carried)
        given = {name: scope.full(tensor) for name, tensor in node.operands.items()}
        after = (*((node.name, scope.full(name)) for name in node.after), *scope.after)
        first, uses = node.marks.get(""), f"{block.name}.{NUMBER}"
        self.fits += [
            Fit(given[name], shape, name, Origin(block.name, node.name, None, first, scope.origin),
                node, block.inputs[name].marks.get("shape"))
            for name, shape in block.shapes.items() if name in given
        ]  # fmt: skip
        for number in range(times or 1):
            origin = Origin(block.name, node.name, None if times is None else number, first,
                            scope.origin)  # fmt: skip
            numbers = {**scope.numbers, uses: origin.number}
            numbers[NUMBER] = scope.numbers[NUMBER] if times is None else number
            inner = _Scope(block, origin.prefix, given, origin, numbers, after)
            self.scope(inner)
            if times is not None:
                made = {name: inner.full(block.outputs[name]) for name in carried}
                self.fits += [
                    Fit(tensor, given[name], name, origin, node, block.output_marks.get(name))
                    for name, tensor in made.items()
                ]
                given = given | made
        self.results(node, block, inner)

    def results(self, node: Node, block: Block, last: _Scope) -> None:
        """Name what a use makes: by the output, and by the node if there is one output."""
        made = {f"{node.name}.{name}": last.full(t) for name, t in block.outputs.items()}
        if len(made) == 1:
            self.same[node.name] = last.full(*block.outputs.values())
        if node.origin is not None:
            self.new(node.name, node)
        for name, tensor in made.items():
            if name != tensor and self.new(name, node):
                self.same[name] = tensor

    def check(self, node: Node, block: Block, times: int | None, carried: list[str]) -> None:
        """Note a use that can mean nothing."""
        if times is not None and not carried:
            outputs, inputs = ", ".join(block.outputs), ", ".join(block.inputs)
            self.fault(
                f"repeat of block '{block.name}' carries nothing: no output is named like an input",
                node, "repeat",
                notes=(f"its inputs are {inputs or 'none'}; its outputs {outputs or 'none'}",),
                help="an output with the name of an input is that input of the next repetition",
            )  # fmt: skip

    # References -------------------------------------------------------------------------

    def resolved(self, node: Node, scope: _Scope) -> Node:
        """The node with the full names of what it reads and waits for."""
        operands = {k: self.find(scope.full(t), node, k) for k, t in node.operands.items()}
        after = [self.find(scope.full(name), node, "after") for name in node.after]
        made = [n for n in (*operands.values(), *after) if n in self.made]
        for use, name in scope.after:
            if not any(n.startswith(f"{use}.") for n in made):
                after.append(self.find(name, node, "after"))
        return replace(node, operands=operands, after=tuple(dict.fromkeys(after)))

    def fit(self, fit: Fit) -> Fit:
        like = self.resolve(fit.like) if isinstance(fit.like, str) else fit.like
        return replace(fit, tensor=self.resolve(fit.tensor), like=like)

    def find(
        self, name: str, item: Node | State | None = None, key: str = "",
        mark: Mark | None = None,
    ) -> str:  # fmt: skip
        """What a full name stands for; a mistake is noted at `key` of `item`, or at `mark`."""
        try:
            return self.resolve(name)
        except _Unresolved as exc:
            self.fault(str(exc), item, key, mark, help=exc.help)
            return name

    def resolve(self, name: str) -> str:
        """The input, weight or node that a full name stands for. Raises _Unresolved."""
        seen = {name: None}
        while name in self.same:
            name = self.same[name]
            if name in seen:
                names = list(seen)
                shown = " → ".join([*names[names.index(name) :], name])
                raise _Unresolved(f"cycle: {shown}", "each is another name for the next")
            seen[name] = None
        for other in seen:
            if other != name:
                self.same[other] = name
        flat = self.flat
        if name in self.made or any(name in k for k in (flat.weights, flat.inputs, flat.states)):
            return name
        several = [n for n in self.same if n.rpartition(".")[0] == name]
        if several:
            raise _Unresolved(f"'{name}' has several outputs", f"they are {', '.join(several)}")
        raise _Unresolved(f"there is no tensor '{name}'", did_you_mean(name, self.made))

    def fault(
        self, message: str, item: Node | Weight | State | None = None, key: str = "",
        mark: Mark | None = None, **more: Any,
    ) -> None:  # fmt: skip
        source = self.graph.source if mark is not None else None
        if item is not None:
            self.errors.append(self.graph.error(message, item, key, **more))
        else:
            self.errors.append(Diagnostic(message, source=source, mark=mark, **more))


class _Unresolved(Exception):
    """A name stands for no tensor."""

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.help = help


def _uses(graph: Graph) -> dict[str, list[str]]:
    """The blocks that each block uses."""
    return {
        name: [node.attrs[BLOCK] for node in block.nodes.values() if node.op == BLOCK]
        for name, block in graph.blocks.items()
    }


def _check_cycles(graph: Graph) -> None:
    errors = []
    for cycle in topological_order(_uses(graph))[1]:
        closed = [*cycle, cycle[0]]
        nodes = [
            n for n in graph.blocks[closed[1]].nodes.values() if n.attrs.get(BLOCK) == cycle[0]
        ]
        message = f"blocks use each other: {' → '.join(reversed(closed))}"
        errors.append(graph.error(message, nodes[0], BLOCK, help="a block cannot be in itself"))
    if errors:
        raise GraphError(errors)


def _without_declarations(graph: Graph) -> Graph:
    flat = Graph(
        graph.name, dims=graph.dims, consts=graph.consts, ops=graph.ops, folder=graph.folder,
        weight_root=graph.weight_root, source=graph.source, file=graph.weight_file,
        prefix=graph.weight_prefix, weight_dtype=graph.weight_dtype,
    )  # fmt: skip
    flat.inputs, flat.stored = dict(graph.inputs), graph.stored
    flat.output_marks, flat.weight_marks = graph.output_marks, graph.weight_marks
    return flat


def fixed_dims(graph: Graph) -> dict[str, str]:
    """The dims that say how often a block is repeated, each with a node that says so."""
    found: dict[str, str] = {}
    for scope in (graph, *graph.blocks.values()):
        for node in scope.nodes.values():
            repeat = node.attrs.get("repeat") if node.op == BLOCK else None
            waiting = list(names_in(repeat)) if isinstance(repeat, str) else []
            for name in waiting:  # grows during the loop
                const = graph.consts.get(name)
                if isinstance(const, str):
                    waiting += [other for other in names_in(const) if other not in waiting]
                elif name in graph.dims:
                    found.setdefault(name, node.name)
    return found
