"""A plan bound to the work of its launches, and what the planner expects of it.

A Plan is portable data: any program can write one, and the proof needs no more. A BoundPlan adds
what a file cannot hold: the work of each launch refers to code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphexec.ir.plan import Plan
from graphexec.ir.program import Work


@dataclass(frozen=True)
class Prediction:
    """When the planner expects each launch to run, by the number of its instruction.

    `spans` are start and end in a run, `alone` the time of the launch by itself, all in
    microseconds.
    """

    spans: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    alone: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BoundPlan:
    """A plan with what a device needs to load and run it.

    `work` is what each launch executes, by the number of its instruction. `places` maps every
    storage that the work's views refer to, and every weight, to its buffer and offset in bytes.
    """

    plan: Plan
    work: Mapping[int, Work]
    places: Mapping[str, tuple[str, int]]
    prediction: Prediction = Prediction()
