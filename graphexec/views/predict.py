"""When each launch of a plan would run, as the planner predicted it.

The planner's own prediction comes with a plan that has just been made (a BoundPlan). A plan by
itself, or one read from a file, says what each launch costs; the planner's simulator then gives
the same times, if the plan was made by a model and not by measurements. Where a launch has no
cost, it is estimated: bytes from its ranges, operations of a matrix product from their sizes. Then,
and for measured plans, times come from a walk along the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from graphexec.base.printable import printable
from graphexec.base.tensor import DType
from graphexec.base.units import shown
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.figures import figures
from graphexec.ir.plan import HostWait, Launch, Plan, Range, Record, Wait
from graphexec.ir.program import Cost
from graphexec.machine import costs
from graphexec.machine.simulate import COMPUTE, Tasks, successors_of
from graphexec.machine.simulate import simulate as simulate_device
from graphexec.views.transfers import Transfers


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
    found = costs.CPU if plan.device == "cpu" else costs.GPU
    named = {known.name: known for known in (costs.CPU, costs.GPU)}
    return named.get(figures(plan).costs, found)


def microseconds(plan: Plan, known: Prediction | None = None) -> list[float]:
    """The time of each launch alone, in issue order; `known` is the planner's prediction."""
    if known is not None and known.alone:
        return [us for _, us in sorted(known.alone.items())]
    rates = model(plan)
    return [rates.launch + rates.modelled(*cost)[0] for cost in _costs(plan)]


Spans = Mapping[int, tuple[float, float]]
"""Start and end of each launch in microseconds, by the number of its instruction."""


def prediction(plan: Plan, known: Prediction | None = None) -> tuple[Spans, str]:
    """What the planner said when it made the plan; or nothing, and why: a plan by itself (without
    `known`, the planner's prediction) may not hold enough to say it again."""
    if known is not None and known.spans:
        return known.spans, ""
    stats, launches = figures(plan), [*plan.launches.values()]
    if stats.predicted_ns is None:
        return {}, "the plan does not say what was predicted"
    if stats.costs != model(plan).name:
        made = printable(stats.costs)
        return {}, f"the plan was made with other costs ({made}), which it does not hold"
    if not all(i.kind and i.cost for i in launches):
        return {}, "its launches do not say what they cost"
    spans = _again(plan, launches)
    end = max((end for _, end in spans.values()), default=0.0)
    if abs(end * 1000 - stats.predicted_ns) > 1 + 1e-3 * stats.predicted_ns:
        return {}, f"the cost model has since changed: the run would now take {shown(end)}"
    return spans, ""


def _again(plan: Plan, launches: Sequence[Launch]) -> dict[int, tuple[float, float]]:
    """The times that the planner's simulator gives, by its model."""
    rates = model(plan)
    each = _costs(plan)
    found = [rates.modelled(*cost) for cost in each]
    beside = rates.beside if len(plan.streams) > 1 else 0.0
    needs = _predecessors(plan)
    tasks = Tasks(
        [time + beside for time, _ in found], [share for _, share in found],
        [engine for _, engine in each], rates.launch, rates.wait, needs, successors_of(needs),
        rates.fork,
    )  # fmt: skip
    times = simulate_device(tasks, range(len(tasks)), [i.stream for i in launches])
    return {
        number: (rates.start + times.start[n], rates.start + times.end[n])
        for n, number in enumerate(plan.launches)
    }


def _predecessors(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """The launches on other streams that each launch waits for. (The order of a stream, and the
    time a stream takes to fork, are the simulator's.)"""
    last: dict[int, int] = {}
    recorded: dict[int, int | None] = {}
    waiting: dict[int, list[int]] = {}
    found: list[tuple[int, ...]] = []
    for i in plan.instructions:
        match i:
            case Launch(stream=stream):
                found.append(tuple(waiting.pop(stream, ())))
                last[stream] = len(found) - 1
            case Record(stream, event):
                recorded[event] = last.get(stream)
            case Wait(stream, event, role):
                cause = recorded.get(event)
                if cause is not None and role == "dependency":
                    waiting.setdefault(stream, []).append(cause)
            case HostWait():
                pass
    return tuple(found)


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


def predict(plan: Plan, known: Prediction | None = None) -> Times:
    """The start and end of each launch, in microseconds; `known` is the planner's prediction."""
    spans, _ = prediction(plan, known)
    given = [span for _, span in sorted(spans.items())]
    return simulate(plan, microseconds(plan, known), model(plan).wait, given)


# Costs ----------------------------------------------------------------------------------


def _costs(plan: Plan) -> list[tuple[Cost, int]]:
    """What each launch costs, and on which engine."""
    transfers = Transfers(plan)
    dtypes = {t.range: t.dtype for t in plan.tensors}
    found = []
    for launch in plan.instructions:
        if isinstance(launch, Launch):
            direction = transfers.direction(launch)
            engine = COMPUTE if direction is None else costs.engine_of_copy(direction)
            found.append((launch.cost or _estimated(launch, dtypes), engine))
    return found


def _estimated(launch: Launch, dtypes: dict[Range, DType]) -> Cost:
    """The cost of a launch whose plan does not say: it touches each of its bytes once. A product
    of two matrices takes 2·M·N·K = 2·√(|a|·|b|·|out|) operations."""
    flops = 0
    if launch.kind in ("gemm", "gemm_batch") and len(launch.reads) >= 2 and launch.writes:
        out = launch.writes[0]
        itemsize = dtypes.get(out, DType.F32).itemsize
        a, b, c = (_bytes(r) / itemsize for r in (*launch.reads[:2], out))
        flops = round(2 * sqrt(a * b * c)) * len(launch.members)
    return Cost(flops, sum(map(_bytes, (*launch.reads, *launch.writes))))


def _bytes(r: Range) -> int:
    return max(r.high - r.low, 0)
