"""Operators that move elements: shapes, axes, parts, repetitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.extents import Extent, Poly, count, sign, stated
from graphexec.frontend.onnx.fold import fill_of
from graphexec.frontend.onnx.model import DTYPES
from graphexec.frontend.onnx.values import Node, Unsupported, Value, axis_of, empty

_FAR = 10**8  # an end that means "to the end", as exporters write it


def _reshape(b: Builder, n: Node) -> Value:
    x, wanted = n.value(0), n.value(1).ints()
    shape: list[Extent] = []
    for axis, extent in enumerate(wanted):
        if extent == 0 and not n.attr("allowzero", 0):
            if axis >= x.rank:
                raise Unsupported(f"there is no axis {axis} to copy")
            extent = x.shape[axis]
        shape.append(extent)
    if -1 in shape:
        rest = count(e for e in shape if e != -1)
        shape[shape.index(-1)] = count(x.shape) // rest
    return _as(b, x, shape)


def _as(b: Builder, x: Value, shape: Sequence[Extent]) -> Value:
    """x in another shape, as the node's own tensor."""
    if any(e == 0 for e in shape):
        return empty(x.name, shape, x.dtype)
    return b.reshape(x, shape)


def _flatten(b: Builder, n: Node) -> Value:
    x, axis = n.value(0), n.attr("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return _as(b, x, [count(x.shape[:axis]), count(x.shape[axis:])])


def axes_of(n: Node, index: int, rank: int) -> list[int]:
    """Axes that are an operand, or an attribute in older opsets."""
    given = n.given(index)
    found = n.attr("axes") if given is None else given.ints()
    return [axis_of(int(a), rank) for a in found or ()]  # type: ignore[arg-type]


def _squeeze(b: Builder, n: Node) -> Value:
    x = n.value(0)
    if n.given(1) is None and n.attr("axes") is None:
        return _as(b, x, [e for e in x.shape if e != 1])
    axes = axes_of(n, 1, x.rank)
    return _as(b, x, [e for a, e in enumerate(x.shape) if a not in axes])


def _unsqueeze(b: Builder, n: Node) -> Value:
    x = n.value(0)
    second = n.given(1)
    given = n.attr("axes") if second is None else second.ints()
    axes = [axis_of(int(a), x.rank + len(given)) for a in given]  # type: ignore[arg-type]
    rest = iter(x.shape)
    shape = [1 if a in axes else next(rest) for a in range(x.rank + len(axes))]
    return _as(b, x, shape)


def _transpose(b: Builder, n: Node) -> Value:
    x = n.value(0)
    return b.transpose(x, n.attr("perm", list(range(x.rank))[::-1]))


def _expand(b: Builder, n: Node) -> Value:
    return b.expand(n.value(0), n.value(1).ints())


def _concat(b: Builder, n: Node) -> Value:
    axis = axis_of(n.attr("axis"), n.value(0).rank)
    parts = [p for p in n.present if p.shape[axis] != 0] or [n.value(0)]
    if len(parts) == 1:
        return parts[0]
    extent: Extent = 0
    for part in parts:
        extent = part.shape[axis] + extent
    shape = (*parts[0].shape[:axis], extent, *parts[0].shape[axis + 1 :])
    return b.op("concat", {"x": parts}, shape, parts[0].dtype, axis=axis)


def _slice(b: Builder, n: Node) -> Value:
    x, starts, ends = n.value(0), n.value(1).ints(), n.value(2).ints()
    axes, steps = n.given(3), n.given(4)
    chosen = range(len(starts)) if axes is None else axes.ints()
    jumps = [1] * len(starts) if steps is None else steps.ints()
    slices: dict[int, list[int | str | None]] = {}
    shape = list(x.shape)
    for given, start, end, step in zip(chosen, starts, ends, jumps, strict=True):
        axis = axis_of(int(given), x.rank)  # type: ignore[arg-type]
        if not isinstance(step, int) or step == 0:
            raise Unsupported("a step that is not known")
        bounds, shape[axis] = _part(x.shape[axis], start, end, step)
        slices[axis] = [*bounds, step]
    if tuple(shape) == x.shape and all(s[2] == 1 for s in slices.values()):
        return x
    if any(e == 0 for e in shape):
        return empty(n.outputs[0], shape, x.dtype)
    return b.copy(x, shape, slice=slices)


def _part(
    extent: Extent, start: Extent, end: Extent, step: int
) -> tuple[tuple[int | str | None, int | str | None], Extent]:
    """Start and end as the graph takes them, and how many rows there are."""
    if isinstance(extent, int) and isinstance(start, int) and isinstance(end, int):
        found = range(extent)[max(start, -(1 << 40)) : max(min(end, 1 << 40), -(1 << 40)) : step]
        last: int | None = found.stop if found.stop >= 0 else None
        return (found.start, last), len(found)
    if step != 1:
        if start in (-1,) and step == -1 and isinstance(end, int) and end < -_FAR:
            return (None, None), extent
        if start == 0 and isinstance(end, int) and end > _FAR and step > 0:
            return (None, None), (extent + (step - 1)) // step
        raise Unsupported("a step through an extent that is not known")
    first = None if start == 0 else stated(start)
    begin = extent + start if isinstance(start, int) and start < 0 else start
    if isinstance(end, int) and end > _FAR:
        return (first, None), extent - begin
    stop = extent + end if isinstance(end, int) and end < 0 else end
    return (first, stated(end)), stop - begin


def _split(b: Builder, n: Node) -> list[Value]:
    x = n.value(0)
    axis = axis_of(n.attr("axis", 0), x.rank)
    given = n.given(1)
    number = n.attr("num_outputs", len(n.outputs))
    if given is not None or n.attr("split") is not None:
        sizes = n.attr("split") if given is None else given.ints()
    elif isinstance(x.shape[axis], int):
        each = -(-x.shape[axis] // number)
        sizes = [each] * (number - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    else:
        sizes = [x.shape[axis] // number] * number
    parts, start = [], 0
    for output, size in enumerate(sizes):
        if size == 0:
            shape = (*x.shape[:axis], 0, *x.shape[axis + 1 :])
            parts.append(empty(n.outputs[output], shape, x.dtype))
            continue
        parts.append(b.slice(x, axis, start, start + size, size, output=output))
        start = start + size
    return parts


def _tile(b: Builder, n: Node) -> Value:
    """Repetition: each axis gets one before it, which is broadcast."""
    x, times = n.value(0), n.value(1).ints()
    if any(t == 0 for t in times):
        raise Unsupported("a tensor without elements")
    split: list[Extent] = [e for extent in x.shape for e in (1, extent)]
    wide = [e for t, extent in zip(times, x.shape, strict=True) for e in (t, extent)]
    if all(t == 1 for t in times):
        return x
    if len(split) > 8:
        return _tile_by_axis(b, x, times)
    parted = b.reshape(x, split, "parted")
    wider = b.expand(parted, wide, "repeated")
    return b.reshape(wider, [t * e for t, e in zip(times, x.shape, strict=True)])


def _tile_by_axis(b: Builder, x: Value, times: Sequence[Extent]) -> Value:
    for axis, number in enumerate(times):
        if number == 1:
            continue
        if not isinstance(number, int):
            raise Unsupported("a number of repetitions that is not known")
        shape = (*x.shape[:axis], x.shape[axis] * number, *x.shape[axis + 1 :])
        x = b.op("concat", {"x": [x] * number}, shape, x.dtype, f"axis_{axis}", axis=axis)
    return x


def _constant_of_shape(b: Builder, n: Node) -> Value:
    shape = n.value(0).ints()
    value, dtype = fill_of(n)
    if any(e == 0 for e in shape):
        return empty(n.outputs[0], shape, dtype)
    return b.map(literal(value), shape=shape, to=dtype)


def _range(b: Builder, n: Node) -> Value:
    start, limit, delta = (n.value(i).number() for i in range(3))
    if isinstance(delta, Poly) or delta == 0:
        raise Unsupported("a step that is not known")
    extent: Extent
    if isinstance(start, Poly) or isinstance(limit, Poly):
        extent = (limit - start + (delta - sign(delta))) // delta
    else:
        extent = max(0, int(np.ceil((limit - start) / delta)))
    if extent == 0:
        raise Unsupported("a tensor without elements")
    dtype = n.value(0).dtype
    text = f"{literal(start)} + index(0) * {literal(delta)}"
    if dtype.is_float:
        text = f"{literal(start)} + cast(index(0), {dtype}) * {literal(delta)}"
    return b.map(text, shape=[extent], to=dtype)


def _pad(b: Builder, n: Node) -> Value:
    """A gather along each axis of what lies there, and the number where nothing does."""
    x, pads = n.value(0), [int(e) for e in n.value(1).ints()]  # type: ignore[arg-type]
    mode = n.attr("mode", "constant")
    axes_given = n.given(3)
    axes = list(range(x.rank)) if axes_given is None else axes_of(n, 3, x.rank)
    fill = n.given(2)
    for i, axis in enumerate(axes):
        before, after = pads[i], pads[i + len(axes)]
        if before or after:
            x = padded(b, x, axis, before, after, mode, fill)
    return x


def padded(
    b: Builder, x: Value, axis: int, before: int, after: int, mode: str, fill: Value | None
) -> Value:
    """x with so many rows before and after it along an axis; fewer where a number is negative."""
    own = x.shape[axis]
    extent = own + (before + after)
    if isinstance(extent, int) and extent < 1:
        raise Unsupported("a tensor without elements")
    place = f"index(0) - {before}" if before >= 0 else f"index(0) + {-before}"
    size = literal(own)
    where = {
        "constant": f"max(0, min({size} - 1, {place}))",
        "edge": f"max(0, min({size} - 1, {place}))",
        "wrap": f"({place}) % {size}",
        "reflect": f"{size} - 1 - abs({size} - 1 - ({place}) % (2 * {size} - 2))",
    }.get(mode)
    if where is None:
        raise Unsupported(f"the mode '{mode}'")
    if mode == "reflect" and own == 1:
        where = "0 * index(0)"
    index = b.map(where, shape=[extent], gives=DType.I32, to=DType.I32, part=f"from_{axis}")
    shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
    moved = b.op("gather", {"x": x, "index": index}, shape, x.dtype, f"axis_{axis}", axis=axis)
    if mode != "constant" or (before <= 0 and after <= 0):
        return moved
    inside = f"index({axis}) >= {before} and index({axis}) < {size} + {before}"
    if fill is None:
        return b.map(f"where({inside}, {{0}}, 0)" if x.dtype != DType.BOOL
                     else f"{inside} and {{0}}", moved, part=f"padded_{axis}")  # fmt: skip
    text = f"where({inside}, {{0}}, {{1}})"
    return b.map(text, moved, b.reshape(fill, (), "fill"), part=f"padded_{axis}")


def _trilu(b: Builder, n: Node) -> Value:
    x, k = n.value(0), n.given(1)
    offset = "0" if k is None else literal(k.number())
    keep = f"index(-1) >= index(-2) + {offset}" if n.attr("upper", 1) else (
        f"index(-1) <= index(-2) + {offset}")  # fmt: skip
    return b.map(f"{keep} and {{0}}" if x.dtype == DType.BOOL else f"where({keep}, {{0}}, 0)", x)


def _eye_like(b: Builder, n: Node) -> Value:
    x = n.value(0)
    dtype = DTYPES.get(n.attr("dtype", 0), x.dtype)
    text = f"index(1) == index(0) + {literal(n.attr('k', 0))}"
    return b.map(f"where({text}, 1, 0)", shape=x.shape, to=dtype)


def _depth_to_space(b: Builder, n: Node) -> Value:
    x, size = n.value(0), n.attr("blocksize")
    batch, channels, height, width = x.shape
    rest = channels // (size * size)
    if n.attr("mode", "DCR") == "DCR":
        split: list[Extent] = [batch, size, size, rest, height, width]
        axes = [0, 3, 4, 1, 5, 2]
    else:
        split, axes = [batch, rest, size, size, height, width], [0, 1, 4, 2, 5, 3]
    moved = b.transpose(b.reshape(x, split, "parted"), axes, "moved")
    return b.reshape(moved, [batch, rest, height * size, width * size])


def _space_to_depth(b: Builder, n: Node) -> Value:
    x, size = n.value(0), n.attr("blocksize")
    batch, channels, height, width = x.shape
    split = [batch, channels, height // size, size, width // size, size]
    axes = [0, 3, 5, 1, 2, 4] if n.attr("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    moved = b.transpose(b.reshape(x, split, "parted"), axes, "moved")
    return b.reshape(moved, [batch, channels * size * size, height // size, width // size])


HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {
    "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Transpose": _transpose, "Expand": _expand, "Concat": _concat, "Slice": _slice,
    "Split": _split, "Tile": _tile, "ConstantOfShape": _constant_of_shape, "Range": _range,
    "Pad": _pad, "Trilu": _trilu, "EyeLike": _eye_like, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}  # fmt: skip
