"""States of a graph: the nodes of their next values, and their types.

n: {shape: [], dtype: i32, next: n + S}      has the node      n.next: n + S
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import numpy as np

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.expressions import names_in
from graphexec.base.tensor import DType, TensorType
from graphexec.frontend.expand import expand
from graphexec.ir.expression import MAP
from graphexec.ir.graph import Graph, Node, State


def with_next_nodes(graph: Graph) -> tuple[Graph, list[Diagnostic]]:
    """The graph with a node for each next value that is an expression, and errors."""
    nodes: dict[str, Node] = {}
    states: dict[str, State] = {}
    mistakes = []
    for state in graph.states.values():
        states[state.name] = state
        if state.operands is None:
            continue
        node = _node(graph, state)
        states[state.name] = replace(state, next=node.name, operands=None)
        nodes[node.name] = node
        if node.name in graph:
            message = f"the next value of '{state.name}' makes a tensor '{node.name}', and there "
            mistakes.append(graph.error(f"{message}is one of that name", state, "next",
                                        help="rename one of them"))  # fmt: skip
    if not nodes:
        return graph, []
    extended = copy(graph)
    extended.nodes, extended.states = {**graph.nodes, **nodes}, states
    return extended, mistakes


def _node(graph: Graph, state: State) -> Node:
    op = graph.ops.get(MAP)
    slot = op.expression if op is not None else None
    marks = dict(state.marks)
    if slot is not None and "next" in marks:
        marks[slot] = marks["next"]
    attrs = {slot or "expr": state.next}
    operands = state.operands or {}
    return Node(f"{state.name}.next", MAP, operands, attrs, (), state.shape, marks)


def does_not_begin(value: float, dtype: DType) -> str:
    """Why a state of this type cannot begin with a number; "" if it can."""
    if dtype.is_float:
        with np.errstate(over="ignore"):
            kept = np.asarray(value, np.float64).astype(dtype.numpy())
        return "" if np.isfinite(kept.astype(np.float64)) else f"{value} is infinite in {dtype}"
    if value != int(value):
        return f"{value} is no {dtype}"
    least, most = (0, 1) if dtype is DType.BOOL else _range(dtype)
    return "" if least <= value <= most else f"{value} does not fit into {dtype}"


def does_not_follow(state: TensorType, next: TensorType) -> tuple[str, str]:
    """Why a tensor cannot be the next value of a state, and what helps; "" if it can."""
    if next == state:
        return "", ""
    if next.space != state.space:
        return "it lies in host memory", "a state lies in device memory"
    if next.shape != state.shape:
        return f"the state is {state}, its next value {next}", ""
    return f"the state is {state}, its next value {next}", f"cast(…, {state.dtype}) would fit"


def _range(dtype: DType) -> tuple[int, int]:
    found = np.iinfo(dtype.numpy())
    return int(found.min), int(found.max)


def dims_of_states(graph: Graph) -> Mapping[str, str]:
    """The dims in the shapes of states, each with a state that has it: an executable fixes them."""
    found: dict[str, str] = {}
    for state in expand(graph).states.values():
        for extent in state.shape:
            for name in names_in(extent) if isinstance(extent, str) else ():
                for dim in _dims_behind(graph, name):
                    found.setdefault(dim, state.name)
    return found


def _dims_behind(graph: Graph, name: str) -> set[str]:
    """The dims that the value of a dim or const depends on."""
    if name in graph.dims:
        return {name}
    value = graph.consts.get(name)
    if not isinstance(value, str):
        return set()
    return set().union(*(_dims_behind(graph, inner) for inner in names_in(value)))
