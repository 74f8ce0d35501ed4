"""How a rank does its part of each op. What has no rule is done whole, on every rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from graphexec.base.grammar import Call, walk
from graphexec.graph.partition.split import Parts, Spec, Split
from graphexec.ir.axes import Axes, Axis
from graphexec.ir.program import Reduction
from graphexec.ir.typed import TypedNode

Rule = Callable[[Parts, TypedNode], Split]
_REDUCED: Mapping[str, Reduction] = {"sum": "sum", "prod": "prod", "max": "max", "min": "min"}


def rule_of(op: str) -> Rule:
    """The rule of an op, by its name."""
    return _RULES.get(op, _whole)


def _whole(p: Parts, node: TypedNode) -> Split:
    """On all of every operand."""
    operands = {key: p.gathered(name) for key, name in p.operands(node).items()}
    return Split(operands, node.attrs, ("",) * len(node.type.shape))


# Element by element ------------------------------------------------------------------------------


def _together(p: Parts, operands: dict[str, str], shape: tuple[int, ...], last: int = 0) -> Spec:
    """How a result of this shape is cut whose operands broadcast to it, but for their `last` axes,
    which must be whole. Operands that do not fit are gathered or cut, in place."""
    batch = len(shape) - last
    spec = [""] * len(shape)
    for key, name in operands.items():
        for place, axis in enumerate(p.specs[name]):
            at = place - len(p.specs[name]) + last  # from the end of the batch axes
            if axis and (at >= 0 or axis in spec[:batch + at] + spec[batch + at + 1 :]
                         or spec[batch + at] not in ("", axis)):  # fmt: skip
                operands[key] = p.gathered(operands[key], place)
            elif axis:
                spec[batch + at] = axis
    for key, name in operands.items():
        operands[key] = p.as_cut(name, _tail(p, name, spec, last))
    return tuple(spec)


def _tail(p: Parts, name: str, spec: list[str], last: int) -> Spec:
    """How an operand is cut that broadcasts to such a result."""
    shape = p.whole[name].shape
    batch = len(shape) - last
    above = spec[: len(spec) - last]
    tail = above[len(above) - batch :] if batch > 0 else []
    own = [axis if n > 1 else "" for n, axis in zip(shape, tail, strict=False)]
    return (*own, *[""] * min(last, len(shape)))


def _map(p: Parts, node: TypedNode) -> Split:
    """Also `index`, where no axis is cut."""
    tree = node.attrs["expr"]
    if any(isinstance(part, Call) and part.function == "index" for part in walk(tree)):
        return _whole(p, node)
    operands = p.operands(node)
    spec = _together(p, operands, node.type.shape)
    stated = node.attrs["shape"]
    attrs = {**node.attrs, "shape": stated and p.local(node.type.shape, spec)[-len(stated) :]}
    return Split(operands, attrs, spec)


# Copies ------------------------------------------------------------------------------------------


def _copy(p: Parts, node: TypedNode) -> Split:
    """An axis stays cut where the result has its parts one after another, too."""
    (x,) = p.operands(node).values()
    attrs = dict(node.attrs)
    moves = [key for key in ("slice", "permute", "reshape", "axes") if attrs[key]]
    if attrs["to"] == "host" or len(moves) > 1:
        return _whole(p, node)
    shape = p.whole[x].shape
    for place, axis in enumerate(p.specs[x]):
        if axis and _target(attrs, shape, place, node.type.shape, p.size(axis)) is None:
            x = p.gathered(x, place)
    spec = [""] * len(node.type.shape)
    for place, axis in enumerate(p.specs[x]):
        if axis:
            target = _target(attrs, shape, place, node.type.shape, p.size(axis))
            assert target is not None
            spec[target] = axis
    if attrs["reshape"]:
        attrs["reshape"] = p.local(node.type.shape, tuple(spec))
    if attrs["axes"]:
        attrs["axes"] = _local_axes(p, attrs["axes"], p.specs[x])
    return Split({"x": x}, attrs, tuple(spec))


def _target(
    attrs: Mapping[str, Any], shape: Sequence[int], place: int, result: Sequence[int], ranks: int
) -> int | None:
    """Which axis of the result has the parts of axis `place`; None if there is none."""
    if attrs["slice"]:
        taken = {axis % len(shape) for axis in attrs["slice"]}
        return None if place in taken else place
    if attrs["permute"]:
        return [axis % len(shape) for axis in attrs["permute"]].index(place)
    if attrs["reshape"]:
        before = prod(shape[:place])
        for target, extent in enumerate(result):
            if prod(result[:target]) == before and extent > 1:
                return target if extent % ranks == 0 else None
        return None
    if attrs["axes"]:
        return _target_of_axes(attrs["axes"], place, ranks)
    return place


def _target_of_axes(axes: Axes, place: int, ranks: int) -> int | None:
    if None in axes.left:
        return None
    first = _first(axes.left[place])
    if first is None or first.extent % ranks:
        return None
    for target, group in enumerate(axes.right):
        found = _first(group)
        if found is not None and found.name == first.name:
            return target
    return None


def _first(group: tuple[Axis, ...] | None) -> Axis | None:
    """The slowest axis of a group that has several elements."""
    return next((axis for axis in group or () if axis.extent > 1), None)


def _local_axes(p: Parts, axes: Axes, spec: Spec) -> Axes:
    """The same with the extents of a rank's part."""
    sizes: dict[str, int] = {}
    for place, axis in enumerate(spec):
        first = _first(axes.left[place]) if axis else None
        if first is not None:
            sizes[first.name] = first.extent // p.size(axis)

    def local(groups: tuple[tuple[Axis, ...] | None, ...]) -> tuple[tuple[Axis, ...] | None, ...]:
        return tuple(
            group and tuple(Axis(a.name, sizes.get(a.name, a.extent)) for a in group)
            for group in groups
        )

    return replace(axes, left=local(axes.left), right=local(axes.right))


