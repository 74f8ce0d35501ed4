"""The device's time of each launch and wait, measured by timing events.

A timing event is recorded on the stream directly before and after every launch and wait, so streams
stay concurrent. The events cost a few microseconds each, so measuring is done in separate runs. The
plan is issued unchanged, with only events added.

A graph runs faster than the host can issue its commands one by one. So if the plan can be replayed,
the measured run is issued behind replays that keep the device busy, and the device is measured, not
the host. The plan is proved for runs back to back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import ceil
from statistics import median
from typing import Any

from graphexec.base.interrupts import own
from graphexec.ir.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.runtime.device import Step
from graphexec.runtime.hip.bindings import Bindings, HipError
from graphexec.runtime.hip.replay import capture
from graphexec.runtime.run_log import LOGGER, completions
from graphexec.runtime.trace import RunTimes, Span

_LEAD = 2.0  # duration of the replays, as a multiple of the issue
_MOST_REPLAYS = 500
_BATCH_SECONDS = 2e-4  # duration of a batch of one command, about ...
_BATCH = 100  # ... and its most repetitions


class TimedRun:
    """The steps of a plan with timing events around them. `close` frees the events."""

    def __init__(
        self, hip: Bindings, plan: Plan, steps: Sequence[Step], streams: Sequence[Any],
        kinds: tuple[type, ...] = (Launch, Wait),
    ) -> None:  # fmt: skip
        """`steps` has one step for each of the plan's instructions; those of `kinds` are timed."""
        self._hip, self._plan, self._events = hip, plan, ExitStack()
        self._origin = streams[0]
        with ExitStack() as made:  # frees the events if one cannot be made
            made.callback(self.close)
            self._prepare(steps, streams, kinds)
            made.pop_all()

    def _prepare(
        self, steps: Sequence[Step], streams: Sequence[Any], kinds: tuple[type, ...]
    ) -> None:
        hip, plan = self._hip, self._plan
        self._begin, self._end = self._event(), self._event()
        self._around: dict[int, tuple[Any, Any]] = {}
        self._steps: list[Step] = [hip.prepare_record(self._begin, self._origin)]
        for number, (instruction, step) in enumerate(zip(plan.instructions, steps, strict=True)):
            if isinstance(instruction, HostWait) or not isinstance(instruction, kinds):
                self._steps.append(step)
                continue
            before, after = self._around[number] = self._event(), self._event()
            stream = streams[instruction.stream]
            self._steps += [hip.prepare_record(before, stream), step,
                            hip.prepare_record(after, stream)]  # fmt: skip

    def issue(self) -> float:
        """Issue the run; returns the seconds of the host."""
        start = time.perf_counter()
        for step in self._steps:
            step()
        return time.perf_counter() - start

    def issue_behind(self, replay: Step, seconds: float) -> None:
        """Issue the run behind replays that take longer than the `seconds` of issuing it."""
        hip = self._hip
        hip.prepare_record(self._begin, self._origin)()
        replay()
        hip.prepare_record(self._end, self._origin)()
        hip.synchronize_event(self._end)
        once = max(hip.elapsed(self._begin, self._end) / 1e3, 1e-6)
        for _ in range(min(ceil(_LEAD * seconds / once), _MOST_REPLAYS)):
            replay()
        self.issue()

    def times(self) -> RunTimes:
        """Start and end of each launch and wait of the last issue, which must be done."""
        found: dict[type, list[Span]] = {Launch: [], Wait: []}
        for span in self.done():
            found[type(self._plan.instructions[span.instruction])].append(span)
        return RunTimes(tuple(found[Launch]), tuple(found[Wait]))

    def done(self) -> list[Span]:
        """The completed instructions of the last issue, in issue order."""
        hip, found = self._hip, []
        for number, (before, after) in self._around.items():
            if hip.event_is_done(self._begin) and hip.event_is_done(after):
                # Another stream may have reached its first event before the run began.
                start = max(1e3 * hip.elapsed(self._begin, before), 0.0)
                found.append(Span(number, start, max(1e3 * hip.elapsed(self._begin, after), start)))
        return found

    def close(self) -> None:
        """Free the events."""
        self._events.close()

    def _event(self) -> Any:
        create = partial(self._hip.create_event, timing=True)
        return own(self._events, create, self._hip.destroy_event)


class LoggedRun(TimedRun):
    """A run that is always issued with events, to log completions with their times."""

    def __init__(
        self, hip: Bindings, plan: Plan, steps: Sequence[Step], streams: Sequence[Any]
    ) -> None:
        LOGGER.debug("runs are issued call by call, to log each instruction")
        super().__init__(hip, plan, steps, streams, (Launch, Record, Wait))

    def log(self) -> None:
        """Log the completed instructions of the last issue, in the order of their ends."""
        recorder = completions(self._plan)
        for span in sorted(self.done(), key=lambda span: span.end):
            if recorder is not None:
                recorder(span.instruction, span.start / 1e6, span.end / 1e6)


def time_step(
    hip: Bindings, step: Step, stream: Any, wait: Callable[[], object], repeats: int = 20
) -> float:
    """Seconds of device time that `step`, which issues to `stream` alone, takes by itself.

    The median of `repeats` batches, each of so many of them back to back that it lasts 0.2 ms
    (at most 100), launched as one graph where the step can be captured. So caches are warm, and
    what a graph spends between two commands, about a microsecond, is included. `wait` waits for
    the stream. Raises HipError.
    """
    with ExitStack() as owned:
        create = partial(hip.create_event, timing=True)
        start, stop = (own(owned, create, hip.destroy_event) for _ in range(2))
        begin, end = hip.prepare_record(start, stream), hip.prepare_record(stop, stream)

        def once(work: Sequence[Step]) -> float:
            begin()
            for part in work:
                part()
            end()
            wait()
            return hip.elapsed(start, stop) / 1e3

        once([step])  # lazy loading happens here
        count = max(1, min(ceil(_BATCH_SECONDS / max(once([step]), 1e-9)), _BATCH))
        batch = [step] * count
        try:
            batch = [capture(hip, batch, stream, owned)]
        except HipError:
            wait()
        once(batch)
        return median(once(batch) for _ in range(repeats)) / count
