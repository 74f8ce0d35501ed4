"""rope: rotary position embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import Approximates
from graphexec.ir.body import Writer
from graphexec.ir.operand import FLOATS
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
    View,
    Views,
)
from graphexec.ops.kit.generate import generated
from graphexec.ops.rope.bodies import body_of_angles, body_of_tables, slices
from graphexec.ops.rope.by_numpy import error_of, rotated

_INDEX = (DType.I32, DType.I64)


class Rope(Op):
    """See `doc`."""

    name = "rope"
    doc = (
        "Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of x (…, S, D): pairs (u, v) "
        "of features become (u·cos - v·sin, v·cos + u·sin) of position · theta^(-2i / rotate), or "
        "of the tables `cos` and `sin`. The position is `position`, or `at` plus the index of S. "
        "A position outside the tables gives NaN."
    )
    operands = (
        Operand("x", shape="(…, S, D)"),
        Operand("position", "broadcasts to (…, S)", optional=True, dtype=_INDEX),
        Operand("at", "position of the first of S: [], or [n] for each of axis 0", optional=True,
                dtype=_INDEX),
        Operand("cos", "(positions, rotate / 2)", optional=True, dtype=FLOATS),
        Operand("sin", "(positions, rotate / 2)", optional=True, dtype=FLOATS),
    )  # fmt: skip
    attributes = (
        Attribute("theta", "number", 10000, "base of the frequencies, without tables"),
        Attribute("pairs", "choice", "halves", "pairs are (i, i + rotate / 2), or (2i, 2i + 1)",
                  ("halves", "interleaved")),
        Attribute("rotate", "int", None, "leading features that are rotated (default: all)"),
    )  # fmt: skip

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of x."""
        x = types["x"]
        for operand in self.operands_of(types):
            _check_operand(operand, types[operand.name])
        if len(x.shape) < 2:
            raise OpError(f"x must have at least two axes, (…, S, D), found {list(x.shape)}", "x")
        if ("position" in types) == ("at" in types):
            raise OpError("one of position and at is needed, and only one",
                          "at" if "at" in types else "x")  # fmt: skip
        rotate = _rotate(types, attrs)
        if not 2 <= rotate <= x.shape[-1] or rotate % 2:
            raise OpError(f"rotate must be even, from 2 to {x.shape[-1]}, found {rotate}", "rotate")
        if ("cos" in types) != ("sin" in types):
            raise OpError("cos and sin are given together", "cos" if "cos" in types else "sin")
        for name in ("cos", "sin"):
            if name in types and (len(types[name].shape) != 2
                                  or types[name].shape[1] != rotate // 2):  # fmt: skip
                raise OpError(f"{name} must have the shape (positions, {rotate // 2}), found "
                              f"{list(types[name].shape)}", name)  # fmt: skip
        if "cos" in types and types["cos"] != types["sin"]:
            raise OpError(f"cos is {types['cos']}, sin is {types['sin']}", "sin")
        if attrs["theta"] <= 0:
            raise OpError(f"theta must be positive, found {attrs['theta']}", "theta")
        _check_position(types, x.shape)
        return TensorType(x.shape, x.dtype)

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """Three a feature, and the angles."""
        return (3 if "cos" in types else 13) * type.elements

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The definition, in float64."""
        return rotated(arrays, attrs)

    def error(
        self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array
    ) -> Array | None:
        """By a running error analysis of the pairs."""
        return error_of(operands, attrs)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Any strides of x and of the result along axes before the last; other operands dense."""
        near = all(v.strides[-1] == 1 or v.shape[-1] == 1 for v in (operands["x"], out))
        return near and all(v.is_dense for name, v in operands.items() if name != "x")

    def lower(self, call: Call) -> list[Command]:
        """One kernel for the pairs, one that copies other features, two that look up tables."""
        x, out, attrs = call.operands["x"], call.out, call.attrs
        rotate = _rotate(call.types, attrs)
        shape = (*x.shape[:-1], rotate // 2)
        position = _position_view(call, x.shape)
        commands: list[Command] = []
        first, second = slices(rotate, attrs["pairs"])
        u, v = _window(x, first), _window(x, second)
        written = [_window(out, first), _window(out, second)]
        if "cos" in call.types:
            tables = [_looked_up(call, name, position, commands) for name in ("cos", "sin")]
            body = body_of_tables(x.dtype, tables[0].dtype)
            reads = [u, v, *tables]
        else:
            body = body_of_angles(call.types, attrs, rotate)
            reads = [u, v, *([] if position is None else [_spread(position, shape)])]
        if rotate < x.shape[-1]:
            rest = slice(rotate, x.shape[-1], 1)
            writer = Writer()
            same = writer.body(writer.load(0, x.dtype))
            commands.append(generated(call, "rope", same, [_window(x, rest)], [_window(out, rest)]))
        # The two results lie within one another's bytes, so they are stated as one, after which the
        # whole result is there.
        command = generated(call, "rope", body, reads, written, shape)
        commands.append(replace(command, writes=(out,), inplace=(), recipe=None))
        return commands


def _rotate(types: Types, attrs: Attrs) -> int:
    rotate: int | None = attrs["rotate"]
    return types["x"].shape[-1] if rotate is None else rotate


def _check_operand(operand: Operand, type: TensorType) -> None:
    if type.space != "device":
        raise OpError(f"operand '{operand.name}' is in host memory", operand.name,
                      help="copy it with `to: device`")  # fmt: skip
    if type.dtype not in operand.dtype:
        wanted = ", ".join(operand.dtype)
        raise OpError(f"operand '{operand.name}' is {type}, but its dtype must be {wanted}",
                      operand.name)  # fmt: skip


def _check_position(types: Types, shape: tuple[int, ...]) -> None:
    if "at" in types:
        at = types["at"].shape
        wanted = f"[] or [{shape[0]}]" if len(shape) > 2 else "[] where x is (S, D)"
        if at and (len(shape) < 3 or at != (shape[0],)):
            raise OpError(f"at must have the shape {wanted}, found {list(at)}", "at")
        return
    found = types["position"].shape
    try:
        fits = np.broadcast_shapes(found, shape[:-1]) == shape[:-1]
    except ValueError:
        fits = False
    if not fits:
        raise OpError(f"position of shape {list(found)} does not broadcast to {list(shape[:-1])}",
                      "position")  # fmt: skip


def _window(x: View, features: slice) -> View:
    step = x.strides[-1]
    count = len(range(features.start, features.stop, features.step))
    return replace(
        x, shape=(*x.shape[:-1], count), strides=(*x.strides[:-1], step * features.step),
        offset=x.offset + features.start * step,
    )  # fmt: skip


def _position_view(call: Call, shape: tuple[int, ...]) -> View | None:
    """`position` or `at` over (…, S)."""
    if "position" in call.operands:
        return call.operands["position"].broadcast_to(shape[:-1])
    at = call.operands["at"]
    if at.shape:
        at = at.reshape((*at.shape, *(1,) * (len(shape) - 2)))
    return at.broadcast_to(shape[:-1])


def _spread(position: View, shape: tuple[int, ...]) -> View:
    """The same for each pair."""
    return replace(position, shape=shape, strides=(*position.strides, 0))


def _looked_up(call: Call, name: str, position: View | None, commands: list[Command]) -> View:
    """The rows of a table at the positions, over (…, S, rotate / 2)."""
    table = call.operands[name]
    half = table.shape[-1]
    places = _places(call, commands)
    rows = call.scratch(f"{name}_rows", TensorType((*places.shape, half), table.dtype))
    flat = rows.reshape((1, places.elements, half))
    accesses = (
        In(table.reshape((1, *table.shape)), True),
        In(places.reshape((places.elements,)), True),
    )
    commands.append(call.kernel("gather", GatherRows(), *accesses, Out(flat)))
    return rows.broadcast_to((*call.out.shape[:-1], half))


def _places(call: Call, commands: list[Command]) -> View:
    """The positions in scratch memory, as they come before they broadcast; those below 0, which
    would count from the end, past every table. Both tables share them."""
    known = [command for command in commands if command.label == "positions"]
    if known:
        return known[0].writes[0]
    given = call.operands["at" if "at" in call.operands else "position"]
    shape, writer = given.shape, Writer()
    place = writer.load(0, given.dtype)
    if "at" in call.operands:
        rank = len(call.out.shape) - 1
        shape = (
            (*shape, *(1,) * (rank - 1 - len(shape)), call.out.shape[-2])
            if shape
            else (call.out.shape[-2],)
        )
        given = given.reshape((*given.shape, *(1,) * (len(shape) - len(given.shape))))
        place = place + writer.index(-1)
    body = writer.body(writer.where(place < 0, 2**31 - 1, place))
    places = call.scratch("positions", TensorType(shape, given.dtype))
    commands.append(generated(call, "positions", body, [given], [places]))
    return places


OP = Rope()
