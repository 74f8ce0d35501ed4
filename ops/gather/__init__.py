"""gather: slices of a tensor by a tensor of indices, such as the embeddings of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import Approximates
from graphexec.ir.operand import ANY, Shapes
from graphexec.ir.program import Cost
from graphexec.ops.gather.kernel import GatherRows
from graphexec.ops.kit import (
    Arrays,
    Attribute,
    Attrs,
    Call,
    Command,
    In,
    Op,
    Operand,
    OpError,
    Out,
    TensorType,
    Types,
)  # fmt: skip


class Gather(Op):
    """See `doc`."""

    name = "gather"
    doc = (
        "The slices of x along `axis` that `index` names, in its order: the result has the shape "
        "x[:axis] + index + x[axis+1:]. A negative index counts from the end. One that is outside "
        "gives NaN, 0 for integers and false for bool, and reads nothing; indices that a run is "
        "given in host memory are checked before it begins."
    )
    operands = (
        Operand("x", "what is read", dtype=ANY),
        Operand("index", "where along the axis", dtype=(DType.I32, DType.I64)),
    )
    attributes = (Attribute("axis", "int", 0, "axis of x that the indices count along"),)

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """Shape x[:axis] + index + x[axis+1:], with the dtype of x."""
        for operand in self.operands:  # each alone: their shapes have nothing in common
            Shapes([operand], {operand.name: types[operand.name]}, attrs, self.result)
        x, axis = types["x"], attrs["axis"]
        rank = len(x.shape)
        if not -rank <= axis < rank:
            raise OpError(f"there is no axis {axis} in x of shape {list(x.shape)}", "axis")
        axis %= rank
        return TensorType((*x.shape[:axis], *types["index"].shape, *x.shape[axis + 1 :]), x.dtype)

    def indexes(self, types: Types, attrs: Attrs) -> Mapping[str, int]:
        """`index` counts along the axis."""
        return {"index": types["x"].shape[attrs["axis"]]}

    def cost(self, types: Types, attrs: Attrs, type: TensorType) -> Cost:
        """Slices that are not named are not read."""
        return Cost(0, types["index"].nbytes + 2 * type.nbytes)

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """Plain NumPy."""
        nothing = np.nan if type.dtype.is_float else type.dtype.numpy().type(0)
        return _taken(arrays["x"], arrays["index"], attrs["axis"], nothing)

    def error(self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array) -> Array:
        """That of the slices."""
        error = operands["x"].error
        if error is None:
            return np.zeros(type.shape)
        return _taken(error, operands["index"].values, attrs["axis"], 0.0)

    def lower(self, call: Call) -> list[Command]:
        """One kernel, over x as (outer axes, axis, inner axes)."""
        shape = call.types["x"].shape
        axis = call.attrs["axis"] % len(shape)
        outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
        count = call.types["index"].elements
        x = call.operands["x"].reshape((outer, shape[axis], inner))
        index = call.operands["index"].reshape((count,))
        # Members of a batch may share x or index: strides of any length between them.
        accesses = In(x, strided=True), In(index, strided=True)
        out = Out(call.out.reshape((outer, count, inner)))
        command = call.kernel("gather", GatherRows(), *accesses, out)
        return [replace(command, cost=self.cost(call.types, call.attrs, call.type))]


def _taken(x: Array, index: Array, axis: int, nothing: Any) -> Array:
    extent = x.shape[axis]
    axis %= x.ndim
    place = index.astype(np.int64)
    inside = (place >= -extent) & (place < extent)
    found = np.take(x, np.where(inside, place, 0), axis)
    along = (1,) * axis + inside.shape + (1,) * (x.ndim - axis - 1)
    return np.where(inside.reshape(along), found, nothing)


OP = Gather()
