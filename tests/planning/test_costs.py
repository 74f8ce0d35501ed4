from __future__ import annotations

import pytest
import shapes

from graphexec.base.errors import GraphError
from graphexec.machine import costs
from graphexec.planning import profile
from graphexec.planning.schedule import schedule

GOOD = (
    '{"profile_version": 1, "device": "gfx942", "commands": {"kernel none: f16[2] -> f16[2]": 7.5}}'
)


def test_a_command_that_fills_the_device_takes_its_work():
    net = shapes.Net()
    net.node(net.input(), mflop=20_000)
    command = net.commands[1]
    assert costs.GPU.alone(command) == (100.0, 1.0)


def test_a_small_command_takes_a_wave_and_fills_a_part():
    net = shapes.Net()
    net.node(net.input(1024), mflop=100, nbytes=1024)
    time, share = costs.GPU.alone(net.commands[1])
    assert time == costs.GPU.wave
    assert share == pytest.approx(0.5 / 2.5)


def test_transfers_have_their_own_engines():
    program = shapes.inception()
    tasks = costs.tasks_of(program, costs.GPU)
    assert tasks.engine[0] == 1
    assert tasks.engine[-1] == 2
    assert set(tasks.engine[1:-1]) == {0}


def test_a_profile_replaces_the_time_it_has():
    net = shapes.Net()
    net.node(net.input(), mflop=20_000)
    program = net.program()
    command = program.commands[1]
    measured = profile.Profile("x", {costs.signature(command): costs.Measured(250.0)})
    model = measured.applied_to(costs.GPU, "p.json")
    assert model.alone(command) == (250.0, pytest.approx(0.4))
    assert model.alone(program.commands[0]) == costs.GPU.alone(program.commands[0])
    assert schedule(program, 2, model).prediction.costs == "p.json"


def test_profiles_are_written_and_read_back():
    found = profile.loads(GOOD)
    assert found.commands == {"kernel none: f16[2] -> f16[2]": costs.Measured(7.5)}
    assert profile.loads(found.to_json()) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is not JSON"),
        ("[]", "expected an object, found a list of 0"),
        ("{}", "the key 'profile_version' is missing"),
        ('{"profile_version": 2, "commands": {}}', "profile_version: this program reads version 1"),
        ('{"profile_version": 1, "commands": {"a": -1}}', "commands.a: a time cannot be negative"),
        ('{"profile_version": 1, "commands": {"a": "1"}}',
         "commands.a: expected a number of microseconds, found \"1\""),
        ('{"profile_version": 1, "commands": {"a": true}}', "commands.a: expected a number"),
        ('{"profile_version": 1, "commands": {"a": NaN}}', "commands.a: expected a number"),
        ('{"profile_version": 1, "commands": {"a": 1e999}}', "commands.a: expected a number"),
        ('{"profile_version": 1, "commands": {"a": 1e308}}', "a time is at most 1e+12 micros"),
        ('{"profile_version": 1, "commands": {"a": 1000000000001}}', "a time is at most 1e+12"),
        ('{"profile_version": 1, "commands": {"a": 1' + "0" * 400 + "}}", "expected a number"),
        ('{"profile_version": 1, "commands": {"a": 1' + "0" * 9000 + "}}", "expected a number"),
        ('{"profile_version": 1, "constants": {"fork": 1e300}, "commands": {}}', "at most 1e+12"),
        ('{"profile_version": 1, "commands": {"a": 1, "a": 2}}', "written twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_profile_is_said(text, message):
    with pytest.raises(GraphError) as caught:
        profile.loads(text, "p.json")
    assert message in str(caught.value)
    assert "p.json" in str(caught.value)


def test_files(tmp_path):
    with pytest.raises(GraphError, match="cannot read the profile"):
        profile.load(tmp_path / "none.json")
    path = tmp_path / "p.json"
    path.write_bytes(b"\xff")
    with pytest.raises(GraphError, match="not UTF-8"):
        profile.load(path)
    path.write_text(GOOD)
    assert profile.load(path).device == "gfx942"
