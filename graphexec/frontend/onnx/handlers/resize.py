"""Resize: along each axis a weighted sum of few gathers, one for each tap of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.extents import Extent
from graphexec.frontend.onnx.handlers.indexing import gathered
from graphexec.frontend.onnx.values import NeedsConstant, Node, Unsupported, Value, axis_of


@dataclass(frozen=True)
class Axis:
    """What becomes of an axis: `own` elements become `wanted`, by a factor."""

    axis: int
    own: Extent
    wanted: Extent
    scale: float
    start: float = 0.0  # of the part that is taken, of 1
    end: float = 1.0


def _resize(b: Builder, n: Node) -> Value:
    x, mode = n.value(0), n.attr("mode", "nearest")
    if n.attr("antialias", 0) and any(a.scale < 1 for a in _axes(n, x)):
        raise Unsupported("antialiasing")
    for axis in _axes(n, x):
        if axis.wanted == axis.own and axis.scale == 1 and not _cropped(n):
            continue
        x = _along(b, n, x, axis, mode)
    return x if x is not n.value(0) else b.map("{0}", x)


def _cropped(n: Node) -> bool:
    return bool(n.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize")


def _axes(n: Node, x: Value) -> list[Axis]:
    chosen = [axis_of(a, x.rank) for a in n.attr("axes") or range(x.rank)]
    scales, sizes = _given(n, 2), _given(n, 3)
    if scales is None and sizes is None:
        raise Unsupported("neither scales nor sizes")
    if sizes is not None:
        scales, sizes = _of_sizes(n, x, chosen, sizes)
    assert scales is not None
    roi = _given(n, 1) if _cropped(n) else None
    found = []
    for i, axis in enumerate(chosen):
        own, scale = x.shape[axis], float(scales[i])
        wanted = _scaled(own, scale) if sizes is None else int(sizes[i])
        part = (0.0, 1.0) if roi is None else (float(roi[i]), float(roi[i + len(chosen)]))
        found.append(Axis(axis, own, wanted, scale, *part))
    return found


def _given(n: Node, index: int) -> Sequence[float] | None:
    value = n.given(index)
    if value is None or value.shape == (0,):
        return None
    data = value.data
    if data is None or data.dtype == object:
        raise NeedsConstant(value.name, value.inputs)
    return [float(e) for e in data.ravel()]


def _scaled(own: Extent, scale: float) -> Extent:
    if isinstance(own, int):
        return floor(own * scale)
    if scale != int(scale):
        raise Unsupported(f"{own} elements by a factor of {scale}")
    return own * int(scale)


def _of_sizes(
    n: Node, x: Value, chosen: Sequence[int], sizes: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Factors, and the sizes after the policy that keeps their ratio."""
    extents = [x.shape[axis] for axis in chosen]
    if not all(isinstance(e, int) for e in extents):
        raise Unsupported("sizes for an extent that is not known")
    scales = [size / extent for size, extent in zip(sizes, extents, strict=True)]  # type: ignore[operator]
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        one = min(scales) if policy == "not_larger" else max(scales)
        scales = [one] * len(scales)
        sizes = [floor(one * extent + 0.5) for extent in extents]  # type: ignore[operator]
    return scales, [int(size) for size in sizes]


# Along one axis ---------------------------------------------------------------------------------


