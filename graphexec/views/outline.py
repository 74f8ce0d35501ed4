"""What the user wrote, as boxes and arrows: inputs, weights, ops, outputs, and tensors between.

Made from a typed graph; or, where there is only a plan, from its launches (see recovered.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from graphexec.views.blocks import summary
from graphexec.views.table import count, printable

if TYPE_CHECKING:
    from graphexec.typed import TypedGraph

Kind = Literal["input", "weight", "op", "output", "many"]


@dataclass(frozen=True)
class Box:
    """A box: an op's node, an input, a weight, an output, or `members` nodes taken together.
    `names` are the nodes it stands for."""

    kind: Kind
    name: str
    op: str
    type: str = ""
    line: int | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrow:
    """A tensor that goes from one box to another (their numbers); or an order without data."""

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
    return Outline(graph.name, tuple(boxes), tuple(arrows))


def collapsed(outline: Outline, most: int) -> Outline:
    """The outline with about `most` boxes: stretches of a depth-first topological order become
    one each, so chains stay together and arrows still go forward."""
    if len(outline.boxes) <= most:
        return outline
    order = _depth_first(outline)
    groups = _stretches(order, {(a.source, a.target) for a in outline.arrows}, most)
    group = {n: g for g, members in enumerate(groups) for n in members}
    tensors = Counter(
        ends for a in outline.arrows if (ends := (group[a.source], group[a.target]))[0] != ends[1]
    )
    boxes = [_many([outline.boxes[n] for n in members]) for members in groups]
    arrows = [Arrow(s, t, count(n, "tensor")) for (s, t), n in tensors.items()]
    return Outline(outline.graph, tuple(boxes), tuple(arrows))


def _stretches(order: list[int], edges: set[tuple[int, int]], most: int) -> list[list[int]]:
    """Cut the order where a chain ends and where a stretch is long enough; only by length where
    that makes too many."""
    size = -(-len(order) // max(most, 1))
    groups: list[list[int]] = []
    for n in order:
        if groups and len(groups[-1]) < size and (groups[-1][-1], n) in edges:
            groups[-1].append(n)
        else:
            groups.append([n])
    if len(groups) <= 2 * most:
        return groups
    return [order[at : at + size] for at in range(0, len(order), size)]


def _many(members: list[Box]) -> Box:
    if len(members) == 1:
        return members[0]
    names = tuple(name for box in members for name in box.names)
    first, last = members[0].name, members[-1].name
    ops = summary([box.op for box in members])
    return Box("many", f"{first} … {last}", count(len(members), "node"), ops, None, names)


def _depth_first(outline: Outline) -> list[int]:
    """A topological order that follows each chain as far as it goes."""
    after: list[list[int]] = [[] for _ in outline.boxes]
    missing = [0] * len(outline.boxes)
    for arrow in outline.arrows:
        after[arrow.source].append(arrow.target)
        missing[arrow.target] += 1
    stack = [n for n in reversed(range(len(missing))) if missing[n] == 0]
    order = []
    while stack:
        n = stack.pop()
        order.append(n)
        for later in reversed(after[n]):
            missing[later] -= 1
            if missing[later] == 0:
                stack.append(later)
    return order


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


__all__ = ["Arrow", "Box", "Outline", "collapsed", "named", "of_graph", "to_dict"]
