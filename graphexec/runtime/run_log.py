"""A line of log for every instruction when it is issued and completed: GRAPHEXEC_LOG=debug.

The logger is `graphexec.run`. On the CPU, lines follow happens-before, and all are written before
the host may read the outputs. A GPU then issues plans call by call, with timing events around each
instruction. Its completions are logged when a run is done, or given up, in the order of their ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from graphexec.ir.plan import HostWait, Instruction, Launch, Plan, Record

LOGGER = logging.getLogger("graphexec.run")


def described(number: int, i: Instruction) -> str:
    """An instruction in a line: its number, its stream, its kind."""
    if isinstance(i, HostWait):
        return f"#{number} host wait e{i.event}"
    if isinstance(i, Launch):
        return f"#{number} s{i.stream} launch {i.title} ({i.command})"
    if isinstance(i, Record):
        return f"#{number} s{i.stream} record e{i.event}"
    return f"#{number} s{i.stream} wait e{i.event} ({i.role})"


def logged_steps(
    plan: Plan, steps: Iterable[Callable[[], object]]
) -> list[Callable[[], object]]:  # fmt: skip
    """Steps of the instructions of `plan` that log when they are issued."""
    return [
        _logged(described(number, i), step)
        for number, (i, step) in enumerate(zip(plan.instructions, steps, strict=True))
    ]


def _logged(text: str, step: Callable[[], object]) -> Callable[[], object]:
    def logged() -> object:
        _log("issued    %s", text)
        return step()

    return logged


def completions(plan: Plan) -> Callable[[int, float, float], None] | None:
    """A recorder that logs completions; None if the log is off."""
    if not LOGGER.isEnabledFor(logging.DEBUG):
        return None

    def recorder(number: int, start: float, end: float) -> None:
        text = described(number, plan.instructions[number])
        _log("completed %s after %.0f µs", text, 1e6 * (end - start))

    return recorder


_turn = threading.Lock()


def _log(message: str, *values: object) -> None:
    """Log a line. A line gets its time before it is written. One lock covers both, so that lines
    are in the order of their times."""
    with _turn:
        LOGGER.debug(message, *values)
