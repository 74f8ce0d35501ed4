"""Measure commands: their time alone, their fastest alternative, and the share of the device they
fill beside equal commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from graphexec.base.errors import ExecutionError
from graphexec.base.tensor import Array, DType
from graphexec.ir.program import Command, Gemm, Program
from graphexec.machine.costs import CostModel, Measured, engine_of, signature
from graphexec.machine.simulate import COMPUTE
from graphexec.machine.variants import variants, with_variant
from graphexec.runtime.device import Device
from graphexec.tools.judge import TOLERANCE
from graphexec.tools.tuning.measuring import Loaded
from graphexec.tools.tuning.probes import Probe, repeated

ALGORITHMS = 8
"""The most algorithms of hipBLASLt that are tried for a GEMM."""

_CHAIN = 200.0  # µs that a chain of copies of a command should take at least, and ...
_STARTS = 10.0  # ... this many times the launch of a plan
_FEWEST, _MOST = 4, 50  # copies
_BESIDE = 8  # streams on which copies run side by side
_SHORT = 200.0  # µs; for longer commands the share is the model's
_GAIN = 0.98  # of the default's time; an alternative must take less
_ALIKE = 2.0  # tolerances between two results: each may be one tolerance from exact


@dataclass(frozen=True)
class Work:
    """A command that represents all of its signature, its program, and the time of all of them."""

    key: str
    command: Command
    program: Program
    microseconds: float

    @property
    def dtype(self) -> DType:
        """The type that inputs are filled with."""
        return (*self.command.reads, *self.command.writes)[0].dtype


def distinct(programs: list[Program], model: CostModel) -> list[Work]:
    """The commands of some programs, one of each signature, by descending total time."""
    found: dict[str, Work] = {}
    for program in programs:
        for command in program.commands:
            key, time = signature(command), model.microseconds(command)
            known = found.get(key)
            if known is None:
                found[key] = Work(key, command, program, time)
            else:
                found[key] = replace(known, microseconds=known.microseconds + time)
    return sorted(found.values(), key=lambda work: -work.microseconds)


class CommandTimes:
    """Measures commands on a device whose constants are known."""

    def __init__(self, device: Device, model: CostModel) -> None:
        self._device, self._model = device, model

    def alone(self, work: Work) -> Measured | None:
        """The command by its default; None if it cannot be run."""
        time = self._time(self._chain(work), work, self._device)
        return None if time is None else Measured(round(time, 3))

    def choices(self, work: Work, measured: Measured) -> Iterator[Measured]:
        """The measurements after each alternative of the command.

        An alternative counts if its results have the same bits each time and agree with those of
        the default.
        """
        tried = {"0": measured.us}
        expected: Array | None = None
        for choice in range(1, self._count(work) + 1):
            way, device = self._way(work, choice)
            if expected is None:
                expected = self._result(work, self._device)
            found = self._result(way, device)
            if found is not None and expected is not None and _agree(found, expected, work.dtype):
                time = self._time(self._chain(way), way, device)
                if time is not None:
                    tried[str(choice)] = round(time, 3)
            yield _chosen(measured, tried)

    def beside_others(self, work: Work, measured: Measured) -> Measured:
        """With the share of the device that each of several concurrent copies fills."""
        if engine_of(work.command) != COMPUTE or not 0 < measured.us <= _SHORT:
            return measured
        way, device = self._way(work, measured.choice)
        copies = max(_FEWEST, self._copies(measured.us) // 4)
        probe = repeated(way.command, way.program, copies, _BESIDE)
        time = self._time(probe, way, device)
        if time is None:
            return measured
        # While the device is busy, launches are hidden behind other work.
        time += min(self._model.launch, max(0.0, time - measured.us))
        share = min(1.0, max(1 / _BESIDE, time / (_BESIDE * measured.us)))
        return replace(measured, share=round(share, 3))

    def _count(self, work: Work) -> int:
        """The number of alternatives of a command."""
        if isinstance(work.command.work, Gemm):
            return self._device.count_algorithms(work.command.work, ALGORITHMS)
        return len(variants(work.command)) if self._device.name == "hip" else 0

    def _way(self, work: Work, choice: int) -> tuple[Work, Device]:
        """The command and the device of an alternative, by its number."""
        if choice and isinstance(work.command.work, Gemm):
            return work, self._device.tuned({work.key: choice - 1})
        return replace(work, command=with_variant(work.command, choice)), self._device

    def _chain(self, work: Work) -> Probe:
        estimate = self._model.alone(work.command)[0]
        return repeated(work.command, work.program, self._copies(estimate))

    def _copies(self, estimate: float) -> int:
        chain = max(_CHAIN, _STARTS * self._model.start)
        return min(_MOST, max(_FEWEST, ceil(chain / max(estimate, 1.0))))

    def _time(self, probe: Probe, work: Work, device: Device) -> float | None:
        """Microseconds of one round of a probe, without the launch."""
        try:
            with Loaded(probe, device, work.dtype) as loaded:
                whole = loaded.time()
        except ExecutionError:
            return None
        model = self._model
        begin = model.start + sum(map(model.microseconds, probe.before))
        others = max(probe.stream)
        waits = 2 * model.wait + others * model.fork if others else 0.0
        return max((whole - begin - waits) / probe.rounds - model.launch, 0.01)

    def _result(self, work: Work, device: Device) -> Array | None:
        """The result of the command, if it has the same bits each time."""
        probe = repeated(work.command, work.program, 1)
        target = probe.program.commands[-1].writes[-1]
        try:
            with Loaded(probe, device, work.dtype) as loaded:
                first, second = loaded.result(target), loaded.result(target)
        except ExecutionError:
            return None
        same = np.array_equal(first, second)
        return first.view(target.dtype.numpy()).astype(np.float64) if same else None


def _agree(one: Array, other: Array, dtype: DType) -> bool:
    apart = np.linalg.norm(one - other)
    return bool(apart <= _ALIKE * TOLERANCE[dtype] * np.linalg.norm(other))


def _chosen(measured: Measured, tried: Mapping[str, float]) -> Measured:
    """The fastest alternative; the default unless another is clearly faster."""
    best = min(tried, key=lambda choice: (tried[choice], int(choice)))
    if tried[best] > _GAIN * tried["0"]:
        best = "0"
    return replace(measured, us=tried[best], choice=int(best), tried=dict(tried))
