"""The sections `mesh` and `cut`, and the key `cut` of a tensor."""

from __future__ import annotations

from graphexec.base.diagnostics import Mark
from graphexec.frontend.yaml.document import Document, Members
from graphexec.frontend.yaml.problems import short
from graphexec.frontend.yaml.tree import MapNode, Node, ScalarNode
from graphexec.ir.graph import Graph
from graphexec.ir.names import SYMBOL

MOST = 1 << 16
"""Ranks along an axis of a mesh."""


def read_ranks(doc: Document, graph: Graph) -> None:
    """Fill `graph.mesh` and `graph.cut`."""
    for key, value in doc.entries("mesh"):
        name, extent = str(key.value), value.value if isinstance(value, ScalarNode) else None
        if not SYMBOL.match(name):
            help = "a letter or '_', then letters, digits, '_'"
            doc.problems.add(key, f"'{short(name)}' is not a name for an axis", help=help)
        elif type(extent) is not int or not 1 <= extent <= MOST:
            doc.fields.expected(value, f"how many ranks lie along '{name}', from 1 to {MOST:,}")
        else:
            graph.mesh[name] = extent
    if "cut" in doc.sections:
        graph.cut = _cut(doc, doc.sections["cut"][1], graph.cut_marks)


def read_cut(doc: Document, members: Members, marks: dict[str, Mark]) -> dict[str, str] | None:
    """The key `cut` of an input, weight or state, if it is there."""
    return _cut(doc, members["cut"][1], marks, "cut.") if "cut" in members else None


def _cut(doc: Document, node: Node, marks: dict[str, Mark], prefix: str = "") -> dict[str, str]:
    if not isinstance(node, MapNode):
        doc.fields.expected(node, "dims, each with an axis of the mesh", "as in 'cut: {G: tp}'")
        return {}
    found: dict[str, str] = {}
    for key, value in node.pairs:
        name = str(key.value)
        axis = doc.fields.text(value, f"an axis of the mesh for dim '{short(name)}'")
        if axis:
            found[name] = axis
            marks[prefix + name] = key.mark
    return found
