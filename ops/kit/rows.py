"""Tensors as rows: the axes that an op goes along, merged and last."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphexec.base.tensor import View
from graphexec.ir.op_error import OpError


def normal_axes(axes: Sequence[int], shape: Sequence[int], key: str = "axis") -> tuple[int, ...]:
    """The axes counted from the front, in order; OpError for one that is not there or twice."""
    rank = len(shape)
    found = []
    for axis in axes:
        if not -rank <= axis < rank:
            raise OpError(f"there is no axis {axis} in x of shape {list(shape)}", key)
        found.append(axis % rank)
    twice = [axis for axis in found if found.count(axis) > 1]
    if twice:
        raise OpError(f"axis {twice[0]} is named twice", key)
    return tuple(sorted(found))


def as_rows(view: View, axes: Sequence[int]) -> View | None:
    """The view with `axes` as one axis, the last; None where strides do not express that."""
    others = [axis for axis in range(len(view.shape)) if axis not in axes]
    turned = view.transpose((*others, *axes))
    kept = turned.shape[: len(others)]
    return turned.reshaped((*kept, prod(turned.shape[len(others) :])))
