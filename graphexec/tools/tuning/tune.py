"""tune: measure a graph on a device, and keep the times as a profile.

In this order, while the time lasts: the constants of the device; every distinct command by its
default, by descending total time; for each in turn its alternatives and its time beside equal
commands; then the best plans by these times, with inputs in host memory and in device memory. The
model estimates what was not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphexec.base.errors import ExecutionError
from graphexec.formats.arrays import read_inputs
from graphexec.graph.infer import infer
from graphexec.machine.costs import Measured, model_of
from graphexec.planning import batch, few_rows, fuse_few_rows
from graphexec.planning.options import Options, Streams, options_of
from graphexec.planning.pipeline import Compiled, alternative_plans
from graphexec.planning.profile import MeasuredSchedule, Profile, schedule_key
from graphexec.planning.profile_cache import check_keepable, keep, signature
from graphexec.planning.programs import check_graph, prepare, variants
from graphexec.planning.rewrite import changed_rewrites, chosen_rewrites
from graphexec.planning.scheduling import ONE_STREAM
from graphexec.runtime.executable import Executable
from graphexec.runtime.find import find_device
from graphexec.tools.tuning.commands import CommandTimes, Work, distinct
from graphexec.tools.tuning.constants import measure_constants
from graphexec.tools.tuning.measuring import time_in_turns

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.ir.program import Program
    from graphexec.runtime.device import Device, Session

Report = Callable[[str, int, int], None]
"""Called with the next measurement's name, the number done and the total."""

PLANS = 3
"""The plans that are measured from end to end, besides the one on one stream."""

_FOR_COMMANDS = 0.75  # of the time
_GAIN = 0.99  # of the time on one stream


class Budget:
    """Seconds that may be spent."""

    def __init__(self, seconds: float) -> None:
        self._start, self.seconds = time.monotonic(), seconds

    def left(self, part: float = 1.0) -> bool:
        """Whether less than this part of the seconds is spent."""
        return time.monotonic() - self._start < part * self.seconds


@dataclass(frozen=True)
class Tuned:
    """The measurements, the path of the profile (None if nothing was measured), the commands that
    could not be run, and whether the time was too short."""

    profile: Profile
    path: Path | None
    failed: tuple[str, ...] = ()
    complete: bool = True
    commands: int = 0


def tune(
    graph: Graph, device: str | Device = "auto", *, streams: Streams = 4, seconds: float = 60.0,
    report: Report | None = None, rewrite: Collection[str] = (), no_rewrite: Collection[str] = (),
) -> Tuned:  # fmt: skip
    """Measure the commands and plans of `graph` on `device` for about `seconds`, and keep that.

    The next `compile` for as many `streams` uses it. Nothing is kept unless something was
    measured. `report(what, done, total)` is called before each measurement. With `rewrite` and
    `no_rewrite`, as in Options, plans with these rewrites are measured, and used for those. Raises
    DeviceUnavailable for a device that does not measure, DataError, before anything is measured,
    if the profile could not be written, and what compiling the graph raises.
    """
    check_graph(graph)
    chosen = find_device(device) if isinstance(device, str) else device
    options = options_of(None, {"streams": streams, "rewrite": rewrite, "no_rewrite": no_rewrite})
    tuner = _Tuner(graph, chosen, options, Budget(seconds), report)
    machine = chosen.machine()
    check_keepable(tuner.typed, machine)  # before minutes are spent measuring
    tuner.measure()
    path = None
    if tuner.profile.commands:
        path = keep(tuner.typed, machine, tuner.profile)
    return Tuned(tuner.profile, path, tuple(tuner.failed), tuner.complete, len(tuner.works))


