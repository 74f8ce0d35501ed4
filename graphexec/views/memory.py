"""The arenas of a plan over time: the tensors on their bytes, and the bytes in use.

The axis is that of the lanes (see layout.py). Bytes go upwards from 0, so boxes side by side in
one height share memory. Below are the bytes in use at each moment of the predicted run, and their
peak. The axis stretches some launches more than others. A step is placed at the launch that causes
it, and may be slightly off where two streams are unordered.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2

from graphexec.base.printable import printable
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.figures import figures
from graphexec.ir.plan import Buffer, Plan
from graphexec.views import svg
from graphexec.views.blocks import MOST
from graphexec.views.lanes import LEFT
from graphexec.views.layout import Layout, layout
from graphexec.views.lifetimes import Tenant, on_axis, tenants, usage
from graphexec.views.paint import Color, Paint
from graphexec.views.table import count, size

_TOP, _MAP, _USE, _GAP = 66.0, 300.0, 80.0, 46.0


def to_svg(
    plan: Plan, *, color: Color = "stream", most: int = MOST, inline: bool = False,
    known: Prediction | None = None,
) -> str:  # fmt: skip
    """The picture, with at most about `most` tensors: the largest. `known` is the planner's
    prediction."""
    return _Memory(plan, layout(plan, most, known), color, most).picture(inline)


class _Memory:
    def __init__(self, plan: Plan, places: Layout, color: Color, most: int) -> None:
        self.plan, self.places = plan, places
        self.paint = Paint(plan, color, places.us, places.lanes)
        self.all = tenants(plan)
        self.shown = self.largest(most)
        self.arenas = [b for b in plan.buffers if b.role == "arena" and b.bytes > 0]
        self.width = max(LEFT + places.x.total + 60, 640.0)

    def largest(self, most: int) -> list[Tenant]:
        """The tensors with the largest bytes × time; of many about equal ones, an even sample."""
        x = self.places.x

        def order(n: int) -> tuple[float, float]:
            tenant = self.all[n]
            area = max(tenant.bytes * (tenant.end(x) - tenant.begin(x)), 1.0)
            return -round(log2(area) / 2), n * 0.6180339887 % 1  # the golden ratio spreads them

        kept = sorted(sorted(range(len(self.all)), key=order)[:most])
        return [self.all[n] for n in kept]

    def picture(self, inline: bool) -> str:
        body, y = list(self.head()), _TOP
        for arena in self.arenas:
            body += self.arena(arena, y)
            y += _MAP + _USE + 2 * _GAP
        return svg.picture(self.width, max(y, _TOP + 20), body, inline=inline)

    def head(self) -> Iterator[str]:
        yield from svg.title(f"memory of {self.plan.graph}", self.facts())
        yield from self.paint.legend(14, 46)
        if not self.arenas:
            yield svg.text(14, _TOP + 10, "this plan has no arena", "so")

    def facts(self) -> Iterator[str]:
        stats = figures(self.plan)
        yield f"arena {size(stats.arena_bytes)}"
        if stats.arena_lower_bound is not None:
            yield f"lower bound {size(stats.arena_lower_bound)}"
        if stats.naive_bytes is not None:
            yield f"{size(stats.naive_bytes)} without sharing"
        weights = sum(b.bytes for b in self.plan.buffers if b.role == "weights")
        states = sum(b.bytes for b in self.plan.buffers if b.role == "state")
        if states:
            yield f"states {size(states)} beside it"
        if weights:
            yield f"weights {size(weights)} beside it"
        if len(self.shown) < len(self.all):
            yield f"the largest {count(len(self.shown), 'tensor')} of {len(self.all)}"

    def arena(self, buffer: Buffer, top: float) -> Iterator[str]:
        yield svg.rect(LEFT, top, self.width - LEFT - 14, _MAP, "la")
        yield svg.text(14, top + 10, printable(buffer.id), "tx b")
        for part in range(5):
            y = top + _MAP - _MAP * part / 4
            yield svg.path(f"M{LEFT:.0f} {y:.1f}H{self.width - 14:.1f}", "l")
            if part < 4:
                yield svg.text(LEFT - 5, y + 3, size(buffer.bytes * part // 4), "so sm e")
        yield svg.text(LEFT - 5, top + 24, size(buffer.bytes), "so sm e")
        scale = _MAP / buffer.bytes
        for tenant in self.shown:
            if tenant.range.buffer == buffer.id:
                yield self.box(tenant, top, scale)
        own = [t for t in self.all if t.range.buffer == buffer.id]
        yield from self.use(own, buffer, top + _MAP + _GAP)

    def box(self, tenant: Tenant, top: float, scale: float) -> str:
        x = LEFT + tenant.begin(self.places.x)
        width = LEFT + tenant.end(self.places.x) - x - 1
        tall = max(tenant.bytes * scale, 1.0)
        y = top + _MAP - tenant.range.low * scale - tall
        writer = tenant.users[0]
        cls = f"bx {self.paint.of(self.places.launches[writer], self.places.us[writer])}"
        lines = [svg.rect(x, y, width, tall, cls)]
        if tall > 11 and width > 24:
            lines.append(svg.text(x + 4, y + 11, svg.fitted(tenant.name, width - 6), "in b"))
        if tall > 24 and width > 40:
            lines.append(svg.text(x + 4, y + 22, size(tenant.bytes), "in sm"))
        at = f"bytes {tenant.range.low} to {tenant.range.high}"
        numbers = " ".join(map(str, tenant.users))
        return svg.group(lines, f"{tenant.name}: {size(tenant.bytes)}, {at}", t=numbers)

    def use(self, own: list[Tenant], buffer: Buffer, top: float) -> Iterator[str]:
        predicted = self.places.predicted
        steps = on_axis(usage(own, predicted), own, predicted, self.places.x)
        if not steps:
            return
        low = top + _USE
        line = "".join(
            f"H{LEFT + at:.1f}V{low - used / buffer.bytes * _USE:.1f}" for at, used in steps
        )
        yield svg.path(f"M{LEFT:.1f} {low:.1f}{line}V{low:.1f}Z", "pr")
        yield svg.text(14, top + 10, "in use", "tx b")
        at, most = max(steps, key=lambda step: step[1])
        x, y = LEFT + at, low - most / buffer.bytes * _USE
        yield svg.path(f"M{x:.1f} {top - _GAP - _MAP:.1f}V{low:.1f}", "pk fk")
        yield svg.text(x + 4, top - 16, f"peak {size(most)} of {size(buffer.bytes)}", "pt b")
        yield svg.path(f"M{x - 4:.1f} {y:.1f}h8", "pk")
