"""Times of launches and waits on the HIP device: events around what is issued anyway."""

from __future__ import annotations

import json
import logging
import re
from contextlib import closing

import pytest
from hip_lab import GRAPHS, MODES, Lab, assert_right, bits, calls, inputs_of, session_of

from graphexec.base.errors import TimedOut
from graphexec.ir.plan import HostWait, Launch, Wait
from graphexec.runtime.hip.device import Mode
from graphexec.runtime.hip.timing import TimedRun
from graphexec.runtime.run_log import described
from graphexec.runtime.trace import RunTimes
from graphexec.tools.bench import bench
from graphexec.tools.measure import measure
from graphexec.views.chrome import from_json, to_json


def assert_in_order(plan, times: RunTimes) -> None:
    """If A happens before B, A ends before B begins."""
    spans = {s.instruction: s for s in (*times.launches, *times.waits)}
    assert list(spans) == [
        *(n for n, i in enumerate(plan.instructions) if isinstance(i, Launch)),
        *(n for n, i in enumerate(plan.instructions) if isinstance(i, Wait)),
    ]
    last: dict[int, float] = {}
    recorded: dict[int, float] = {}
    for number, i in enumerate(plan.instructions):
        if isinstance(i, HostWait):
            continue
        if number not in spans:
            recorded[i.event] = last.get(i.stream, 0.0)
            continue
        span = spans[number]
        assert span.start <= span.end
        # The clock counts in steps: a microsecond is left for rounding.
        assert last.get(i.stream, 0.0) <= span.start + 1
        if isinstance(i, Wait):
            assert recorded[i.event] <= span.end + 1
        last[i.stream] = span.end


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GRAPHS)
def test_times_keep_the_order_of_the_plan(lab: Lab, name: str, mode: Mode) -> None:
    with lab.nothing_left(), lab.compile(name, mode, 3) as exe:
        inputs = inputs_of(exe)
        plain = exe.run(**inputs)
        for seed in range(3):
            lab.seed(seed)
            times = session_of(exe).timed()
            assert_in_order(exe.plan, times)
            assert sum(s.end - s.start for s in times.launches) > 0
        outputs = exe.outputs_of(exe.session)
        assert bits(outputs) == bits(plain)
        assert_right(exe, inputs, exe.run(**inputs))


def test_a_measured_run_is_the_plan_with_events_around(emulated: Lab) -> None:
    """On the plan's streams and nowhere else; nothing waits in between."""
    with emulated.compile("multi_head_attention", "stream", 3) as exe:
        exe.run(**inputs_of(exe))
        session, emulator = session_of(exe), emulated.emulator
        before = emulated.live()
        emulator.trace()
        session.issue()
        plan = calls(emulator)
        session.wait()
        calls(emulator)
        streams = session._resources.streams
        with closing(TimedRun(session._hip, exe.plan, session._prepared, streams)) as run:
            made = {c.arguments[0] for c in calls(emulator)}
            run.issue()
            issued = calls(emulator)
            session._resources.drain()
        assert emulated.live() == before
    assert [c for c in issued if c.arguments[0] not in made] == plan
    for number, call in enumerate(issued):
        if call.name == "hipEventRecord":
            continue
        around = issued[number - 1], issued[number + 1]
        assert {c.name for c in around} == {"hipEventRecord"}
        assert {c.arguments[0] for c in around} <= made
        assert len({c.arguments[1] for c in around}) == 1
        if not call.name.startswith("hipblas"):
            assert around[0].arguments[1] in call.arguments, "on the stream of the command"


def test_replays_run_ahead_of_the_measured_run(emulated: Lab) -> None:
    with emulated.compile("diamond", "graph") as exe:
        exe.run(**inputs_of(exe))
        emulated.emulator.trace()
        session_of(exe).timed()
        names = [c.name for c in calls(emulated.emulator)]
    assert names.count("hipGraphLaunch") >= 2


def test_a_run_is_timed_behind_another(emulated: Lab) -> None:
    """The time must not depend on the speed of the host's launches."""
    with emulated.compile("diamond", "graph") as exe:
        exe.run(**inputs_of(exe))
        emulated.emulator.trace()
        session_of(exe).time_run()
        names = [c.name for c in calls(emulated.emulator)]
    issued = [name for name in names if name in ("hipGraphLaunch", "hipEventRecord")]
    assert issued == ["hipGraphLaunch", "hipEventRecord", "hipGraphLaunch", "hipEventRecord"]


@pytest.mark.parametrize("mode", MODES)
def test_the_time_of_one_command(lab: Lab, mode: Mode) -> None:
    with lab.nothing_left(), lab.compile("diamond", mode) as exe:
        inputs = inputs_of(exe)
        before = bits(exe.run(**inputs))
        for number, i in enumerate(exe.plan.instructions):
            if isinstance(i, Launch):
                assert 0 < session_of(exe).time_command(number, repeats=2) < 1
        assert bits(exe.run(**inputs)) == before


def test_a_trace_of_the_device(lab: Lab) -> None:
    with lab.compile("diamond") as exe:
        outputs, trace = measure(exe, inputs_of(exe))
        assert_right(exe, inputs_of(exe), outputs)
        document = json.loads(to_json(exe.plan, trace))
        note = document["otherData"]["note"]
        assert "by timing events, issued call by call, behind replays of the graph" in note
        assert document["otherData"]["uninstrumented_us"] > 0
        host = [e["name"] for e in document["traceEvents"] if e.get("cat") == "host"]
        assert host == ["issue, in a run that is not measured",
                        "wait, in a run that is not measured"]  # fmt: skip
        assert from_json(to_json(exe.plan, trace), exe.plan).spans


def test_details_of_many_runs(lab: Lab) -> None:
    with lab.compile("diamond", streams=3) as exe:
        result = bench(exe, None, inputs_of(exe), 3, 1, detailed=True)
        launches = [i.node for i in exe.plan.instructions if isinstance(i, Launch)]
    assert [c.node for c in result.commands] == launches
    assert set(result.waiting or {}) == {s.id for s in exe.plan.streams}


# The log --------------------------------------------------------------------------------


def logged(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    found = (re.fullmatch(rf"{what} +(#.*?)( after \d+ µs)?", m) for m in caplog.messages)
    return [match[1] for match in found if match]


@pytest.mark.parametrize("mode", MODES)
def test_the_log_has_every_instruction_twice(
    lab: Lab, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "graphexec.run")
    with lab.nothing_left(), lab.compile("diamond", mode, 3) as exe:
        inputs = inputs_of(exe)
        caplog.clear()
        assert_right(exe, inputs, exe.run(**inputs))
        lines = [described(n, i) for n, i in enumerate(exe.plan.instructions)]
        on_device = [line for line in lines if "host wait" not in line]
        assert logged(caplog, "issued")[: len(on_device)] == on_device
        assert sorted(logged(caplog, "completed")) == sorted(on_device)


def test_a_run_that_hangs_leaves_in_the_log_how_far_it_came(
    emulated: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """One of two streams hangs; the log has what is done on the other one."""
    caplog.set_level(logging.DEBUG, "graphexec.run")
    with emulated.compile("diamond", "stream", 2, timeout=0.2) as exe:
        inputs = inputs_of(exe)
        exe.run(**inputs)
        caplog.clear()
        number = int(session_of(exe)._resources.streams[1]) & 0xFFFF
        with emulated.emulator.hang(number), pytest.raises(TimedOut):
            exe.run(**inputs)
        done = logged(caplog, "completed")
    assert done
    assert all(re.match(r"#\d+ s0 ", line) for line in done)
