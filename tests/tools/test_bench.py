"""Figures of many runs, and graphexec bench (through its entry point)."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import graphexec as gx
from graphexec.cli.app import app
from graphexec.ir.plan import Launch
from graphexec.machine.costs import Measured
from graphexec.planning.profile import Profile
from graphexec.tools.bench import Figures, bench

FILE = "graphs/diamond.yaml"
QUICK = ("--device", "cpu", "-n", "3", "--warmup", "1")


def run(*args: object):
    return CliRunner().invoke(app, ["bench", *map(str, args)])


def test_figures_are_those_of_the_sorted_times():
    figures = Figures.of([0.003, 0.001, 0.002, 0.004, 0.1])
    assert (figures.min, figures.median, figures.p99) == (1, 3, 100)
    assert Figures.of([0.002]) == Figures(2, 2, 2, 2)


def test_a_detailed_result_has_every_launch_and_stream():
    graph = gx.load(FILE)
    with gx.compile(graph, device="cpu") as exe:
        inputs = {n: np.ones(t.shape, t.dtype.numpy()) for n, t in exe.inputs.items()}
        result = bench(exe, None, inputs, 3, 1, detailed=True)
        launches = [i.node for i in exe.plan.instructions if isinstance(i, Launch)]
    assert [c.node for c in result.commands] == launches
    assert all(c.median > 0 for c in result.commands)
    assert set(result.waiting) == {s.id for s in exe.plan.streams}
    assert result.resident is None
    assert result.whole.min <= result.whole.median <= result.whole.p90 <= result.whole.p99


def test_a_table_by_default():
    done = run(FILE, "-D", "M=250", "-D", "N=250", *QUICK, "--streams", "1,2", "--detailed")
    assert done.exit_code == 0, done.stderr
    for said in ("1 of 1 streams", "2 of 2 streams", "whole", "device", "resident", "requests/s",
                 "every launch", "waiting for other streams", "in runs of their own"):  # fmt: skip
        assert said in done.stdout


def test_json_is_a_baseline(tmp_path):
    done = run(FILE, *QUICK, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bench_version"] == 1
    assert document["results"][0]["commands"] == []
    old = tmp_path / "old.json"

    def compared_with(factor: float):
        changed = json.loads(done.stdout)
        for result in changed["results"]:
            result["whole"]["median"] *= factor
        old.write_text(json.dumps(changed))
        return run(FILE, *QUICK, "--baseline", old)

    slower, faster = compared_with(1e-3), compared_with(1e3)
    assert (slower.exit_code, faster.exit_code) == (1, 0)
    assert ": slower" in slower.stderr
    assert ": faster" in faster.stderr


def test_a_baseline_of_something_else_is_said(tmp_path):
    document = json.loads(run(FILE, *QUICK, "--json").stdout)
    document["graph"] = "other"
    (tmp_path / "old.json").write_text(json.dumps(document))
    done = run(FILE, *QUICK, "--baseline", tmp_path / "old.json", "--threshold", "1e9")
    assert done.exit_code == 0
    assert "the baseline is of another graph" in done.stderr


def test_as_many_streams_as_pay(tmp_path):
    done = run(FILE, *QUICK, "--streams", "1, auto,1", "--json")
    assert done.exit_code == 0, done.stderr
    one, auto = json.loads(done.stdout)["results"]
    assert (one["asked"], one["streams"]) == (1, 1)
    with gx.compile(gx.load(FILE), device="cpu", streams="auto") as exe:
        assert (auto["asked"], auto["streams"]) == ("auto", len(exe.plan.streams))
    (tmp_path / "old.json").write_text(done.stdout)
    again = run(FILE, *QUICK, "--streams", "auto,2", "--baseline", tmp_path / "old.json")
    assert f"auto: {auto['streams']} stream" in again.stdout
    assert "as many streams as pay: " in again.stderr
    assert "the baseline has no run with 2 streams" in again.stderr


def test_it_plans_as_run_does(tmp_path):
    """--costs, --no-profile and --memory-limit reach the planner."""
    profile = Profile("other", {"gemm: f32[80,80] f32[80,80] -> f32[80,80]": Measured(1.0)})
    (tmp_path / "profile.json").write_text(profile.to_json())
    done = CliRunner().invoke(
        app, ["-v", "bench", FILE, *QUICK, "--costs", str(tmp_path / "profile.json")]
    )
    assert done.exit_code == 0, done.stderr
    assert f"planned with the {tmp_path / 'profile.json'}" in done.stderr
    assert run(FILE, *QUICK, "--costs", tmp_path / "none.json").exit_code == 2
    short = run(FILE, *QUICK, "--memory-limit", "1KiB")
    assert short.exit_code == 2
    assert "the limit is 1,024" in short.stderr


def test_a_kept_profile_is_used_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path))
    tuned = CliRunner().invoke(app, ["tune", FILE, "--device", "cpu", "--budget", "600"])
    assert tuned.exit_code == 0, tuned.output
    (kept,) = tmp_path.iterdir()
    assert f"note: planned with the profile {kept.name}\n" in run(FILE, *QUICK).stderr
    assert "profile" not in run(FILE, *QUICK, "--no-profile").stderr


def test_a_run_that_takes_too_long_is_given_up():
    done = run(FILE, *QUICK, "--timeout", "1e-9")
    assert done.exit_code == 1
    assert "did not finish within 1e-09 s" in done.stderr


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"bench_version": 2}', "[" * 10**5])
def test_a_baseline_that_is_none(tmp_path, text):
    assert_no_baseline(tmp_path, text)


@pytest.mark.parametrize("median", ["12", None, True, 0, float("nan"), 1e308, 10**400])
def test_a_baseline_without_numbers(tmp_path, median):
    document = json.loads(run(FILE, *QUICK, "--json").stdout)
    document["results"][0]["whole"]["median"] = median
    assert_no_baseline(tmp_path, json.dumps(document))


def assert_no_baseline(tmp_path, text):
    (tmp_path / "old.json").write_text(text)
    done = run(FILE, *QUICK, "--baseline", tmp_path / "old.json")
    assert done.exit_code == 2
    assert "is not what graphexec bench --json prints" in done.stderr


@pytest.mark.parametrize("args", [
    ("-n", "0"), ("--streams", "0"), ("--streams", "1,x"), ("--streams", ""),
    ("--streams", "9" * 30), ("--streams", "257"), ("--streams", "auto,"), ("--timeout", "0"),
    ("--memory-limit", "much"), ("--costs", "x.json", "--no-profile"),
    ("--modes", "fast"), ("--warmup", "-1"), ("--threshold", "-1"),
])  # fmt: skip
def test_wrong_options(args):
    done = run(FILE, "--device", "cpu", *args)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
