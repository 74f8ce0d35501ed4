"""run --steps, --save-state, --load-state; check --together; explain of states."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

Invoke = Callable[..., Result]

TEXT = """\
version: 1
dims: {S: 1, C: 4}
inputs: {x: {shape: [S, 3], dtype: f32}}
state:
  n: {shape: [], dtype: i32, next: n + S}
  k: {shape: [C, 3], dtype: f32, next: k1}
nodes:
  k1: {op: append, into: k, x: x, at: n}
outputs: {k: k1, n: n}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "g.yaml").write_text(TEXT)
    return tmp_path / "g.yaml"


def test_steps_are_stacked_and_states_go_on(invoke: Invoke, file: Path) -> None:
    folder = file.parent
    saved, out = folder / "s.npz", folder / "o.npz"
    common = ("run", file, "--device", "cpu", "-i", "x=ones")
    done = invoke(*common, "--steps", 2, "--save-state", saved, "-o", out)
    assert done.exit_code == 0, done.output
    with np.load(out) as found:
        assert found["n"].tolist() == [0, 1]
        assert found["k"].shape == (2, 4, 3)
    done = invoke(*common, "--steps", 1, "--load-state", saved, "-o", out, "--json")
    assert done.exit_code == 0, done.output
    with np.load(out) as found:
        assert found["n"].tolist() == [2]
        assert found["k"][0, :, 0].tolist() == [1, 1, 1, 0]
    shapes = {o["name"]: o["shape"] for o in json.loads(done.stdout)["outputs"]}
    assert shapes == {"k": [1, 4, 3], "n": [1]}


def test_rows_that_do_not_fit_end_the_command(invoke: Invoke, file: Path) -> None:
    saved = file.parent / "s.npz"
    done = invoke("run", file, "--device", "cpu", "--steps", 5, "--save-state", saved)
    assert done.exit_code == 1
    assert "node 'k1': its rows do not fit" in done.stderr
    assert not saved.exists()
    saved.write_text("no file of states")
    done = invoke("run", file, "--device", "cpu", "--load-state", saved)
    assert done.exit_code == 2
    assert "not a sound .npz file" in done.stderr
    assert "Traceback" not in done.stderr


def test_plans_are_checked_together(invoke: Invoke, file: Path) -> None:
    folder = file.parent
    for size in (1, 2):
        where = folder / f"p{size}.json"
        assert invoke("plan", file, "-D", f"S={size}", "-o", where).exit_code == 0
    done = invoke("check", "--together", folder / "p1.json", folder / "p2.json")
    assert done.exit_code == 0, done.output
    other = folder / "other.json"
    assert invoke("plan", file, "-D", "C=5", "-o", other).exit_code == 0
    assert invoke("check", folder / "p1.json", other).exit_code == 0
    done = invoke("check", "--together", folder / "p1.json", other)
    assert done.exit_code == 1
    assert "STATE_PLACE hazard: state 'k' is f32[4, 3]" in done.stderr


def test_explain_says_where_states_are_computed(invoke: Invoke, file: Path) -> None:
    done = invoke("explain", file, "--device", "cpu")
    assert "  k (48 B): 'k1' is written where state 'k' lies.\n" in done.stdout
    assert "  n (4 B): 'n.next' is copied to where state 'n' lies: " in done.stdout
    done = invoke("explain", file, "n", "--device", "cpu")
    assert "rewrite keep-in-place did not apply: " in done.stdout


@pytest.mark.parametrize("view", ["graph", "plan", "memory"])
@pytest.mark.parametrize("ending", ["svg", "html", "dot", "mmd", "txt", "json"])
def test_every_picture_has_states(invoke: Invoke, file: Path, view: str, ending: str) -> None:
    if view == "memory" and ending in ("dot", "mmd"):
        return
    where = file.parent / f"o.{ending}"
    done = invoke("plan", file, "--view", view, "-o", where)
    assert done.exit_code == 0, done.output
    assert where.stat().st_size > 0
    if view == "graph":
        assert "state" in where.read_text()


def test_compare_and_bench_leave_states_alone(invoke: Invoke, file: Path) -> None:
    assert invoke("compare", file, "--device", "cpu").exit_code == 0
    done = invoke("bench", file, "--device", "cpu", "--runs", 20)
    assert done.exit_code == 0, done.output
