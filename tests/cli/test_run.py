"""graphexec run: outputs, inputs, saving, and what goes wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from graphexec.base.tensor import DType, TensorType
from graphexec.formats.arrays import read_inputs
from graphexec.ir.operand import FLOATS

CPU = ("--device", "cpu")
BRANCHES = Path(__file__).parents[2] / "graphs" / "parallel_branches.yaml"
X = np.arange(16, dtype=np.float32).reshape(4, 4) / 16


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_it_says_where_it_ran_what_came_out_and_how_long_it_took(invoke, graph):
    done = invoke("run", graph(), *CPU)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tiny ran on cpu (")
    assert "launches on" in lines[1]
    assert "proved free of races" in lines[1]
    assert lines[3].split() == ["output", "dtype", "shape", "min", "max", "mean", "std"]
    assert lines[5].split()[:4] == ["out", "f32", "[4,", "4]"]
    assert lines[5].split()[6] == "0.25"
    assert ", ran in " in lines[-1]


def test_inputs_not_given_are_drawn_and_the_run_says_so(invoke, graph, tmp_path):
    done = invoke("run", graph(), *CPU, "-i", "x=randn:5", "--seed", "3", "-o", tmp_path / "o.npz")
    assert done.stderr == "note: input w drawn from a normal distribution with seed 3\n"
    types = {n: TensorType((4, 4), DType.F32) for n in "xw"}
    arrays, _ = read_inputs(["x=randn:5"], types, 3)
    expected = softmax(arrays["x"] @ arrays["w"])
    np.testing.assert_allclose(np.load(tmp_path / "o.npz")["out"], expected, rtol=1e-5)


def test_inputs_given_are_used(invoke, graph, tmp_path):
    np.savez(tmp_path / "all.npz", x=X)
    np.save(tmp_path / "w.npy", X.T)
    done = invoke("run", graph(), *CPU, "-i", tmp_path / "all.npz", "-i", f"w={tmp_path}/w.npy",
                  "-o", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0
    assert done.stderr == ""
    np.testing.assert_allclose(np.load(tmp_path / "out" / "out.npy"), softmax(X @ X.T), rtol=1e-5)
    assert f"saved to {tmp_path}/out" in done.stdout


def test_json(invoke, graph, tmp_path):
    done = invoke("run", graph(), *CPU, "--json", "-D", "N=8", "-i", "x=randn:0")
    found = json.loads(done.stdout)
    assert found["graph"] == "tiny"
    assert found["device"] == "cpu"
    assert found["dims"] == {"N": 8}
    assert found["inputs"] == [
        {"name": "x", "dtype": "f32", "shape": [8, 8], "source": "given"},
        {"name": "w", "dtype": "f32", "shape": [8, 8], "source": "drawn"},
    ]
    assert found["outputs"][0]["mean"] == pytest.approx(1 / 8)
    assert found["outputs"][0]["nonfinite"] == 0
    assert found["seconds"]["run"] > 0
    assert found["saved"] is None


def test_a_dry_run_checks_everything_and_runs_nothing(invoke, graph, tmp_path):
    done = invoke("run", graph(), *CPU, "--dry-run", "-o", tmp_path / "out.npz")
    assert done.exit_code == 0
    assert "tiny would run on cpu" in done.stdout
    assert "ran in" not in done.stdout
    assert not (tmp_path / "out.npz").exists()
    document = json.loads(invoke("run", graph(), *CPU, "--dry-run", "--json").stdout)
    assert document["seconds"]["run"] is None
    wrong = invoke("run", graph(), *CPU, "--dry-run", "-i", "x=missing.npy")
    assert wrong.exit_code == 2
    assert "there is no file 'missing.npy'" in wrong.stderr


def test_wrong_inputs_are_all_reported(invoke, graph, tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    done = invoke("run", graph(), *CPU, "-i", f"x={tmp_path}/x.npy", "-i", "ww=randn:0")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "has dtype float64, expected float32" in done.stderr
    assert "did you mean 'w'?" in done.stderr


@pytest.mark.parametrize("target", ["none/out.npz", "tiny.yaml/out", "out.npy"])
def test_an_unwritable_output_is_an_error_before_the_run(invoke, graph, tmp_path, target):
    done = invoke("run", graph(), *CPU, "-o", tmp_path / target)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert str(tmp_path / target) in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_check_finite_names_output_and_first_node(invoke, graph, tmp_path):
    path = graph(("op: gemm, a: x, b: w", "op: gemm, a: x, b: w, alpha: 1e38"))
    done = invoke("run", path, *CPU, "--check-finite", "-i", "x=randn:1")
    assert done.exit_code == 1
    assert "error: output 'out' has" in done.stderr
    assert "the first node with any is 'xw' (gemm, line 8)" in done.stderr
    assert "nonfinite" in done.stdout
    assert invoke("run", path, *CPU).exit_code == 0
    outputs = json.loads(invoke("run", path, *CPU, "--json").stdout)["outputs"]
    assert outputs[0]["mean"] is None


def test_check_finite_blames_an_input_that_is_not(invoke, graph, tmp_path):
    np.save(tmp_path / "x.npy", np.where(X > 0.5, np.inf, X).astype(np.float32))
    done = invoke("run", graph(), *CPU, "--check-finite", "-i", f"x={tmp_path}/x.npy")
    assert done.exit_code == 1
    assert "they are in input 'x' already" in done.stderr


def test_check_finite_is_silent_when_all_is_well(invoke, graph):
    done = invoke("run", graph(), *CPU, "--check-finite", "-i", "x=randn:0", "-i", "w=randn:1")
    assert done.exit_code == 0
    assert done.stderr == ""


@pytest.mark.parametrize(("args", "message"), [
    (["--streams", "0"], "0 is not in the range"), (["--streams", "x"], "not a valid integer"),
    (["--device", "tpu"], "'tpu' is not one of"), (["-D", "N"], "expected DIM=N"),
    (["-D", "N=1.5"], "expected DIM=N"), (["-D", "N=0"], "at least 1"), (["-D", "=3"], "expected"),
    (["-D", "N=2", "-D", "N=3"], "is set to 2 and to 3"), (["--seed", "-1"], "not in the range"),
    (["--ops", "/nowhere"], "does not exist"), (["--weights-root", "/nowhere"], "does not exist"),
    (["--bogus"], "No such option"),
])  # fmt: skip
def test_wrong_usage(invoke, graph, args, message):
    done = invoke("run", graph(), *args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_an_unknown_dim_is_the_graphs_error(invoke, graph):
    done = invoke("run", graph(), "-D", "M=3")
    assert done.exit_code == 2
    assert "'M'" in done.stderr


def test_a_wrong_graph_is_shown_where_it_is_wrong(invoke, graph):
    done = invoke("run", graph(("op: softmax", "op: softmx")))
    assert done.exit_code == 2
    assert "tiny.yaml:9:" in done.stderr
    assert "did you mean 'softmax'?" in done.stderr


def test_warnings_of_the_graph_are_shown_and_stop_nothing(invoke, graph):
    path = graph(("outputs", "  idle: {op: softmax, x: x}\noutputs"))
    done = invoke("run", path, *CPU)
    assert done.exit_code == 0
    assert "warning" in done.stderr
    assert "idle" in done.stderr


def test_an_op_of_the_users_own(invoke, graph, slow_ops):
    path = graph(("op: softmax", "op: slow"))
    assert invoke("run", path, *CPU, "--ops", slow_ops).exit_code == 0
    assert invoke("run", path, *CPU).exit_code == 2


def test_bf16_outputs_are_saved_as_float32_and_taken_back(invoke, graph, tmp_path):
    path = graph(("f32}\n  w", "bf16}\n  w"), ("f32}\nnodes", "bf16}\nnodes"))
    done = invoke("run", path, *CPU, "-o", tmp_path / "o.npz", "-i", "x=randn:0", "-i", "w=randn:1")
    assert done.exit_code == 0
    out = np.load(tmp_path / "o.npz")["out"]
    assert out.dtype == np.float32
    np.save(tmp_path / "x.npy", out)
    assert invoke("run", path, *CPU, "-i", f"x={tmp_path}/x.npy").exit_code == 0


@pytest.mark.parametrize(("value", "expected"), [
    ("zeros", [0, 0, 0]), ("ones", [1, 1, 1]), ("full:-2.5", [-2.5] * 3), ("arange", [0, 1, 2]),
    ("full:-inf", [-np.inf] * 3), ("full:1e-3", [1e-3] * 3),
])  # fmt: skip
@pytest.mark.parametrize("dtype", FLOATS)
def test_inputs_that_are_made(value, expected, dtype):
    types = {"mask": TensorType((3, 1), dtype)}
    arrays, drawn = read_inputs([f"mask={value}"], types, 0)
    assert drawn == []
    assert arrays["mask"].dtype == dtype.numpy()
    assert arrays["mask"].ravel().tolist() == np.array(expected).astype(dtype.numpy()).tolist()


@pytest.mark.parametrize(("value", "said"), [
    ("full:", "'x=full:': expected a number, such as full:-1e4"),
    ("full:two", "'x=full:two': expected a number"),
    ("full:1e39", "'x=full:1e39' is infinite in f32"),
    ("zero", "there is no file 'zero'"),
])  # fmt: skip
def test_inputs_that_cannot_be_made(invoke, graph, value, said):
    done = invoke("run", graph(), *CPU, "-i", f"x={value}")
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize("name", ["foo.txt", "out.json", "y.pt", "z.v2"])
def test_outputs_are_not_saved_as_other_files(invoke, graph, tmp_path, name):
    """A folder of that name was made."""
    done = invoke("run", graph(), *CPU, "-o", tmp_path / name)
    assert done.exit_code == 2
    assert f"outputs cannot be saved as {(tmp_path / name).suffix}" in done.stderr
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    assert invoke("run", graph(), *CPU, "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / name / "out.npy").exists()


def test_an_unknown_op_says_how_own_ops_are_known(invoke, graph):
    done = invoke("check", graph(("op: softmax", "op: zzz")))
    assert "unknown op 'zzz'" in done.stderr
    assert "--ops DIR" in done.stderr


def test_reproducible_runs_save_the_same_bits(invoke, tmp_path):
    for streams in ("1", "8"):
        options = ("--reproducible", "--streams", streams, "-o", str(tmp_path / streams))
        done = invoke("run", BRANCHES, *CPU, "--seed", "4", *options)
        assert done.exit_code == 0, done.stderr
    one, eight = (sorted((tmp_path / streams).iterdir()) for streams in ("1", "8"))
    assert [path.name for path in one] == [path.name for path in eight]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in eight]
