"""How pictures in DOT look: fonts, and the colours of launches by stream, op or cost."""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import Launch, Plan
from graphexec.views.dot_syntax import SOFT
from graphexec.views.layout import lanes
from graphexec.views.paint import Color, Paint
from graphexec.views.predict import microseconds
from graphexec.views.svg import FILLS, fill

# The dark form of each of the fills.
STROKES = ("#1F78A8", "#A56F00", "#00704F", "#97527A", "#857B00", "#55429C", "#A14400", "#5B7311",
           "#75522F")  # fmt: skip
INK, FAINT, ALARM = "#1B1B1B", "#8A8A8A", "#C0122F"

HEAD = f"""\
  graph [bgcolor=white, nodesep=0.3, ranksep=0.42, labelloc=t, labeljust=l, pad=0.2,
         fontname="Helvetica,Arial,sans-serif", fontsize=14, fontcolor="{INK}"];
  node  [shape=box, style="filled,rounded", fontname="Helvetica,Arial,sans-serif", fontsize=12,
         penwidth=1.5, margin="0.16,0.06", height=0.45, fontcolor="{INK}"];
  edge  [fontname="Helvetica,Arial,sans-serif", fontsize=10, fontcolor="{SOFT}",
         color="{INK}", arrowsize=0.75];"""


class Look:
    """The colours of one plan's launches."""

    def __init__(self, plan: Plan, color: Color, known: Prediction | None = None) -> None:
        self.lanes, self.us = lanes(plan), microseconds(plan, known)
        self.paint = Paint(plan, color, self.us, self.lanes)

    def stroke(self, stream: int) -> str:
        """The dark colour of a stream."""
        return STROKES[self.lanes[stream] % len(STROKES)]

    def box(self, launch: Launch, members: Sequence[int]) -> dict[str, str]:
        """Attributes of the box of launches (their numbers), of which `launch` is the first."""
        if self.paint.by == "stream":  # also a transfer: its shape marks it
            light = FILLS[self.lanes[launch.stream] % len(FILLS)]
            return {"fillcolor": light, "color": self.stroke(launch.stream)}
        cost = sum(self.us[n] for n in members) / len(members)
        return {"fillcolor": fill(self.paint.of(launch, cost)), "color": SOFT}

    def swatches(self) -> list[tuple[str, str]]:
        """Colours and what they mean."""
        if self.paint.by != "stream":
            return [(fill(cls), name) for cls, name in self.paint.entries()]
        found = [(FILLS[lane % len(FILLS)], f"stream {s}") for s, lane in self.lanes.items()]
        return found[: len(FILLS)]
