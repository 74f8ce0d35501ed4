"""concat: tensors one after another along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphexec.base.tensor import Array
from graphexec.ir.approximate import Approximates
from graphexec.ir.operand import ANY, Shapes
from graphexec.ops.concat.kernel import MOST_PARTS, Concatenate, block_of
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
    View,
    Views,
)  # fmt: skip


class Concat(Op):
    """See `doc`."""

    name = "concat"
    doc = (
        "The tensors of x one after another along `axis`. They have one dtype, and one shape but "
        "for that axis. A part that nothing else reads is written where it belongs."
    )
    operands = (Operand("x", "the parts, in order", dtype=ANY, many=True),)
    attributes = (Attribute("axis", "int", 0, "axis along which they follow one another"),)

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The shape of the first part, with the sum of the extents along the axis."""
        for operand in self.operands_of(types):  # each alone: their shapes need not broadcast
            Shapes([operand], {operand.name: types[operand.name]}, attrs, self.result)
        first, axis = types["x[0]"], _axis(types["x[0]"], attrs)
        for name, type in types.items():
            _check(name, type, first, axis)
        extent = sum(type.shape[axis] for type in types.values())
        return TensorType(_with_extent(first.shape, axis, extent), first.dtype)

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """Plain NumPy."""
        return np.concatenate(list(arrays.values()), axis=attrs["axis"])

    def error(self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array) -> Array:
        """That of each part."""
        errors = [
            np.zeros(x.values.shape) if x.error is None else x.error for x in operands.values()
        ]
        return np.concatenate(errors, axis=attrs["axis"])

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Blocks of neighbours at equal distances, in every part and in the result."""
        axis = attrs["axis"] % len(out.shape)
        return all(block_of(view, axis) is not None for view in (*operands.values(), out))

    def parts(self, types: Types, attrs: Attrs, out: View) -> Mapping[str, View]:
        """All of them."""
        axis = attrs["axis"] % len(out.shape)
        windows = part_windows(out, [type.shape[axis] for type in types.values()], axis)
        return dict(zip(types, windows, strict=True))

    def lower(self, call: Call) -> list[Command]:
        """One kernel for every few parts; none for those that lie in the result already."""
        axis = call.attrs["axis"] % len(call.out.shape)
        windows = self.parts(call.types, call.attrs, call.out).values()
        moved = [(x, y) for x, y in zip(call.operands.values(), windows, strict=True) if x != y]
        if len(moved) == len(windows) <= MOST_PARTS:
            parts = [x for x, _ in moved]
            return [_command(call, Concatenate(axis - len(call.out.shape)), parts, [call.out])]
        apart = Concatenate(axis - len(call.out.shape), apart=True)
        chunks = (moved[i : i + MOST_PARTS] for i in range(0, len(moved), MOST_PARTS))
        return [_command(call, apart, [x for x, _ in c], [y for _, y in c]) for c in chunks]


def part_windows(whole: View, extents: Sequence[int], axis: int) -> list[View]:
    """Where in `whole` the parts lie, by their extents along the axis."""
    found, first = [], 0
    for extent in extents:
        shape = _with_extent(whole.shape, axis, extent)
        found.append(replace(whole, shape=shape, offset=whole.offset + first * whole.strides[axis]))
        first += extent
    return found


def _command(
    call: Call, make: Concatenate, parts: Sequence[View], written: Sequence[View]
) -> Command:
    return call.kernel("concat", make, *map(In, parts), *map(Out, written))


def _axis(first: TensorType, attrs: Attrs) -> int:
    rank, axis = len(first.shape), attrs["axis"]
    if not -rank <= axis < rank:
        raise OpError(f"there is no axis {axis} in {list(first.shape)}", "axis")
    return int(axis % rank)


def _check(name: str, type: TensorType, first: TensorType, axis: int) -> None:
    """OpError unless a part fits the first one."""
    both = f"x[0] is {first}, {name} is {type}"
    if type.dtype is not first.dtype:
        help = f"cast one of them: {{op: copy, x: …, dtype: {first.dtype}}}"
        raise OpError(f"the parts have one dtype, but {both}", name, help=help)
    if len(type.shape) != len(first.shape):
        help = "a copy can reshape: extents of 1 are free"
        raise OpError(f"the parts have one number of axes, but {both}", name, help=help)
    if _with_extent(type.shape, axis, 1) != _with_extent(first.shape, axis, 1):
        raise OpError(f"the parts have one shape but for axis {axis}, but {both}", name)


def _with_extent(shape: tuple[int, ...], axis: int, extent: int) -> tuple[int, ...]:
    return (*shape[:axis], extent, *shape[axis + 1 :])


OP = Concat()
