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


@pytest.mark.parametrize(
    ("file", "node", "worker"),
    [("multi_head_attention", "ctx", "merged"), ("attention", "scores", "ctx"),
     ("attention", "probs", "ctx")],
)  # fmt: skip
def test_explain_follows_a_node_to_where_its_work_is_done(invoke, file, node, worker):
    path, cpu = f"graphs/{file}.yaml", ("--device", "cpu")
    story = invoke("explain", path, node, *cpu).stdout
    notes, found, work = story.partition(f"its work is done by '{worker}'\n")
    assert found
    assert all(line.startswith("rewrite ") for line in notes.splitlines())
    assert work.startswith(f"{worker} (s")
    assert f"tensor {worker}: bytes" in work
    assert invoke("explain", path, worker, *cpu).stdout.endswith(work)


def test_explain_follows_a_repeated_node_to_the_one_that_is_used(invoke, tmp_path):
    path = tmp_path / "twice.yaml"
    twice = "  z: {op: gemm, a: y, b: unused}\n  again: {op: softmax, x: x}\n"
    twice += "  w: {op: gemm, a: z, b: again}\noutputs: {out: w}\n"
    path.write_text(DEAD.replace("outputs: {out: y}\n", twice))
    story = invoke("explain", path, "again", "--device", "cpu").stdout
    assert "'again' repeats 'y'" in story
    assert "its work is done by 'y'\ny (s" in story


def test_explain_says_of_a_view_what_is_read(invoke):
    story = invoke("explain", "graphs/multi_head_attention.yaml", "q_heads", "--device", "cpu")
    assert "no command computes 'q_heads': its readers read 'q' in place\n" in story.stdout
    assert "tensor q_heads: bytes" in story.stdout


def test_explain_takes_an_output_for_its_tensor(invoke):
    story = invoke("explain", "graphs/attention.yaml", "out", "--device", "cpu").stdout
    first, rest = story.split("\n", 1)
    assert first == "output 'out' is tensor 'ctx'"
    assert rest == invoke("explain", "graphs/attention.yaml", "ctx", "--device", "cpu").stdout
    wrong = invoke("explain", "graphs/attention.yaml", "ot", "--device", "cpu")
    assert wrong.exit_code == 2
    assert "did you mean 'out'?" in wrong.stderr
