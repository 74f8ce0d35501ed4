"""Shape arithmetic: nodes whose operands are known are computed while the model is read.

Elements are numbers, or extents over named dims (arrays of objects). Only small results are folded;
whatever depends on the value of a dim stays a node.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.frontend.onnx.extents import Extent, Poly, Undecided, count, known
from graphexec.frontend.onnx.model import DTYPES
from graphexec.frontend.onnx.values import Node, Unsupported, Value, axis_of, constant

MOST = 64
"""Elements of what is folded."""


def folded(node: Node) -> Value | None:
    """The value of a node's only output if it can be known; else None."""
    if node.op in ("Shape", "Size"):
        return _of_shape(node)
    rule = _RULES.get(node.op)
    if rule is None or not all(v.known and _small(v) for v in node.present):
        return None
    try:
        arrays = [None if v is None else v.data for v in node.inputs]
        with np.errstate(all="ignore"):
            found = np.asarray(rule(node, *arrays))
    except (
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError, Undecided, Unsupported,
    ):  # fmt: skip
        return None  # what is wrong with the node is said where it is made
    if found.size > MOST:
        return None
    return _result(node, found)


def split(node: Node) -> list[Value] | None:
    """The parts of an array of known elements; None if there is none to split."""
    x, sizes = node.value(0), node.given(1)
    if node.op != "Split" or not x.known or not _small(x) or x.rank != 1:
        return None
    data = x.data
    assert data is not None
    if sizes is not None and not sizes.known:
        return None
    each = -(-data.size // len(node.outputs))
    ends = [each] * len(node.outputs) if sizes is None else [int(e) for e in sizes.ints()]  # type: ignore[arg-type]
    parts = np.split(data, np.cumsum(ends)[:-1])
    return [constant(name, part, x.dtype) for name, part in zip(node.outputs, parts, strict=True)]


def _small(value: Value) -> bool:
    size = count(value.shape)
    return isinstance(size, int) and size <= MOST


def _result(node: Node, found: Array) -> Value:
    dtype = _dtype(node)
    if found.dtype == object and not any(isinstance(e, Poly) for e in found.ravel()):
        found = np.array([int(e) for e in found.ravel()], np.int64).reshape(found.shape)
    if found.dtype != object:
        found = found.astype(dtype.numpy())
    return constant(node.outputs[0], found, dtype)


def _dtype(node: Node) -> DType:
    if node.op == "Cast":
        return DTYPES[node.attr("to")]
    if node.op in _COMPARISONS or node.op in ("Not", "And", "Or", "Xor"):
        return DType.BOOL
    if node.op == "ConstantOfShape":
        return fill_of(node)[1]
    return node.value(1 if node.op == "Where" else 0).dtype


def _of_shape(node: Node) -> Value:
    shape = node.value(0).shape
    if node.op == "Size":
        return constant(node.outputs[0], _array([count(shape)]).reshape(()), DType.I64)
    part = slice(node.attr("start", 0), node.attr("end"))
    return constant(node.outputs[0], _array(shape[part]), DType.I64)


def _array(extents: Any) -> Array:
    """Extents as an array: of i64 where all are known."""
    found = known(extents)
    if found is not None:
        return np.array(found, np.int64)
    made = np.empty(len(extents), object)
    made[:] = list(extents)
    return made


# Rules ------------------------------------------------------------------------------------------


def fill_of(node: Node) -> tuple[Any, DType]:
    """The element of ConstantOfShape, and its type."""
    tensor = node.attrs.get("value")
    if tensor is None:
        return np.float32(0), DType.F32
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor).ravel()[0], DTYPES[tensor.data_type]


def _constant_of_shape(node: Node, shape: Array) -> Array:
    extents = tuple(shape.ravel().tolist())
    if not all(isinstance(e, int) for e in extents) or count(extents) > MOST:
        raise Undecided
    return np.full(extents, fill_of(node)[0])


def _slice(node: Node, x: Array, starts: Array, ends: Array, axes: Array | None = None,
           steps: Array | None = None) -> Array:  # fmt: skip
    index: list[slice] = [slice(None)] * x.ndim
    chosen = range(len(starts)) if axes is None else axes.tolist()
    jumps = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(chosen, starts.tolist(), ends.tolist(), jumps, strict=True):
        index[axis] = slice(start, end if end >= -(1 << 62) else None, step)
    return x[tuple(index)]


