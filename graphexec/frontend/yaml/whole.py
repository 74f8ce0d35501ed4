"""Problems of a graph as a whole: cycles, and warnings for unused parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from graphexec.base.cycles import topological_order
from graphexec.base.diagnostics import Diagnostic, Mark
from graphexec.frontend.yaml.document import Document
from graphexec.frontend.yaml.problems import Problems
from graphexec.ir.graph import Graph, Node

_MAX_LISTED = 20  # names of one cycle in a message


def note_cycles(doc: Document, graph: Graph, needs: Mapping[str, Sequence[str]]) -> None:
    """Note a cycle for each group of nodes that wait for each other, with every place."""
    for cycle in topological_order(needs)[1]:
        closed = [*cycle, cycle[0]]
        edges = [(user, made) for made, user in pairwise(closed)]
        notes = [f"'{user}' needs '{made}' at {doc.place(_place(graph.nodes[user], made))}"
                 for user, made in edges[: _MAX_LISTED]]  # fmt: skip
        user, made = edges[-1]
        doc.problems.add(
            _place(graph.nodes[user], made), f"cycle: {' → '.join(_cut(closed))}",
            label=f"'{user}' needs '{made}'", notes=notes[: len(edges) - 1],
        )  # fmt: skip


def _cut(names: list[str]) -> list[str]:
    if len(names) <= _MAX_LISTED:
        return names
    half = _MAX_LISTED // 2
    return [*names[:half], f"({len(names) - 2 * half:,} more)", *names[-half:]]


def _place(node: Node, tensor: str) -> Mark:
    for slot, name in node.operands.items():
        if name == tensor:
            return node.marks[slot]
    return node.marks["after"]


def unused(graph: Graph) -> list[Diagnostic]:
    """Warnings for nodes that no output depends on and for inputs and weights that none reads."""
    assert graph.source is not None
    live = set(graph.outputs.values())
    read = live.union(*(node.operands.values() for node in graph.nodes.values()))
    stack = list(live)
    while stack:
        node = graph.nodes.get(stack.pop())
        for name in (*node.operands.values(), *node.after) if node else ():
            if name not in live:
                live.add(name)
                stack.append(name)
    problems = Problems(graph.source)
    for kind, marks, used, why in (
        ("input", {i.name: i.marks for i in graph.inputs.values()}, read, "nothing reads it"),
        ("weight", {w.name: w.marks for w in graph.weights.values()}, read, "nothing reads it"),
        ("node", {n.name: n.marks for n in graph.nodes.values()}, live, "no output needs it"),
    ):
        for name in (n for n in marks if n not in used):
            message = f"{kind} '{name}' is not used"
            problems.add(marks[name][""], message, label=why, severity="warning")
    _note_unused_defaults(problems, graph)
    return problems.diagnostics()


def _note_unused_defaults(problems: Problems, graph: Graph) -> None:
    """Warn of a `file` and a `prefix` at the top that are of no weight."""
    weights = graph.weights.values()
    uses = {"file": any(w.file is None for w in weights),
            "prefix": any(w.key is not None for w in weights)}  # fmt: skip
    why = {"file": "no weight is read from it", "prefix": "no weight has a key"}
    for name, mark in graph.weight_marks.items():
        if not uses[name]:
            problems.add(mark, f"'{name}' is not used", label=why[name], severity="warning")
