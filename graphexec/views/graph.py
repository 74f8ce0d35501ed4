"""The graph as a picture: boxes in rows, data downwards, tensors on the arrows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphexec.views import svg
from graphexec.views.blocks import MOST
from graphexec.views.collapse import collapsed
from graphexec.views.layers import Placed, place
from graphexec.views.outline import Arrow, Box, Outline, named
from graphexec.views.table import count, fit

_TOP, _ROW, _TALL = 70.0, 88.0, 40.0
_LONGEST = 64  # letters of a line under a name
_KINDS = {"input": "tr", "weight": "wt", "state": "wt", "output": "tr", "many": "mx"}


def to_svg(
    outline: Outline, *, most: int = MOST, launches: Mapping[str, str] | None = None,
    inline: bool = False,
) -> str:  # fmt: skip
    """The picture. `launches` gives the numbers of the launches of a node, to link them."""
    shown = named(collapsed(outline, most))
    return _Graph(outline, shown, launches or {}).picture(inline)


class _Graph:
    def __init__(self, whole: Outline, shown: Outline, launches: Mapping[str, str]) -> None:
        self.whole, self.shown, self.launches = whole, shown, launches
        self.widths = [_width(box) for box in shown.boxes]
        edges = [(a.source, a.target) for a in shown.arrows]
        self.bent: dict[tuple[int, bool], int] = {}  # how many bends are drawn, by source
        self.places: Placed = place(self.widths, edges)
        self.ops = svg.op_classes(box.op for box in whole.boxes if box.kind == "op")

    def picture(self, inline: bool) -> str:
        width = max(self.places.width + 40, 640.0)
        height = _TOP + self.places.rows * _ROW
        arrows = [self.arrow(n, a) for n, a in enumerate(self.shown.arrows)]
        boxes = [self.box(n, box) for n, box in enumerate(self.shown.boxes)]
        labels = [*self.labels()] if len(self.shown.arrows) <= 120 else []
        return svg.picture(width, height, [*self.head(), *arrows, *boxes, *labels], inline=inline)

    def head(self) -> Iterator[str]:
        ops = sum(box.kind == "op" for box in self.whole.boxes)
        facts = [count(ops, "node")]
        if len(self.shown.boxes) < len(self.whole.boxes):
            facts.append(f"drawn as {len(self.shown.boxes)} boxes")
        yield from svg.title(self.whole.graph, facts)
        x = 14.0
        entries = [*svg.legend_of(self.ops), ("tr", "input or output")]
        kept = [k for k in ("weight", "state") if any(b.kind == k for b in self.shown.boxes)]
        if kept:
            entries.append(("wt", " or ".join(kept)))
        if any(box.kind == "many" for box in self.shown.boxes):
            entries.append(("mx", "several nodes"))
        for cls, name in entries:
            yield svg.rect(x, 37, 14, 11, f"bx {cls}", 2)
            yield svg.text(x + 19, 46, name, "so")
            x += 36 + 6.5 * len(name)

    def y(self, n: int) -> float:
        return _TOP + self.places.row[n] * _ROW

    def box(self, n: int, box: Box) -> str:
        x = 20 + self.places.x[n] - self.widths[n] / 2
        one = box.ops[0][0] if len(box.ops) == 1 else box.op  # of several alike, too
        cls = f"bx {self.ops.get(one) or _KINDS[box.kind]}"
        below = f"{box.op} {box.type}"
        numbers = " ".join(self.launches[name] for name in box.names if name in self.launches)
        line = f" · line {box.line}" if box.line is not None else ""
        place = (self.widths[n], _TALL, cls, 4 if box.kind in ("op", "many") else 12)
        lines = [
            *([svg.rect(x + 4, self.y(n) + 4, *place)] if box.kind == "many" else []),  # a pile
            svg.rect(x, self.y(n), *place),
            svg.text(x + 9, self.y(n) + 17, fit(box.name, 34), "in b"),
            svg.text(x + 9, self.y(n) + 31, fit(below, _LONGEST), "in sm"),
            *self.strip(x + 9, self.y(n) + _TALL - 6, self.widths[n] - 18, box),
        ]
        about = {"n": " ".join(box.names[:1]) or box.name, "l": numbers or None}
        return svg.group(lines, f"{box.name} · {below}{line}", **about)

    def strip(self, x: float, y: float, width: float, box: Box) -> Iterator[str]:
        """A bar under the text of a box of many nodes: the share of each op, in its colour."""
        total = sum(times for _, times in box.ops)
        for op, times in box.ops if len(box.ops) > 1 else ():
            share = width * times / total
            yield svg.rect(x, y, share, 4.0, self.ops[op])
            x += share

    def arrow(self, n: int, arrow: Arrow) -> str:
        x, y = 20 + self.places.x[arrow.source], self.y(arrow.source) + _TALL
        points = [20 + bend for bend in self.places.bends[n]]
        points.append(20 + self.places.x[arrow.target])
        step = _ROW if len(points) > 1 else self.y(arrow.target) - self.y(arrow.source)
        # The arrows of a box have their first bends in common, which are drawn once.
        key = arrow.source, arrow.order_only
        first = min(self.bent.get(key, 0), len(points) - 1)
        self.bent[key] = max(self.bent.get(key, 0), len(points) - 1)
        if first:
            x, y = points[first - 1], self.y(arrow.source) + first * step + _TALL / 2
        d = f"M{x:.1f} {y:.1f}"
        for k, to in enumerate(points[first:], first):
            low = self.y(arrow.source) + (k + 1) * step
            end = low + _TALL / 2 if k + 1 < len(points) else low - 1
            half = (end - y) / 2
            d += f"C{x:.1f} {y + half:.1f} {to:.1f} {end - half:.1f} {to:.1f} {end:.1f}"
            x, y = to, end
        cls = "d fk" if arrow.order_only else "d"
        return svg.path(d, cls, True, arrow.label)

    def labels(self) -> Iterator[str]:
        """A tensor's type once, under its writer; the same on every arrow of it."""
        told: set[tuple[int, str]] = set()
        for _n, arrow in enumerate(self.shown.arrows):
            if (arrow.source, arrow.label) in told or not arrow.label:
                continue
            told.add((arrow.source, arrow.label))
            # Beside the arrows, on the side to which no arrow turns.
            right = max(map(self.heading, self.leaving(arrow))) <= 0
            x = 20 + self.places.x[arrow.source] + (5 if right else -5)
            cls = "so sm lb" if right else "so sm e lb"
            yield svg.text(x, self.y(arrow.source) + _TALL + 13, arrow.label, cls)

    def leaving(self, arrow: Arrow) -> Iterator[int]:
        """The arrows with the same tensor, by number."""
        same = arrow.source, arrow.label
        return (n for n, a in enumerate(self.shown.arrows) if (a.source, a.label) == same)

    def heading(self, n: int) -> float:
        """The horizontal distance of an arrow on its way to the next row."""
        arrow, bends = self.shown.arrows[n], self.places.bends[n]
        to = bends[0] if bends else self.places.x[arrow.target]
        return to - self.places.x[arrow.source]


def _width(box: Box) -> float:
    below = f"{box.op} {box.type}"
    return max(7.2 * len(fit(box.name, 34)), 5.4 * len(fit(below, _LONGEST)), 30.0) + 20
