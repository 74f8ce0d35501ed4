"""How pictures in DOT look: fonts, and the colours of launches by stream, op or cost."""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import Launch, Plan
from graphexec.views.dot_syntax import SOFT
from graphexec.views.layout import lanes
from graphexec.views.paint import Color, Paint
from graphexec.views.predict import microseconds
from graphexec.views.svg import RAMP, TRANSFER

# Okabe and Ito's colours, distinct for colour-blind readers, lightened for dark text.
FILLS = ("#9AD0F2", "#F7C873", "#8AD3BA", "#E9BCD7", "#F6EE93", "#9FBFE6", "#F2AE85", "#CFCFCF")
STROKES = ("#1F78A8", "#A56F00", "#00704F", "#97527A", "#857B00", "#004F80", "#A14400", "#555555")
INK, FAINT, ALARM = "#222222", "#8A8A8A", "#C0122F"

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
            fill = FILLS[self.lanes[launch.stream] % len(FILLS)]
            return {"fillcolor": fill, "color": self.stroke(launch.stream)}
        cost = sum(self.us[n] for n in members) / len(members)
        return {"fillcolor": _fill(self.paint.of(launch, cost)), "color": SOFT}

    def swatches(self) -> list[tuple[str, str]]:
        """Colours and what they mean."""
        if self.paint.by != "stream":
            return [(_fill(cls), name) for cls, name in self.paint.entries()]
        found = [(FILLS[lane % len(FILLS)], f"stream {s}") for s, lane in self.lanes.items()]
        return found[: len(FILLS)]


def _fill(cls: str) -> str:
    """The colour of a class of paint.py."""
    if cls == "tr":
        return TRANSFER
    return (RAMP if cls[0] == "c" else FILLS)[int(cls[1:])]