def _divide(node: Node, a: Array, b: Array) -> Any:
    if a.dtype != object and b.dtype != object and a.dtype.kind in "iu":
        return (np.abs(a) // np.abs(b)) * (np.sign(a) * np.sign(b))
    return a // b if object in (a.dtype, b.dtype) else a / b


def _cast(node: Node, x: Array) -> Array:
    dtype = DTYPES.get(node.attr("to"))
    if dtype is None or (x.dtype == object and not dtype.is_integer):
        raise Undecided
    return x if x.dtype == object else x.astype(dtype.numpy())


def _equal(node: Node, a: Array, b: Array) -> Array:
    equal = np.logical_not((a - b).astype(bool)) if object in (a.dtype, b.dtype) else a == b
    return np.asarray(equal)


def _where(node: Node, c: Array, a: Array, b: Array) -> Array:
    c, a, b = np.broadcast_arrays(c, a, b)
    chosen = [x if keep else y for keep, x, y in zip(c.ravel(), a.ravel(), b.ravel(), strict=True)]
    made = np.empty(len(chosen), object if object in (a.dtype, b.dtype) else a.dtype)
    made[:] = chosen
    return made.reshape(c.shape)


def _range(node: Node, start: Array, limit: Array, delta: Array) -> Array:
    if object in (start.dtype, limit.dtype, delta.dtype):
        raise Undecided
    if abs((limit.item() - start.item()) / delta.item()) > MOST:
        raise Undecided
    return np.arange(start.item(), limit.item(), delta.item())


def _reshape(node: Node, x: Array, shape: Array) -> Array:
    return x.reshape([x.shape[n] if e == 0 else int(e) for n, e in enumerate(shape.ravel())])


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return x.squeeze() if axes is None else x.squeeze(tuple(int(a) for a in axes.ravel()))


def _reduced(of: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    def rule(node: Node, x: Array, axes: Array | None = None) -> Array:
        chosen = node.attr("axes") if axes is None else axes.tolist()
        if x.ndim != 1 or (chosen is not None and [axis_of(a, 1) for a in chosen] != [0]):
            raise Undecided
        found = reduce(of, x.tolist())
        return _array([found]) if node.attr("keepdims", 1) else _array([found]).reshape(())

    return rule


def _each(of: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    return lambda node, a, b: of(a, b)


def _extreme(larger: bool) -> Callable[..., Array]:
    def best(a: Extent, b: Extent) -> Extent:
        return a if (a >= b) == larger else b

    made = np.frompyfunc(best, 2, 1)
    return lambda node, *arrays: reduce(made, arrays)


_COMPARISONS: dict[str, Callable[..., Any]] = {
    "Equal": _equal,
    "Less": _each(operator.lt), "LessOrEqual": _each(operator.le),
    "Greater": _each(operator.gt), "GreaterOrEqual": _each(operator.ge),
}  # fmt: skip

_RULES: dict[str, Callable[..., Any]] = {
    **_COMPARISONS,
    "Identity": lambda node, x: x,
    "Cast": _cast,
    "Gather": lambda node, x, i: np.take(x, i.astype(np.int64), axis=node.attr("axis", 0)),
    "Concat": lambda node, *xs: np.concatenate(xs, axis=node.attr("axis")),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": lambda node, x, axes: np.expand_dims(x, tuple(int(a) for a in axes.ravel())),
    "Reshape": _reshape,
    "Transpose": lambda node, x: np.transpose(x, node.attr("perm")),
    "Expand": lambda node, x, s: np.broadcast_to(
        x, np.broadcast_shapes(x.shape, tuple(int(e) for e in s))
    ),
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Where": _where,
    "Add": _each(operator.add), "Sub": _each(operator.sub), "Mul": _each(operator.mul),
    "Div": _divide,
    "Mod": lambda node, a, b: a % b,
    "And": lambda node, a, b: np.logical_and(a, b),
    "Or": lambda node, a, b: np.logical_or(a, b),
    "Xor": lambda node, a, b: np.logical_xor(a, b),
    "Neg": lambda node, x: -x,
    "Not": lambda node, x: np.logical_not(x),
    "Relu": lambda node, x: np.maximum(x, 0),
    "Sqrt": lambda node, x: np.sqrt(x),
    "Reciprocal": lambda node, x: 1 / x,
    "Pow": _each(operator.pow),
    "Floor": lambda node, x: np.floor(x), "Ceil": lambda node, x: np.ceil(x),
    "Min": _extreme(False), "Max": _extreme(True),
    "ReduceProd": _reduced(operator.mul), "ReduceSum": _reduced(operator.add),
    "ReduceMin": _reduced(min), "ReduceMax": _reduced(max),
}  # fmt: skip
