"""Products in expressions: a map node with `@` becomes a gemm and a map of its result.

    r: x + c @ T(wo) + bo      becomes      r.gemm: {op: gemm, a: c, b: wo, trans_b: true}
                                            r: x + r.gemm + bo

A node that is nothing but the product becomes the gemm itself. The map is given its syntax tree,
because `r.gemm` is no name that a text could hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from graphexec.base.diagnostics import Diagnostic, place_within
from graphexec.base.grammar import Binary, Call, Expression, ExpressionError, Name, parse, rebuilt
from graphexec.ir.expression import MAP, names_in, product_in
from graphexec.ir.graph import Graph, Node

GEMM = "gemm"
_TURN = re.compile(r"trans_([ab]): (true|false) would fit\Z")


def without_products(graph: Graph) -> tuple[Mapping[str, Node], list[Diagnostic]]:
    """The nodes of a graph by name with gemms in place of `@`, and errors.

    A node whose gemm would have the name of another tensor is left out.
    """
    slot = graph.ops[MAP].expression if MAP in graph.ops and GEMM in graph.ops else None
    if slot is None:
        return graph.nodes, []
    nodes: dict[str, Node] = {}
    taken: list[Diagnostic] = []
    for node in graph.nodes.values():
        made = list(_made_of(graph, node, slot)) if node.op == MAP else [node]
        names = [n.name for n in made if n.name != node.name and n.name in graph]
        taken += [_is_taken(graph, node, name, slot) for name in names]
        if not names:
            nodes |= {n.name: n for n in made}
    return nodes, taken


def in_expression(node: Node, help: str) -> str:
    """What helps, said of the gemm of an expression."""
    found = _TURN.match(help)
    if found is None:
        return help
    tensor = node.operands[found[1]]
    return f"T({tensor}) would fit" if found[2] == "true" else f"{tensor} without T() would fit"


def _made_of(graph: Graph, node: Node, slot: str) -> Iterator[Node]:
    """The nodes that do what `node` does."""
    text = str(node.attrs[slot])
    try:
        tree = parse(text) if "@" in text else None
    except ExpressionError:  # told where the attribute is evaluated
        tree = None
    product = product_in(tree) if tree is not None else None
    sides = _sides(product, node) if product is not None else None
    if tree is None or product is None or sides is None:
        yield node
        return
    whole = tree is product and set(node.attrs) == {slot}
    gemm = _gemm(node, node.name if whole else f"{node.name}.{GEMM}", sides)
    if whole:
        yield replace(gemm, shape=node.shape)
        return
    yield gemm
    rest = _with(tree, product, Name(gemm.name, product.start, product.length))
    operands = {n.name: node.operands.get(n.name, gemm.name) for n in names_in(rest)
                if n.name in node.operands or n.name == gemm.name}  # fmt: skip
    marks = dict(node.marks)
    if slot in marks:
        marks[gemm.name] = place_within(
            graph.source, marks[slot], text, product.start, product.length
        )
    yield replace(node, operands=operands, attrs={**node.attrs, slot: rest}, after=(), marks=marks)


def _sides(product: Binary, node: Node) -> dict[str, tuple[str, bool]] | None:
    """The name and whether it is turned of each side of a product; None if one is no tensor."""
    sides = {}
    for operand, side in (("a", product.left), ("b", product.right)):
        turned = isinstance(side, Call) and side.function == "T"
        inner = side.arguments[0] if isinstance(side, Call) and turned else side
        if not isinstance(inner, Name) or inner.name not in node.operands:
            return None
        sides[operand] = (inner.name, turned)
    return sides


def _gemm(node: Node, name: str, sides: Mapping[str, tuple[str, bool]]) -> Node:
    operands = {operand: node.operands[inner] for operand, (inner, _) in sides.items()}
    attrs = {f"trans_{operand}": True for operand, (_, turned) in sides.items() if turned}
    places = {operand: inner for operand, (inner, _) in sides.items()} | {"": "", "shape": "shape"}
    marks = {operand: node.marks[key] for operand, key in places.items() if key in node.marks}
    return Node(name, GEMM, operands, attrs, node.after, marks=marks)


def _with(tree: Expression, old: Expression, new: Expression) -> Expression:
    """The tree with `new` in place of the node `old`."""
    if tree is old:
        return new
    return rebuilt(tree, lambda inner: _with(inner, old, new))


def _is_taken(graph: Graph, node: Node, name: str, slot: str) -> Diagnostic:
    kinds = (graph.inputs, graph.weights, graph.states, graph.nodes)
    item = next(kind[name] for kind in kinds if name in kind)
    mark, source = item.marks.get(""), graph.source
    place = f"declared at {source.path}:{mark.line}:{mark.column}" if mark and source else ""
    return graph.error(
        f"the product in '{node.name}' makes a tensor '{name}', and there is one of that name",
        node, slot, notes=(place,) if place else (), help="rename one of them",
    )  # fmt: skip