def _along(b: Builder, n: Node, x: Value, axis: Axis, mode: str) -> Value:
    taps = {"nearest": _nearest, "linear": _linear, "cubic": _cubic}.get(mode)
    if taps is None:
        raise Unsupported(f"the mode '{mode}'")
    place = b.map(_place(n, axis), shape=[axis.wanted], to=DType.F32, part=f"place_{axis.axis}")
    pairs = taps(n, axis)
    values: list[Value] = []
    column: list[Extent] = [axis.wanted, *[1] * (x.rank - 1 - axis.axis)]
    for i, (at, weight) in enumerate(pairs):
        part = f"{axis.axis}_{i}"
        inside = f"max(0, min({literal(axis.own)} - 1, {at}))"
        index = b.map(inside, place, to=DType.I32, part=f"from_{part}")
        values.append(gathered(b, x, index, axis.axis, f"tap_{part}"))
        if weight is not None:
            found = b.map(weight, place, part=f"weight_{part}")
            values.append(b.reshape(found, column, f"weights_{part}"))
    text = " + ".join(f"{{{2 * i}}} * {{{2 * i + 1}}}" for i in range(len(values) // 2)) or "{0}"
    y = b.map(text, *values, gives=x.dtype, to=x.dtype, part=f"axis_{axis.axis}")
    return _outside(b, n, y, place, axis, column) if _cropped(n) else y


def _outside(
    b: Builder, n: Node, y: Value, place: Value, axis: Axis, column: Sequence[Extent]
) -> Value:
    """A number where a place is outside of x."""
    fill = literal(n.attr("extrapolation_value", 0.0))
    at = b.reshape(place, column, f"places_{axis.axis}")
    text = f"where({{1}} < 0 or {{1}} > {literal(axis.own)} - 1, {fill}, {{0}})"
    return b.map(text, y, at, gives=y.dtype, to=y.dtype, part=f"filled_{axis.axis}")


def _place(n: Node, axis: Axis) -> str:
    """Where in x an element of the result is."""
    at, own, wanted = "cast(index(0), f32)", literal(axis.own), literal(axis.wanted)
    half = f"({at} + 0.5) / {axis.scale} - 0.5"
    mode = n.attr("coordinate_transformation_mode", "half_pixel")
    if mode == "half_pixel_symmetric":
        center = f"{own} / 2 * (1 - {wanted} / ({axis.scale} * {own}))"
        return f"{center} + {half}"
    if mode in ("align_corners", "tf_crop_and_resize"):
        length = f"({axis.scale} * {own} - 1)"  # before it was rounded down
        first = f"{axis.start} * ({own} - 1)"
        part = f"({axis.end} - {axis.start}) * ({own} - 1)"
        if axis.wanted == 1:
            middle = f"0.5 * ({axis.start} + {axis.end}) * ({own} - 1)"
            return f"{at} * 0 + {'0' if mode == 'align_corners' else middle}"
        return f"{first} + {at} * {part} / {length}"
    if mode == "pytorch_half_pixel" and axis.wanted == 1:
        return f"{at} * 0"
    known = {"half_pixel": half, "pytorch_half_pixel": half, "asymmetric": f"{at} / {axis.scale}"}
    if mode not in known:
        raise Unsupported(f"coordinates by '{mode}'")
    return known[mode]


Taps = list[tuple[str, str | None]]
"""For each tap where it is, and its weight, in terms of the place {0}."""


def _nearest(n: Node, axis: Axis) -> Taps:
    known = {"round_prefer_floor": "ceil({0} - 0.5)", "round_prefer_ceil": "floor({0} + 0.5)",
             "floor": "floor({0})", "ceil": "ceil({0})"}  # fmt: skip
    mode = n.attr("nearest_mode", "round_prefer_floor")
    if mode not in known:
        raise Unsupported(f"nearest by '{mode}'")
    return [(known[mode], None)]


def _weighed(n: Node, axis: Axis, taps: Sequence[tuple[str, str]]) -> Taps:
    """The taps; with exclude_outside, those outside of x weigh nothing, and the others more."""
    if not n.attr("exclude_outside", 0):
        return list(taps)
    own = literal(axis.own)
    kept = [f"where({at} >= 0 and {at} < {own}, {weight}, 0)" for at, weight in taps]
    total = " + ".join(kept)
    return [(at, f"{weight} / ({total})") for (at, _), weight in zip(taps, kept, strict=True)]


def _linear(n: Node, axis: Axis) -> Taps:
    rest = "({0} - floor({0}))"
    return _weighed(n, axis, [("floor({0})", f"(1 - {rest})"), ("(floor({0}) + 1)", rest)])


def _cubic(n: Node, axis: Axis) -> Taps:
    """Keys' kernel (Cubic convolution interpolation for digital image processing, 1981)."""
    a, t = n.attr("cubic_coeff_a", -0.75), "({0} - floor({0}))"

    def near(d: str) -> str:
        return f"((({a + 2}) * {d} - ({a + 3})) * {d} * {d} + 1)"

    def far(d: str) -> str:
        return f"(((({a}) * {d} - ({5 * a})) * {d} + ({8 * a})) * {d} - ({4 * a}))"

    weights = far(f"({t} + 1)"), near(t), near(f"(1 - {t})"), far(f"(2 - {t})")
    places = [f"(floor({{0}}) + {shift})" for shift in ("(-1)", "0", "1", "2")]
    return _weighed(n, axis, list(zip(places, weights, strict=True)))


HANDLERS: dict[str, Callable[[Builder, Node], Value]] = {"Resize": _resize}
