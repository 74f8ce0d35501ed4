"""Graphs cut among ranks, run by processes: the same as by one, states included."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from graph_files import FOLDER
from language_model_reference import MAKE, SMALL
from start_ranks import STARTERS, by_variables

from graphexec.cli.app import app

PROGRAM = str(Path(sys.executable).with_name("graphexec"))
DIMS = {**SMALL, "G": 2, "V": 96}

MLP = """\
version: 1
name: mlp
dims: {B: 4, E: 32, F: 64}
mesh: {dp: 2, tp: 2}
cut: {F: tp, B: dp}
inputs:
  x: {shape: [B, E], dtype: f32}
  w1: {shape: [F, E], dtype: f32}
  w2: {shape: [E, F], dtype: f32}
nodes:
  u: relu(x @ T(w1))
  y: x + u @ T(w2)
outputs: {y: y}
"""


def alone(*words: object) -> None:
    subprocess.run([PROGRAM, *map(str, words)], check=True, capture_output=True, timeout=60)


def same(one: Path, other: Path) -> dict[str, Any]:
    found, right = np.load(other), np.load(one)
    assert found.files == right.files
    for name in found.files:
        if found[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], right[name], atol=1e-5)
        else:
            np.testing.assert_array_equal(found[name], right[name])
    return dict(found)


def test_four_ranks_in_a_mesh_give_the_same_bits(tmp_path: Path) -> None:
    """Small integers, of which every sum is exact."""
    path, rng = tmp_path / "mlp.yaml", np.random.default_rng(1)
    path.write_text(MLP)
    shapes = {"x": (4, 32), "w1": (64, 32), "w2": (32, 64)}
    given = {name: rng.integers(-3, 4, shape).astype("f4") for name, shape in shapes.items()}
    np.savez(tmp_path / "in.npz", **given)
    command = ["run", path, "--device", "cpu", "-i", tmp_path / "in.npz", "-o"]
    alone(*command, tmp_path / "one.npz")
    done = by_variables(4, [PROGRAM, *map(str, command), str(tmp_path / "four.npz")])
    assert done.codes == (0, 0, 0, 0), done.err
    one, four = np.load(tmp_path / "one.npz")["y"], np.load(tmp_path / "four.npz")["y"]
    assert one.tobytes() == four.tobytes()


@pytest.mark.parametrize("how", STARTERS)
def test_a_language_model_on_two_ranks(tmp_path: Path, how: str) -> None:
    MAKE.write(MAKE.drawn(3, DIMS), tmp_path, "smollm2", "f32")
    shutil.copy(FOLDER / "smollm2.yaml", tmp_path)
    dims = [word for name, size in DIMS.items() for word in ("-D", f"{name}={size}")]
    common = ["run", tmp_path / "smollm2.yaml", *dims, "-D", "C=32", "--device", "cpu"]
    first = [*common, "-i", "ids=full:5", "--steps", "3"]
    then = [*common, "-i", "ids=full:-1", "--steps", "4"]
    alone(*first, "-o", tmp_path / "a1.npz", "--save-state", tmp_path / "s1.npz")
    alone(*then, "-o", tmp_path / "b1.npz", "--load-state", tmp_path / "s1.npz")

    def both(words: list[object]) -> None:
        done = STARTERS[how](2, [PROGRAM, *map(str, words), "--mesh", "tp=2"])
        assert done.code == 0, done.err

    both([*first, "-o", tmp_path / "a2.npz", "--save-state", tmp_path / "s2.npz"])
    same(tmp_path / "a1.npz", tmp_path / "a2.npz")
    states = same(tmp_path / "s1.npz", tmp_path / "s2.npz")
    assert states["trunk.0.keys"].shape[1] == 2  # whole, not a rank's
    both([*then, "-o", tmp_path / "b2.npz", "--load-state", tmp_path / "s1.npz"])
    same(tmp_path / "b1.npz", tmp_path / "b2.npz")
    alone(*then, "-o", tmp_path / "b3.npz", "--load-state", tmp_path / "s2.npz")
    same(tmp_path / "b1.npz", tmp_path / "b3.npz")


def test_a_mesh_that_does_not_fit_the_dims(tmp_path: Path) -> None:
    (tmp_path / "mlp.yaml").write_text(MLP)
    command = [PROGRAM, "run", str(tmp_path / "mlp.yaml"), "--device", "cpu", "--mesh", "dp=1,tp=3"]
    done = by_variables(3, command)
    assert done.codes == (2, 2, 2)
    assert done.err.count("F = 64 does not divide among the 3 ranks of 'tp'") == 1


def test_the_plan_of_the_first_rank_is_shown(tmp_path: Path) -> None:
    (tmp_path / "mlp.yaml").write_text(MLP)
    shown = CliRunner().invoke(app, ["plan", str(tmp_path / "mlp.yaml"), "--device", "cpu"])
    assert "rank 0 of 4 (dp=2, tp=2)" in shown.output
    assert "all_reduce" in shown.output
    command = ["explain", str(tmp_path / "mlp.yaml"), "--device", "cpu", "--mesh", "dp=1,tp=4"]
    told = CliRunner().invoke(app, command)
    assert (
        "'y.gemm' is a sum over an axis that is cut along 'tp': all_reduce of 512 B by 4 ranks"
        in (" ".join(told.output.split()))
    )
    alone = CliRunner().invoke(app, [*command[:-1], "dp=1,tp=1"])
    assert "all_reduce" not in alone.output


def test_plans_of_several_ranks_are_no_files_yet(tmp_path: Path) -> None:
    (tmp_path / "mlp.yaml").write_text(MLP)
    target = tmp_path / "plan.json"
    told = CliRunner().invoke(app, ["plan", str(tmp_path / "mlp.yaml"), "-o", str(target)])
    assert told.exit_code == 2
    assert "not written to files yet" in told.output
    assert not target.exists()
