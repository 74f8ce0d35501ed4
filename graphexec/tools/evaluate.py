"""Every tensor of a graph in float64, with how far a run may be from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphexec.base.casts import cast
from graphexec.base.tensor import Array
from graphexec.frontend.weights import WeightFiles
from graphexec.ir.approximate import Approximate, exactly, finite, unit_roundoff
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.runtime.states import beginnings
from graphexec.tools.judge import grain

_ROUNDINGS = 8  # units roundoff that an op may add to a float before it becomes an integer


def evaluate(
    graph: TypedGraph, inputs: Mapping[str, Array], states: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Every tensor of the graph, node after node, with no plan: floats in float64, integers and
    bools as they are. `states` are the values when the run begins; by default, those before the
    first run."""
    found = evaluate_with_errors(graph, inputs, states)
    return {name: tensor.values for name, tensor in found.items()}


def evaluate_with_errors(
    graph: TypedGraph, inputs: Mapping[str, Array], states: Mapping[str, Array] | None = None
) -> dict[str, Approximate]:
    """The same, with what rounding may change in a run from the inputs on."""
    values = given_tensors(graph, inputs, states)
    for node in graph.nodes:
        values[node.name] = applied(node, values)
    return values


def given_tensors(
    graph: TypedGraph, inputs: Mapping[str, Array], states: Mapping[str, Array] | None = None
) -> dict[str, Approximate]:
    """Inputs, weights and states."""
    types = graph.types()
    arrays = {name: exactly(np.asarray(inputs[name])) for name in graph.inputs}
    arrays |= _weights(graph)
    begun = beginnings(graph.states) if states is None else states
    arrays |= {name: exactly(array) for name, array in begun.items()}
    return {name: Approximate(array, types[name].dtype) for name, array in arrays.items()}


def applied(node: TypedNode, given: Mapping[str, Approximate]) -> Approximate:
    """The exact result of a node on these operands, with its bound of what rounding changes."""
    operands = {key: given[name] for key, name in node.operands.items()}
    arrays = {key: operand.values for key, operand in operands.items()}
    exact = _reference(node, arrays)
    with np.errstate(all="ignore"):  # bounds of what has no digits left are infinite
        error = node.op.error(operands, node.attrs, node.type, exact)
        if error is None:
            error = _error_by_the_largest(node, given, operands, exact)
        error = np.where(np.isnan(error), np.inf, error)
    return Approximate(exact, node.type.dtype, np.broadcast_to(error, exact.shape))


def _reference(node: TypedNode, arrays: Mapping[str, Array]) -> Array:
    """What the node gives for these operands, in its dtype if that is no float."""
    found = np.asarray(node.op.reference(arrays, node.attrs, node.type))
    dtype = node.type.dtype
    return cast(found, np.dtype(np.float64) if dtype.is_float else dtype.numpy())


def _error_by_the_largest(
    node: TypedNode, given: Mapping[str, Approximate], operands: Mapping[str, Approximate],
    exact: Array,
) -> Array:  # fmt: skip
    """For an op that knows no bound: the tolerance of a tensor, times its largest element, and by
    how much the result changes when an operand does by its error."""
    if not node.type.dtype.is_float:
        return _error_of_integers(node, operands, exact)
    size = float(finite(np.abs(exact)).max())
    dtypes = (given[name].dtype for name in node.operands.values())
    error = np.full(exact.shape, max(map(grain, (node.type.dtype, *dtypes))) * size)
    for key, operand in operands.items():
        if operand.error is not None and operand.error.any():
            error += _change(node, operands, key, operand.error, exact)
    return error


def _error_of_integers(
    node: TypedNode, operands: Mapping[str, Approximate], exact: Array
) -> Array:  # fmt: skip
    """For integers and bools that an op computes: none, unless they follow from floats. Then by how
    much they change when these are rounded otherwise, or off; unknown where several elements decide
    about one."""
    error = np.zeros(exact.shape)
    for key, operand in operands.items():
        off = np.zeros(operand.values.shape) if operand.error is None else operand.error
        if operand.values.size > exact.size and off.any():
            return np.full(exact.shape, np.inf)
        if operand.dtype.is_float:
            units = unit_roundoff(operand.dtype.accumulator)
            off = off + _ROUNDINGS * units * operand.magnitude
        if off.any():
            error += _change(node, operands, key, off, exact)
    return error


def _change(
    node: TypedNode, operands: Mapping[str, Approximate], key: str, off: Array, exact: Array
) -> Array:
    """By how much the result changes when an operand does by `off`, upwards and downwards."""
    arrays = {name: operand.values for name, operand in operands.items()}
    changed = np.zeros(exact.shape)
    for step in (off, -off):
        moved = arrays[key].astype(np.float64) + step
        given = {**arrays, key: cast(moved, arrays[key].dtype)}
        changed += np.abs(_reference(node, given).astype(np.float64) - exact)
    return changed


def _weights(graph: TypedGraph) -> dict[str, Array]:
    """The weights in float64."""
    with WeightFiles() as files:
        return {name: exactly(files.read(w)) for name, w in graph.weights.items()}
