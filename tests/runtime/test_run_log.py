"""The log of runs on the CPU: a line for everything that is done, in an order it can have."""

from __future__ import annotations

import logging
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import graphs, stream_counts
from test_cpu import hooked, ones, two_branches

import graphexec as gx
from graphexec.ir.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.ir.program import Parallel
from graphexec.machine.costs import GPU
from graphexec.runtime.executable import Executable

DIAMOND = Path(__file__).parents[2] / "graphs" / "diamond.yaml"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "graphexec.run")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """What each line says: "issued" or "completed", and the number of the instruction."""
    found = [re.match(r"(issued|completed) +#(\d+) ", message) for message in log.messages]
    assert all(found)
    return [(match[1], int(match[2])) for match in found]


def run_logged(exe: Executable, log: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    inputs = {n: np.ones(t.shape, t.dtype.numpy()) for n, t in exe.inputs.items()}
    log.clear()
    exe.run(**inputs)
    return lines(log)


def needs(plan: Plan) -> dict[int, list[int]]:
    """What must be completed before each instruction is: the one before it on its stream, and the
    record that a wait is for."""
    last: dict[int, int] = {}
    recorded: dict[int, int] = {}
    found: dict[int, list[int]] = {}
    for number, i in enumerate(plan.instructions):
        if isinstance(i, HostWait):
            continue
        found[number] = [last[i.stream]] if i.stream in last else []
        last[i.stream] = number
        if isinstance(i, Record):
            recorded[i.event] = number
        elif isinstance(i, Wait):
            found[number].append(recorded[i.event])
    return found


def assert_ordered(plan: Plan, said: list[tuple[str, int]]) -> None:
    at = {line: place for place, line in enumerate(said)}
    assert len(at) == len(said)
    before = needs(plan)
    assert {n for what, n in said if what == "issued"} == set(range(len(plan.instructions)))
    assert {n for what, n in said if what == "completed"} == set(before), "all when the run is done"
    for number, needed in before.items():
        assert at["issued", number] < at["completed", number]
        for other in needed:
            assert at["completed", other] < at["completed", number], (other, number)


def test_lines_are_in_the_order_of_what_happens(log: pytest.LogCaptureFixture) -> None:
    """Also in the order of their times. Without care, a run in three is not."""
    with gx.compile(gx.load(DIAMOND), device="cpu", streams=3, costs=GPU) as exe:
        assert len(exe.plan.streams) == 3
        for _ in range(40):
            assert_ordered(exe.plan, run_logged(exe, log))
            assert all(a.created <= b.created for a, b in pairwise(log.records))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(graph=graphs(), streams=stream_counts())
def test_lines_of_any_plan_are(
    log: pytest.LogCaptureFixture, graph: gx.Graph, streams: int
) -> None:
    with gx.compile(graph, device=gx.CpuDevice(delays=1), streams=streams, costs=GPU) as exe:
        assert_ordered(exe.plan, run_logged(exe, log))


def test_what_fails_or_is_left_out_is_not_completed(log: pytest.LogCaptureFixture) -> None:
    def before(node: str, parallel: Parallel) -> None:
        if node == "quick":
            raise ArithmeticError

    with gx.compile(two_branches(hooked(before)), device="cpu", streams=1) as exe:
        log.clear()
        with pytest.raises(gx.ExecutionError):
            exe.run(x=ones())
        steps = exe.plan.instructions
        done = [n for what, n in lines(log) if what == "completed"]
        launches = [getattr(steps[n], "node", "") for n in done]
    assert not {"quick", "join", "y"} & set(launches)
    assert "x.h2d" in launches


def test_a_measured_run_is_told_once(log: pytest.LogCaptureFixture) -> None:
    """Measuring replaces the listener of the log."""
    with gx.compile(gx.load(DIAMOND), device="cpu", streams=3, costs=GPU) as exe:
        run_logged(exe, log)
        times = exe.session.timed()
        steps = exe.plan.instructions
        assert [steps[s.instruction].node for s in times.launches] == [
            i.node for i in steps if isinstance(i, Launch)
        ]
        assert_ordered(exe.plan, run_logged(exe, log))
