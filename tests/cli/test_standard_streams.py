"""The file "-": standard input and output."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from graphexec.cli import files
from graphexec.cli.app import app

GRAPH = """\
version: 1
dims: {N: 3}
inputs: {x: {shape: [N, 5], dtype: f32}}
nodes: {y: {op: softmax, x: x}}
outputs: [y]
"""


@pytest.fixture
def piped() -> Any:
    def piped(text: str, *args: object) -> Any:
        files.standard_input.cache_clear()
        return CliRunner().invoke(app, [str(a) for a in args], input=text)

    return piped


@pytest.mark.parametrize("command", ["check", "plan", "explain", "run", "compare"])
def test_a_graph_from_standard_input(piped: Any, command: str) -> None:
    more = ("--device", "cpu") if command != "check" else ()
    done = piped(GRAPH, command, "-", *more)
    assert done.exit_code == 0, done.stderr
    assert "error" not in done.stderr


def test_a_mistake_in_standard_input_is_located(piped: Any) -> None:
    done = piped(GRAPH.replace("softmax", "softmix"), "check", "-")
    assert done.exit_code == 2
    assert "--> <stdin>:4:17" in done.stderr
    assert "-: wrong: 1 error" in done.stdout


def test_a_plan_from_standard_input(piped: Any) -> None:
    plan = piped(GRAPH, "plan", "-", "--format", "json", "-D", "N=11").stdout
    assert "proved free of races" in piped(plan, "check", "-").stdout
    assert json.loads(piped(plan, "plan", "-", "--format", "json").stdout) == json.loads(plan)
    assert piped("{}", "check", "-").exit_code == 2


def test_standard_input_that_is_no_text(piped: Any) -> None:
    done = piped(b"\xff\xfe\x00", "check", "-")
    assert done.exit_code == 2
    assert "cannot read standard input" in done.stderr


def test_a_plan_to_standard_output(piped: Any, tmp_path: Path) -> None:
    done = piped(GRAPH, "plan", "-", "-o", "-", "--format", "svg")
    assert done.stdout.startswith("<svg")
    assert piped(GRAPH, "plan", "-", "-o", "-").stdout == piped(GRAPH, "plan", "-").stdout
    assert not Path("-").exists()


def test_outputs_to_standard_output(piped: Any) -> None:
    done = piped(GRAPH, "run", "-", "-o", "-", "--device", "cpu", "-i", "x=zeros")
    assert done.exit_code == 0, done.stderr
    found = np.load(io.BytesIO(done.stdout_bytes))
    assert np.array_equal(found["y"], np.full((3, 5), 0.2, np.float32))
    done = piped(GRAPH, "run", "-", "-o", "-", "--json", "--device", "cpu")
    assert done.exit_code == 2
    assert "neither with --json" in done.stderr
