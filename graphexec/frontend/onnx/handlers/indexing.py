"""Operators with indices: gathers, one-hot rows, scatters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.extents import Extent, count
from graphexec.frontend.onnx.handlers.reductions import MOST_PAIRS, reduced
from graphexec.frontend.onnx.values import Node, Unsupported, Value, axis_of, constant, empty


def gathered(b: Builder, x: Value, index: Value, axis: int, part: str = "") -> Value:
    """Slices of x along an axis."""
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return b.op("gather", {"x": x, "index": index}, shape, x.dtype, part, axis=axis)


def _gather(b: Builder, n: Node) -> Value:
    x, index = n.value(0), n.value(1)
    axis = axis_of(n.attr("axis", 0), x.rank)
    if index.known and index.rank == 0:
        return _picked(b, x, index.number(), axis)
    return gathered(b, x, index, axis)


def _picked(b: Builder, x: Value, place: Extent, axis: int) -> Value:
    """One slice at a place that is known: no gather."""
    if isinstance(place, int) and place < 0:
        place = x.shape[axis] + place
    row = b.slice(x, axis, place, place + 1, 1, part="row")
    return b.reshape(row, [*x.shape[:axis], *x.shape[axis + 1 :]])


def _from_front(index: str, extent: Extent) -> str:
    return f"where({index} < 0, {index} + {literal(extent)}, {index})"


def _flat_places(b: Builder, index: Value, shape: Sequence[Extent], axis: int, part: str) -> Value:
    """Where elements lie in a flat tensor of `shape`: at their own coordinates, and at `index` in
    place of that of `axis`."""
    terms = []
    for a in range(len(shape)):
        stride = literal(count(shape[a + 1 :]))
        place = _from_front("{0}", shape[a]) if a == axis else f"index({a})"
        terms.append(f"{place} * {stride}")
    return b.map(" + ".join(terms), index, to=DType.I64, part=part)


def _gather_elements(b: Builder, n: Node) -> Value:
    x, index = n.value(0), n.value(1)
    axis = axis_of(n.attr("axis", 0), x.rank)
    places = _flat_places(b, index, x.shape, axis, "places")
    return gathered(b, b.reshape(x, [count(x.shape)], "flat"), places, 0)


def _nd_places(b: Builder, index: Value, shape: Sequence[Extent], batch: int, part: str) -> Value:
    """The number of the slice that each tuple along the last axis of `index` names."""
    depth = index.shape[-1]
    if not isinstance(depth, int) or batch + depth > len(shape):
        raise Unsupported("an index of a depth that is not known")
    own = shape[batch : batch + depth]
    factor, size = "1", literal(own[-1])
    for d in reversed(range(depth - 1)):
        factor = f"where(index(-1) == {d}, {literal(count(own[d + 1 :]))}, {factor})"
        size = f"where(index(-1) == {d}, {literal(own[d])}, {size})"
    terms = b.map(f"where({{0}} < 0, {{0}} + {size}, {{0}}) * {factor}", index, to=DType.I64,
                  part=f"{part}_terms")  # fmt: skip
    places = reduced(b, terms, "sum", [index.rank - 1], False, part)
    if not batch:
        return places
    inner = literal(count(own))
    own_batch = " + ".join(
        f"index({a}) * {literal(count(shape[a + 1 : batch]))}" for a in range(batch)
    )
    return b.map(f"{{0}} + ({own_batch}) * {inner}", places, part=f"{part}_batched")


def _gather_nd(b: Builder, n: Node) -> Value:
    x, index, batch = n.value(0), n.value(1), n.attr("batch_dims", 0)
    places = _nd_places(b, index, x.shape, batch, "places")
    rest = x.shape[batch + int(index.shape[-1]) :]  # type: ignore[arg-type]
    lead = count(x.shape[: x.rank - len(rest)])
    return gathered(b, b.reshape(x, [lead, *rest], "flat"), places, 0)


def _one_hot(b: Builder, n: Node) -> Value:
    index, depth, values = n.value(0), n.value(1).number(), n.value(2)
    depth = int(depth) if isinstance(depth, float) else depth
    axis = n.attr("axis", -1)
    axis = axis + index.rank + 1 if axis < 0 else axis
    shape: list[Extent] = [*index.shape[:axis], 1, *index.shape[axis:]]
    if index.dtype.is_float:
        index = b.cast(index, DType.I64, "index")
    index = b.reshape(index, shape, "column")
    shape[axis] = depth
    off, on = (b.reshape(b.slice(values, 0, i, i + 1, 1, part=p), (), f"{p}_value")
               for i, p in ((0, "off"), (1, "on")))  # fmt: skip
    if values.known:
        numbers = [literal(e) for e in values.ints()] if values.dtype.is_integer else [
            literal(e) for e in values.data.ravel()]  # type: ignore[union-attr]  # fmt: skip
        text = f"where({_from_front('{0}', depth)} == index({axis}), {numbers[1]}, {numbers[0]})"
        return b.map(text, index, shape=shape, to=values.dtype)
    text = f"where({_from_front('{0}', depth)} == index({axis}), {{1}}, {{2}})"
    return b.map(text, index, on, off, shape=shape, gives=values.dtype)


def _compress(b: Builder, n: Node) -> Value:
    """The rows that a condition, which is known, chooses."""
    x, axis = n.value(0), n.attr("axis")
    chosen = [i for i, keep in enumerate(n.value(1).ints()) if keep]
    if axis is None:
        x, axis = b.reshape(x, [count(x.shape)], "flat"), 0
    axis = axis_of(axis, x.rank)
    if not chosen:
        return empty(n.outputs[0], (*x.shape[:axis], 0, *x.shape[axis + 1 :]), x.dtype)
    places = constant(f"{n.outputs[0]}.rows", np.array(chosen, np.int64), DType.I64)
    return gathered(b, x, places, axis)


def _tensor_scatter(b: Builder, n: Node) -> Value:
    """A cache with the rows of an update from a place on, which differs from batch to batch."""
    x, update, start = n.value(0), n.value(1), n.given(2)
    axis = axis_of(n.attr("axis", -2), x.rank)
    own, rows = x.shape[axis], update.shape[axis]
    index: list[Extent] = [*x.shape[: axis + 1]]
    at = b.map(f"index({axis})", shape=[*[1] * axis, own], to=DType.I64, part="at")
    if start is not None:
        first = b.reshape(start, [x.shape[0], *[1] * axis], "first")
        at = b.map("{0} - {1}", at, first, part="after")
    if n.attr("mode", "linear") == "circular":
        at = b.map(f"{{0}} % {literal(own)}", at, part="around")
    inside = b.map(f"{{0}} >= 0 and {{0}} < {literal(rows)}", at, gives=DType.BOOL, part="inside")
    place = b.map(f"max(0, min({literal(rows)} - 1, {{0}}))", at, part="place")
    wide = b.expand(place, index, "places")
    lead = count(x.shape[:axis])
    flat = b.map(
        f"{{0}} + ({_flat_index(x.shape[:axis])}) * {literal(rows)}", wide, part="flat_places"
    )
    rest = x.shape[axis + 1 :]
    table = b.reshape(update, [lead * rows, *rest], "rows")
    moved = gathered(b, table, flat, 0, "moved")
    column = b.reshape(inside, [*inside.shape, *[1] * len(rest)], "column")
    return b.map("where({0}, {1}, {2})", column, moved, x, gives=x.dtype)


def _flat_index(shape: Sequence[Extent]) -> str:
    """Where an element lies along axes that are joined."""
    terms = [f"index({a}) * {literal(count(shape[a + 1 :]))}" for a in range(len(shape))]
    return " + ".join(terms) or "0"


# Scatters -----------------------------------------------------------------------------------
# Each place of the result looks through all updates for its own: the last, or all of them.


def _scatter_elements(b: Builder, n: Node) -> Value:
    x, index, updates = n.value(0), n.value(1), n.value(2)
    axis = axis_of(n.attr("axis", 0), x.rank)
    places = _flat_places(b, index, x.shape, axis, "places")
    number = count(index.shape)
    flat = _scattered(
        b, b.reshape(x, [count(x.shape)], "flat"), b.reshape(places, [number], "flat_places"),
        b.reshape(updates, [number], "flat_updates"), n.attr("reduction", "none"),
    )  # fmt: skip
    return b.reshape(flat, x.shape)


def _scatter_nd(b: Builder, n: Node) -> Value:
    x, index, updates = n.value(0), n.value(1), n.value(2)
    places = _nd_places(b, index, x.shape, 0, "places")
    depth = int(index.shape[-1])  # type: ignore[arg-type]
    rest = x.shape[depth:]
    number = count(index.shape[:-1])
    flat = _scattered(
        b, b.reshape(x, [count(x.shape[:depth]), count(rest)], "flat"),
        b.reshape(places, [number], "flat_places"),
        b.reshape(updates, [number, count(rest)], "flat_updates"), n.attr("reduction", "none"),
    )  # fmt: skip
    return b.reshape(flat, x.shape)


_REDUCTIONS: dict[str, tuple[str, str | None, str]] = {
    "add": ("sum", "0", "{0} + {1}"),
    "mul": ("prod", "1", "{0} * {1}"),
    "max": ("max", None, "max({0}, {1})"),
    "min": ("min", None, "min({0}, {1})"),
}
"""The reduction, what changes nothing in it (None: the element itself), and how it is joined."""


def _scattered(b: Builder, x: Value, places: Value, updates: Value, kind: str) -> Value:
    """x (N) or (N, R) with the updates (M) or (M, R) at their places (M)."""
    pairs = count((*x.shape, *places.shape))
    if isinstance(pairs, int) and pairs > MOST_PAIRS:
        raise Unsupported(f"a scatter of {places.shape[0]} updates into {x.shape[0]} rows")
    rows, number = x.shape[0], places.shape[0]
    text = "where({0} == index(0), index(1), -1)"
    if kind == "none":
        hit = b.map(text, places, shape=[rows, number], to=DType.I32, part="hits")
        last = reduced(b, hit, "max", [1], False, "last")
        chosen = gathered(b, updates, b.map("max({0}, 0)", last, part="row"), 0, "chosen")
        last = b.reshape(last, [rows, *[1] * (x.rank - 1)], "last_column")
        return b.map("where({0} < 0, {1}, {2})", last, x, chosen, gives=x.dtype, part="scattered")
    if kind not in _REDUCTIONS:
        raise Unsupported(f"the reduction '{kind}'")
    reduction, neutral, joined = _REDUCTIONS[kind]
    shape = [rows, number, *x.shape[1:]]
    column = b.reshape(places, [number, *[1] * (x.rank - 1)], "column")
    terms = b.map(f"where({{0}} == index(0), {{1}}, {neutral or '{2}'})", column, updates,
                  *([b.reshape(x, [rows, 1, *x.shape[1:]], "own")] if neutral is None else []),
                  shape=shape, gives=x.dtype, part="terms")  # fmt: skip
    found = reduced(b, terms, reduction, [1], False, "found")
    return b.map(joined, x, found, part="scattered")


HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {
    "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Compress": _compress, "TensorScatter": _tensor_scatter,
    "ScatterElements": _scatter_elements, "Scatter": _scatter_elements,
    "ScatterND": _scatter_nd,
}  # fmt: skip
