"""compare: a run of the plan against an unplanned float64 evaluation of the same graph.

It compares the outputs end to end. It also compares each node by itself: its result against the
float64 op on the operands it had in that run. So a rounding error that grows along the graph marks
no node, and a race marks the node that read too early. A node without a command of its own has no
result: it is listed, and the node that does its work is measured with everything merged into it.

A tensor is judged as a whole, by its Frobenius norm, and element by element: in the norm a few
wrong elements of millions do not show. The bound of an element follows from the op (Op.error) and
from the magnitudes of what is added up; it is rigorous, so that no right result exceeds it. Along
the graph these bounds add up: the elements of outputs are judged by what all nodes before them may
do together.
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
from graphexec.ir.approximate import (
    Approximate,
    finite,
    smallest_normal,
    smallest_subnormal,
)
from graphexec.ir.graph import Graph
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.runtime.run_inputs import checked

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
class Element:
    """An element by its index, what was found and expected there, and by how much it may be off."""

    index: tuple[int, ...]
    found: float
    expected: float
    bound: float

    @property
    def ok(self) -> bool:
        """Whether it is off by no more than that. Equal infinities are; NaN is not."""
        return self.found == self.expected or abs(self.found - self.expected) <= self.bound


@dataclass(frozen=True)
class Row:
    """One tensor: its largest absolute error, its relative Frobenius error, and the tolerance of
    the latter. `tolerance` includes the absolute part for underflow, divided by the norm of the
    tensor. If the norm is 0, both are absolute. `worst` is the element whose error is the largest
    for its own bound."""

    name: str
    op: str
    dtype: str
    max_abs: float
    relative: float
    tolerance: float
    worst: Element

    @property
    def ok(self) -> bool:
        """Whether the tensor and every element of it are within tolerance; False for NaN too."""
        return self.relative <= self.tolerance and self.worst.ok


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

    `tolerance` replaces the default for outputs and nodes, a relative Frobenius error; bounds of
    elements change in proportion. Device, options and keywords are those of `compile`.
    """
    with compile(graph, device=device, options=options, **keywords) as exe:
        return compare_executable(exe, inputs, tolerance)


def compare_executable(
    exe: Executable, inputs: Mapping[str, Array], tolerance: float | None = None
) -> Comparison:
    """Like `compare`, for an existing executable."""
    graph = exe.graph
    inputs = checked(inputs, graph.inputs)
    seen: dict[str, Array] = {}

    types, same = graph.types(), exe.rewritten.same

    def tap(node: str, written: Array) -> None:
        type = types.get(node)
        if type is not None and written.nbytes == type.nbytes:  # the last launch counts
            seen[node] = written.view(type.dtype.numpy()).astype(np.float64)

    outputs = exe.run(**inputs)
    exe.run_tapped(inputs, tap)
    exact = _evaluate(graph, inputs)
    given = _given(graph, inputs)
    depth, coarsest = _depths(graph), _coarsest(graph)
    lost = {node.name: _lost_in_sums(node, types) for node in graph.nodes}
    absent = not_computed(graph, exe.rewritten, seen)
    nodes = []
    for node in graph.nodes:
        expected = _applied(node, given)
        result = seen.get(same.get(node.name, node.name))
        if result is None:  # the node that does its work is compared with its own op
            given[node.name] = expected
            continue
        absent.pop(node.name, None)  # the equal node was computed for both
        found = result.reshape(node.type.shape)
        given[node.name] = Approximate(found, node.type.dtype)
        judge = _Judge(node.type, TOLERANCE[_coarse(node, given)], lost[node.name], tolerance)
        nodes.append(judge.row(node.name, node.op.name, found, expected))
    ends = []
    for name, tensor in graph.outputs.items():
        usual = TOLERANCE[coarsest[tensor]] * sqrt(max(1, depth[tensor]))
        judge = _Judge(types[tensor], usual, lost.get(tensor, 0.0), tolerance)
        ends.append(judge.row(name, "output", outputs[name].astype(np.float64), exact[tensor]))
    return Comparison(tuple(ends), tuple(nodes), tuple(absent.values()))


