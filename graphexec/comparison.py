"""compare: a run of the plan against an unplanned float64 evaluation of the same graph.

Two questions are answered. Are the outputs right, end to end? And which node is the first whose
own work is wrong: its result is measured against the float64 op on the very operands it had in
that run. So a rounding error that grows along the graph blames nobody, and a race blames the node
that read too early. A node without a command of its own has no result to measure: it is named,
and the node that does its work is measured with all that it took in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from graphexec.graph import Graph
from graphexec.not_computed import NotComputed, not_computed
from graphexec.tensor import DType, TensorType
from graphexec.typed import TypedGraph
from graphexec.weights import read_weight

if TYPE_CHECKING:
    from graphexec.devices.base import Device
    from graphexec.executable import Executable

Array = np.ndarray[Any, Any]

TOLERANCE = {DType.F16: 2e-3, DType.BF16: 1.6e-2, DType.F32: 1e-5, DType.F64: 1e-12}
"""Relative Frobenius error a single node may have, by the coarsest dtype it touches."""


@dataclass(frozen=True)
class Row:
    """One tensor: largest absolute and relative Frobenius error, and whether that is tolerated."""

    name: str
    op: str
    dtype: str
    max_abs: float
    relative: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """False for NaN too."""
        return self.relative <= self.tolerance


@dataclass(frozen=True)
class Comparison:
    """`outputs` end to end, `nodes` each by itself; `not_computed` are those that no command
    computes, with what stands for them. Nothing is known of their results."""

    outputs: tuple[Row, ...]
    nodes: tuple[Row, ...]
    not_computed: tuple[NotComputed, ...] = ()

    @property
    def first_bad(self) -> str | None:
        """The first node out of tolerance, in topological order."""
        return next((row.name for row in self.nodes if not row.ok), None)

    @property
    def ok(self) -> bool:
        """Whether every output and every node is within tolerance."""
        return all(row.ok for row in (*self.outputs, *self.nodes))


def compare(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    device: str | Device = "auto",
    streams: int = 4,
    tolerance: float | None = None,
) -> Comparison:
    """Compile and run `graph` on `inputs`, and measure it against float64.

    `tolerance` replaces the default for outputs and nodes, a relative Frobenius error.
    """
    from graphexec.pipeline import compile

    with compile(graph, device=device, streams=streams) as exe:
        return compare_executable(exe, inputs, tolerance)


def compare_executable(
    exe: Executable, inputs: Mapping[str, Array], tolerance: float | None = None
) -> Comparison:
    """As `compare`, for an executable that exists already."""
    graph = exe.graph
    seen: dict[str, Array] = {}

    types, same = graph.types(), exe.rewritten.same

    def tap(node: str, written: Array) -> None:
        type = types.get(node)
        if type is not None and written.nbytes == type.nbytes:  # the last launch stays
            seen[node] = written.view(type.dtype.numpy()).astype(np.float64)

    outputs = exe.run(**inputs)
    exe.run_tapped(inputs, tap)
    exact = evaluate(graph, inputs)
    given = {name: np.asarray(inputs[name], np.float64) for name in graph.inputs}
    given |= {name: read_weight(w).astype(np.float64) for name, w in graph.weights.items()}
    depth, coarsest = _depths(graph), _coarsest(graph)
    absent = not_computed(graph, exe.rewritten, seen)
    nodes = []
    for node in graph.nodes:
        arrays = {key: given[name] for key, name in node.operands.items()}
        expected = node.op.reference(arrays, node.attrs, node.type)
        result = seen.get(same.get(node.name, node.name))
        if result is None:  # who does its work is held to what its op says
            given[node.name] = expected
            continue
        absent.pop(node.name, None)  # the equal node was computed for both
        given[node.name] = result.reshape(node.type.shape)
        coarse = max((types[t].dtype for t in (*node.operands.values(), node.name)), key=_grain)
        allowed = tolerance if tolerance is not None else TOLERANCE[coarse]
        nodes.append(_row(node.name, node.op.name, node.type, given[node.name], expected, allowed))
    ends = []
    for name, tensor in graph.outputs.items():
        allowed = TOLERANCE[coarsest[tensor]] * sqrt(max(1, depth[tensor]))
        ends.append(
            _row(name, "output", types[tensor], outputs[name].astype(np.float64), exact[tensor],
                 tolerance if tolerance is not None else allowed)
        )  # fmt: skip
    return Comparison(tuple(ends), tuple(nodes), tuple(absent.values()))


def evaluate(graph: TypedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the graph in float64, node after node, with no plan."""
    values = {name: np.asarray(inputs[name], np.float64) for name in graph.inputs}
    values |= {name: read_weight(w).astype(np.float64) for name, w in graph.weights.items()}
    for node in graph.nodes:
        arrays = {key: values[name] for key, name in node.operands.items()}
        values[node.name] = node.op.reference(arrays, node.attrs, node.type)
    return values


def _row(
    name: str, op: str, type: TensorType, found: Array, expected: Array, allowed: float
) -> Row:
    with np.errstate(invalid="ignore"):
        difference = np.abs(found - expected)
    difference[found == expected] = 0.0  # infinities that agree
    size = float(np.linalg.norm(np.where(np.isfinite(expected), expected, 0.0)))
    error = float(np.linalg.norm(difference))
    relative = error / size if size > 0 else error
    return Row(name, op, type.dtype.value, float(difference.max()), relative, allowed)


def _grain(dtype: DType) -> float:
    return TOLERANCE[dtype]


def _depths(graph: TypedGraph) -> dict[str, int]:
    """Nodes on the longest way from an input to each tensor."""
    depth = dict.fromkeys([*graph.inputs, *graph.weights], 0)
    for node in graph.nodes:
        depth[node.name] = 1 + max((depth[t] for t in node.operands.values()), default=0)
    return depth


def _coarsest(graph: TypedGraph) -> dict[str, DType]:
    """The coarsest dtype among each tensor and all it depends on."""
    coarse = {name: t.dtype for name, t in graph.types().items()}
    for node in graph.nodes:
        own = [coarse[node.name], *(coarse[t] for t in node.operands.values())]
        coarse[node.name] = max(own, key=_grain)
    return coarse
