"""Predicted and measured lanes above each other, on one axis of time."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, log10

from graphexec.base.printable import printable
from graphexec.base.units import shown
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import Plan
from graphexec.runtime.trace import Trace
from graphexec.views import svg
from graphexec.views.layout import lanes
from graphexec.views.paint import Paint
from graphexec.views.predict import microseconds, predict, prediction

_LEFT, _TOP, _WIDE, _TALL, _PITCH = 150.0, 50.0, 1240.0, 20.0, 56.0


def to_svg(
    plan: Plan, trace: Trace, *, inline: bool = False, known: Prediction | None = None
) -> str:  # fmt: skip
    """The picture; both runs begin at 0. `known` is the planner's prediction."""
    predicted = predict(plan, known)
    numbers = [*plan.launches]
    spans = {s.instruction: (s.start, s.end) for s in trace.spans}
    measured = {n: spans[i] for n, i in enumerate(numbers) if i in spans}
    expected = dict(enumerate(zip(predicted.start, predicted.end, strict=True)))
    total = max(predicted.total, trace.total, 1e-9)
    rows = lanes(plan)
    height = _TOP + _PITCH * len(rows) + 34
    said = "predicted" if prediction(plan, known)[0] else "estimated"
    facts = [f"{said} {shown(predicted.total)}", f"measured {shown(trace.total)}"]
    if trace.uninstrumented is not None:
        facts.append(f"{shown(trace.uninstrumented)} when not measured")
    body = [*svg.title(f"{plan.graph}: predicted above, measured below", facts)]
    for stream, row in rows.items():
        y = _TOP + row * _PITCH
        body += [svg.rect(0, y, _LEFT + _WIDE + 20, _PITCH - 6, "la"),
                 svg.text(14, y + 30, f"stream {stream}", "tx b"),
                 svg.text(_LEFT - 8, y + 17, "predicted", "so sm e"),
                 svg.text(_LEFT - 8, y + 40, "measured", "so sm e")]  # fmt: skip
    body += _axis(total, height - 18)
    body += [*_boxes(plan, expected, total, 3), *_boxes(plan, measured, total, 26)]
    return svg.picture(_LEFT + _WIDE + 20, height, body, inline=inline)


def _boxes(
    plan: Plan, times: dict[int, tuple[float, float]], total: float, down: float
) -> Iterator[str]:  # fmt: skip
    rows = lanes(plan)
    paint = Paint(plan, "stream", microseconds(plan), rows)
    launches = [*plan.launches.values()]
    for n, (start, end) in times.items():
        launch = launches[n]
        x, width = _LEFT + start / total * _WIDE, max((end - start) / total * _WIDE - 0.5, 0.8)
        y = _TOP + rows[launch.stream] * _PITCH + down
        lines = [svg.rect(x, y, width, _TALL, f"bx {paint.of(launch, 0)}", 2)]
        if width > 26:
            name = svg.fitted(launch.title, width - 5, 5.6)
            lines.append(svg.text(x + 3, y + 14, name, "in sm"))
        about = f"{printable(launch.title)}: {shown(end - start)} from {shown(start)}"
        yield svg.group(lines, about, l=n)


def _axis(total: float, y: float) -> Iterator[str]:
    step = _round(total / 9)
    for part in range(int(total / step) + 1):
        x = _LEFT + _WIDE * part * step / total
        yield svg.path(f"M{x:.1f} {_TOP:.0f}V{y:.1f}", "l")
        yield svg.text(x, y + 12, shown(part * step), "so sm m")


def _round(step: float) -> float:
    """The next larger value of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step)
