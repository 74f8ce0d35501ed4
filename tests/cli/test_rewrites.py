"""--rewrite and --no-rewrite, and what explain says of rewrites."""

import pytest

DEAD = """\
version: 1
name: dead
inputs:
  x: {shape: [4, 4], dtype: f32}
nodes:
  y: {op: softmax, x: x}
  unused: {op: gemm, a: x, b: x}
outputs: {out: y}
"""


@pytest.fixture
def dead(tmp_path):
    path = tmp_path / "dead.yaml"
    path.write_text(DEAD)
    return path


@pytest.mark.parametrize("command", ["run", "plan", "check", "compare", "bench", "explain"])
def test_every_command_that_plans_takes_the_options(invoke, dead, command):
    more = {"bench": ["-n", "1", "--warmup", "0"]}.get(command, [])
    more += [] if command == "check" else ["--device", "cpu"]
    done = invoke(command, dead, *more, "--no-rewrite", "all", "--rewrite", "dead-nodes")
    assert done.exit_code == 0, done.stderr
    wrong = invoke(command, dead, *more, "--no-rewrite", "ded-nodes")
    assert wrong.exit_code == 2
    assert "there is no rewrite 'ded-nodes'" in wrong.output
    assert "did you mean 'dead-nodes'?" in wrong.output


def test_the_options_reach_the_plan(invoke, dead):
    assert "unused" not in invoke("plan", dead, "--device", "cpu").stdout
    kept = invoke("plan", dead, "--device", "cpu", "--no-rewrite", "dead-nodes").stdout
    assert "unused" in kept


def test_explain_says_what_rewrites_did(invoke, dead):
    whole = invoke("explain", dead, "--device", "cpu").stdout
    assert "Rewrites:\n  dead-nodes: left out 'unused', which no output needs.\n" in whole
    without = invoke("explain", dead, "--device", "cpu", "--no-rewrite", "all").stdout
    assert "Rewrites" not in without


def test_explain_knows_a_node_that_is_gone(invoke, dead):
    done = invoke("explain", dead, "unused", "--device", "cpu")
    assert done.exit_code == 0
    assert done.stdout == "rewrite dead-nodes: left out 'unused', which no output needs\n"
    wrong = invoke("explain", dead, "unusd", "--device", "cpu")
    assert wrong.exit_code == 2
    assert "did you mean 'unused'?" in wrong.stderr