# Products ----------------------------------------------------------------------------------------


def _gemm(p: Parts, node: TypedNode) -> Split:
    """Batches, rows and columns may be cut; where the sums are, they are in part."""
    operands = p.operands(node)
    attrs = dict(node.attrs)
    a, b = operands["a"], operands["b"]
    row, inner_a = (-1, -2) if attrs["trans_a"] else (-2, -1)
    inner_b, column = (-1, -2) if attrs["trans_b"] else (-2, -1)
    over = p.specs[a][inner_a] or p.specs[b][inner_b]
    free = (*p.specs[a][:-2], p.specs[a][row], *p.specs[b][:-2], p.specs[b][column])
    if over and over in free:
        a, b, over = p.gathered(a, inner_a), p.gathered(b, inner_b), ""
    if over:
        a = p.as_cut(a, _with(p.specs[a], inner_a, over))
        b = p.as_cut(b, _with(p.specs[b], inner_b, over))
    rows, columns = p.specs[a][row], p.specs[b][column]
    if columns and columns in (rows, *p.specs[a][:-2]):
        b, columns = p.gathered(b, column), ""
    if rows and rows in p.specs[b][:-2]:
        a, rows = p.gathered(a, row), ""
    batch = _batches(p, {"a": a, "b": b}, node.type.shape)
    a, b, above = batch
    spec = (*above, rows, columns)
    found = {**operands, "a": a, "b": b}
    added = _addends(p, node, found, spec)
    if not over:
        return Split({**found, **added}, attrs, spec)
    beta = 1.0 if attrs["beta"] is None else float(attrs["beta"])
    left = {"c": beta, "bias": 1.0}
    sums = tuple((added[key], left[key]) for key in ("c", "bias") if key in added and left[key])
    attrs["beta"] = None
    return Split({"a": a, "b": b}, attrs, spec, reduction="sum", over=over, added=sums)


