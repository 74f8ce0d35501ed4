"""Graphs within nodes: a branch that is known, and loops of a number of steps that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.extents import Extent
from graphexec.frontend.onnx.values import Node, Unsupported, Value, axis_of

MOST_STEPS = 64
"""Steps of a loop that are written out."""


def _if(b: Builder, n: Node) -> Sequence[Value]:
    chosen = "then_branch" if n.value(0).number() else "else_branch"
    return b.inline(n.attrs[chosen], (), "")


def _scan(b: Builder, n: Node) -> Sequence[Value]:
    """The body once a step: carried values go from step to step, scanned ones are slices."""
    scanned = n.attr("num_scan_inputs")
    carried, sequences = list(n.inputs[:-scanned]), [v for v in n.inputs[-scanned:] if v]
    axes = n.attr("scan_input_axes") or [0] * scanned
    axes = [axis_of(a, v.rank) for a, v in zip(axes, sequences, strict=True)]
    backwards = n.attr("scan_input_directions") or [0] * scanned
    steps = _steps(sequences[0].shape[axes[0]])
    rows: list[list[Value]] = []
    for step in range(steps):
        given = []
        for i, (value, axis) in enumerate(zip(sequences, axes, strict=True)):
            at = steps - 1 - step if backwards[i] else step
            row = b.slice(value, axis, at, at + 1, 1, part=f"row_{i}_{step}")
            shape = (*value.shape[:axis], *value.shape[axis + 1 :])
            given.append(b.reshape(row, shape, f"scanned_{i}_{step}"))
        made = b.inline(n.attrs["body"], (*carried, *given), f"step_{step}")
        carried = list(made[: len(carried)])
        rows.append(list(made[len(carried) :]))
    outputs = list(zip(*rows, strict=True))
    after = n.attr("scan_output_axes") or [0] * len(outputs)
    reverse = n.attr("scan_output_directions") or [0] * len(outputs)
    found = [v for v in carried if v is not None]
    for i, values in enumerate(outputs):
        ordered = values[::-1] if reverse[i] else values
        found.append(_stacked(b, ordered, after[i], len(found)))
    return found


def _steps(extent: Extent) -> int:
    if not isinstance(extent, int) or extent > MOST_STEPS:
        raise Unsupported(f"a loop of {extent} steps: at most {MOST_STEPS} are written out")
    return extent


def _stacked(b: Builder, values: Sequence[Value], axis: int, output: int) -> Value:
    """Tensors side by side along a new axis."""
    one = values[0]
    axis = axis_of(axis, one.rank + 1)
    shape = [*one.shape[:axis], 1, *one.shape[axis:]]
    parts = [b.reshape(v, shape, f"part_{output}_{i}") for i, v in enumerate(values)]
    if len(parts) == 1:
        return parts[0]
    shape[axis] = len(parts)
    return b.op("concat", {"x": parts}, shape, one.dtype, "", output, axis=axis)


def _loop(b: Builder, n: Node) -> Sequence[Value]:
    """A loop whose number of steps and condition are known before it runs."""
    number, condition = n.given(0), n.given(1)
    if number is None or (condition is not None and not condition.number()):
        raise Unsupported("a loop whose number of steps is not known")
    steps = _steps(number.number())
    carried, rows = list(n.inputs[2:]), []
    truth: Value | None = condition
    for step in range(steps):
        at = b.whole(step, f"number_{step}")
        made = b.inline(n.attrs["body"], (at, truth, *carried), f"step_{step}")
        truth = made[0]
        if not truth.known or not truth.number():
            raise Unsupported("a loop that may end early")
        carried = list(made[1 : 1 + len(carried)])
        rows.append(list(made[1 + len(carried) :]))
    found = [v for v in carried if v is not None]
    for values in zip(*rows, strict=True):
        found.append(_stacked(b, values, 0, len(found)))
    return found


HANDLERS: dict[str, Callable[[Builder, Node], Sequence[Value]]] = {
    "If": _if, "Scan": _scan, "Loop": _loop,
}  # fmt: skip
