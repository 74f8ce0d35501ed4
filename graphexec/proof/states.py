"""States of a plan: tensors that keep their bytes from run to run.

STATE_PLACE    the value when a run begins lies in a buffer of the role "state"; the value when the
               next run begins lies on exactly the same bytes, and if it is another tensor, some
               launch writes them
STATE_WRITERS  one tensor at most is the next value of a state

Races for bytes that are kept are among those of `races`: STATE_WAR, a write that may come before a
reader of the old value; STATE_WRITERS, two writers of one next value; STATE_STEP, a step against
the one before. A read of a state that nothing initialises is a STATE_INIT.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from graphexec.ir.plan import PlacedTensor, Plan
from graphexec.proof.evidence import Evidence
from graphexec.proof.hazard import Hazard, show_range


def states(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """STATE_PLACE, and STATE_WRITERS of declarations."""
    begins: dict[str, PlacedTensor] = {}
    ends: dict[str, PlacedTensor] = {}
    for tensor in plan.tensors:
        if tensor.state:
            yield from _begin(tensor, begins, evidence)
        if tensor.next:
            other = ends.setdefault(tensor.next, tensor)
            if other is not tensor:
                message = (
                    f"'{other.name}' and '{tensor.name}' are both the next value of state "
                    f"'{tensor.next}'."
                )
                yield _hazard("STATE_WRITERS", message, tensor)
    for name, begin in begins.items():
        if name not in ends:
            message = f"state '{name}' has no next value: no tensor is declared to be it."
            yield _hazard("STATE_PLACE", message, begin)
    for name, end in ends.items():
        yield from _end(name, begins.get(name), end, evidence)


def _begin(
    tensor: PlacedTensor, begins: dict[str, PlacedTensor], evidence: Evidence
) -> Iterator[Hazard]:
    name = tensor.state
    other = begins.setdefault(name, tensor)
    if other is not tensor and other.range != tensor.range:
        message = (
            f"state '{name}' begins in two places: '{other.name}' is at {show_range(other.range)}, "
            f"'{tensor.name}' at {show_range(tensor.range)}."
        )
        yield _hazard("STATE_PLACE", message, tensor)
    if not evidence.is_state(tensor.range):
        message = (
            f"state '{name}' is at {show_range(tensor.range)}, in a buffer that does not keep its "
            "bytes from run to run: its role is not state."
        )
        yield _hazard("STATE_PLACE", message, tensor)


def _end(
    name: str, begin: PlacedTensor | None, end: PlacedTensor, evidence: Evidence
) -> Iterator[Hazard]:
    if begin is None:
        message = f"'{end.name}' is the next value of '{name}', which is no state of the plan."
        yield _hazard("STATE_PLACE", message, end)
    elif begin.range != end.range:
        message = (
            f"the next value of state '{name}', tensor '{end.name}', lies at "
            f"{show_range(end.range)}, but the state at {show_range(begin.range)}: the next run "
            "would read other bytes."
        )
        yield _hazard("STATE_PLACE", message, end)
    elif begin is not end and not _is_written(end, evidence):
        message = (
            f"nothing writes '{end.name}', the next value of state '{name}', to "
            f"{show_range(end.range)}."
        )
        yield _hazard("STATE_PLACE", message, end)


def _is_written(tensor: PlacedTensor, evidence: Evidence) -> bool:
    return any(r.overlaps(tensor.range) for _, launch in evidence.issued for r in launch.writes)


def _hazard(kind: Literal["STATE_PLACE", "STATE_WRITERS"], text: str, of: PlacedTensor) -> Hazard:
    return Hazard(kind, text, tensors=(of.name,), range=of.range)
