"""The section `state`: tensors that are kept from run to run."""

from __future__ import annotations

from collections.abc import Callable

from graphexec.base.diagnostics import Mark
from graphexec.frontend.yaml.document import Document
from graphexec.frontend.yaml.expressions import Expressions
from graphexec.frontend.yaml.problems import short
from graphexec.frontend.yaml.ranks import read_cut
from graphexec.frontend.yaml.tree import MapNode, Node, ScalarNode
from graphexec.frontend.yaml.weights import NO_FILE_HELP, read_dtype, read_text
from graphexec.ir.graph import Graph, InFile, State

STATE_KEYS = ("shape", "dtype", "init", "next", "cut")


def read_states(
    doc: Document, graph: Graph, expressions: Expressions, is_tensor: Callable[[str], bool]
) -> None:
    """Fill `graph.states`. `is_tensor` knows the names that may be referred to."""
    for key, value in doc.entries("state"):
        name = str(key.value)
        graph.states[name] = _state(doc, name, value, {"": key.mark}, expressions, is_tensor)


def _state(
    doc: Document, name: str, value: Node, marks: dict[str, Mark], expressions: Expressions,
    is_tensor: Callable[[str], bool],
) -> State:  # fmt: skip
    what = f"state '{short(name)}'"
    members = doc.members(value, what, STATE_KEYS, ("shape", "dtype", "next"))
    shape = doc.fields.shape(members["shape"][1], marks) if "shape" in members else ()
    dtype = read_dtype(doc, members, marks) or ""
    init: float | str | InFile = 0
    if "init" in members:
        init = _init(doc, what, members["init"][1], marks)
    following: tuple[str, dict[str, str] | None] = "", None
    if "next" in members:
        marks["next"] = members["next"][1].mark
        following = expressions.next(members["next"][1], marks, is_tensor)
    cut = read_cut(doc, members, marks)
    return State(name, shape, dtype, following[0], init, following[1], marks, cut=cut)


def _init(doc: Document, what: str, value: Node, marks: dict[str, Mark]) -> float | str | InFile:
    """What a state begins with."""
    marks["init"] = value.mark
    if isinstance(value, MapNode):
        members = doc.members(value, f"the init of {what}", ("file", "key"))
        if "file" not in members and not doc.has_file:
            doc.problems.add(value, f"the init of {what} needs the key 'file'",
                             help=f"{{file: …}}, {NO_FILE_HELP}")  # fmt: skip
        file = read_text(doc, members, "file", "the path of a file", marks)
        return InFile(file, read_text(doc, members, "key", "the name of an array", marks))
    if isinstance(value, ScalarNode) and isinstance(value.value, int | float | str):
        doc.fields.evaluate(value, "number")
        return value.value
    doc.fields.expected(value, f"a number or {{file: …, key: …}} for the init of {what}")
    return 0