def _with(spec: Spec, place: int, axis: str) -> Spec:
    found = list(spec)
    found[place] = axis
    return tuple(found)


def _batches(p: Parts, operands: dict[str, str], shape: tuple[int, ...]) -> tuple[str, str, Spec]:
    """a and b with their batch axes cut alike, and how those of the result are."""
    spec = [""] * (len(shape) - 2)
    for key in operands:
        own = p.specs[operands[key]]
        for place, axis in enumerate(own[:-2]):
            at = len(spec) - (len(own) - 2) + place
            if axis and (axis in spec[:at] + spec[at + 1 :] or spec[at] not in ("", axis)):
                operands[key] = p.gathered(operands[key], place)
            elif axis:
                spec[at] = axis
    for key, name in operands.items():
        own, sizes = p.specs[name], p.whole[name].shape[:-2]
        tail = spec[len(spec) - len(sizes) :]
        wanted = [axis if n > 1 else "" for n, axis in zip(sizes, tail, strict=True)]
        operands[key] = p.as_cut(name, (*wanted, *own[-2:]))
    return operands["a"], operands["b"], tuple(spec)


def _addends(p: Parts, node: TypedNode, operands: Mapping[str, str], spec: Spec) -> dict[str, str]:
    """c and the bias, cut as the result is; a bias has no axis of rows."""
    found = {}
    if "c" in operands:
        found["c"] = p.as_cut(operands["c"], p.aligned(operands["c"], spec))
    if "bias" in operands:
        without = (*spec[:-2], spec[-1])
        found["bias"] = p.as_cut(operands["bias"], p.aligned(operands["bias"], without))
    return found


# Along axes --------------------------------------------------------------------------------------


def _norm(p: Parts, node: TypedNode) -> Split:
    """The axis that is normalised is whole; weights lie along it."""
    operands = p.operands(node)
    axis = node.attrs["axis"] % len(node.type.shape)
    operands["x"] = p.gathered(operands["x"], axis)
    for key in operands.keys() - {"x"}:
        operands[key] = p.gathered(operands[key])
    return Split(operands, node.attrs, p.specs[operands["x"]])


def _softmax(p: Parts, node: TypedNode) -> Split:
    """As of maps, with one axis whole; with causal masks also that of the queries."""
    operands = p.operands(node)
    axis = node.attrs["axis"] % len(node.type.shape) - len(node.type.shape)
    whole = {axis, *((-1, -2) if node.attrs["causal"] else ())}
    for key, name in operands.items():
        there = [place for place in whole if -place <= len(p.specs[name])]
        operands[key] = p.gathered(name, *there) if there else name
    return Split(operands, node.attrs, _together(p, operands, node.type.shape))


def _reduce(p: Parts, node: TypedNode) -> Split:
    """Sums, products and extremes of parts are reduced by the ranks; for others the axes that go
    are gathered."""
    (x,) = p.operands(node).values()
    rank = len(p.specs[x])
    gone = node.attrs["axis"]
    away = {axis % rank for axis in gone} if gone is not None else set(range(rank))
    cut = [place for place in sorted(away) if p.specs[x][place]]
    reduction: Reduction = _REDUCED.get(node.attrs["kind"], "")
    keeps = cut if reduction and node.type.dtype == p.whole[x].dtype else []
    for place in cut if not keeps else cut[1:]:
        x = p.gathered(x, place)
    keep = node.attrs["keep"]
    spec = tuple("" if place in away else axis for place, axis in enumerate(p.specs[x])
                 if keep or place not in away)  # fmt: skip
    if not keeps:
        return Split({"x": x}, node.attrs, spec)
    return Split({"x": x}, node.attrs, spec, reduction=reduction, over=p.specs[x][cut[0]])


def _attention(p: Parts, node: TypedNode) -> Split:
    """Batches and heads are cut; queries, keys and features are whole."""
    operands = p.operands(node)
    names: tuple[str, ...] = ("length", "at", "start")
    lengths = {key: operands.pop(key) for key in names if key in operands}
    spec = _together(p, operands, node.type.shape, last=2)
    return Split({**operands, **_places(p, lengths, spec)}, node.attrs, spec)


