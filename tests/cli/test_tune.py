"""graphexec tune: its output, its files, and their use by the other commands."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("graphexec")
CPU = ("--device", "cpu")
LONG = ("--budget", "600")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


def test_it_measures_keeps_and_shows(invoke, graph, folder):
    done = invoke("tune", graph(), *CPU, *LONG)
    assert done.exit_code == 0, done.output
    (path,) = folder.iterdir()
    assert f"note: kept in {path}" in done.stderr
    for said in (
        "tiny on ",
        "start ",
        "gemm: f32[4,4] f32[4,4] -> f32[4,4]",
        "one stream",
        "taken",
    ):
        assert said in done.stdout
    shown = invoke("tune", graph(), *CPU, "--show")
    assert shown.exit_code == 0
    assert shown.stdout == done.stdout
    assert json.loads(path.read_text())["graph"] == "tiny"


def test_a_choice_without_what_was_tried_is_shown(invoke, graph, folder):
    invoke("tune", graph(), *CPU)
    (path,) = folder.iterdir()
    profile = json.loads(path.read_text())
    key = next(iter(profile["commands"]))
    for measured in ({"us": 2, "choice": 3}, {"us": 0, "choice": 3, "tried": {"0": 1}},
                     {"us": 5e-324, "choice": 1, "tried": {"0": 1e12}}):  # fmt: skip
        profile["commands"][key] = measured
        path.write_text(json.dumps(profile))
        done = invoke("tune", graph(), *CPU, "--show")
        assert done.exit_code == 0, done.stderr
        assert key.split(":")[0] in done.stdout


def test_the_other_commands_use_it_and_say_so(invoke, graph, folder):
    file = graph()
    assert invoke("tune", file, *CPU, *LONG).exit_code == 0
    (path,) = folder.iterdir()
    assert f"profile {path.name}" in invoke("plan", file, *CPU).stdout
    assert f"profile {path.name}" in invoke("explain", file, *CPU).stdout
    assert f"profile {path.name}" in invoke("run", file, *CPU).stderr
    assert "profile" not in invoke("-q", "run", file, *CPU).stderr
    assert "cpu model" in invoke("plan", file, *CPU, "--no-profile").stdout
    assert "cpu model" in invoke("plan", file, *CPU, "-D", "N=8").stdout
    assert "cpu model" in invoke("-v", "run", file, *CPU, "--no-profile").stderr
    assert str(path) in invoke("plan", file, *CPU, "--costs", path).stdout


def test_dims_have_profiles_of_their_own(invoke, graph, folder):
    for size in (4, 8):
        assert invoke("tune", graph(), *CPU, *LONG, "-D", f"N={size}").exit_code == 0
    assert len(list(folder.iterdir())) == 2
    assert "f32[8,8]" in invoke("tune", graph(), *CPU, "--show", "-D", "N=8").stdout
    done = invoke("tune", graph(), *CPU, "--show", "-D", "N=16")
    assert done.exit_code == 1
    assert "nothing was measured of 'tiny' here" in done.stderr


def test_no_time_leaves_nothing(invoke, graph, folder):
    done = invoke("tune", graph(), *CPU, "--budget", "0")
    assert done.exit_code == 1
    assert "nothing was measured in 0 s" in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize("budget", ["-1", "soon"])
def test_a_budget_is_a_number_of_seconds(invoke, graph, budget):
    assert invoke("tune", graph(), *CPU, "--budget", budget).exit_code == 2


def test_a_wrong_graph_is_said(invoke, graph):
    done = invoke("tune", graph(("op: gemm", "op: gem")), *CPU)
    assert done.exit_code == 2
    assert "gemm" in done.stderr


def test_a_damaged_profile_is_named_and_measured_anew(invoke, graph, folder):
    file = graph()
    assert invoke("tune", file, *CPU, *LONG).exit_code == 0
    (path,) = folder.iterdir()
    path.write_text('{"profile_version": 1, "comm')
    done = invoke("run", file, *CPU)
    assert done.exit_code == 0
    assert f"warning: the profile '{path}' is not used" in done.stderr
    assert invoke("tune", file, *CPU, "--show").exit_code == 1
    assert invoke("tune", file, *CPU, *LONG).exit_code == 0
    assert "warning" not in invoke("run", file, *CPU).stderr


def test_a_folder_that_cannot_be_written_is_said(invoke, graph, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "file" / "profiles"))
    done = invoke("tune", graph(), *CPU, "--budget", "1")
    assert done.exit_code == 2
    assert "cannot make the folder" in done.stderr


def begun(arguments, **options):
    return subprocess.Popen([PROGRAM, "tune", *map(str, arguments)], **options)


def test_ctrl_c_leaves_nothing_half_written(graph, slow_ops, tmp_path, folder):
    """Ctrl-C arrives while a slow command is measured."""
    file = graph(("op: softmax", "op: slow"))
    sign = tmp_path / "begun"
    environment = {**os.environ, "BEGUN": str(sign), "SECONDS": "30", "DAWDLE": "run"}
    with begun([file, *CPU, "--ops", slow_ops], stderr=subprocess.PIPE, env=environment) as process:
        limit = time.monotonic() + 60
        while not sign.exists() and process.poll() is None and time.monotonic() < limit:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.decode().splitlines()[-1] == "interrupted"
    assert not folder.exists()


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(graph):
    piped = begun([graph(), *CPU, *LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, stderr = piped.communicate(timeout=60)
    assert stderr.decode().startswith("note: kept in ")
    assert stderr.count(b"\n") == 1
    control, terminal = pty.openpty()
    with begun([graph(), *CPU, *LONG], stdout=subprocess.PIPE, stderr=terminal) as process:
        process.communicate(timeout=60)
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(control, 1 << 16)
        except OSError:
            break
    os.close(control)
    assert b"\x1b[" in shown
    assert b"kept in " in shown


def test_json(invoke, graph, folder):
    done = invoke("tune", graph(), *CPU, *LONG, "--json")
    found = json.loads(done.stdout)
    (path,) = folder.iterdir()
    assert found["path"] == str(path)
    assert found["complete"] is True
    assert found["failed"] == []
    assert found["profile"] == json.loads(path.read_text())
    assert json.loads(invoke("tune", graph(), *CPU, "--show", "--json").stdout) == found


def test_plans_without_a_rewrite_are_measured_and_used_for_those_only(invoke, graph):
    off = ("--no-rewrite", "batch", "--no-rewrite", "fold-copies")
    done = invoke("tune", graph(), *CPU, *LONG, *off, "--json")
    assert done.exit_code == 0, done.stderr
    profile = json.loads(done.stdout)["profile"]
    without = "without batch, without fold-copies"
    assert set(profile["schedules"]) == {f"4 streams, {without}", f"4 streams, resident, {without}"}
    best = profile["schedules"][f"4 streams, {without}"]["best"]
    found = json.loads(invoke("explain", graph(), *CPU, *off, "--json").stdout)
    assert found["time"]["schedule"] == best
    done = invoke("tune", graph(), *CPU, "--no-rewrite", "batsh")
    assert done.exit_code == 2
    assert "did you mean 'batch'?" in done.stderr
