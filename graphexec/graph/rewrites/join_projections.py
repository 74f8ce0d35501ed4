"""join-projections: products of one tensor with several weights become one product.

    q: x @ T(wq) + bq                           q+k+v: x @ T(wq+wk+wv) + bq+bk+bv
    k: x @ T(wk) + bk        become             q, k, v: windows on its columns
    v: x @ T(wv) + bv

The weights, and the biases, lie one after another from the moment when they are loaded, so that no
byte is moved for it. Their numbers of rows may differ. Products are joined when

1. they read the same a, and differ in nothing but b, which is a weight of two axes and is read
   transposed; all or none of them add a bias, their own or by a map that is nothing but this sum;
2. nothing else reads these weights and biases, and no input is among them: an input would have to
   be copied in each run;
3. none is an output or has an `after` edge, to it or from it;
4. every reader takes a window on the columns (Op.accepts), and no copy that fold-copies leaves out
   for the products apart has to be made for the one product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from graphexec.base.tensor import TensorType, View
from graphexec.graph.rewrites.biases import added_bias
from graphexec.graph.rewrites.readers import Readers, joined_name, quoted
from graphexec.graph.rewrites.windows import unmoved
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph, TypedNode, TypedWeight
from graphexec.ops.concat import OP as CONCAT
from graphexec.ops.concat import part_windows
from graphexec.ops.copy import OP as COPY


@dataclass(frozen=True)
class Projection:
    """A product with a weight, and perhaps a bias: by the gemm alone, or by a map that follows."""

    gemm: TypedNode
    last: TypedNode  # the gemm, or the map
    bias: str | None

    @property
    def name(self) -> str:
        """The tensor that it gives."""
        return self.last.name


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with one product for the projections of each tensor."""
    groups, notes = _groups(graph)
    if not groups:
        return graph, tuple(notes)
    usual = unmoved(graph, target)
    while groups:  # without those that nothing takes as windows, the others may lie otherwise
        windows = unmoved(_joined(graph, groups, judged=False), target)
        lost = {p.name: _lost(p, graph, usual, windows) for group in groups for p in group}
        if not any(lost.values()):
            break
        for name, copies in lost.items():
            if copies:
                text = f"'{name}' stays apart: {quoted(copies)} would have to be copied"
                notes.append(Note((name,), text, applied=False))
        groups = [[p for p in group if not lost[p.name]] for group in groups]
        groups = [group for group in groups if len(group) > 1]
    notes += map(_told, groups)
    return (_joined(graph, groups) if groups else graph), tuple(notes)


def _told(group: Sequence[Projection]) -> Note:
    names, weights = [p.name for p in group], [p.gemm.operands["b"] for p in group]
    nodes = dict.fromkeys((*names, *(p.gemm.name for p in group), joined_name(names), *weights))
    text = f"{quoted(names)} are one product: {quoted(weights)} are loaded one after another"
    return Note(tuple(nodes), text)


# Which products -------------------------------------------------------------------------------


def _groups(graph: TypedGraph) -> tuple[list[list[Projection]], list[Note]]:
    """The projections of each tensor that could be one product, and why others could not."""
    readers, types = Readers(graph), graph.types()
    alike: dict[object, list[Projection]] = {}
    near: dict[str, dict[str, str]] = {}  # of each a, the gemms, and why they are no projections
    for node in graph.nodes:
        if node.op.name != "gemm":
            continue
        why = _why_not(node, graph, readers)
        near.setdefault(node.operands["a"], {})[node.name] = why
        if not why:
            projection = _projection(node, graph, types, readers)
            alike.setdefault(_kind(projection, graph), []).append(projection)
    groups = [
        g for g in alike.values() if len(g) > 1 and joined_name([p.name for p in g]) not in types
    ]
    joined = {p.gemm.name for group in groups for p in group}
    notes = []
    for reasons in near.values():
        if len(reasons) < 2 or all(reasons.values()):
            continue
        for name in reasons.keys() - joined:
            why = reasons[name] or "no other differs from it in its weights alone"
            text = f"'{name}' is not joined with products of the same tensor: {why}"
            notes.append(Note((name,), text, applied=False))
    return groups, sorted(notes, key=lambda note: note.nodes)


def _kind(projection: Projection, graph: TypedGraph) -> tuple[object, ...]:
    """Equal for projections that can be one product."""
    gemm, type = projection.gemm, projection.last.type
    weight = graph.weights[gemm.operands["b"]].type
    bias = None if projection.bias is None else graph.weights[projection.bias].type.dtype
    attrs = tuple(sorted((key, repr(value)) for key, value in gemm.attrs.items()))
    return gemm.operands["a"], attrs, weight.dtype, type.dtype, type.shape[:-1], bias


