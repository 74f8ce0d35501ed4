"""-v, -q, GRAPHEXEC_LOG, NO_COLOR and completion: what is said besides the results."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphexec.cli.app import app

PROGRAM = str(Path(sys.executable).with_name("graphexec"))
CPU = ("--device", "cpu")
DIAMOND = Path(__file__).parents[2] / "graphs" / "diamond.yaml"


def placed(option, place, command, *args):
    """The arguments with an option before the command, after it, or at the end."""
    return {
        "before": (option, command, *args),
        "after": (command, option, *args),
        "last": (command, *args, option),
    }[place]


anywhere = pytest.mark.parametrize("place", ["before", "after", "last"])


@anywhere
@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_verbose_logs_each_step_with_its_time(invoke, graph, option, place):
    done = invoke(*placed(option, place, "run", graph(), *CPU))
    assert done.exit_code == 0
    steps = re.findall(r"^ *[\d.]+ ms  (\w+)", done.stderr, re.MULTILINE)
    assert steps == ["loading", "planning", "reading", "running"]


@anywhere
@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_says_nothing_but_results(invoke, graph, option, place):
    done = invoke(*placed(option, place, "run", graph(), *CPU))
    assert done.exit_code == 0
    assert done.stderr == ""
    assert "out" in done.stdout


def test_quiet_does_not_hide_errors(invoke, graph):
    done = invoke("-q", "run", graph(("op: gemm", "op: gem")), *CPU)
    assert done.exit_code == 2
    assert "gemm" in done.stderr


@pytest.mark.parametrize(("before", "after"), [("-v -q", ""), ("-q", "-v"), ("", "-v -q")])
def test_verbose_and_quiet_contradict(invoke, graph, before, after):
    done = invoke(*before.split(), "run", graph(), *after.split())
    assert done.exit_code == 2
    assert "-v and -q contradict one another" in done.stderr


@anywhere
def test_debug_shows_tracebacks_and_all_warnings(invoke, graph, slow_ops, place):
    done = invoke(*placed("--debug", place, "run", graph(("op: gemm", "op: gem")), *CPU))
    assert "Traceback (most recent call last)" in done.stderr
    op = slow_ops / "__init__.py"
    op.write_text(f"import warnings\nwarnings.warn('old', DeprecationWarning)\n{op.read_text()}")
    arguments = ("run", graph(), *CPU, "--ops", slow_ops)
    assert (
        f"{op}:2: DeprecationWarning: old" in invoke(*placed("--debug", place, *arguments)).stderr
    )
    assert "old" not in invoke(*arguments).stderr


def test_every_command_takes_them():
    for command in app.commands.values():
        assert {"-v", "-q", "--debug"} <= {o for p in command.params for o in p.opts}


def test_the_log_has_every_instruction_twice(program, tmp_path):
    waits = {"profile_version": 1, "commands": {}, "constants": {"wait": 1.5, "fork": 0.0}}
    (tmp_path / "costs.json").write_text(json.dumps(waits))  # by which streams pay
    env = {**os.environ, "GRAPHEXEC_LOG": "debug"}
    done = program("run", DIAMOND, *CPU, "--costs", tmp_path / "costs.json", env=env)
    assert done.returncode == 0
    issued = re.findall(r"issued    (#\d+ .*)", done.stderr)
    completed = re.findall(r"completed (#\d+ .*) after \d+ µs", done.stderr)
    assert len(issued) == len(set(issued)) > 8
    assert {i for i in issued if "host" not in i} >= set(completed)
    assert any("launch left (gemm)" in line for line in completed)
    assert any(re.fullmatch(r"#\d+ s\d wait e\d \(dependency\)", line) for line in completed)


def test_an_unknown_level_of_the_log(program, graph):
    done = program("check", graph(), env={**os.environ, "GRAPHEXEC_LOG": "all"})
    assert done.returncode == 2
    assert "expected debug, info, warning, error" in done.stderr


def test_no_log_without_asking(program, graph):
    env = {k: v for k, v in os.environ.items() if k != "GRAPHEXEC_LOG"}
    assert "issued" not in program("run", graph(), *CPU, env=env).stderr


def on_a_terminal(command: list[str], env: dict[str, str]) -> str:
    """What a program writes to a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=env) as process:
        os.close(follower)
        said = b""
        try:
            while part := os.read(leader, 65536):
                said += part
        except OSError:  # how Linux says that the other side is closed
            pass
        assert process.wait(60) == 0
    os.close(leader)
    return said.decode()


def test_no_color_is_honoured(graph):
    command = [PROGRAM, "plan", str(graph()), *CPU]
    env = {**os.environ, "TERM": "xterm"}
    env.pop("NO_COLOR", None)
    colour = r"\x1b\[[\d;]*m"  # a slow machine also sees a bar come and go
    assert re.search(colour, on_a_terminal(command, env))
    assert not re.search(colour, on_a_terminal(command, {**env, "NO_COLOR": "1"}))


def test_shells_can_complete(program):
    done = program(env={**os.environ, "_GRAPHEXEC_COMPLETE": "bash_source"})
    assert "complete" in done.stdout
    env = {**os.environ, "_GRAPHEXEC_COMPLETE": "bash_complete", "COMP_WORDS": "graphexec pl",
           "COMP_CWORD": "1"}  # fmt: skip
    assert program(env=env).stdout.strip() == "plain,plan"
