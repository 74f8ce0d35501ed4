"""The horizontal axis that the lanes and the memory map share.

The axis is the predicted run in pixels. Every launch is as wide as its name, and wider with its
cost. Every wait between streams takes the width of an arrow. A launch starts right of everything
that it waits for.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import HostWait, Launch, Plan
from graphexec.views.blocks import Block, blocks
from graphexec.views.predict import Times, microseconds, predict, prediction, simulate

_NAME, _COST, _WAIT = 88.0, 170.0, 22.0  # pixels: a name, at most for cost, a wait
_SHORT = 68.0  # a name in a picture of many launches
_FEW, _MANY = 6, 24  # launches with full names; launches from which on names are short


@dataclass(frozen=True)
class Layout:
    """Blocks and their places. `us` is what each launch costs, `predicted` the run in
    microseconds (an estimate where it is not `by_planner`), `x` the same in pixels; `lanes` gives
    each stream its row."""

    launches: tuple[Launch, ...]
    us: tuple[float, ...]
    predicted: Times
    by_planner: bool
    x: Times
    blocks: tuple[Block, ...]
    critical: frozenset[int]
    lanes: dict[int, int]

    def left(self, block: Block) -> float:
        """The left edge of a block."""
        return self.x.start[block.members[0]]

    def right(self, block: Block) -> float:
        """The right edge of a block."""
        return self.x.end[block.members[-1]]

    def cost(self, block: Block) -> float:
        """Microseconds of all its launches."""
        return sum(self.us[n] for n in block.members)


def layout(plan: Plan, most: int, known: Prediction | None = None) -> Layout:
    """The places of at most about `most` blocks; `known` is the planner's prediction."""
    us = microseconds(plan, known)
    made = blocks(plan, most)
    dearest = max(us, default=1.0)
    room = _COST if len(made) <= _FEW else max(_COST * _FEW / len(made), 30.0)
    name = _NAME if len(made) <= _MANY else _SHORT
    widths = [0.0] * len(us)
    for block in made:
        for n in block.members:
            # A block is narrower than its launches together.
            widths[n] = (name + room * us[n] / dearest) / max(len(block.members) / 1.3, 1)
    predicted = predict(plan, known)
    crowd = max(len(us) / max(len(made), 1), 1.0)
    return Layout(
        tuple(plan.launches.values()),
        tuple(us),
        predicted,
        bool(prediction(plan, known)[0]),
        simulate(plan, widths, _WAIT / crowd),
        tuple(made),
        predicted.critical(),
        lanes(plan),
    )


def lanes(plan: Plan) -> dict[int, int]:
    """The row of each stream, also of streams that the plan uses without declaring them."""
    used = {i.stream for i in plan.instructions if not isinstance(i, HostWait)}
    return {s: row for row, s in enumerate(sorted({s.id for s in plan.streams} | used))}
