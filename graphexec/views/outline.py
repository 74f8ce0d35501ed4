"""The graph as boxes and arrows: inputs, weights, ops, outputs, and the tensors between them.

Made from a typed graph, or from the launches of a plan (see recovered.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from graphexec.base.printable import printable

if TYPE_CHECKING:
    from graphexec.ir.typed import TypedGraph

Kind = Literal["input", "weight", "state", "op", "output", "many"]


@dataclass(frozen=True)
class Box:
    """A box: an op's node, an input, a weight, a state, an output or the next value of a state, or
    many nodes taken together, of which `ops` says how often each op occurs. `names` are the nodes
    it stands for."""

    kind: Kind
    name: str
    op: str
    type: str = ""
    line: int | None = None
    names: tuple[str, ...] = ()
    ops: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Arrow:
    """A tensor from one box to another (their numbers), or an order without data."""

    source: int
    target: int
    label: str = ""
    order_only: bool = False


@dataclass(frozen=True)
class Outline:
    """Boxes in a topological order, and arrows, each forward."""

    graph: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def of_graph(graph: TypedGraph) -> Outline:
    """The graph as it was written."""
    boxes = [Box("input", name, "input", str(t)) for name, t in graph.inputs.items()]
    boxes += [Box("weight", name, "weight", str(w.type)) for name, w in graph.weights.items()]
    boxes += [Box("state", name, "state", str(s.type)) for name, s in graph.states.items()]
    at = {box.name: n for n, box in enumerate(boxes)}
    types = graph.types()
    arrows = []
    for node in graph.nodes:
        at[node.name] = here = len(boxes)
        boxes.append(Box("op", node.name, node.op.name, str(node.type), node.line, (node.name,)))
        for tensor in dict.fromkeys(node.operands.values()):
            arrows.append(Arrow(at[tensor], here, str(types[tensor])))
        arrows += [Arrow(at[a], here, "after", True) for a in node.after if a in at]
    for name, tensor in graph.outputs.items():
        arrows.append(Arrow(at[tensor], len(boxes), str(types[tensor])))
        boxes.append(Box("output", name, "output", str(types[tensor])))
    for name, state in graph.states.items():
        arrows.append(Arrow(at[state.next], len(boxes), str(state.type)))
        boxes.append(Box("output", name, "next", str(state.type)))
    return Outline(graph.name, tuple(boxes), tuple(arrows))


def to_dict(outline: Outline) -> dict[str, object]:
    """The outline for JSON."""
    boxes = [
        {"name": b.name, "kind": b.kind, "op": b.op, "type": b.type, "line": b.line}
        for b in outline.boxes
    ]
    arrows = [
        {"from": a.source, "to": a.target, "tensor": a.label, "order_only": a.order_only}
        for a in outline.arrows
    ]
    return {"graph": outline.graph, "nodes": boxes, "edges": arrows}


def named(outline: Outline) -> Outline:
    """The outline with every name printable."""
    boxes = tuple(replace(b, name=printable(b.name), op=printable(b.op)) for b in outline.boxes)
    return Outline(printable(outline.graph), boxes, outline.arrows)
