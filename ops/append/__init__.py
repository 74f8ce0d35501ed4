"""append: rows written into a tensor at a place that is known on the device."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import Approximates
from graphexec.ir.operand import ANY, Shapes
from graphexec.ir.program import Cost
from graphexec.ops.append.kernels import check, counted, write
from graphexec.ops.kit import (
    Arrays,
    Attribute,
    Attrs,
    Call,
    Command,
    In,
    InOut,
    Memcpy,
    Op,
    Operand,
    OpError,
    TensorType,
    Types,
)  # fmt: skip

_PLACES = (DType.I32, DType.I64)


class Append(Op):
    """See `doc`."""

    name = "append"
    doc = (
        "The tensor `into`, with the rows of x in it from row `at` on along `axis`; a new tensor. "
        "`at` and `count` have the shape [], or one element for each entry of axis 0. Only the "
        "first `count` rows are written. Rows that do not fit, or a negative `at`, end the run "
        "with an error; then states are as before it. Where `into` is a state and the result its "
        "next value, the rows are written there and nothing is copied."
    )
    operands = (
        Operand("into", "what is written into", dtype=ANY),
        Operand("x", "the rows", dtype="into"),
        Operand("at", "where the first row goes", dtype=_PLACES),
        Operand("count", "how many rows count (default: all)", optional=True, dtype=_PLACES),
    )
    attributes = (Attribute("axis", "int", 0, "axis that the rows follow one another along"),)

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of `into`."""
        for operand in self.operands:  # each alone: their shapes do not broadcast
            if operand.name in types:
                given = {n: types[n] for n in ("into", operand.name)}
                Shapes([operand], given, attrs, self.result)
        into, x = types["into"], types["x"]
        rank, axis = len(into.shape), attrs["axis"]
        if not -rank <= axis < rank:
            raise OpError(f"there is no axis {axis} in {list(into.shape)}", "axis")
        axis %= rank
        if len(x.shape) != rank or _without(x, axis) != _without(into, axis):
            raise OpError(f"x has the shape of into but for axis {axis}: into is {into}, x {x}",
                          "x")  # fmt: skip
        if x.shape[axis] > into.shape[axis]:
            raise OpError(f"{x.shape[axis]} rows never fit into {into.shape[axis]}", "x")
        for key in ("at", "count"):
            if key in types:
                _check_place(key, types[key], into, axis)
        return into

    def cost(self, types: Types, attrs: Attrs, type: TensorType) -> Cost:
        """All is copied, and the rows are written."""
        return Cost(0, 2 * types["into"].nbytes + 2 * types["x"].nbytes)

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """Plain NumPy."""
        return _appended(arrays["into"], arrays["x"], arrays["at"], arrays.get("count"), attrs)

    def error(self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array) -> Array:
        """That of the rows and of what is left."""
        off = [np.zeros(o.values.shape) if o.error is None else o.error
               for o in (operands["into"], operands["x"])]  # fmt: skip
        count = operands["count"].values if "count" in operands else None
        return _appended(off[0], off[1], operands["at"].values, count, attrs)

    def lower(self, call: Call) -> list[Command]:
        """A check of the place, a copy, and the rows."""
        shape = call.type.shape
        axis = call.attrs["axis"] % len(shape)
        outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
        given = call.operands
        rows = call.types["x"].shape[axis]
        x = given["x"].reshape((outer, rows, inner))
        out = call.out.reshape((outer, shape[axis], inner))
        at, count = given["at"], given.get("count")
        fault, node = call.fault()
        places = [In(at), *([] if count is None else [In(count)])]
        checked = check(at, count, fault, rows, shape[axis], node, first=node == 1)
        share = max(1, outer // shape[0]) if axis else 1
        written = write(x, at, count, out, fault, share)
        rows_written = call.command("append", written, In(x), *places, InOut(out), In(fault))
        return [
            call.command("check", checked, *places, InOut(fault)),
            call.command("copy", Memcpy(given["into"], call.out)),
            # Of the result the rows alone are touched.
            replace(rows_written, cost=Cost(0, 2 * call.types["x"].nbytes)),
        ]


def _without(type: TensorType, axis: int) -> tuple[int, ...]:
    return (*type.shape[:axis], *type.shape[axis + 1 :])


def _check_place(key: str, type: TensorType, into: TensorType, axis: int) -> None:
    """OpError unless `at` or `count` has one element, or one for each entry of axis 0."""
    if type.shape == () or (axis > 0 and type.shape == into.shape[:1]):
        return
    each = f" or [{into.shape[0]}], one for each entry of axis 0" if axis else ""
    raise OpError(f"{key} has the shape []{each}, found {list(type.shape)}", key)


def _appended(into: Array, x: Array, at: Array, count: Array | None, attrs: Attrs) -> Array:
    axis = attrs["axis"] % into.ndim
    found = np.array(into)
    entries = into.shape[0] if axis else 1
    whole, rows = (a if axis else a[None] for a in (found, x))
    places = np.broadcast_to(at, (entries,)).astype(np.int64)
    some = np.broadcast_to(x.shape[axis] if count is None else counted(count, x.shape[axis]),
                           (entries,))  # fmt: skip
    inner = axis - 1 if axis else 0
    for entry in range(entries):
        place, number = int(places[entry]), int(some[entry])
        if place < 0 or place + number > into.shape[axis]:
            return np.array(into)  # the run fails
        target = np.moveaxis(whole[entry], inner, 0)
        target[place : place + number] = np.moveaxis(rows[entry], inner, 0)[:number]
    return found


OP = Append()
