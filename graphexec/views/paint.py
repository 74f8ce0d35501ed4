"""The colour of each launch, by stream, op or cost; and the legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from graphexec.base.units import shown
from graphexec.ir.plan import Launch, Plan
from graphexec.views.svg import FILLS, RAMP, legend_of, op_classes, path, rect, text
from graphexec.views.transfers import Transfers

Color = Literal["stream", "op", "cost"]


class Paint:
    """The classes of boxes (see svg.py) for one plan and one choice of colours."""

    def __init__(self, plan: Plan, by: Color, us: Sequence[float], lanes: dict[int, int]) -> None:
        self.by, self.lanes, self.transfers = by, lanes, Transfers(plan)
        launches = [*plan.launches.values()]
        self.ops = op_classes(i.command for i in launches if not self.transfers.of(i))
        self.least, self.most = min(us, default=0.0), max(us, default=1.0)
        self.any_transfers = any(map(self.transfers.of, launches))

    def of(self, launch: Launch, us: float) -> str:
        """The class of a launch that takes `us` microseconds."""
        if self.by == "cost":
            span = max(self.most - self.least, 1e-9)
            return f"c{round((us - self.least) / span * (len(RAMP) - 1))}"
        if self.transfers.of(launch):
            return "tr"
        if self.by == "op":
            return self.ops[launch.command]
        return f"f{self.lanes[launch.stream] % len(FILLS)}"

    def legend(self, x: float, y: float, *more: tuple[str, str]) -> list[str]:
        """Swatches with their meaning, from x to the right; `more` are classes of boxes and lines
        with a meaning of their own."""
        found: list[str] = []
        for cls, name in (*self.entries(), *more):
            if cls[0] in "wr":  # a line
                found.append(path(f"M{x:.1f} {y - 3.5:.1f}h16", cls, cls[0] == "w"))
            else:
                found.append(rect(x, y - 9, 14, 11, f"bx {cls}", 2))
            found.append(text(x + 20, y, name, "so"))
            x += 36 + 6.5 * len(name)
        return found

    def entries(self) -> list[tuple[str, str]]:
        """The classes of boxes and their meaning, of streams the first few."""
        if self.by == "cost":
            steps = len(RAMP) - 1
            grow = (self.most - self.least) / steps
            return [(f"c{n}", shown(self.least + n * grow)) for n in range(steps + 1)]
        if self.by == "op":
            made = legend_of(self.ops)
        else:
            made = [(f"f{n}", f"stream {s}") for s, n in self.lanes.items() if n < len(FILLS)]
        return made + ([("tr", "host transfer")] if self.any_transfers else [])
