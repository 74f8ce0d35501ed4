"""Operators along axes: sums, extremes, places of extremes, running sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.extents import Extent
from graphexec.frontend.onnx.values import Node, Unsupported, Value, axis_of

MOST_PAIRS = 1 << 24
"""Elements of what compares every element of an axis with every other one."""


def reduced(
    b: Builder, x: Value, kind: str, axes: Sequence[int], keep: bool, part: str = "",
    output: int = 0,
) -> Value:  # fmt: skip
    """A reduction of x along axes."""
    shape = [1 if a in axes else e for a, e in enumerate(x.shape) if keep or a not in axes]
    dtype = x.dtype
    if kind in ("argmax", "argmin"):
        dtype = DType.I64
    elif kind == "mean" and not x.dtype.is_float:
        dtype = DType.F32
    more = {"keep": True} if keep else {}
    return b.op("reduce", {"x": x}, shape, dtype, part, output,
                kind=kind, axis=list(axes), **more)  # fmt: skip


def _axes(n: Node, x: Value) -> list[int]:
    """The axes of a reduction, counted from the front; all where none are given."""
    given = n.given(1)
    found = n.attr("axes") if given is None else given.ints()
    if not found:
        return [] if n.attr("noop_with_empty_axes", 0) else list(range(x.rank))
    return sorted({axis_of(int(a), x.rank) for a in found})  # type: ignore[arg-type]


def _reduce(
    kind: str, before: str | None = None, after: str | None = None
) -> Callable[[Builder, Node], Value]:
    """A reduction of `before`, a map, followed by the map `after`."""

    def handler(b: Builder, n: Node) -> Value:
        x = n.value(0)
        axes = _axes(n, x)
        x = x if before is None else b.map(before, x, part="terms")
        found = _over(b, x, kind, axes, bool(n.attr("keepdims", 1)), "" if after is None else "sum")
        return found if after is None else b.map(after, found)

    return handler


def _over(b: Builder, x: Value, kind: str, axes: list[int], keep: bool, part: str) -> Value:
    if x.dtype == DType.BOOL and kind in ("max", "min"):
        kind = "any" if kind == "max" else "all"
    if not axes:
        return b.map("log(exp({0}))" if kind == "logsumexp" else "{0}", x, part=part)
    if kind == "mean" and not x.dtype.is_float:
        return b.cast(reduced(b, x, kind, axes, keep, "mean"), x.dtype, part)
    return reduced(b, x, kind, axes, keep, part)


def _place(kind: str) -> Callable[[Builder, Node], Value]:
    def handler(b: Builder, n: Node) -> Value:
        x = n.value(0)
        axis = axis_of(n.attr("axis", 0), x.rank)
        keep = bool(n.attr("keepdims", 1))
        if not n.attr("select_last_index", 0):
            return reduced(b, x, kind, [axis], keep)
        turned = b.copy(x, x.shape, "turned", slice={axis: [None, None, -1]})
        found = reduced(b, turned, kind, [axis], keep, "from_end")
        return b.map(f"{literal(x.shape[axis])} - 1 - {{0}}", found)

    return handler


def _running(kind: str, neutral: str) -> Callable[[Builder, Node], Value]:
    """Each element with all before it: the sum or product of a triangle."""

    def handler(b: Builder, n: Node) -> Value:
        x = n.value(0)
        given = n.given(1)
        axis = axis_of(int(n.attr("axis", 0) if given is None else given.number()), x.rank)
        extent = x.shape[axis]
        if isinstance(extent, int) and extent * extent > MOST_PAIRS:
            raise Unsupported(f"a running {kind} of {extent} elements")
        if x.rank > 7:
            raise Unsupported("more than 7 axes")
        sign = ("<" if n.attr("exclusive", 0) else "<=") if not n.attr("reverse", 0) else (
            ">" if n.attr("exclusive", 0) else ">=")  # fmt: skip
        shape: list[Extent] = [*x.shape[:axis], 1, *x.shape[axis:]]
        rows = b.reshape(x, shape, "row")
        shape[axis] = extent
        text = f"where(index({axis + 1}) {sign} index({axis}), {{0}}, {neutral})"
        terms = b.map(text, rows, shape=shape, part="terms")
        return reduced(b, terms, kind, [axis + 1], False)

    return handler


def _hardmax(b: Builder, n: Node) -> Value:
    x = n.value(0)
    if n.opset < 13:
        raise Unsupported("it was over several axes before opset 13")
    axis = axis_of(n.attr("axis", -1), x.rank)
    place = reduced(b, x, "argmax", [axis], True, "place")
    return b.map(f"where(index({axis}) == {{0}}, 1, 0)", place, shape=x.shape, to=x.dtype)


def _topk(b: Builder, n: Node) -> list[Value]:
    """The rank of each element is how many come before it; each place takes the one of its rank."""
    x, axis = n.value(0), axis_of(n.attr("axis", -1), n.value(0).rank)
    k, extent = n.value(1).number(), n.value(0).shape[axis]
    if x.rank > 7 or not isinstance(extent, int) or extent * extent > MOST_PAIRS:
        raise Unsupported(f"the best of {extent} elements: at most 4096 are compared")
    column = b.reshape(x, [*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]], "column")
    row = b.reshape(x, [*x.shape[:axis], 1, *x.shape[axis:]], "row")
    sign = ">" if n.attr("largest", 1) else "<"
    first = f"index({axis + 1}) < index({axis})"
    before = b.map(f"where({{0}} {sign} {{1}} or ({{0}} == {{1}} and {first}), 1, 0)",
                   row, column, to=DType.I32, part="before")  # fmt: skip
    rank = reduced(b, before, "sum", [axis + 1], False, "rank")
    ranks = b.reshape(rank, row.shape, "ranks")
    wide = [*x.shape[:axis], k, *x.shape[axis:]]
    here = b.map(f"{{0}} == index({axis})", ranks, shape=wide, gives=DType.BOOL, part="here")
    values = b.map("where({0}, {1}, 0)", here, row, gives=x.dtype, part="values")
    places = b.map(f"where({{0}}, cast(index({axis + 1}), i64), 0)", here, gives=DType.I64,
                   part="places")  # fmt: skip
    return [reduced(b, values, "sum", [axis + 1], False, output=0),
            reduced(b, places, "sum", [axis + 1], False, output=1)]  # fmt: skip


HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {
    "ReduceSum": _reduce("sum"), "ReduceMean": _reduce("mean"), "ReduceProd": _reduce("prod"),
    "ReduceMax": _reduce("max"), "ReduceMin": _reduce("min"),
    "ReduceLogSumExp": _reduce("logsumexp"), "ReduceL1": _reduce("sum", "abs({0})"),
    "ReduceL2": _reduce("sum", "{0} * {0}", "sqrt({0})"),
    "ReduceSumSquare": _reduce("sum", "{0} * {0}"),
    "ReduceLogSum": _reduce("sum", None, "log({0})"),
    "ArgMax": _place("argmax"), "ArgMin": _place("argmin"),
    "CumSum": _running("sum", "0"), "CumProd": _running("prod", "1"),
    "Hardmax": _hardmax, "TopK": _topk,
}  # fmt: skip
