"""assemble: write the plan: instructions, byte ranges, placed tensors and figures.

Requires a Synchronized schedule and an Allocation of it. Guarantees a BoundPlan that adds nothing
to these two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphexec.base.tensor import INT64_MAX, View
from graphexec.ir.bound_plan import BoundPlan, Prediction
from graphexec.ir.plan import (
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stats,
    Stream,
    Wait,
)
from graphexec.ir.program import Cost, Program, work_kind
from graphexec.planning.scheduled import Allocation, Synchronized

Places = Mapping[str, tuple[str, int]]


_BLAS = ("gemm", "gemm_batch")


def assemble(synchronized: Synchronized, allocation: Allocation, device: str) -> BoundPlan:
    """The plan of a synchronized and allocated program."""
    places = allocation.places
    program, schedule = synchronized.schedule.program, synchronized.schedule
    with_gemm = {
        s for c, s in zip(program.commands, schedule.stream, strict=True)
        if work_kind(c.work) in _BLAS
    }  # fmt: skip
    streams = tuple(Stream(s, s if s in with_gemm else None) for s in range(schedule.streams))
    ranges = _Ranges(places)
    instructions = tuple(
        [
            _launch(synchronized, step, ranges) if isinstance(step, int) else step
            for step in synchronized.steps
        ]
    )
    ends = {kept.end: name for name, kept in program.states.items()}
    tensors = tuple(
        _placed(name, view, places, name if name in program.states else "", ends.get(name, ""))
        for name, view in program.tensors.items()
    )
    prediction = schedule.prediction
    stats = Stats(
        streams=len(streams),
        waits=sum(isinstance(i, Wait) and i.role == "dependency" for i in instructions),
        cross_stream_edges=synchronized.cross_stream_edges,
        events=sum(isinstance(i, Record) for i in instructions),
        arena_bytes=allocation.arena_bytes,
        arena_lower_bound=allocation.lower_bound,
        naive_bytes=allocation.naive_bytes,
    )
    if prediction is not None:
        stats = replace(
            stats,
            predicted_ns=_int64(prediction.makespan * 1000),
            makespan_lower_bound_ns=_int64((prediction.start + prediction.bounds.best) * 1000),
            costs=prediction.costs,
            schedule=prediction.candidate,
        )
    plan = Plan(
        program.graph, device, dict(program.dims), streams, allocation.buffers, tensors,
        instructions, stats,
    )  # fmt: skip
    work = {
        number: program.commands[step].work
        for number, step in enumerate(synchronized.steps) if isinstance(step, int)
    }  # fmt: skip
    return BoundPlan(plan, work, {**_parts(program, places), **places}, _prediction(synchronized))


def _parts(program: Program, places: Places) -> dict[str, tuple[str, int]]:
    """Where the weights lie that are loaded to a part of a storage."""
    parts = {n: v for n, v in program.weights.items() if n not in places}
    return {name: _moved(places[v.storage], v.byte_range()[0]) for name, v in parts.items()}


def _moved(place: tuple[str, int], by: int) -> tuple[str, int]:
    return place[0], place[1] + by


def _prediction(synchronized: Synchronized) -> Prediction:
    prediction = synchronized.schedule.prediction
    if prediction is None:
        return Prediction()
    tasks, zero = prediction.tasks, prediction.start
    start, end = prediction.timeline.start, prediction.timeline.end
    steps = [(n, step) for n, step in enumerate(synchronized.steps) if isinstance(step, int)]
    spans = {n: (zero + start[step], zero + end[step]) for n, step in steps}
    return Prediction(spans, {n: tasks.launch + tasks.time[step] for n, step in steps})


def _launch(synchronized: Synchronized, index: int, ranges: _Ranges) -> Instruction:
    schedule = synchronized.schedule
    command, stream = schedule.program.commands[index], schedule.stream[index]
    kind = work_kind(command.work)
    return Launch(
        stream,
        command.node,
        command.label,
        ranges.of(command.reads),
        ranges.of(command.writes),
        stream if kind in _BLAS else None,
        command.after_nodes,
        command.nodes,
        kind,
        _counted(command.cost),
    )


def _counted(cost: Cost) -> Cost:
    """The cost, cut to int64 for plan files: sizes fit into int64, but their products may not."""
    if cost.flops <= INT64_MAX and cost.bytes <= INT64_MAX:
        return cost
    return Cost(_int64(cost.flops), _int64(cost.bytes))


def _int64(number: float) -> int:
    return min(round(number), INT64_MAX)


class _Ranges:
    """Byte ranges of views. Most views occur many times as the same object."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[int, Range] = {}

    def of(self, views: Sequence[View]) -> tuple[Range, ...]:
        """The ranges of `views`, which the program keeps alive, each once."""
        found = [self._known.get(id(view)) or self._range(view) for view in views]
        return tuple(found) if len(found) < 2 else tuple(dict.fromkeys(found))

    def _range(self, view: View) -> Range:
        buffer, offset = self._places[view.storage]
        low, high = view.byte_range()
        found = self._known[id(view)] = Range(buffer, offset + low, offset + high)
        return found


def _placed(name: str, view: View, places: Places, state: str, next: str) -> PlacedTensor:
    buffer, offset = places[view.storage]
    low, high = view.byte_range()
    return PlacedTensor(name, buffer, offset + low, high - low, view.shape, view.dtype, state,
                        next)  # fmt: skip
