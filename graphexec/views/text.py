"""A plan as a table for a terminal: one lane a stream, one row an instruction.

     #  s0  s1  node    command       reads    writes  sync
     0  ●       q.h2d   h2d         512 KiB   512 KiB  ▸e0
     2  ├──▸●   k.h2d   h2d         512 KiB   512 KiB  ◂e0 from s0 (fork)

`●` is a launch and `○` waits or records alone; an arrow runs from the stream an event was
recorded on to the one that waits for it. A wait shares the row of the launch it delays, a
record the row of the launch it follows. `#` counts instructions as the plan's JSON does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphexec.base.printable import printable
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.figures import figures
from graphexec.ir.plan import HostWait, Instruction, Launch, Plan, Record, Wait
from graphexec.views.certificate import bounds, refutation
from graphexec.views.predict import prediction
from graphexec.views.table import count, fit, pad, shape, size, table, width

if TYPE_CHECKING:
    from graphexec.proof import Hazard

_COLUMNS = 100
_MOST_LANES = 12  # more streams are named in a column instead
_MOST_WIDE = 6  # up to this number, lanes have room for arrowheads
_COLORS = (36, 33, 32, 35, 34, 31, 96, 93)
_DIM, _BOLD, _RED = 2, 1, 31


def to_text(
    plan: Plan, color: bool = False, hazards: Sequence[Hazard] = (),
    known: Prediction | None = None,
) -> str:  # fmt: skip
    """The plan as text, about 100 columns wide; `color` adds ANSI escapes (a colour a stream).

    Also shows plans with races: `hazards` are what the verifier found; they come first and are
    marked in the table. `known` is the planner's prediction. Ends without a newline.
    """
    body = "\n".join(_Lanes(plan, color, hazards, known).lines())
    verdict = refuted(hazards, color)
    figures = _figures(plan, bool(hazards))
    parts = (_header(plan), verdict, body, _memory(plan), figures)
    return "\n\n".join(part for part in parts if part)


def refuted(hazards: Sequence[Hazard], color: bool) -> str:
    """The first hazards, a line each, red on a terminal; nothing where there is none."""
    lines = refutation(hazards).splitlines() if hazards else []
    return "\n".join(f"\x1b[{_RED}m{line}\x1b[0m" if color else line for line in lines)


def _header(plan: Plan) -> str:
    launches = len(plan.launches)
    parts = [f"plan {printable(plan.graph)} on {printable(plan.device)}"]
    if plan.ranks is not None:
        mesh = ", ".join(f"{axis}={n}" for axis, n in plan.ranks.mesh.items())
        parts.append(f"rank {plan.ranks.rank} of {plan.ranks.ranks} ({printable(mesh)})")
    parts += [" ".join(f"{printable(n)}={v}" for n, v in plan.dims.items())] if plan.dims else []
    parts += [count(launches, "launch"), count(len(plan.streams), "stream")]
    return " · ".join(parts)


@dataclass
class _Row:
    """Instructions shown on one line: at most a wait, a launch, and the records after it."""

    number: int
    stream: int
    wait: Wait | None = None
    launch: Launch | None = None
    records: list[Record] = field(default_factory=list)
    host: HostWait | None = None

    def takes(self, instruction: Instruction) -> bool:
        """Add an instruction that directly follows, if it belongs on the same line."""
        if isinstance(instruction, HostWait) or self.host or instruction.stream != self.stream:
            return False
        if isinstance(instruction, Record):
            # A record right after a wait alone would read as if it came before it.
            self.records += [instruction] if self.launch or self.records else []
            return bool(self.launch or self.records)
        if isinstance(instruction, Launch) and not (self.launch or self.records):
            self.launch = instruction
            return True
        return False


def _rows(instructions: Sequence[Instruction]) -> Iterator[_Row]:
    row: _Row | None = None
    for number, instruction in enumerate(instructions):
        if row is not None and row.takes(instruction):
            continue
        if row is not None:
            yield row
        if isinstance(instruction, HostWait):
            row = _Row(number, -1, host=instruction)
        elif isinstance(instruction, Launch):
            row = _Row(number, instruction.stream, launch=instruction)
        elif isinstance(instruction, Wait):
            row = _Row(number, instruction.stream, wait=instruction)
        else:
            row = _Row(number, instruction.stream, records=[instruction])
    if row is not None:
        yield row


class _Lanes:
    """The table of instructions."""

    def __init__(
        self, plan: Plan, color: bool, hazards: Sequence[Hazard], known: Prediction | None
    ) -> None:  # fmt: skip
        self.color = color
        self.foretold = figures(plan).predicted_ns is not None
        self.predicted, self.why_not = prediction(plan, known)
        self.racing = {site.index for hazard in hazards for site in hazard.sites}
        self.rows = list(_rows(plan.instructions))
        self.recorded = {i.event: i.stream for i in plan.instructions if isinstance(i, Record)}
        # A plan of another program may use streams it does not declare.
        used = {row.stream for row in self.rows if not row.host}
        self.lane = {s: n for n, s in enumerate(sorted({s.id for s in plan.streams} | used))}
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        for position, row in enumerate(self.rows):
            for stream in [row.stream, *self._source(row)]:
                self.first.setdefault(stream, position)
                self.last[stream] = position
        self.pitch = 4 if len(self.lane) <= _MOST_WIDE else 2
        self._measure()

    def _measure(self) -> None:
        self.index = max(3, len(str(self.rows[-1].number if self.rows else 0)))
        drawn = len(self.lane) <= _MOST_LANES
        self.lanes = self.pitch * (len(self.lane) - 1) + 3 if drawn else 5
        self.sync = max([4, *(width(self._sync(row)) for row in self.rows)])
        launches = [row.launch for row in self.rows if row.launch]
        longest = max([4, *(width(printable(i.title)) for i in launches)])
        commands = max([7, *(width(printable(i.command)) for i in launches)])
        self.command = min(commands, 16)
        times = [width(self._time(row)) for row in self.rows]
        self.time = max(2, *times) + 2 if self.predicted else 0
        taken = self.index + self.lanes + self.command + self.time + min(self.sync, 30)
        rest = _COLUMNS - taken - 20 - 12
        self.node = min(longest, max(rest, 10))

    def lines(self) -> Iterator[str]:
        node, command = pad("node", self.node), pad("command", self.command)
        index = f"{'#':>{self.index}}  {self._lane_names()}"
        time = pad("µs", self.time - 2) + "  " if self.time else ""
        yield f"{index}  {time}{node}  {command}       reads      writes  sync"
        for position, row in enumerate(self.rows):
            yield self._host(row) if row.host else self._line(position, row)
        if self.why_not and self.foretold:
            yield ""
            yield f"no times of single launches: {self.why_not}"

    def _lane_names(self) -> str:
        if len(self.lane) > _MOST_LANES:
            return pad("on", self.lanes)
        names = (pad(f"s{s}" if self.pitch > 2 else str(s)[-2:], self.pitch) for s in self.lane)
        return pad("".join(names).rstrip(), self.lanes)

    def _line(self, position: int, row: _Row) -> str:
        cells = ["", "", "", ""]
        if row.launch is not None:
            node, command = printable(row.launch.title), printable(row.launch.command)
            moved = [
                size(sum(r.bytes for r in ranges))
                for ranges in (row.launch.reads, row.launch.writes)
            ]
            cells = [fit(node, self.node), fit(command, self.command), *moved]
        widths = (self.node, self.command, 10, 10)
        padded = [pad(c, w, a) for c, w, a in zip(cells, widths, "<<>>", strict=True)]
        padded[0] = self._paint(padded[0], self._stream_color(row.stream), _BOLD)
        if self.time:
            padded.insert(0, pad(self._time(row), self.time - 2, ">"))
        text = f"{row.number:>{self.index}}  {self._drawing(position, row)}  {'  '.join(padded)}  "
        sync, alarm = self._sync(row), self._alarm(row)
        return (text + (self._paint(sync, _RED) if alarm else sync)).rstrip()

    def _time(self, row: _Row) -> str:
        """Predicted start and end of a launch."""
        number = row.number + (row.wait is not None)  # the launch follows its wait
        if row.launch is None or number not in self.predicted:
            return ""
        start, end = self.predicted[number]
        return f"{start:.1f}–{end:.1f}"

    def _sync(self, row: _Row) -> str:
        parts = []
        if row.wait is not None:
            source = self.recorded.get(row.wait.event)
            origin = " never recorded" if source is None else f" from s{source}"
            if source is not None and _MOST_WIDE < len(self.lane) <= _MOST_LANES:
                origin = ""  # the arrow shows it, and lanes need the room
            parts.append(f"◂e{row.wait.event}{origin} ({row.wait.role})")
        parts += [f"▸e{record.event}" for record in row.records]
        parts += ["✗ hazard"] if self._alarm(row) else []
        return " ".join(parts)

    def _alarm(self, row: _Row) -> bool:
        """Whether a hazard is about the launch."""
        number = row.number + (row.wait is not None)  # the launch follows its wait
        return row.launch is not None and number in self.racing

    def _host(self, row: _Row) -> str:
        assert row.host is not None
        source = self.recorded.get(row.host.event)
        origin = "never recorded" if source is None else f"recorded on s{source}"
        text = f"{row.number:>{self.index}}  ══ host waits for e{row.host.event}, {origin} "
        return self._paint(text + "═" * (_COLUMNS - len(text)), _BOLD)

    # Drawing ----------------------------------------------------------------------------

    def _drawing(self, position: int, row: _Row) -> str:
        """The lanes of a row: lines of active streams, the row's mark, its arrow."""
        own = self._stream_color(row.stream)
        mark = "●" if row.launch else "○"
        if len(self.lane) > _MOST_LANES:
            return self._paint(pad(f"{mark}s{row.stream}", self.lanes), own)
        canvas = [" "] * self.lanes
        colors = [_DIM] * self.lanes
        for stream, lane in self.lane.items():
            if self.first.get(stream, position + 1) <= position <= self.last.get(stream, -1):
                canvas[lane * self.pitch] = "│"
                colors[lane * self.pitch] = self._stream_color(stream)
        for source in self._source(row):
            self._arrow(canvas, self.lane[source], self.lane[row.stream])
        at = self.lane[row.stream] * self.pitch
        canvas[at], colors[at] = mark, own
        return "".join(self._paint(c, k) for c, k in zip(canvas, colors, strict=True))

    def _arrow(self, canvas: list[str], source: int, target: int) -> None:
        low, high = sorted((source * self.pitch, target * self.pitch))
        for at in range(low + 1, high):
            canvas[at] = "┼" if canvas[at] == "│" else "─"
        if source < target:
            canvas[low], canvas[high - 1] = "├", "▸"
        elif source > target:
            canvas[high], canvas[low + 1] = "┤", "◂"

    def _source(self, row: _Row) -> list[int]:
        source = self.recorded.get(row.wait.event) if row.wait is not None else None
        return [] if source is None else [source]

    def _stream_color(self, stream: int) -> int:
        return _COLORS[self.lane[stream] % len(_COLORS)]

    def _paint(self, text: str, *codes: int) -> str:
        if not self.color or text.isspace() or not text:
            return text
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m"


