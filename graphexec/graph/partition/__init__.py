"""partition: a graph for several ranks → the graph of one of them.

Requires the whole graph, typed, and along which axis of the mesh which axes of its inputs, weights
and states are cut. Guarantees a graph with the same inputs and outputs, whole on every rank, whose
weights and states are the rank's parts, and in which ranks meet by collectives:

1. Every op works on its rank's part where it can (rules.py): element by element, along axes that it
   does not mix, and over parts of an axis that it sums over. Else its operands are gathered first.
2. A partial sum is reduced at once, by an all_reduce; `c` and `bias` of a product are added then.
3. What is whole becomes a part by a copy, without a meeting.
4. Collectives follow one another in one order, the same on every rank, so that none waits for
   another for ever: each is `after` the one before.

Which part an axis is cut into is as in GSPMD (Xu et al. 2021, arXiv:2105.04663): rank n of an axis
with p ranks has the n-th of p equal parts, neighbours. The placement follows from what the user
cuts; no other is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphexec.base.grammar import Binary, Expression, Name, Number, parse
from graphexec.base.tensor import TensorType
from graphexec.graph.partition.collective import AllGather, AllReduce
from graphexec.graph.partition.rules import rule_of
from graphexec.graph.partition.split import Spec, Split
from graphexec.graph.rewriting import Note
from graphexec.ir.op import Op
from graphexec.ir.program import Reduction
from graphexec.ir.ranks import Ranks
from graphexec.ir.typed import Part, TypedGraph, TypedNode, TypedState, TypedWeight


def partition(
    graph: TypedGraph, cuts: Mapping[str, Spec], ranks: Ranks, ops: Mapping[str, Op]
) -> tuple[TypedGraph, tuple[Note, ...]]:
    """The graph of a rank, and why its ranks meet. `cuts` are of inputs, weights and states; `ops`
    has copy and map."""
    made = Partition(graph, cuts, ranks, ops)
    return made.run(), tuple(made.notes)


class Partition:
    """The graph of a rank, while it is made."""

    def __init__(
        self, graph: TypedGraph, cuts: Mapping[str, Spec], ranks: Ranks, ops: Mapping[str, Op]
    ) -> None:
        self.graph, self.ranks, self.ops = graph, ranks, ops
        self.whole: dict[str, TensorType] = graph.types()
        self.types: dict[str, TensorType] = {}  # of the rank's tensors
        self.specs: dict[str, Spec] = {}
        self._nodes: list[TypedNode] = []
        self._made: dict[tuple[str, str, int, str], str] = {}
        self._taken = {*self.whole, *graph.same}
        self._parts: dict[str, str] = {}  # of inputs
        self._last = ""  # collective
        self.notes: list[Note] = []
        self._cuts = cuts

    def run(self) -> TypedGraph:
        """All of it."""
        graph = self.graph
        weights = {name: self._weight(name, weight) for name, weight in graph.weights.items()}
        states = {name: self._state(name, state) for name, state in graph.states.items()}
        for name, type in graph.inputs.items():  # given whole; the rank goes on with its part
            self._declare(name, type, ("",) * len(type.shape))
            self._parts[name] = self.as_cut(name, self._spec(name, type))
        for node in graph.nodes:
            self._node(node)
        outputs = {name: self.gathered(tensor) for name, tensor in graph.outputs.items()}
        for name, state in states.items():
            states[name] = replace(state, next=self.as_cut(state.next, self.specs[name]))
        return replace(graph, weights=weights, states=states, nodes=tuple(self._nodes),
                       outputs=outputs)  # fmt: skip

    # Declarations -------------------------------------------------------------------------

    def _declare(self, name: str, type: TensorType, spec: Spec) -> TensorType:
        self.specs[name] = spec
        self.types[name] = replace(type, shape=self.local(type.shape, spec))
        return self.types[name]

    def _weight(self, name: str, weight: TypedWeight) -> TypedWeight:
        type, part = self._part(name, weight.type)
        return weight if part is None else replace(weight, type=type, part=part)

    def _state(self, name: str, state: TypedState) -> TypedState:
        type, part = self._part(name, state.type)
        init = state.init
        if isinstance(init, TypedWeight) and part is not None:
            init = replace(init, type=type, part=part)
        return replace(state, type=type, init=init, part=part)

    def _part(self, name: str, whole: TensorType) -> tuple[TensorType, Part | None]:
        """The type of this rank's part of a tensor, and which part that is; None if it is all."""
        spec = self._spec(name, whole)
        type = self._declare(name, whole, spec)
        if type == whole:
            return type, None
        begin = tuple(self.index(axis) * extent if axis else 0
                      for axis, extent in zip(spec, type.shape, strict=True))  # fmt: skip
        return type, Part(whole.shape, begin)

    def _spec(self, name: str, type: TensorType) -> Spec:
        return self._cuts.get(name, ("",) * len(type.shape))

    # Sizes --------------------------------------------------------------------------------

    def size(self, axis: str) -> int:
        """How many ranks lie along an axis of the mesh."""
        return self.ranks.mesh[axis] if axis else 1

    def index(self, axis: str) -> int:
        """The place of this rank along an axis of the mesh."""
        return self.ranks.place(axis)

    def local(self, shape: tuple[int, ...], spec: Spec) -> tuple[int, ...]:
        """The shape of a part."""
        return tuple(n // self.size(axis) for n, axis in zip(shape, spec, strict=True))

    # Nodes --------------------------------------------------------------------------------

    def _node(self, node: TypedNode) -> None:
        split = rule_of(node.op.name)(self, node)
        name = node.name if not split.reduction else self._free(f"{node.name}.partial")
        name = self._free(f"{node.name}.rows") if split.kept else name
        types = {key: self.types[tensor] for key, tensor in split.operands.items()}
        type = node.op.infer(types, split.attrs)
        assert type.shape == self.local(node.type.shape, split.spec), (node.name, type, split.spec)
        after = tuple(self._known(tensor) for tensor in node.after)
        self._add(replace(node, name=name, operands=split.operands, attrs=split.attrs, type=type,
                          after=after), split.spec)  # fmt: skip
        if not split.reduction:
            return
        if split.kept:
            given = {"kept": split.kept, "x": name}
            shape = node.type.shape
            name = self.computed(
                f"{node.name}.partial", "where(kept, x, 0)", given, split.spec, shape
            )
        reduced = node.name if not split.added else self._free(f"{node.name}.all_reduce")
        self._reduce(name, reduced, split.reduction, split.over, node.line)
        if split.added:
            self._sum(node, reduced, split)

    def _known(self, tensor: str) -> str:
        return self.graph.same.get(tensor, tensor)

    def _sum(self, node: TypedNode, reduced: str, split: Split) -> None:
        """What a product adds, added to the reduced one."""
        tree: Expression = Name("p")
        operands = {"p": reduced}
        for number, (tensor, factor) in enumerate(split.added):
            name = f"a{number}"
            operands[name] = self.as_cut(tensor, self.aligned(tensor, split.spec))
            term: Expression = Name(name)
            if factor != 1:
                term = Binary("*", Number(factor), term)
            tree = Binary("+", tree, term)
        attrs = self._attrs("map", expr=tree, dtype=node.type.dtype, shape=None)
        self.add("map", node.name, operands, attrs, split.spec, node.line)

    def operands(self, node: TypedNode) -> dict[str, str]:
        """What a node reads, of the tensors there are."""
        return {key: self._parts.get(name, name) for key, name in node.operands.items()}

    def aligned(self, tensor: str, spec: Spec) -> Spec:
        """How a tensor that broadcasts to a result must be cut if the result is cut so."""
        shape = self.whole[tensor].shape
        tail = spec[len(spec) - len(shape) :]
        return tuple(axis if n > 1 else "" for n, axis in zip(shape, tail, strict=True))

    def computed(
        self, name: str, expr: str, operands: Mapping[str, str], spec: Spec, shape: tuple[int, ...]
    ) -> str:
        """A new tensor: an expression of others, of this whole shape; "x" alone is reshaped."""
        name = self._free(name)
        if expr == "x":
            attrs = self._attrs("copy", reshape=self.local(shape, spec))
            made = self.add("copy", name, operands, attrs, spec)
        else:
            made = self.add(
                "map", name, operands, self._attrs("map", expr=parse(expr), shape=None), spec
            )
        self.whole[made] = replace(self.types[made], shape=shape)
        return made

    def _attrs(self, op: str, **given: Any) -> dict[str, Any]:
        return {a.name: a.default for a in self.ops[op].attributes} | given

    def add(
        self, op: str, name: str, operands: Mapping[str, str], attrs: Mapping[str, Any], spec: Spec,
        line: int | None = None,
    ) -> str:  # fmt: skip
        """A node of copy or map."""
        types = {key: self.types[tensor] for key, tensor in operands.items()}
        type = self.ops[op].infer(types, attrs)
        return self._add(TypedNode(name, self.ops[op], operands, attrs, type, (), line), spec)

    def _add(self, node: TypedNode, spec: Spec) -> str:
        self._nodes.append(node)
        self.types[node.name], self.specs[node.name] = node.type, spec
        return node.name

    # Meetings -----------------------------------------------------------------------------

    def _reduce(self, x: str, name: str, reduction: Reduction, over: str, line: int | None) -> None:
        op = AllReduce(self.ranks.communicator(over), reduction)
        self._note(name, f"is a {_WORDS[reduction]} over an axis that is cut along '{over}'", op,
                   over, self.types[x].nbytes)  # fmt: skip
        self._meet(TypedNode(name, op, {"x": x}, {}, self.types[x], (), line), self.specs[x])

    def gathered(self, tensor: str, *axes: int) -> str:
        """The tensor with these axes whole; all of them if none is given."""
        spec = self.specs[tensor]
        for place in axes or range(len(spec)):
            place %= len(spec)
            if not spec[place]:
                continue
            key = ("gather", tensor, place, "")
            if key not in self._made:
                op = AllGather(self.ranks.communicator(spec[place]), self.size(spec[place]), place)
                type = op.infer({"x": self.types[tensor]}, {})
                name = self._free(f"{tensor}.all_gather")
                node = TypedNode(name, op, {"x": tensor}, {}, type)
                left = (*spec[:place], "", *spec[place + 1 :])
                why = f"is needed whole along axis {place}, which is cut along '{spec[place]}'"
                self._note(tensor, why, op, spec[place], type.nbytes)
                self._made[key] = self._meet(node, left)
                self.whole[name] = self.whole[tensor]
            tensor = self._made[key]
            spec = self.specs[tensor]
        return tensor

    def _note(self, tensor: str, why: str, op: Op, over: str, nbytes: int) -> None:
        ranks = self.size(over)
        text = f"'{tensor}' {why}: {op.name} of {_size(nbytes)} by {ranks} ranks"
        self.notes.append(Note((tensor,), text, rewrite="partition"))

    def _meet(self, node: TypedNode, spec: Spec) -> str:
        after = (self._last,) if self._last else ()
        self._last = node.name
        return self._add(replace(node, after=after), spec)

    def as_cut(self, tensor: str, spec: Spec) -> str:
        """The tensor cut so, by gathering and by taking this rank's part of what is whole."""
        for place, (now, wanted) in enumerate(zip(self.specs[tensor], spec, strict=True)):
            if now and now != wanted:
                tensor = self.gathered(tensor, place)
        for place, wanted in enumerate(spec):
            if wanted and not self.specs[tensor][place]:
                tensor = self._cut(tensor, place, wanted)
        return tensor

    def _cut(self, tensor: str, place: int, axis: str) -> str:
        key = ("cut", tensor, place, axis)
        if key not in self._made:
            extent = self.types[tensor].shape[place] // self.size(axis)
            low = self.index(axis) * extent
            attrs = self._attrs("copy", slice={place: (low, low + extent, 1)})
            old = self.specs[tensor]
            spec = (*old[:place], axis, *old[place + 1 :])
            name = self._free(f"{tensor}.part")
            self._made[key] = self.add("copy", name, {"x": tensor}, attrs, spec)
            self.whole[name] = self.whole[tensor]
        return self._made[key]

    def _free(self, name: str) -> str:
        number, found = 1, name
        while found in self._taken:
            number += 1
            found = f"{name}.{number}"
        self._taken.add(found)
        return found


_WORDS = {"sum": "sum", "prod": "product", "max": "maximum", "min": "minimum"}


def _size(nbytes: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes} B"
