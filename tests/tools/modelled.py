"""A device whose runs take the time of a cost model, so that measurements are predictable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import graphexec as gx
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Launch, Record, Wait
from graphexec.ir.program import Gemm, Kernel, Work
from graphexec.machine.simulate import COMPUTE, Tasks, simulate, successors_of

START, LAUNCH, WAIT, FORK = 6.5, 0.75, 1.25, 0.5

Truth = Callable[[Work], tuple[float, float]]
"""Microseconds of a command alone, and its share of the device."""


@dataclass(frozen=True)
class ModelledDevice(gx.CpuDevice):
    """The CPU with a clock of its own: each run takes what `truth` makes of its commands."""

    truth: Truth = lambda work: (2.0, 0.5)

    def open(
        self, bound: BoundPlan, weights: Mapping[str, Any], sibling: Any = None, states: Any = None
    ) -> Any:
        session = super().open(bound, weights, sibling, states)
        microseconds = run_of(bound, self.truth)
        session.time_run = lambda: microseconds / 1e6  # type: ignore[method-assign]
        return session


def run_of(bound: BoundPlan, truth: Truth) -> float:
    """Microseconds of a run, by the simulator, which knows no more than the instructions."""
    launches: list[Launch] = []
    needs: list[tuple[int, ...]] = []
    last: dict[int, int] = {}  # launch on each stream
    marked: dict[int, int] = {}  # launch that an event comes after
    awaited: dict[int, set[int]] = {}
    for instruction in bound.plan.instructions:
        match instruction:
            case Launch(stream=stream):
                before = awaited.pop(stream, set()) | ({last[stream]} if stream in last else set())
                needs.append(tuple(sorted(before)))
                last[stream] = len(launches)
                launches.append(instruction)
            case Record(stream=stream, event=event) if stream in last:
                marked[event] = last[stream]
            case Wait(stream=stream, event=event) if event in marked:
                awaited.setdefault(stream, set()).add(marked[event])
    true = [_true(work, truth) for _, work in sorted(bound.work.items())]
    tasks = Tasks(
        [time for time, _ in true], [share for _, share in true], [COMPUTE] * len(true), LAUNCH,
        WAIT, tuple(needs), successors_of(needs), FORK,
    )  # fmt: skip
    streams = [i.stream for i in launches]
    return START + simulate(tasks, range(len(launches)), streams).makespan


def _true(work: Work, truth: Truth) -> tuple[float, float]:
    if isinstance(work, Kernel) and work.entry == "empty":
        return 0.0, 1 / 256
    return truth(work)


def small_gemms(work: Work) -> tuple[float, float]:
    """A GEMM fills 40 % of the device, everything else all of it."""
    return (3.0, 0.4) if isinstance(work, Gemm) else (1.5, 1.0)