def _places(p: Parts, places: Mapping[str, str], spec: Spec) -> dict[str, str]:
    """Numbers for each entry of axis 0, cut as that is."""
    return {key: p.as_cut(name, spec[: len(p.specs[name])]) for key, name in places.items()}


def _append(p: Parts, node: TypedNode) -> Split:
    """All axes but the one that rows follow one another along."""
    operands = p.operands(node)
    axis = node.attrs["axis"] % len(node.type.shape)
    into = p.gathered(operands["into"], axis)
    spec = p.specs[into]
    x = p.as_cut(operands["x"], spec)
    places: dict[str, str] = {k: operands[k] for k in ("at", "count") if k in operands}
    return Split({"into": into, "x": x, **_places(p, places, spec)}, node.attrs, spec)


def _rope(p: Parts, node: TypedNode) -> Split:
    """Positions and features are whole."""
    operands = p.operands(node)
    x = p.gathered(operands.pop("x"), -1, -2)
    spec = p.specs[x]
    found = {"x": x}
    for key, name in operands.items():
        if key == "position":
            found[key] = p.as_cut(name, p.aligned(name, spec[:-1]))
        elif key == "at":
            found |= _places(p, {key: name}, spec)
        else:
            found[key] = p.gathered(name)
    return Split(found, node.attrs, spec)


def _concat(p: Parts, node: TypedNode) -> Split:
    """Cut as the first part is, but along the axis that they follow one another along."""
    operands = p.operands(node)
    axis = node.attrs["axis"] % len(node.type.shape)
    first = p.gathered(next(iter(operands.values())), axis)
    spec = p.specs[first]
    return Split({k: p.as_cut(name, spec) for k, name in operands.items()}, node.attrs, spec)


def _gather(p: Parts, node: TypedNode) -> Split:
    """A table that is cut along its rows gives those that a rank has, and 0 for others."""
    operands = p.operands(node)
    x, index = operands["x"], operands["index"]
    axis = node.attrs["axis"] % len(p.specs[x])
    over = p.specs[x][axis]
    for place, own in enumerate(p.specs[index]):
        if own and (own == over or own in p.specs[x]):
            index = p.gathered(index, place)
    left, middle = p.specs[x], p.specs[index]
    spec = (*left[:axis], *middle, *left[axis + 1 :])
    if not over:
        return Split({"x": x, "index": index}, node.attrs, spec)
    rows, shape = p.whole[x].shape[axis], p.whole[index].shape
    share = rows // p.size(over)
    low = p.index(over) * share
    # An index outside of the table gives NaN: the first rank says so.
    extra = f" or i < {-rows} or i >= {rows}" if low == 0 else ""
    inside = (
        f"(where(i < 0, i + {rows}, i) >= {low} and where(i < 0, i + {rows}, i) < {low + share})"
    )
    given = {"i": index}
    has = p.computed(f"{node.name}.has", f"{inside}{extra}", given, middle, shape)
    own_row = f"where({inside}, where(i < 0, i + {rows}, i) - {low}, {share if low == 0 else 0})"
    row = p.computed(f"{node.name}.row", own_row, given, middle, shape)
    after = len(left) - axis - 1
    wide = (*shape, *[1] * after)
    kept = p.computed(f"{node.name}.kept", "x", {"x": has}, (*middle, *[""] * after), wide)
    return Split({"x": x, "index": row}, node.attrs, spec, "sum", over, kept=kept)


_RULES: Mapping[str, Rule] = {
    "map": _map, "copy": _copy, "gemm": _gemm, "norm": _norm, "softmax": _softmax,
    "reduce": _reduce, "attention": _attention, "append": _append, "rope": _rope,
    "concat": _concat, "gather": _gather,
}  # fmt: skip