def evaluate(graph: TypedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the graph in float64, node after node, with no plan."""
    return {name: found.values for name, found in _evaluate(graph, inputs).items()}


def _evaluate(graph: TypedGraph, inputs: Mapping[str, Array]) -> dict[str, Approximate]:
    """The same, with what rounding may change in a run from the inputs on."""
    values = _given(graph, inputs)
    for node in graph.nodes:
        values[node.name] = _applied(node, values)
    return values


def _given(graph: TypedGraph, inputs: Mapping[str, Array]) -> dict[str, Approximate]:
    """Inputs and weights."""
    types = graph.types()
    arrays = {name: np.asarray(inputs[name], np.float64) for name in graph.inputs}
    arrays |= _weights(graph)
    return {name: Approximate(array, types[name].dtype) for name, array in arrays.items()}


def _applied(node: TypedNode, given: Mapping[str, Approximate]) -> Approximate:
    """The exact result of a node on these operands, with its bound of what rounding changes."""
    operands = {key: given[name] for key, name in node.operands.items()}
    arrays = {key: operand.values for key, operand in operands.items()}
    exact = node.op.reference(arrays, node.attrs, node.type)
    with np.errstate(all="ignore"):  # bounds of what has no digits left are infinite
        error = node.op.error(operands, node.attrs, node.type, exact)
        if error is None:
            error = _error_by_the_largest(node, given, operands, exact)
        error = np.where(np.isnan(error), np.inf, error)
    return Approximate(exact, node.type.dtype, np.broadcast_to(error, exact.shape))


def _error_by_the_largest(
    node: TypedNode, given: Mapping[str, Approximate], operands: Mapping[str, Approximate],
    exact: Array,
) -> Array:  # fmt: skip
    """For an op that knows no bound: the tolerance of a tensor, times its largest element, and by
    how much the result changes when an operand does by its error."""
    size = float(finite(np.abs(exact)).max())
    coarse = max((given[name].dtype for name in node.operands.values()), key=_grain)
    error = np.full(exact.shape, TOLERANCE[max(coarse, node.type.dtype, key=_grain)] * size)
    arrays = {key: operand.values for key, operand in operands.items()}
    for key, operand in operands.items():
        if operand.error is not None and operand.error.any():
            for off in (operand.error, -operand.error):
                moved = {**arrays, key: operand.values + off}
                error += np.abs(node.op.reference(moved, node.attrs, node.type) - exact)
    return error


def _coarse(node: TypedNode, given: Mapping[str, Approximate]) -> DType:
    """The coarsest dtype of a node and its operands."""
    return max((given[t].dtype for t in (*node.operands.values(), node.name)), key=_grain)


def _weights(graph: TypedGraph) -> dict[str, Array]:
    """The weights in float64."""
    with WeightFiles() as files:
        return {name: files.read(w).astype(np.float64) for name, w in graph.weights.items()}


@dataclass(frozen=True)
class _Judge:
    """What a tensor is judged by: the `usual` relative Frobenius error, the largest error `lost` by
    underflow in an element's sum, and the error that is `wanted` instead, which changes the bounds
    of elements in proportion."""

    type: TensorType
    usual: float
    lost: float
    wanted: float | None

    def row(self, name: str, op: str, found: Array, expected: Approximate) -> Row:
        """The row of a tensor."""
        exact, tolerance = expected.values, self.usual if self.wanted is None else self.wanted
        with np.errstate(invalid="ignore"):
            off = np.asarray(np.abs(found - exact))  # also of a tensor of shape []
        off[found == exact] = 0.0  # infinities that agree
        size = _norm(finite(exact))
        floor = tolerance * smallest_normal(self.type.dtype) + self.lost
        allowed = tolerance * size + sqrt(self.type.elements) * floor
        unit = size or 1.0
        worst = self._worst(found, expected, off, floor)
        dtype, largest = self.type.dtype.value, float(off.max())
        return Row(name, op, dtype, largest, _norm(off) / unit, allowed / unit, worst)

    def _worst(self, found: Array, expected: Approximate, off: Array, floor: float) -> Element:
        """The element with the largest error for its bound."""
        factor = 1.0 if self.wanted is None else self.wanted / self.usual
        # A device may take what is subnormal in a sum for zero.
        bound = np.full(off.shape, floor + smallest_normal(self.type.dtype.accumulator))
        if factor and expected.error is not None:
            bound += factor * expected.error
        # Where the exact result is no number, it must be found as it is.
        bound = np.where(np.isfinite(expected.values), bound, 0.0)
        with np.errstate(all="ignore"):
            excess = np.where(off == 0.0, 0.0, off / bound)
        excess[np.isnan(excess)] = np.inf
        index = np.unravel_index(int(excess.argmax()), excess.shape)
        at = tuple(int(i) for i in index)
        return Element(at, float(found[at]), float(expected.values[at]), float(bound[at]))


def _lost_in_sums(node: TypedNode, types: Mapping[str, TensorType]) -> float:
    """The largest error of an element by underflow: half the smallest subnormal of the dtype of
    sums, for each operation."""
    operands = {key: types[name] for key, name in node.operands.items()}
    operations = node.op.cost(operands, node.attrs, node.type).flops / node.type.elements
    sums = {t.dtype.accumulator for t in (node.type, *operands.values())}
    return operations * max(smallest_subnormal(dtype) for dtype in sums) / 2


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
