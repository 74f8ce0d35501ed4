"""The launches of a plan, each run by itself and checked for what it touches (check_access)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphexec.base.tensor import Array
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Launch
from graphexec.runtime.check_access import AccessCheck
from graphexec.runtime.device import Step
from graphexec.runtime.hip.memory import Memory
from graphexec.runtime.hip.resources import Resources


class _Idle:
    """The buffers of a session, once its streams have nothing left to do."""

    def __init__(self, memory: Memory, resources: Resources) -> None:
        self._memory, self._resources = memory, resources

    def read(self, buffer: str) -> Array:
        """A copy of a buffer."""
        self._resources.wait(self._resources.streams)
        return self._memory.contents(buffer)

    def write(self, buffer: str, content: Array) -> None:
        """Replace what is in a buffer."""
        self._resources.wait(self._resources.streams)
        self._memory.replace(buffer, content)


def checked(
    bound: BoundPlan, steps: Sequence[Step], memory: Memory, resources: Resources
) -> list[Step]:  # fmt: skip
    """The steps of a plan, with those that launch in an AccessCheck."""
    check = AccessCheck(bound.plan, _Idle(memory, resources))
    return [
        partial(check.run, instruction, bound.work[number], step)
        if isinstance(instruction, Launch) else step
        for number, (instruction, step) in enumerate(
            zip(bound.plan.instructions, steps, strict=True)
        )
    ]  # fmt: skip
