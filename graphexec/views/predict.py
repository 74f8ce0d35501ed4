"""When each launch of a plan would run, as the planner predicted it.

A plan read from a file says nothing of it. Then costs come from the byte ranges and the planner's
model (graphexec.machine.costs), how many operations a GEMM takes from the shapes of the tensors it
touches, and times from a walk along the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.plan import HostWait, Launch, PlacedTensor, Plan, Range, Record, Wait
from graphexec.ir.program import Command, Cost, Memcpy
from graphexec.machine import costs


@dataclass(frozen=True)
class Times:
    """Start and end of each launch, in issue order; when each event was recorded (by event) and
    each wait was over (by number of the instruction); `after[n]` is the launch that launch n
    waited for longest, or None. The unit is that of the durations given."""

    start: tuple[float, ...]
    end: tuple[float, ...]
    recorded: dict[int, float]
    resumed: dict[int, float]
    after: tuple[int | None, ...]

    @property
    def total(self) -> float:
        """The end of the last launch."""
        return max(self.end, default=0.0)

    def critical(self) -> frozenset[int]:
        """The launches of a longest path through the plan."""
        found: set[int] = set()
        at = max(range(len(self.end)), key=self.end.__getitem__, default=None)
        while at is not None:
            found.add(at)
            at = self.after[at]
        return frozenset(found)


def model(plan: Plan) -> costs.CostModel:
    """The cost model the plan was made with."""
    return costs.CPU if plan.device == "cpu" else costs.GPU


def microseconds(plan: Plan) -> list[float]:
    """The time of each launch alone, in issue order."""
    if plan.alone:
        return [us for _, us in sorted(plan.alone.items())]
    rates, types = model(plan), _Types(plan)
    return [
        rates.microseconds(_command(i, types)) for i in plan.instructions if isinstance(i, Launch)
    ]


def _given(plan: Plan) -> list[tuple[float, float]]:
    """What the planner predicted for each launch, if it did."""
    numbers = [n for n, i in enumerate(plan.instructions) if isinstance(i, Launch)]
    return [plan.predicted[n] for n in numbers] if len(plan.predicted) == len(numbers) else []


def simulate(
    plan: Plan, durations: Sequence[float], wait: float,
    given: Sequence[tuple[float, float]] = (),
) -> Times:  # fmt: skip
    """Run the plan with these durations; a wait for another stream's event adds `wait`. With
    `given` times of a run, find which launch each launch waited for.

    Waits for events that are not recorded before them are ignored.
    """
    clock: dict[int, float] = {}
    last: dict[int, int | None] = {}  # the launch that determines each stream's clock
    events: dict[int, tuple[float, int | None, int]] = {}
    start: list[float] = []
    end: list[float] = []
    after: list[int | None] = []
    recorded: dict[int, float] = {}
    resumed: dict[int, float] = {}
    for number, i in enumerate(plan.instructions):
        if isinstance(i, HostWait):
            continue
        now = clock.get(i.stream, 0.0)
        if isinstance(i, Launch):
            after.append(last.get(i.stream))
            last[i.stream] = len(start)
            begin, stop = given[len(end)] if given else (now, now + durations[len(end)])
            start.append(begin)
            end.append(stop)
            clock[i.stream] = end[-1]
        elif isinstance(i, Record):
            events[i.event] = (now, last.get(i.stream), i.stream)
            recorded[i.event] = now
        elif isinstance(i, Wait) and i.event in events:
            at, cause, stream = events[i.event]
            at += wait if stream != i.stream else 0.0
            if at > now:
                clock[i.stream], last[i.stream] = at, cause
            resumed[number] = clock.get(i.stream, now)
    return Times(tuple(start), tuple(end), recorded, resumed, tuple(after))


def predict(plan: Plan) -> Times:
    """The start and end of each launch, in microseconds."""
    return simulate(plan, microseconds(plan), model(plan).wait, _given(plan))


# Costs ----------------------------------------------------------------------------------


class _Types:
    """Types of byte ranges, where the plan names tensors there."""

    def __init__(self, plan: Plan) -> None:
        self.named = {t.name: t for t in plan.tensors}
        self.ranges: dict[Range, PlacedTensor] = {}
        for t in plan.tensors:
            self.ranges.setdefault(Range(t.buffer, t.offset, t.offset + t.bytes), t)

    def of(self, r: Range, name: str = "") -> TensorType:
        """The type of a range, best of the tensor `name`; else bytes taken for f32."""
        tensor = self.named.get(name) or self.ranges.get(r)
        if tensor is not None and tensor.bytes == r.high - r.low:
            return TensorType(tensor.shape, tensor.dtype)
        return TensorType((max((r.high - r.low) // 4, 1),), DType.F32)


def _command(launch: Launch, types: _Types) -> Command:
    moved = sum(max(r.high - r.low, 0) for r in (*launch.reads, *launch.writes))
    flops = _gemm_flops(launch, types) if launch.command == "gemm" else 0
    # The model asks only whether it is a copy, not of what.
    none = View("", (1,), DType.F32)
    work = Memcpy(none, none)
    return Command(launch.node, launch.command, work, (), (), Cost(flops, moved))


def _gemm_flops(launch: Launch, types: _Types) -> int:
    if len(launch.reads) < 2 or not launch.writes:
        return 0
    out = types.of(launch.writes[0], launch.node)
    a, b = (types.of(r) for r in launch.reads[:2])
    return 2 * out.elements * _contracted(a, b, out) * len(launch.members)


def _contracted(a: TensorType, b: TensorType, out: TensorType) -> int:
    """The extent that is summed over: a's last axis or, transposed, the one before it."""
    if min(len(a.shape), len(b.shape), len(out.shape)) >= 2:
        for k, m in (a.shape[-1:-3:-1], a.shape[-2:]):
            if m == out.shape[-2] and k in b.shape[-2:]:
                return k
    batch = prod(out.shape[:-2])
    return max(round(sqrt(a.elements * b.elements / (out.elements * batch))), 1)


__all__ = ["Times", "microseconds", "model", "predict", "simulate"]
