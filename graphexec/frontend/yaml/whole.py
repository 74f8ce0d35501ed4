"""Problems of a graph as a whole: cycles, and warnings for unused parts."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import cast

from graphexec.base.cycles import topological_order
from graphexec.base.diagnostics import Diagnostic, Mark
from graphexec.frontend.yaml.document import Document
from graphexec.frontend.yaml.problems import Problems
from graphexec.ir.graph import Block, Graph, Input, Node, State, Weight
from graphexec.ir.origin import BLOCK

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
    return node.marks.get("after") or node.marks[""]


def unused(graph: Graph, flat: Graph) -> list[Diagnostic]:
    """Warnings for nodes that no output depends on, for inputs and weights that none reads, and for
    blocks that no node uses.

    `flat` is the graph without its blocks. What is in a block is used if an output of the block
    needs it, or a tensor outside that names it.
    """
    assert graph.source is not None
    problems = Problems(graph.source)
    named = _named_outside(flat) if graph.blocks else set()
    for scope in (graph, *graph.blocks.values()):
        _note_unused(problems, scope, named)
    scopes = (graph, *graph.blocks.values())
    called = {n.attrs[BLOCK] for s in scopes for n in s.nodes.values() if n.op == BLOCK}
    for name, block in graph.blocks.items():
        if name not in called:
            problems.add(block.mark, f"block '{name}' is not used", label="no node uses it",
                         severity="warning")  # fmt: skip
    _note_unused_defaults(problems, graph, [graph, *graph.blocks.values()])
    for block in graph.blocks.values():
        _note_unused_defaults(problems, block, [block])
    return problems.diagnostics()


def _note_unused(problems: Problems, scope: Graph, named: Container[int]) -> None:
    """Note what a graph or block declares and does not use; `named` are marks of used ones."""
    kept = [tensor for state in scope.states.values() for tensor in
            ([state.next] if state.operands is None else state.operands.values())]  # fmt: skip
    live = {_declared(scope, tensor) for tensor in (*scope.outputs.values(), *kept)}
    stack = list(live)
    while stack:
        node = scope.nodes.get(stack.pop())
        for tensor in (*node.operands.values(), *node.after) if node else ():
            name = _declared(scope, tensor)
            if name not in live:
                live.add(name)
                stack.append(name)
    nodes = scope.nodes.values()
    read = live.union(_declared(scope, t) for n in nodes for t in n.operands.values())
    where = f" of block '{scope.name}'" if isinstance(scope, Block) else ""
    for kind, items, used, why in (
        ("input", scope.inputs.values(), read, "nothing reads it"),
        ("weight", scope.weights.values(), read, "nothing reads it"),
        ("state", scope.states.values(), read, "nothing reads it"),
        ("node", nodes, live, "no output needs it"),
    ):
        for item in cast("Iterable[Input | Weight | State | Node]", items):
            if item.name not in used and id(item.marks) not in named:
                message = f"{kind} '{item.name}'{where} is not used"
                problems.add(item.marks[""], message, label=why, severity="warning")


def _declared(scope: Graph, tensor: str) -> str:
    """The declaration that a name in a scope belongs to: "trunk" for "trunk.3.h"."""
    name = tensor
    kinds = (scope.nodes, scope.weights, scope.states)
    while name and not any(name in kind for kind in kinds):
        name = name.rpartition(".")[0]
    return name or tensor


def _named_outside(flat: Graph) -> set[int]:
    """The marks (by identity) of what a tensor or output outside of its block names."""
    found = set()
    for user in flat.nodes.values():
        for tensor in user.operands.values():
            made = flat.nodes.get(tensor) or flat.weights.get(tensor) or flat.states.get(tensor)
            if made is not None and made.origin is not user.origin:
                found.add(id(made.marks))
    ends = (flat.nodes.get(tensor) for tensor in flat.outputs.values())
    return found | {id(node.marks) for node in ends if node is not None}


def _note_unused_defaults(problems: Problems, graph: Graph, scopes: Sequence[Graph]) -> None:
    """Warn of a `file` and a `prefix` that are of no weight of these graphs and blocks."""
    without = [scope for scope in scopes if scope is graph or scope.weight_file is None]
    uses = {
        "file": any(w.file is None for scope in without for w in scope.weights.values()),
        "prefix": any(w.key is not None for scope in scopes for w in scope.weights.values()),
    }
    why = {"file": "no weight is read from it", "prefix": "no weight has a key"}
    for name, mark in graph.weight_marks.items():
        if not uses[name]:
            problems.add(mark, f"'{name}' is not used", label=why[name], severity="warning")