def _memory(plan: Plan) -> str:
    buffers = table(
        ("buffer", "role", "space", "bytes"),
        [(b.id, b.role, b.space, str(b.bytes)) for b in plan.buffers], "<<<>",
    )  # fmt: skip
    if not plan.tensors:
        return buffers
    rows = [
        (t.name, t.buffer, str(t.offset), str(t.bytes), shape(t.shape), str(t.dtype))
        for t in plan.tensors
    ]
    head = ("tensor", "buffer", "offset", "bytes", "shape", "dtype")
    return f"{buffers}\n\n{table(head, rows, '<<>><<')}"


def _figures(plan: Plan, refuted: bool) -> str:
    stats = figures(plan)
    text = count(stats.waits, "dependency wait")
    if stats.cross_stream_edges is not None:
        edges = "dependency" if stats.cross_stream_edges == 1 else "dependencies"
        text += f" for {stats.cross_stream_edges} cross-stream {edges}"
    text += f" · {count(stats.events, 'event')}\narena {size(stats.arena_bytes)}"
    if stats.naive_bytes:
        saved = 1 - stats.arena_bytes / stats.naive_bytes
        text += f" · {size(stats.naive_bytes)} without reuse ({saved:.0%} saved)"
    if stats.arena_lower_bound is not None:
        text += f" · lower bound {size(stats.arena_lower_bound)}"
    certified = stats.predicted_ns is not None and not refuted
    return f"{text}\n{bounds(stats)}" if certified else text
