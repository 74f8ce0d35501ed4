"""Convolutions and pools: gathers lay the windows out, and a product or a reduction takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.extents import Extent, count
from graphexec.frontend.onnx.handlers.reductions import reduced
from graphexec.frontend.onnx.handlers.shapes import padded
from graphexec.frontend.onnx.values import Node, Unsupported, Value, constant


@dataclass(frozen=True)
class Window:
    """The windows along one axis of `extent`: `number` of `size` elements, `step` apart, whose
    elements are `gap` apart; the first begins `before` before the axis, the last ends `after` it.
    `stated` is the padding after it that the model states."""

    extent: Extent
    size: int
    step: int = 1
    gap: int = 1
    before: int = 0
    after: int = 0
    number: Extent = 1
    stated: int = 0


def windows_of(n: Node, x: Value, kernel: Sequence[Extent]) -> list[Window]:
    """The windows of a node's attributes, for each axis after the first two."""
    rank = x.rank - 2
    if len(kernel) != rank:
        raise Unsupported(f"a kernel of {len(kernel)} axes for {rank}")
    strides, gaps = n.attr("strides") or [1] * rank, n.attr("dilations") or [1] * rank
    pads = n.attr("pads") or [0] * 2 * rank
    found = []
    for axis, extent in enumerate(x.shape[2:]):
        size, step, gap = kernel[axis], strides[axis], gaps[axis]
        if not isinstance(size, int):
            raise Unsupported("a kernel whose extents are not known")
        before, after = pads[axis], pads[axis + rank]
        reach = (size - 1) * gap + 1
        auto = n.attr("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            before, after = _same(extent, step, reach, auto == "SAME_UPPER")
        elif auto == "VALID":
            before = after = 0
        number, needed = _number(extent, step, reach, before, after, bool(n.attr("ceil_mode", 0)))
        found.append(Window(extent, size, step, gap, before, needed, number, after))
    return found


def _same(extent: Extent, step: int, reach: int, upper: bool) -> tuple[int, int]:
    if step == 1:
        total = reach - 1
    elif isinstance(extent, int):
        total = max((-(-extent // step) - 1) * step + reach - extent, 0)
    else:
        raise Unsupported("auto_pad with steps, on an extent that is not known")
    return (total // 2, total - total // 2) if upper else (total - total // 2, total // 2)


def _number(
    extent: Extent, step: int, reach: int, before: int, after: int, up: bool
) -> tuple[Extent, int]:
    """How many windows there are, and the padding that the last one needs."""
    room = extent + (before + after - reach)
    if not isinstance(extent, int) or not isinstance(room, int):
        if up:
            raise Unsupported("ceil_mode on an extent that is not known")
        return room // step + 1, after
    number = (-(-room // step) if up else room // step) + 1
    if up and (number - 1) * step >= extent + before:
        number -= 1
    if number < 1:
        raise Unsupported("a window that is larger than what it moves over")
    return number, max(after, (number - 1) * step + reach - extent - before)


def laid_out(b: Builder, x: Value, windows: Sequence[Window], fill: Value | None) -> Value:
    """x (N, C, A, B…) as (N, C, windows along A, elements of one, windows along B, …)."""
    for number, w in enumerate(windows):
        axis = 2 + 2 * number
        if w.before or w.after:
            x = padded(b, x, axis, w.before, w.after, "constant", fill)
        text = f"index(0) * {w.step} + index(1) * {w.gap}"
        index = b.map(text, shape=[w.number, w.size], to=DType.I32, part=f"windows_{number}")
        shape = (*x.shape[:axis], w.number, w.size, *x.shape[axis + 1 :])
        x = b.op("gather", {"x": x, "index": index}, shape, x.dtype, f"laid_{number}", axis=axis)
    return x


def convolved(
    b: Builder, x: Value, weight: Value, bias: Value | None, windows: Sequence[Window], groups: int
) -> Value:
    """The convolution as a product: weight (M, C / groups, …) with the windows of x."""
    n = len(windows)
    outputs, own = weight.shape[0], weight.shape[1]
    laid = laid_out(b, x, windows, None)
    batch, numbers = laid.shape[0], [w.number for w in windows]
    if groups == 1:
        axes = [0, *range(2, 2 + 2 * n, 2), 1, *range(3, 3 + 2 * n, 2)]
        lead: list[Extent] = [batch]
    else:
        if n > 2:
            raise Unsupported("groups of a convolution over three axes")
        laid = b.reshape(laid, [batch, groups, own, *laid.shape[2:]], "grouped")
        axes = [0, 1, *range(3, 3 + 2 * n, 2), 2, *range(4, 4 + 2 * n, 2)]
        lead = [batch, groups]
    depth = own * count(w.size for w in windows)
    places = count(numbers)
    columns = b.reshape(b.transpose(laid, axes, "turned"), [*lead, places, depth], "columns")
    rows = outputs // groups
    kernel = b.reshape(weight, [*lead[1:], rows, depth], "kernel")
    shape = [*lead, rows, places]
    made = b.op("gemm", {"a": kernel, "b": columns}, shape, x.dtype, "product", trans_b=True)
    part = "" if bias is None else "convolved"
    y = b.reshape(made, [batch, outputs, *numbers], part)
    if bias is None:
        return y
    return b.map("{0} + {1}", y, b.reshape(bias, [outputs, *[1] * n], "bias"))


def _conv(b: Builder, n: Node) -> Value:
    x, weight = n.value(0), n.value(1)
    kernel = n.attr("kernel_shape") or weight.shape[2:]
    windows = windows_of(n, x, kernel)
    return convolved(b, x, weight, n.given(2), windows, n.attr("group", 1))


def _conv_transpose(b: Builder, n: Node) -> Value:
    """The convolution, with the kernel turned, of x with zeros between its elements."""
    x, weight = n.value(0), n.value(1)
    groups, rank = n.attr("group", 1), x.rank - 2
    strides, gaps = n.attr("strides") or [1] * rank, n.attr("dilations") or [1] * rank
    windows = []
    for axis in range(rank):
        before, after = _transposed_pads(n, x, weight, axis, strides[axis], gaps[axis])
        x = _spread(b, x, 2 + axis, strides[axis])
        size = int(weight.shape[2 + axis])  # type: ignore[arg-type]
        extent, reach = x.shape[2 + axis], (size - 1) * gaps[axis] + 1
        number = extent + (before + after - reach + 1)
        windows.append(Window(extent, size, 1, gaps[axis], before, after, number))
    own, outputs = weight.shape[0] // groups, weight.shape[1]
    turned = b.copy(weight, weight.shape, "turned_kernel",
                    slice={2 + a: [None, None, -1] for a in range(rank)})  # fmt: skip
    split = b.reshape(turned, [groups, own, outputs, *weight.shape[2:]], "split_kernel")
    swapped = b.transpose(split, [0, 2, 1, *range(3, 3 + rank)], "swapped_kernel")
    kernel = b.reshape(swapped, [groups * outputs, own, *weight.shape[2:]], "own_kernel")
    return convolved(b, x, kernel, n.given(2), windows, groups)


def _transposed_pads(
    n: Node, x: Value, weight: Value, axis: int, step: int, gap: int
) -> tuple[int, int]:
    rank = x.rank - 2
    pads, more = n.attr("pads") or [0] * 2 * rank, n.attr("output_padding") or [0] * rank
    reach = (int(weight.shape[2 + axis]) - 1) * gap  # type: ignore[arg-type]
    begin, end, extra = pads[axis], pads[axis + rank], more[axis]
    stated, auto = n.attr("output_shape"), n.attr("auto_pad", "NOTSET")
    if stated is not None or auto.startswith("SAME"):
        own = x.shape[2 + axis]
        if not isinstance(own, int):
            raise Unsupported("padding that depends on an extent that is not known")
        wanted = own * step if stated is None else stated[-rank:][axis]
        total = step * (own - 1) + extra + reach + 1 - wanted
        begin = total // 2 if auto != "SAME_LOWER" else total - total // 2
        end = total - begin
        if total < 0:
            begin, end = 0, total
    return reach - begin, reach - end + extra


def _spread(b: Builder, x: Value, axis: int, step: int) -> Value:
    """x with step - 1 zeros between its elements along an axis."""
    if step == 1:
        return x
    extent = (x.shape[axis] - 1) * step + 1
    index = b.map(f"index(0) // {step}", shape=[extent], to=DType.I32, part=f"spread_{axis}")
    shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
    wide = b.op("gather", {"x": x, "index": index}, shape, x.dtype, f"wide_{axis}", axis=axis)
    return b.map(f"where(index({axis}) % {step} == 0, {{0}}, 0)", wide, part=f"zeros_{axis}")


# Pools ------------------------------------------------------------------------------------------


def _lowest(x: Value) -> Value:
    dtype = x.dtype
    least = -np.inf if dtype.is_float else np.iinfo(dtype.numpy()).min
    return constant("lowest", np.array(least, dtype.numpy()), dtype)


def _inner(windows: Sequence[Window]) -> list[int]:
    """The axes of the elements of windows that are laid out."""
    return [3 + 2 * n for n in range(len(windows))]


def _max_pool(b: Builder, n: Node) -> Sequence[Value]:
    x = n.value(0)
    windows = windows_of(n, x, n.attr("kernel_shape"))
    laid = laid_out(b, x, windows, _lowest(x))
    found = [reduced(b, laid, "max", _inner(windows), False)]
    if len(n.outputs) > 1:
        place = reduced(b, laid, "argmax", _inner(windows), False, "place")
        found.append(_place_in_x(b, n, x, windows, place))
    return found


def _place_in_x(b: Builder, n: Node, x: Value, windows: Sequence[Window], place: Value) -> Value:
    """Where in the flat x the element is that is at `place` of its window."""
    terms, inner = [], 1
    spatial = x.shape[2:]
    column_major = bool(n.attr("storage_order", 0))
    for number in reversed(range(len(windows))):
        w = windows[number]
        inside = f"({{0}} // {inner}) % {w.size}"
        at = f"(index({2 + number}) * {w.step} - {w.before} + {inside} * {w.gap})"
        others = spatial[:number] if column_major else spatial[number + 1 :]
        terms.append(f"{at} * {literal(count(others))}")
        inner *= w.size
    channel = f"(index(0) * {literal(x.shape[1])} + index(1)) * {literal(count(spatial))}"
    return b.map(f"{channel} + {' + '.join(terms)}", place, gives=DType.I64, output=1)


def _average_pool(b: Builder, n: Node) -> Value:
    x = n.value(0)
    windows = windows_of(n, x, n.attr("kernel_shape"))
    sums = reduced(b, laid_out(b, x, windows, None), "sum", _inner(windows), False, "sums")
    numbers = [_counted(b, w, i, len(windows), bool(n.attr("count_include_pad", 0)), x.dtype)
               for i, w in enumerate(windows)]  # fmt: skip
    text = " * ".join(f"{{{i + 1}}}" for i in range(len(numbers)))
    return b.map(f"{{0}} / ({text})", sums, *numbers, gives=x.dtype)


def _counted(b: Builder, w: Window, number: int, rank: int, padding: bool, dtype: DType) -> Value:
    """How many elements of each window count."""
    at = f"index(0) * {w.step} + index(1) * {w.gap} - {w.before}"
    low, high = (-w.before, w.extent + w.stated) if padding else (0, w.extent)
    text = f"where({at} >= {literal(low)} and {at} < {literal(high)}, 1, 0)"
    inside = b.map(text, shape=[w.number, w.size], to=dtype, part=f"inside_{number}")
    found = reduced(b, inside, "sum", [1], False, f"counted_{number}")
    return b.reshape(found, [w.number, *[1] * (rank - 1 - number)], f"counts_{number}")


def _lp_pool(b: Builder, n: Node) -> Value:
    x, p = n.value(0), n.attr("p", 2)
    windows = windows_of(n, x, n.attr("kernel_shape"))
    terms = b.map("{0} * {0}" if p == 2 else f"abs({{0}}) ** {p}", x, part="terms")
    sums = reduced(b, laid_out(b, terms, windows, None), "sum", _inner(windows), False, "sums")
    return b.map("sqrt({0})" if p == 2 else f"{{0}} ** {1 / p}", sums)


def _global(kind: str) -> Callable[[Builder, Node], Value]:
    def handler(b: Builder, n: Node) -> Value:
        x = n.value(0)
        return reduced(b, x, kind, list(range(2, x.rank)), True)

    return handler


def _lrn(b: Builder, n: Node) -> Value:
    """x over a power of the sum of squares in a window of channels."""
    x, size = n.value(0), n.attr("size")
    before = (size - 1) // 2
    rows = b.reshape(b.map("{0} * {0}", x, part="square"), [x.shape[0], 1, *x.shape[1:]], "rows")
    window = Window(x.shape[1], size, 1, 1, before, size - 1 - before, x.shape[1])
    sums = reduced(b, laid_out(b, rows, [window], None), "sum", [1, 3], False, "sums")
    alpha, beta, bias = n.attr("alpha", 1e-4), n.attr("beta", 0.75), n.attr("bias", 1.0)
    return b.map(f"{{0}} / ({bias} + {alpha / size} * {{1}}) ** {beta}", x, sums)


HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "MaxPool": _max_pool,
    "AveragePool": _average_pool, "LpPool": _lp_pool, "LRN": _lrn,
    "GlobalMaxPool": _global("max"), "GlobalAveragePool": _global("mean"),
}  # fmt: skip