class _Tuner:
    def __init__(
        self, graph: Graph, device: Device, options: Options, budget: Budget,
        report: Report | None,
    ) -> None:  # fmt: skip
        self._graph, self._device, self._options = graph, device, options
        self._changed = changed_rewrites(chosen_rewrites(options.rewrite, options.no_rewrite))
        self._budget, self._report, self._done = budget, report, 0
        self.typed = infer(graph)
        machine = device.machine()
        self.profile = Profile(
            machine.architecture, {}, graph=graph.name, signature=signature(self.typed),
            versions=dict(machine.versions),
        )  # fmt: skip
        self.works = self._works(None)
        self.failed: list[str] = []
        self.complete = True

    def measure(self) -> None:
        """All measurements, while the time lasts."""
        if not self._begin("launches and waits"):
            return
        self.profile = replace(self.profile, constants=measure_constants(self._device))
        times = CommandTimes(self._device, self.profile.applied_to(model_of(self._device.name)))
        self._alone(self.works, times)
        for work in self.works:
            if work.key in self.profile.commands and self._begin(work.key, _FOR_COMMANDS):
                self._closer(work, times)
        # With these times other commands may be worth a batch.
        known = {work.key for work in self.works}
        more = [work for work in self._works(self.profile) if work.key not in known]
        self.works += more
        self._alone(more, times)
        for resident in (False, True):
            if self.profile.commands and self._begin(self._key(resident)):
                self._plans(resident)

    def _works(self, costs: Profile | None) -> list[Work]:
        """The commands of the plans that `costs` lead to; without costs, those of batches and
        their members, and products of few rows by the kernel alone and by the BLAS."""
        every = (batch, few_rows, fuse_few_rows) if costs is None else ()
        off = [(), *((module.REWRITE.name,) for module in every)]
        programs = [
            self._program(replace(self._without(names), resident=resident, costs=costs))
            for resident in (False, True)
            for names in off
        ]
        return distinct(programs, model_of(self._device.name))

    def _without(self, names: tuple[str, ...]) -> Options:
        """The options with further rewrites switched off."""
        on, off = self._options.rewrite, self._options.no_rewrite
        kept = tuple(name for name in on if name not in names)
        return replace(self._options, rewrite=kept, no_rewrite=(*off, *names))

    def _key(self, resident: bool) -> str:
        return schedule_key(self._options.streams, resident, self._changed)

    def _program(self, options: Options) -> Program:
        job = prepare(self._graph, self._device.name, options, self._device)
        return next(variants(job)).program

    def _alone(self, works: Sequence[Work], times: CommandTimes) -> None:
        for work in works:
            if self._begin(work.key, _FOR_COMMANDS):
                self._know(work, times.alone(work))

    def _closer(self, work: Work, times: CommandTimes) -> None:
        """The alternatives of a command, and its time beside equal commands."""
        for found in times.choices(work, self.profile.commands[work.key]):
            self._know(work, found)
            if not self._has_time(_FOR_COMMANDS):
                return
        if self._options.streams != 1:
            self._know(work, times.beside_others(work, self.profile.commands[work.key]))

    def _plans(self, resident: bool) -> None:
        """The best plans by prediction, run from end to end, taking turns."""
        found = alternative_plans(
            self._graph, PLANS, device=self._device.name, hardware=self._device,
            options=replace(self._options, resident=resident, costs=self.profile),
        )  # fmt: skip
        with ExitStack() as opened:
            loaded: dict[str, Session] = {}
            for compiled in found:
                exe = self._loaded(compiled, resident)
                if exe is not None and compiled.plan.stats is not None:
                    opened.enter_context(exe)
                    loaded[compiled.plan.stats.schedule] = exe.session
            times = time_in_turns(list(loaded.values()))
        tried = {name: round(time, 3) for name, time in zip(loaded, times, strict=True)}
        if tried:
            schedule = MeasuredSchedule(_fastest(tried), tried)
            key = self._key(resident)
            schedules = {**self.profile.schedules, key: schedule}
            self.profile = replace(self.profile, schedules=schedules)

    def _loaded(self, compiled: Compiled, resident: bool) -> Executable | None:
        """A loaded plan with its inputs uploaded; None if the device has too little memory."""
        try:
            exe = Executable(self._graph, lambda *_: compiled, self._device,
                             resident=resident)  # fmt: skip
            try:
                exe.run(**read_inputs((), exe.inputs, 0)[0])
            except BaseException:
                exe.close()
                raise
        except ExecutionError as exc:
            self._note(str(exc))
            return None
        return exe

    def _know(self, work: Work, found: Measured | None) -> None:
        if found is None:
            self._note(work.key)
            return
        self.profile = replace(
            self.profile, commands={**self.profile.commands, work.key: found}
        )  # fmt: skip

    def _note(self, what: str) -> None:
        self.complete = False
        self.failed.append(what)

    def _begin(self, what: str, part: float = 1.0) -> bool:
        """Whether there is time for the next measurement; reports its name."""
        if not self._has_time(part):
            return False
        if self._report is not None:
            self._report(what, self._done, 1 + 2 * len(self.works) + 2)
        self._done += 1
        return True

    def _has_time(self, part: float = 1.0) -> bool:
        left = self._budget.left(part)
        self.complete = self.complete and left
        return left


def _fastest(tried: Mapping[str, float]) -> str:
    """The plan to use: one on several streams must be clearly faster than that on one stream."""
    best = min(tried, key=lambda name: (tried[name], name))
    one = tried.get(ONE_STREAM)
    return ONE_STREAM if one is not None and tried[best] > _GAIN * one else best