def _projection(
    gemm: TypedNode, graph: TypedGraph, types: dict[str, TensorType], readers: Readers
) -> Projection:
    bias, map = gemm.operands.get("bias"), readers.only(gemm.name)
    added = added_bias(gemm, map, types, readers)
    if map is None or added is None or map.name in readers.outputs:
        return Projection(gemm, gemm, bias)
    if not _is_own(added, 1, graph, readers):
        return Projection(gemm, gemm, None)
    return Projection(gemm, map, added)


def _why_not(gemm: TypedNode, graph: TypedGraph, readers: Readers) -> str:
    """Why a gemm is no projection; "" if it is one."""
    weight = gemm.operands["b"]
    if weight not in graph.weights:  # 1, 2
        return f"'{weight}' is no weight"
    if not gemm.attrs["trans_b"]:
        return f"its weights '{weight}' do not lie row by row of the result's columns"
    if not _is_own(weight, 2, graph, readers):
        return f"'{weight}' has other readers or more than two axes"
    bias = gemm.operands.get("bias")
    if "c" in gemm.operands or (bias is not None and not _is_own(bias, 1, graph, readers)):
        return "it adds a c, or a bias that is no weight of its own"
    if gemm.name in readers.outputs:  # 3
        return "it is an output"
    return "there is an `after` edge at it" if gemm.name in readers.ordered else ""


def _is_own(weight: str, rank: int, graph: TypedGraph, readers: Readers) -> bool:
    found = graph.weights.get(weight)
    return (
        found is not None
        and found.into is None
        and len(found.type.shape) == rank
        and readers.only(weight) is not None
    )


# The one product ------------------------------------------------------------------------------


def _joined(
    graph: TypedGraph, groups: Sequence[Sequence[Projection]], judged: bool = True
) -> TypedGraph:
    """The graph with one product for each group. Its columns are windows if that was `judged`; else
    fold-copies has yet to say whether they can be."""
    weights = dict(graph.weights)
    instead: dict[str, list[TypedNode]] = {}
    gone: set[str] = set()
    for group in groups:
        gone |= {node.name for p in group for node in (p.gemm, p.last)}
        instead[group[0].gemm.name] = [*_one(group, weights, judged)]
    nodes: list[TypedNode] = []
    for node in graph.nodes:
        nodes += instead.get(node.name, [] if node.name in gone else [node])
    return replace(graph, nodes=tuple(nodes), weights=weights)


def _one(
    group: Sequence[Projection], weights: dict[str, TypedWeight], judged: bool
) -> Iterator[TypedNode]:
    """The weights one after another, the product, and the windows that are its parts."""
    gemm, type = group[0].gemm, group[0].last.type
    operands = {"a": gemm.operands["a"]}
    for key, names in (
        ("b", [p.gemm.operands["b"] for p in group]),
        ("bias", [p.bias for p in group if p.bias is not None]),
    ):
        if names:
            whole = _side_by_side(names, weights)
            operands[key] = whole.name
            yield whole
    columns = [p.last.type.shape[-1] for p in group]
    whole_type = replace(type, shape=(*type.shape[:-1], sum(columns)))
    product = replace(
        gemm, name=joined_name([p.name for p in group]), operands=operands, type=whole_type
    )
    yield product
    begin = 0
    for projection, count in zip(group, columns, strict=True):
        yield replace(_columns(product, projection.last, begin, begin + count), window=judged)
        begin += count


def _side_by_side(names: Sequence[str], weights: dict[str, TypedWeight]) -> TypedNode:
    """A concat of weights, each of which is loaded to its place in it."""
    types = {f"x[{number}]": weights[name].type for number, name in enumerate(names)}
    operands = dict(zip(types, names, strict=True))
    whole = joined_name(names)
    type = CONCAT.infer(types, {"axis": 0})
    parts = part_windows(View.dense(whole, type), [t.shape[0] for t in types.values()], 0)
    for name, part in zip(names, parts, strict=True):
        weights[name] = replace(weights[name], into=part)
    return TypedNode(whole, CONCAT, operands, {"axis": 0}, type)


def _columns(product: TypedNode, old: TypedNode, begin: int, end: int) -> TypedNode:
    """Columns of the product, with the name of a node that it replaces."""
    attrs = {a.name: a.default for a in COPY.attributes}
    attrs["slice"] = {len(product.type.shape) - 1: (begin, end, 1)}
    return TypedNode(old.name, COPY, {"x": product.name}, attrs, old.type, line=old.line)


# Readers --------------------------------------------------------------------------------------


def _lost(
    projection: Projection, graph: TypedGraph, usual: set[str], windows: set[str]
) -> list[str]:
    """Copies that would move bytes only if the projection were a part of one product."""
    copies = {projection.name}
    for node in graph.nodes:
        if node.op.name == "copy" and node.operands["x"] in copies:
            copies.add(node.name)
    return sorted(({projection.name} | (copies & usual)) - windows)


REWRITE = GraphRewrite(
    "join-projections",
    "products of one tensor with several weights become one, with the weights side by side",
    rewrite,
    lengthens=True,
)
