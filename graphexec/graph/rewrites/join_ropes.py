"""join-ropes: one rope for queries and keys that lie side by side.

    q2 = rope(heads of q)                      q2+k2 = rope(heads of q and k)
    k2 = rope(heads of k)           become     q2, k2: windows on its heads

Ropes are joined when

1. they have the same attributes and the same positions and tables, which do not differ from head to
   head;
2. what they rotate are windows on columns of one tensor, (B, S, W) or (S, W), next to one another:
   those of join-projections are;
3. none is an output or has an `after` edge, to it or from it;
4. every reader takes a window on the heads, as in fold-copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from graphexec.base.tensor import TensorType, View
from graphexec.graph.rewrites.readers import Layouts, Readers, joined_name, layouts_of, quoted
from graphexec.graph.rewrites.windows import unmoved, with_windows
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.ops.copy import OP as COPY


@dataclass(frozen=True)
class Heads:
    """What a rope rotates: columns of a tensor from `first` on, `count` heads of equal size."""

    rope: TypedNode
    source: str
    first: int
    count: int

    @property
    def size(self) -> int:
        """Columns of a head."""
        return self.rope.type.shape[-1]

    @property
    def end(self) -> int:
        """The column behind the last."""
        return self.first + self.count * self.size


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with one rope for neighbours."""
    if sum(node.op.name == "rope" for node in graph.nodes) < 2:
        return graph, ()
    groups = list(_groups(graph, target))
    if not groups:
        return graph, ()
    windows = unmoved(_joined(graph, groups, judged=False), target)
    kept, notes = [], list[Note]()
    for group in groups:
        names = [heads.rope.name for heads in group]
        lost = [name for name in names if name not in windows]
        if lost:
            text = f"ropes {quoted(names)} stay apart: {quoted(lost)} would have to be copied"
            notes.append(Note(tuple(names), text, applied=False))
            continue
        kept.append(group)
        notes.append(
            Note((*names, joined_name(names)), f"{quoted(names)} are rotated by one command")
        )
    return (_joined(graph, kept) if kept else graph), tuple(notes)


# Which ropes ----------------------------------------------------------------------------------


def _groups(graph: TypedGraph, target: Target) -> Iterator[list[Heads]]:
    """Ropes whose heads are neighbours, in the order of their columns."""
    readers, types = Readers(graph), graph.types()
    layouts = layouts_of(with_windows(graph, target)[0])
    alike: dict[object, list[Heads]] = {}
    for node in graph.nodes:
        if node.op.name != "rope" or node.name in readers.outputs | readers.ordered:
            continue
        heads = _heads(node, types, layouts)
        if heads is not None and _same_for_all_heads(node, types, len(types[heads.source].shape)):
            others = {key: name for key, name in node.operands.items() if key != "x"}
            attrs = tuple(sorted((key, repr(value)) for key, value in node.attrs.items()))
            kind = heads.source, heads.size, attrs, tuple(sorted(others.items()))
            alike.setdefault(kind, []).append(heads)
    for found in alike.values():
        run: list[Heads] = []
        for heads in sorted(found, key=lambda h: h.first):
            if run and run[-1].end != heads.first:
                yield from [run] if len(run) > 1 else []
                run = []
            run.append(heads)
        yield from [run] if len(run) > 1 else []


def _same_for_all_heads(rope: TypedNode, types: Mapping[str, TensorType], rank: int) -> bool:
    """Whether the positions of a rope do not depend on the head. `at` is one for all, or has one
    for each of the first axis, which is that of the batch only where there is one."""
    position, at = rope.operands.get("position"), rope.operands.get("at")
    if position is not None:
        return len(types[position].shape) < 2
    return at is None or rank == 3 or not types[at].shape


def _heads(rope: TypedNode, types: Mapping[str, TensorType], layouts: Layouts) -> Heads | None:
    """The columns that a rope rotates, if they are whole heads of a dense tensor."""
    view, shape = layouts.view(rope.operands["x"]), rope.type.shape
    source = types.get(view.storage)
    if source is None or source.dtype is not view.dtype or len(source.shape) not in (2, 3):
        return None
    *batch, rows, width = source.shape
    count = prod(shape[len(batch) : -2])
    first = view.offset
    if shape[: len(batch)] != tuple(batch) or shape[-2] != rows or first >= width:
        return None
    wanted = _columns(View.dense(view.storage, source), first, count, shape[-1])
    found = view.reshaped((*batch, count, *shape[-2:]))
    same = wanted is not None and found is not None and _strides(wanted) == _strides(found)
    return Heads(rope, view.storage, first, count) if same else None


