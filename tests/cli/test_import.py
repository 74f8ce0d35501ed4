"""graphexec import, and the other commands on a model."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import graphexec as gx


def model(path: Path) -> Path:
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "w")
    graph = make_graph(
        [make_node("MatMul", ["x", "w"], ["/net/p"]), make_node("Relu", ["/net/p"], ["y"])],
        "net", [make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [onnx.ValueInfoProto(name="y")], [weight],
    )  # fmt: skip
    path.write_bytes(make_model(graph, opset_imports=[make_opsetid("", 20)]).SerializeToString())
    return path


def test_what_is_written_runs_as_the_model_does(invoke, tmp_path):
    path = model(tmp_path / "net.onnx")
    done = invoke("import", path, "-o", tmp_path / "out", "-D", "N=5")
    assert done.exit_code == 0, done.stderr
    written = tmp_path / "out" / "net.yaml"
    assert str(written) in done.stdout
    text = written.read_text()
    assert text.startswith("# Imported from net.onnx by `graphexec import`.\n")
    assert 'dims: {"N": 5}' in text  # to YAML 1.1, N is false
    assert '"y": relu(p)' in text
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    results = []
    for name, file in (("a.npz", path), ("b.npz", written)):
        done = invoke("run", file, "--device", "cpu", "-D", "N=5", "-i", f"x={tmp_path / 'x.npy'}",
                      "-o", tmp_path / name)  # fmt: skip
        assert done.exit_code == 0, done.stderr
        results.append(np.load(tmp_path / name)["y"])
    np.testing.assert_array_equal(*results)
    want = np.maximum(x.astype(np.float64) @ np.arange(12.0).reshape(3, 4), 0)
    np.testing.assert_allclose(results[0], want, rtol=1e-5, atol=1e-5)


def test_commands_take_a_model(invoke, tmp_path):
    path = model(tmp_path / "net.onnx")
    assert invoke("check", path).stdout.endswith("proved free of races\n")
    assert "gemm" in invoke("plan", path, "--device", "cpu").stdout
    assert invoke("explain", path, "y", "--device", "cpu").exit_code == 0
    assert invoke("compare", path, "--device", "cpu", "-D", "N=3").exit_code == 0


def test_what_is_no_model_is_an_error(invoke, tmp_path):
    (tmp_path / "graph.yaml").write_text("version: 1\n")
    done = invoke("import", tmp_path / "graph.yaml")
    assert done.exit_code == 2
    assert "is not a model" in done.stderr
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    done = invoke("import", tmp_path / "m.onnx")
    assert done.exit_code == 2
    assert "is no ONNX model" in done.stderr
    assert invoke("import", tmp_path / "missing.onnx").exit_code == 2
    done = invoke("import", model(tmp_path / "net.onnx"), "-D", "M=3")
    assert "the model has no dim 'M'" in done.stderr


def test_files_are_replaced_both_or_none(invoke, tmp_path):
    path = model(tmp_path / "net.onnx")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "net.safetensors").mkdir()
    done = invoke("import", path, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert not (tmp_path / "out" / "net.yaml").exists()


def test_python_checks_dims(tmp_path):
    path = model(tmp_path / "net.onnx")
    for wrong in (0, -1, 2.5, "3"):
        with pytest.raises(gx.GraphError, match="dim 'N'"):
            gx.load(path, dims={"N": wrong})
