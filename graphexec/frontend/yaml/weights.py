"""The keys `file`, `prefix` and `weight_dtype` of a graph, and the section `weights`."""

from __future__ import annotations

from graphexec.base.diagnostics import Mark
from graphexec.base.tensor import DType
from graphexec.frontend.yaml.document import Document, Members
from graphexec.frontend.yaml.problems import found, short
from graphexec.frontend.yaml.ranks import read_cut
from graphexec.frontend.yaml.tree import MapNode, Node, ScalarNode
from graphexec.ir.graph import Graph, Weight
from graphexec.ir.repetition import NO_REPETITION, is_numbered

WEIGHT_KEYS = ("file", "key", "shape", "dtype", "cut")
NO_FILE_HELP = "or 'file: …' at the top of the graph, for all weights that name none"


def read_weights(doc: Document, graph: Graph) -> None:
    """Fill `graph.weights`, and what the graph says of all of them."""
    places = graph.weight_marks
    graph.weight_file = read_text(doc, doc.sections, "file", "the path of a file", places)
    prefix = read_text(doc, doc.sections, "prefix", "a text before the keys of weights", places)
    graph.weight_prefix = prefix or ""
    if "weight_dtype" in doc.sections:
        node = doc.sections["weight_dtype"][1]
        floats = [str(dtype) for dtype in DType if dtype.is_float]
        graph.weight_dtype = doc.fields.choice(node, floats, "dtype of floats")
    for key, value in doc.entries("weights"):
        graph.weights[str(key.value)] = _weight(doc, str(key.value), value, {"": key.mark})


def _weight(doc: Document, name: str, value: Node, marks: dict[str, Mark]) -> Weight:
    known = ", ".join(WEIGHT_KEYS)
    if isinstance(value, ScalarNode) and isinstance(value.value, str) and value.value:
        members: Members = {"key": (value, value)}  # a text is the key
    elif isinstance(value, MapNode):
        members = doc.members(value, f"weight '{short(name)}'", WEIGHT_KEYS)
    else:
        doc.fields.expected(value, f"a key, or a mapping with the keys {known}")
        return Weight(name)
    if "file" not in members and not doc.has_file:
        _note_no_file(doc, name, value)
    file = read_text(doc, members, "file", "the path of a file", marks)
    key = read_text(doc, members, "key", "the name of an array", marks)
    shape = doc.fields.shape(members["shape"][1], marks) if "shape" in members else None
    cut = read_cut(doc, members, marks)
    return Weight(name, file, key, shape, read_dtype(doc, members, marks), marks, cut=cut)


def _note_no_file(doc: Document, name: str, value: Node) -> None:
    message, label = f"weight '{short(name)}' needs the key 'file'", ""
    if isinstance(value, ScalarNode):
        label = f"{found(value)} is the key of an array, not a file"
    doc.problems.add(value, message, label=label, help=f"{{file: …}}, {NO_FILE_HELP}")


def read_text(
    doc: Document, members: Members, field: str, what: str, marks: dict[str, Mark]
) -> str | None:
    """A key that is a text, if it is there; notes its place in `marks`."""
    if field not in members:
        return None
    node = members[field][1]
    marks[field] = node.mark
    text = doc.fields.text(node, what)
    if doc.outer is None and is_numbered(text):
        doc.problems.add(node, "'{i}' has no value here", help=NO_REPETITION)
    return text


def read_dtype(doc: Document, members: Members, marks: dict[str, Mark]) -> str | None:
    """The key `dtype` of an input or weight, if it is there."""
    if "dtype" not in members:
        return None
    marks["dtype"] = members["dtype"][1].mark
    return doc.fields.dtype(members["dtype"][1])
