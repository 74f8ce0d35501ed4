"""Commands interrupted at random moments. A longer run is benchmarks/interrupts.py."""

from __future__ import annotations

import interrupts


def test_nothing_is_left_behind() -> None:
    times = {command: interrupts.usual(command) for command in ("run", "plan", "map in C")}
    todo = [t for t in interrupts.trials(60, 5) if t.command in times]
    told = [interrupts.fault(trial, times[trial.command]) for trial in todo]
    assert len(todo) >= 12
    assert [text for text in told if text] == []