def _columns(source: View, first: int, count: int, size: int) -> View | None:
    """Heads of a tensor, over (B, heads, S, D) or (heads, S, D)."""
    *outer, width = source.shape
    if first + count * size > width:
        return None
    part = replace(source, shape=(*outer, count * size), offset=source.offset + first)
    split = part.reshaped((*outer, count, size))
    rank = len(outer) - 1
    return None if split is None else split.transpose((*range(rank), rank + 1, rank, rank + 2))


def _strides(view: View) -> tuple[int, ...]:
    """The strides that count, and where the view begins."""
    steps = (s if e > 1 else 0 for e, s in zip(view.shape, view.strides, strict=True))
    return (view.offset, *steps)


# The one rope ---------------------------------------------------------------------------------


def _joined(
    graph: TypedGraph, groups: Sequence[Sequence[Heads]], judged: bool = True
) -> TypedGraph:
    """The graph with one rope for each group, and without copies that nothing reads any more. Its
    heads are windows if that was `judged`; else fold-copies has yet to say so."""
    types, nodes = graph.types(), list[TypedNode]()
    first: dict[str, Sequence[Heads]] = {}
    for group in groups:
        names = {heads.rope.name for heads in group}
        first[next(node.name for node in graph.nodes if node.name in names)] = group
    gone = {heads.rope.name for group in groups for heads in group}
    for node in graph.nodes:
        if node.name in first:
            nodes += _one(first[node.name], types, judged)
        elif node.name not in gone:
            nodes.append(node)
    return _without_unread(replace(graph, nodes=tuple(nodes)), groups)


def _without_unread(graph: TypedGraph, groups: Sequence[Sequence[Heads]]) -> TypedGraph:
    """The graph without the copies that led to the ropes alone."""
    nodes = {node.name: node for node in graph.nodes}
    readers = Readers(graph)
    pending = [heads.rope.operands["x"] for group in groups for heads in group]
    while pending:
        node = nodes.get(pending.pop())
        if node is None or node.op.name != "copy":
            continue
        read = [r for r in readers.of.get(node.name, ()) if r.name in nodes]
        if not read and node.name not in readers.outputs | readers.ordered:
            del nodes[node.name]
            pending.append(node.operands["x"])
    return replace(graph, nodes=tuple(nodes.values()))


def _one(
    group: Sequence[Heads], types: Mapping[str, TensorType], judged: bool
) -> Iterator[TypedNode]:
    """The heads, their rope, and the windows that are its parts."""
    source = types[group[0].source]
    *batch, rows, _ = source.shape
    count, size, rank = sum(heads.count for heads in group), group[0].size, len(batch)
    name = joined_name([heads.rope.name for heads in group])
    low, high = group[0].first, group[-1].end
    split = _copy(
        f"{name}.heads", group[0].source, replace(source, shape=(*batch, rows, count, size)),
        slice={rank + 1: (low, high, 1)}, reshape=(*batch, rows, count, size),
    )  # fmt: skip
    turned = _copy(
        f"{name}.x", split.name, replace(source, shape=(*batch, count, rows, size)),
        permute=(*range(rank), rank + 1, rank, rank + 2),
    )  # fmt: skip
    old = group[0].rope
    rope = replace(old, name=name, type=turned.type, operands={**old.operands, "x": turned.name})
    yield from (replace(split, window=True), replace(turned, window=True), rope)
    begin = 0
    for heads in group:
        part = _copy(
            heads.rope.name, name, heads.rope.type, slice={rank: (begin, begin + heads.count, 1)},
            reshape=heads.rope.type.shape,
        )  # fmt: skip
        yield replace(part, window=judged, line=heads.rope.line)
        begin += heads.count


def _copy(name: str, x: str, type: TensorType, **given: Any) -> TypedNode:
    attrs = {a.name: a.default for a in COPY.attributes} | given
    return TypedNode(name, COPY, {"x": x}, attrs, type)


REWRITE = GraphRewrite(
    "join-ropes", "one rope for queries and keys that lie side by side", rewrite, lengthens=True
)
