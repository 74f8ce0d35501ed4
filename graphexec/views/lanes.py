"""A plan as lanes: one a stream, in issue order, launches sized by cost, waits as arrows.

An arrow runs from the record of an event to the launch that waits for it. Heavy outlines and
arrows are the critical path of the predicted run.
Launches that race are outlined in red and joined by a red line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from graphexec.base.units import shown
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.figures import figures
from graphexec.ir.plan import HostWait, Plan, Record, Wait
from graphexec.views import svg
from graphexec.views.blocks import MOST, Block
from graphexec.views.layout import Layout, layout
from graphexec.views.paint import Color, Paint
from graphexec.views.reasons import reasons
from graphexec.views.table import count, size
from graphexec.views.waits import Ends, wait_ends

if TYPE_CHECKING:
    from graphexec.proof import Hazard

LEFT, PITCH, TALL = 84.0, 74.0, 36.0
"""Where the axis begins; from lane to lane; a box."""
_TOP = 66.0
_MOST_RACES = 6  # with their text
_READABLE, _LETTER = 1100.0, 6.6  # pixels: a line of text at most, a letter of it


def to_svg(
    plan: Plan, *, color: Color = "stream", most: int = MOST, hazards: Sequence[Hazard] = (),
    inline: bool = False, known: Prediction | None = None,
) -> str:  # fmt: skip
    """The picture. `hazards` are what the verifier found, `known` is the planner's prediction;
    `most` is how many boxes to draw."""
    return _Lanes(plan, layout(plan, most, known), color, hazards).picture(inline)


class _Arrow(NamedTuple):
    """An arrow; two with equal fields look the same."""

    key: tuple[int | None, ...]
    svg: str


class _Lanes:
    def __init__(self, plan: Plan, places: Layout, color: Color, hazards: Sequence[Hazard]) -> None:
        self.plan, self.places, self.hazards = plan, places, hazards
        self.paint = Paint(plan, color, places.us, places.lanes)
        self.why = reasons(plan)
        self.block = {n: b for b in places.blocks for n in b.members}
        numbers = [*plan.launches]
        self.launch_at = {number: n for n, number in enumerate(numbers)}
        self.racing = {
            self.launch_at[site.index]
            for h in hazards
            for site in h.sites
            if site.index in self.launch_at
        }
        self.width = max(LEFT + places.x.total + 60, 640.0)
        self.host = _TOP + PITCH * len(places.lanes)

    def picture(self, inline: bool) -> str:
        notes = list(self.notes())
        height = self.host + 40 + 15 * len(notes)
        body = [*self.head(), *self.ground(), *self.waits(), *self.boxes(), *self.races(), *notes]
        return svg.picture(self.width, height, body, inline=inline)

    def head(self) -> Iterator[str]:
        facts = [
            count(len(self.places.launches), "launch"),
            *self.times(),
            f"one after another {shown(sum(self.places.us))}",
        ]
        stats = figures(self.plan)
        facts += [count(stats.waits, "wait"), f"arena {size(stats.arena_bytes)}"]
        if len(self.places.blocks) < len(self.places.launches):
            facts.append(f"drawn as {count(len(self.places.blocks), 'block')}")
        yield from svg.title(f"{self.plan.graph} on {self.plan.device}", facts)
        waits = {i.role for i in self.plan.instructions if isinstance(i, Wait)}
        more = [("bg kn", "critical path")] if self.places.launches else []
        more += [("w", "wait")] if "dependency" in waits else []
        more += [("w fk", "fork, join")] if waits - {"dependency"} else []
        more += [("rx", "race")] if self.hazards else []
        yield from self.paint.legend(14, 46, *more)

    def times(self) -> Iterator[str]:
        """The time of the run. The axis is an estimate if the planner's times are not known."""
        stats, total = figures(self.plan), shown(self.places.predicted.total)
        if not self.places.by_planner and stats.predicted_ns is not None:
            yield f"predicted {shown(stats.predicted_ns / 1000)} by the {stats.costs}"
            yield f"drawn by an estimate, {total}"
        else:
            yield f"predicted {total}"

    def ground(self) -> Iterator[str]:
        for stream, row in self.places.lanes.items():
            y = _TOP + row * PITCH
            yield svg.rect(0, y, self.width, PITCH - 8, "la")
            yield svg.text(14, y + 27, f"stream {stream}", "tx b")
            handle = next((s.blas_handle for s in self.plan.streams if s.id == stream), None)
            if handle is not None:
                yield svg.text(14, y + 41, f"BLAS {handle}", "so sm")
        yield svg.text(14, self.host + 14, "host", "tx b")
        yield svg.path(f"M{LEFT:.0f} {self.host + 10:.0f}H{self.width - 14:.1f}", "l")

    # Launches ---------------------------------------------------------------------------

    def boxes(self) -> Iterator[str]:
        for block in self.places.blocks:
            yield self.box(block)

    def box(self, block: Block) -> str:
        x, y = LEFT + self.places.left(block), self.middle(block.stream) - TALL / 2
        width = self.places.right(block) - self.places.left(block) - 2
        cost = self.places.cost(block)
        first = self.places.launches[block.members[0]]
        cls = f"bx {self.paint.of(first, cost / len(block.members))}"
        cls += " kn" if self.places.critical & set(block.members) else ""
        cls += " ra" if self.racing & set(block.members) else ""
        many = len(block.members) > 1
        what = count(len(block.members), "launch") if many else block.commands
        below = f"{what} · {shown(cost)}"
        lines = [svg.rect(x, y, width, TALL, cls, 4)]
        if many:  # a second edge marks several launches
            lines.append(svg.path(f"M{x + 5:.1f} {y - 3:.1f}h{max(width - 6, 1):.1f}", "w"))
        if width > 20:
            lines.append(svg.text(x + 5, y + 15, svg.fitted(block.name, width - 8), "in b"))
            lines.append(svg.text(x + 5, y + 29, svg.fitted(below, width - 6, 5.7), "in sm"))
        title = f"{block.name} · {block.commands} · {shown(cost)}"
        return svg.group(lines, title, l=block.numbers)

    def middle(self, stream: int) -> float:
        return _TOP + self.places.lanes[stream] * PITCH + (PITCH - 8) / 2

    # Waits ------------------------------------------------------------------------------

    def waits(self) -> Iterator[str]:
        drawn: set[tuple[int | None, ...]] = set()
        for ends in wait_ends(self.plan):
            if ends.record is None:
                continue
            if isinstance(ends.wait, HostWait):
                yield self.end(ends.record)
            elif ends.record.stream != ends.wait.stream:
                arrow = self.arrow(ends, ends.wait, ends.record)
                if arrow.key not in drawn:
                    drawn.add(arrow.key)
                    yield arrow.svg

    def arrow(self, ends: Ends, wait: Wait, record: Record) -> _Arrow:
        number = ends.number
        before, after = (
            None if n is None else self.launch_at[n] for n in (ends.before, ends.after)
        )
        x = LEFT + self.places.x.recorded[wait.event] - 9
        to = LEFT + self.places.x.resumed[number] + 9
        rows = self.places.lanes
        down = 1 if rows[wait.stream] > rows[record.stream] else -1
        y = self.middle(record.stream) + down * TALL / 2
        end = self.middle(wait.stream) - down * (TALL / 2 + 1)
        bend = down * max(abs(end - y) / 2, 20.0)
        d = f"M{x:.1f} {y:.1f}C{x:.1f} {y + bend:.1f} {to:.1f} {end - bend:.1f} {to:.1f} {end:.1f}"
        cls = "w" if wait.role == "dependency" else "w fk"
        if after is not None and self.critical(before, after):
            cls += " cw"
        title = f"event {wait.event}, {wait.role}: {self.why[number]}"
        # Arrows between the same two blocks are one.
        boxes = (n if n is None else self.block[n].members[0] for n in (before, after))
        key = (record.stream, wait.stream, *boxes)
        return _Arrow(key, svg.path(d, cls, True, title, w=number))

    def critical(self, first: int | None, second: int) -> bool:
        path = self.places.critical
        return second in path and first in path and self.places.predicted.after[second] == first

    def end(self, record: Record) -> str:
        x = LEFT + self.places.x.recorded[record.event]
        y, end = self.middle(record.stream), self.host + 6
        title = f"the host reads the outputs after event {record.event}"
        return svg.path(f"M{x:.1f} {y:.1f}h12V{end:.1f}", "w", True, title)

    # Races ------------------------------------------------------------------------------

    def races(self) -> Iterator[str]:
        """A red line from each launch to the first it races with, preferably in the same run. One
        missing wait makes many races; the first shows where it is missing."""
        found: dict[tuple[int, ...], list[Hazard]] = {}
        for hazard in self.hazards:
            ends = tuple(self.launch_at[s.index] for s in hazard.sites if s.index in self.launch_at)
            found.setdefault(ends, []).append(hazard)
        nearest: dict[int, tuple[int, ...]] = {}
        for ends in sorted((e for e in found if len(e) == 2), key=lambda e: (e[1] <= e[0], e)):
            nearest.setdefault(ends[0], ends)
        for first, second in nearest.values():
            if self.block[first] != self.block[second]:
                yield self.race(found[first, second], self.block[first], self.block[second])

    def race(self, hazards: list[Hazard], first: Block, second: Block) -> str:
        (x, y), (to, end) = (self.centre(b) for b in (first, second))
        d = f"M{x:.1f} {y:.1f}L{to:.1f} {end:.1f}"
        kinds = ", ".join(dict.fromkeys(h.kind for h in hazards))
        label = svg.text((x + to) / 2 + 6, (y + end) / 2, f"{kinds} race", "rt lb")
        return svg.group([svg.path(d, "rx", title=hazards[0].message), label])

    def centre(self, block: Block) -> tuple[float, float]:
        mid = (self.places.left(block) + self.places.right(block)) / 2
        return LEFT + mid, self.middle(block.stream)

    def notes(self) -> Iterator[str]:
        """The first hazards, in as many lines as they need."""
        told = [f"{h.kind} hazard: {h.message}" for h in self.hazards[:_MOST_RACES]]
        if len(self.hazards) > _MOST_RACES:
            told.append(f"and {len(self.hazards) - _MOST_RACES} more")
        columns = int(min(self.width - 28, _READABLE) / _LETTER)
        lines = (line for text in told for line in wrap(text, columns, subsequent_indent="    "))
        for n, line in enumerate(lines):
            indent = 16 if line.startswith("    ") else 0  # SVG drops leading blanks
            yield svg.text(14 + indent, self.host + 36 + 15 * n, line.lstrip(), "rt")
