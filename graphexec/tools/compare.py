"""compare: a run of the plan against an unplanned float64 evaluation of the same graph.

It compares the outputs end to end. It also compares each node by itself: its result against the
float64 op on the operands it had in that run. So a rounding error that grows along the graph marks
no node, and a race marks the node that read too early. A node without a command of its own has no
result: it is listed, and the node that does its work is measured with everything merged into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Unpack

import numpy as np

from graphexec.api import compile
from graphexec.base.tensor import Array, DType, TensorType
from graphexec.frontend.weights import WeightFiles
from graphexec.graph.not_computed import NotComputed, not_computed
from graphexec.ir.graph import Graph
from graphexec.ir.typed import TypedGraph, TypedNode

if TYPE_CHECKING:
    from graphexec.planning.options import OptionKeywords, Options
    from graphexec.runtime.device import Device
    from graphexec.runtime.executable import Executable


TOLERANCE = {DType.F16: 2e-3, DType.BF16: 1.6e-2, DType.F32: 1e-5, DType.F64: 1e-12}
"""Relative Frobenius error a single node may have, by the coarsest dtype of its tensors.

Below the smallest normal number of a dtype, errors are absolute: subnormal numbers are as far apart
as the smallest normal one is from the next. One operation there gives
x (1 + δ) + η with |δ| ≤ u, the unit roundoff, and |η| at most half the smallest subnormal, which
is u times the smallest normal (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
section 2.8). So the tolerance has an absolute part for each element

    tolerance · (smallest normal of the result's dtype) + n · η of the dtype sums are kept in

with n operations an element, all of which may round the same way. Hardware that flushes subnormal
numbers to zero may exceed it; `compare` reports this as an error.
"""


@dataclass(frozen=True)
class Row:
    """One tensor: its largest absolute error, its relative Frobenius error, and the tolerance of
    the latter. `tolerance` includes the absolute part for underflow, divided by the norm of the
    tensor. If the norm is 0, both are absolute."""

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
    """`outputs` end to end, `nodes` each by itself. `not_computed` are the nodes that no command
    computes, with their replacements; their results are not compared."""

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
    tolerance: float | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Comparison:
    """Compile and run `graph` on `inputs`, and measure it against float64.

    `tolerance` replaces the default for outputs and nodes, a relative Frobenius error. Device,
    options and keywords are those of `compile`.
    """
    with compile(graph, device=device, options=options, **keywords) as exe:
        return compare_executable(exe, inputs, tolerance)


def compare_executable(
    exe: Executable, inputs: Mapping[str, Array], tolerance: float | None = None
) -> Comparison:
    """Like `compare`, for an existing executable."""
    graph = exe.graph
    seen: dict[str, Array] = {}

    types, same = graph.types(), exe.rewritten.same

    def tap(node: str, written: Array) -> None:
        type = types.get(node)
        if type is not None and written.nbytes == type.nbytes:  # the last launch counts
            seen[node] = written.view(type.dtype.numpy()).astype(np.float64)

    outputs = exe.run(**inputs)
    exe.run_tapped(inputs, tap)
    exact = evaluate(graph, inputs)
    given = {name: np.asarray(inputs[name], np.float64) for name in graph.inputs}
    given |= _weights(graph)
    depth, coarsest = _depths(graph), _coarsest(graph)
    lost = {node.name: _lost_in_sums(node, types) for node in graph.nodes}
    absent = not_computed(graph, exe.rewritten, seen)
    nodes = []
    for node in graph.nodes:
        arrays = {key: given[name] for key, name in node.operands.items()}
        expected = node.op.reference(arrays, node.attrs, node.type)
        result = seen.get(same.get(node.name, node.name))
        if result is None:  # the node that does its work is compared with its own op
            given[node.name] = expected
            continue
        absent.pop(node.name, None)  # the equal node was computed for both
        given[node.name] = result.reshape(node.type.shape)
        coarse = max((types[t].dtype for t in (*node.operands.values(), node.name)), key=_grain)
        allowed = tolerance if tolerance is not None else TOLERANCE[coarse]
        error = _Error(given[node.name], expected)
        nodes.append(error.row(node.name, node.op.name, node.type, allowed, lost[node.name]))
    ends = []
    for name, tensor in graph.outputs.items():
        allowed = TOLERANCE[coarsest[tensor]] * sqrt(max(1, depth[tensor]))
        allowed = tolerance if tolerance is not None else allowed
        error = _Error(outputs[name].astype(np.float64), exact[tensor])
        ends.append(error.row(name, "output", types[tensor], allowed, lost.get(tensor, 0.0)))
    return Comparison(tuple(ends), tuple(nodes), tuple(absent.values()))


def evaluate(graph: TypedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the graph in float64, node after node, with no plan."""
    values = {name: np.asarray(inputs[name], np.float64) for name in graph.inputs}
    values |= _weights(graph)
    for node in graph.nodes:
        arrays = {key: values[name] for key, name in node.operands.items()}
        values[node.name] = node.op.reference(arrays, node.attrs, node.type)
    return values


def _weights(graph: TypedGraph) -> dict[str, Array]:
    """The weights in float64."""
    with WeightFiles() as files:
        return {name: files.read(w).astype(np.float64) for name, w in graph.weights.items()}


class _Error:
    """The largest absolute and the relative Frobenius error of a tensor."""

    def __init__(self, found: Array, expected: Array) -> None:
        with np.errstate(invalid="ignore"):
            difference = np.asarray(np.abs(found - expected))  # also of a tensor of shape []
        difference[found == expected] = 0.0  # infinities that agree
        self.largest, self.norm = float(difference.max()), _norm(difference)
        self.size = _norm(np.where(np.isfinite(expected), expected, 0.0))

    def row(self, name: str, op: str, type: TensorType, tolerance: float, lost: float) -> Row:
        """The row of a tensor; `lost` is the largest error by underflow in an element's sum."""
        floor = tolerance * _smallest(type.dtype)[0] + lost
        allowed = tolerance * self.size + sqrt(type.elements) * floor
        unit = self.size or 1.0
        return Row(name, op, type.dtype.value, self.largest, self.norm / unit, allowed / unit)


def _lost_in_sums(node: TypedNode, types: Mapping[str, TensorType]) -> float:
    """The largest error of an element by underflow: half the smallest subnormal of the dtype of
    sums, for each operation."""
    operands = {key: types[name] for key, name in node.operands.items()}
    operations = node.op.cost(operands, node.attrs, node.type).flops / node.type.elements
    sums = {t.dtype.accumulator for t in (node.type, *operands.values())}
    return operations * max(_smallest(dtype)[1] for dtype in sums) / 2


def _smallest(dtype: DType) -> tuple[float, float]:
    """The smallest normal and the smallest subnormal number of a dtype."""
    import ml_dtypes

    info = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return float(info.smallest_normal), float(info.smallest_subnormal)


def _norm(values: Array) -> float:
    """The Frobenius norm, also of values whose squares overflow or underflow float64."""
    largest = float(np.abs(values).max())
    if not largest or not isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(values / largest))


def _grain(dtype: DType) -> float:
    return TOLERANCE[dtype]


def _depths(graph: TypedGraph) -> dict[str, int]:
    """The number of nodes on the longest path from an input to each tensor."""
    depth = dict.fromkeys([*graph.inputs, *graph.weights], 0)
    for node in graph.nodes:
        depth[node.name] = 1 + max((depth[t] for t in node.operands.values()), default=0)
    return depth


def _coarsest(graph: TypedGraph) -> dict[str, DType]:
    """The coarsest dtype of each tensor and its ancestors."""
    coarse = {name: t.dtype for name, t in graph.types().items()}
    for node in graph.nodes:
        own = [coarse[node.name], *(coarse[t] for t in node.operands.values())]
        coarse[node.name] = max(own, key=_grain)
    return coarse
