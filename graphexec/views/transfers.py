"""Which launches of a plan are copies, from which memory to which, and which are transfers.

A transfer is a copy that the compiler adds to bring an input to the device or an output to the
host; a user's node may copy the same way. Both follow from the launch's kind and the buffers it
touches, never from what a node is called: a node of the user has a tensor of its name, a transfer
has none. A plan that does not say kinds is read as if every launch could be a copy.
"""

from __future__ import annotations

from graphexec.ir.names import transferred
from graphexec.ir.plan import Launch, Plan
from graphexec.ir.program import DIRECTIONS, Direction


class Transfers:
    """The copies of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._spaces = {b.id: b.space for b in plan.buffers}
        self._tensors = {t.name for t in plan.tensors}

    def direction(self, launch: Launch) -> Direction | None:
        """From which memory to which a launch copies; None if it does not."""
        if launch.kind not in (None, "memcpy") or not (launch.reads and launch.writes):
            return None
        source = self._spaces.get(launch.reads[0].buffer)
        target = self._spaces.get(launch.writes[0].buffer)
        return None if source is None or target is None else DIRECTIONS[source, target]

    def of(self, launch: Launch) -> Direction | None:
        """The direction of a transfer between host and device; None for any other launch."""
        direction = self.direction(launch)
        return direction if direction in ("h2d", "d2h") and self._added(launch) else None

    def tensor(self, launch: Launch) -> str:
        """The tensor whose bytes a launch moves or makes: that of a transfer, else the node's."""
        return transferred(launch.node) if self.of(launch) else launch.node

    def _added(self, launch: Launch) -> bool:
        return launch.node not in self._tensors
