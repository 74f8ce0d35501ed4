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
from math import sqrt
from typing import TYPE_CHECKING, Unpack

from graphexec.api import compile
from graphexec.base.tensor import Array, DType, TensorType
from graphexec.graph.not_computed import NotComputed, not_computed
from graphexec.ir.approximate import Approximate, exactly, smallest_subnormal
from graphexec.ir.graph import Graph
from graphexec.ir.plan import Launch
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.runtime.run_inputs import checked
from graphexec.tools.evaluate import applied, evaluate_with_errors, given_tensors
from graphexec.tools.judge import Judge, Row, grain

if TYPE_CHECKING:
    from graphexec.planning.options import OptionKeywords, Options
    from graphexec.runtime.device import Device
    from graphexec.runtime.executable import Executable


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
    made = exe.rewritten.types() | types

    def tap(node: str, written: Array) -> None:
        type = made.get(node)
        if type is not None and written.nbytes == type.nbytes:  # the last launch counts
            seen[node] = exactly(written.view(type.dtype.numpy()))

    states = dict(exe.state)
    with exe.state.unchanged():
        outputs = exe.run(**inputs)
    with exe.state.unchanged():
        exe.run_tapped(inputs, tap)
    seen |= _parts_of_joined(exe.rewritten, types, seen)
    exact = evaluate_with_errors(graph, inputs, states)
    given = given_tensors(graph, inputs, states)
    fused, unrounded = _fused(exe), dict[str, Approximate]()
    depth, coarsest = _depths(graph), _coarsest(graph)
    lost = {node.name: _lost_in_sums(node, types) for node in graph.nodes}
    absent = not_computed(graph, exe.rewritten, seen)
    nodes = []
    for node in graph.nodes:
        inside = fused.get(node.name, set()) & unrounded.keys()
        expected = applied(node, given | {name: unrounded[name] for name in inside})
        unrounded[node.name] = expected
        result = seen.get(same.get(node.name, node.name))
        if result is None:  # the node that does its work is compared with its own op
            given[node.name] = expected
            continue
        absent.pop(node.name, None)  # the equal node was computed for both
        found = result.reshape(node.type.shape)
        given[node.name] = Approximate(found, node.type.dtype)
        judge = Judge(node.type, grain(_coarse(node, given)), lost[node.name], tolerance)
        nodes.append(judge.row(node.name, node.op.name, found, expected))
    ends = []
    for name, tensor in graph.outputs.items():
        usual = grain(coarsest[tensor]) * sqrt(max(1, depth[tensor]))
        judge = Judge(types[tensor], usual, lost.get(tensor, 0.0), tolerance)
        ends.append(judge.row(name, "output", exactly(outputs[name]), exact[tensor]))
    return Comparison(tuple(ends), tuple(nodes), tuple(absent.values()))


def _parts_of_joined(
    rewritten: TypedGraph, types: Mapping[str, TensorType], seen: Mapping[str, Array]
) -> dict[str, Array]:
    """The results of nodes of which a rewrite made one, whose windows they are."""
    made, found = rewritten.types(), dict[str, Array]()
    for node in rewritten.nodes:
        whole = node.operands.get("x", "")
        if node.window and whole in seen and whole not in types:
            x = seen[whole].reshape(made[whole].shape)
            found[node.name] = node.op.reference({"x": x}, node.attrs, node.type)
    return found


def _fused(exe: Executable) -> dict[str, set[str]]:
    """For each node of a launch of several, these: they take one another's results unrounded."""
    groups = [set(item.nodes) for item in exe.plan.instructions if isinstance(item, Launch)]
    return {name: group for group in groups for name in group}


def _coarse(node: TypedNode, given: Mapping[str, Approximate]) -> DType:
    """The coarsest dtype of a node and its operands."""
    return max((given[t].dtype for t in (*node.operands.values(), node.name)), key=grain)


def _lost_in_sums(node: TypedNode, types: Mapping[str, TensorType]) -> float:
    """The largest error of an element by underflow: half the smallest subnormal of the dtype of
    sums, for each operation."""
    operands = {key: types[name] for key, name in node.operands.items()}
    operations = node.op.cost(operands, node.attrs, node.type).flops / node.type.elements
    sums = {t.dtype.accumulator for t in (node.type, *operands.values())}
    return operations * max(smallest_subnormal(dtype) for dtype in sums) / 2


def _depths(graph: TypedGraph) -> dict[str, int]:
    """The number of nodes on the longest path from an input to each tensor."""
    depth = dict.fromkeys([*graph.inputs, *graph.weights, *graph.states], 0)
    for node in graph.nodes:
        depth[node.name] = 1 + max((depth[t] for t in node.operands.values()), default=0)
    return depth


def _coarsest(graph: TypedGraph) -> dict[str, DType]:
    """The coarsest dtype of each tensor and its ancestors."""
    coarse = {name: t.dtype for name, t in graph.types().items()}
    for node in graph.nodes:
        own = [coarse[node.name], *(coarse[t] for t in node.operands.values())]
        coarse[node.name] = max(own, key=grain)
    return coarse
