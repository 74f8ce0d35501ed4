"""Models of ONNX files: results against ONNX's reference evaluator, round trips, mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.reference import ReferenceEvaluator

import graphexec as gx
from graphexec.frontend.imported import write_imported

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def saved(
    path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[str],
    weights: dict[str, np.ndarray] | None = None, opset: int = 17,
) -> Path:  # fmt: skip
    """A model file; its outputs have no stated types, as a graph has no need of them."""
    initializers = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    given = [make_tensor_value_info(*i) for i in inputs]
    made = [onnx.ValueInfoProto(name=n) for n in outputs]
    graph = make_graph(nodes, "g", given, made, initializers)
    path.write_bytes(make_model(graph, opset_imports=[make_opsetid("", opset)]).SerializeToString())
    return path


def encoder(path: Path) -> Path:
    """One layer as exporters write it: heads split by shape arithmetic, a decomposed layer norm,
    GELU by erf, attention with a scale and a mask, and names that are paths."""
    rng = np.random.default_rng(0)
    weights = {f"w{c}": rng.standard_normal((16, 16)).astype(np.float32) / 4 for c in "qkvo"} | {
        f"b{c}": rng.standard_normal(16).astype(np.float32) for c in "qkvo"
    }
    weights |= {
        "two": np.float32(2), "eps": np.float32(1e-5), "root": np.float32(np.sqrt(2)),
        "one": np.float32(1), "half": np.float32(0.5), "scale": np.float32(2),
        "g": rng.standard_normal(16).astype(np.float32),
        "zero": np.array(0), "first": np.array(1), "at0": np.array([0]),
        "heads": np.array([4]), "size": np.array([4]), "flat": np.array([16]),
    }  # fmt: skip
    nodes = [
        make_node("Shape", ["x"], ["/m/shape"]),
        make_node("Gather", ["/m/shape", "zero"], ["/m/b"], axis=0),
        make_node("Gather", ["/m/shape", "first"], ["/m/s"], axis=0),
        make_node("Unsqueeze", ["/m/b", "at0"], ["/m/b1"]),
        make_node("Unsqueeze", ["/m/s", "at0"], ["/m/s1"]),
        make_node("Concat", ["/m/b1", "/m/s1", "heads", "size"], ["/m/split"], axis=0),
        make_node("Concat", ["/m/b1", "/m/s1", "flat"], ["/m/join"], axis=0),
    ]
    for c, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            make_node("MatMul", ["x", f"w{c}"], [f"/m/{c}/MatMul_output_0"]),
            make_node("Add", [f"b{c}", f"/m/{c}/MatMul_output_0"], [f"/m/{c}/Add_output_0"]),
            make_node("Reshape", [f"/m/{c}/Add_output_0", "/m/split"], [f"/m/{c}/r"]),
            make_node("Transpose", [f"/m/{c}/r"], [f"/m/{c}/t"], perm=perm),
        ]
    nodes += [
        make_node("MatMul", ["/m/q/t", "/m/k/t"], ["/m/scores"]),
        make_node("Div", ["/m/scores", "scale"], ["/m/scaled"]),
        make_node("Add", ["/m/scaled", "mask"], ["/m/masked"]),
        make_node("Softmax", ["/m/masked"], ["/m/probs"], axis=-1),
        make_node("MatMul", ["/m/probs", "/m/v/t"], ["/m/ctx"]),
        make_node("Transpose", ["/m/ctx"], ["/m/ctx_t"], perm=[0, 2, 1, 3]),
        make_node("Reshape", ["/m/ctx_t", "/m/join"], ["/m/ctx_r"]),
        make_node("MatMul", ["/m/ctx_r", "wo"], ["/m/o"]),
        make_node("Add", ["bo", "/m/o"], ["/m/out"]),
        make_node("Add", ["/m/out", "x"], ["/m/residual"]),
        make_node("ReduceMean", ["/m/residual"], ["/m/mean"], axes=[-1]),
        make_node("Sub", ["/m/residual", "/m/mean"], ["/m/centered"]),
        make_node("Pow", ["/m/centered", "two"], ["/m/square"]),
        make_node("ReduceMean", ["/m/square"], ["/m/variance"], axes=[-1]),
        make_node("Add", ["/m/variance", "eps"], ["/m/with_eps"]),
        make_node("Sqrt", ["/m/with_eps"], ["/m/sqrt"]),
        make_node("Div", ["/m/centered", "/m/sqrt"], ["/m/normed"]),
        make_node("Mul", ["/m/normed", "g"], ["/m/norm"]),
        make_node("Div", ["/m/norm", "root"], ["/m/g0"]),
        make_node("Erf", ["/m/g0"], ["/m/g1"]),
        make_node("Add", ["/m/g1", "one"], ["/m/g2"]),
        make_node("Mul", ["/m/norm", "/m/g2"], ["/m/g3"]),
        make_node("Mul", ["/m/g3", "half"], ["y"]),
    ]
    inputs = [("x", F32, ["batch", "seq len", 16]), ("mask", F32, ["batch", 1, 1, "seq len"])]
    return saved(path, nodes, inputs, ["y"], weights)


def inputs_of(batch: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    mask = np.where(rng.random((batch, 1, 1, length)) < 0.3, -1e4, 0).astype(np.float32)
    return {"x": rng.standard_normal((batch, length, 16)).astype(np.float32), "mask": mask}


def test_an_encoder_layer_equals_the_reference_for_all_sizes(tmp_path: Path) -> None:
    path = encoder(tmp_path / "layer.onnx")
    reference = ReferenceEvaluator(str(path))
    graph = gx.load(path)
    assert graph.dims == {"batch": 1, "seq_len": 1}
    with gx.compile(graph, device="cpu") as exe:
        for batch, length in ((1, 5), (3, 7)):
            given = inputs_of(batch, length)
            (want,) = reference.run(None, given)
            got = exe.run(**given)["y"]
            assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_what_is_written_as_many_nodes_is_made_whole(tmp_path: Path) -> None:
    graph = gx.load(encoder(tmp_path / "layer.onnx"))
    ops = [node.op for node in graph.nodes.values()]
    assert ops.count("attention") == 1
    assert ops.count("norm") == 1
    assert ops.count("gemm") == 4
    assert "softmax" not in ops
    assert "reduce" not in ops
    assert graph.nodes["y"].attrs["expr"] == "gelu(norm)"
    assert all("bias" in n.operands for n in graph.nodes.values() if n.op == "gemm")


def test_a_part_that_is_read_elsewhere_stays(tmp_path: Path) -> None:
    nodes = [
        make_node("MatMul", ["x", "w"], ["p"]),
        make_node("Add", ["p", "b"], ["y"]),
    ]
    weights = {"w": np.ones((4, 4), np.float32), "b": np.ones(4, np.float32)}
    path = saved(tmp_path / "m.onnx", nodes, [("x", F32, [2, 4])], ["y", "p"], weights)
    graph = gx.load(path)
    assert [n.op for n in graph.nodes.values()] == ["gemm", "map"]


def test_imported_files_load_to_the_same_graph(tmp_path: Path) -> None:
    path = encoder(tmp_path / "layer.onnx")
    graph = gx.load(path)
    written = write_imported(graph, tmp_path / "out", "layer.onnx")
    assert [p.name for p in written] == ["layer.yaml", "layer.safetensors"]
    back = gx.load(written[0])
    assert not back.warnings
    graph.weight_file = back.weight_file
    assert back == graph
    given = inputs_of(2, 6)
    results = []
    for one in (gx.load(path, dims={"batch": 2, "seq_len": 6}), back):
        with gx.compile(one, device="cpu") as exe:
            results.append(exe.run(**given)["y"])
    np.testing.assert_array_equal(*results)


def test_everything_that_is_not_supported_is_said_at_once(tmp_path: Path) -> None:
    nodes = [
        make_node("NonZero", ["x"], ["a"], name="first"),
        make_node("Relu", ["a"], ["b"], name="follows"),
        make_node("Det", ["x"], ["c"], name="second"),
        make_node("Frobnicate", ["x"], ["d"], name="third"),
    ]
    path = saved(tmp_path / "m.onnx", nodes, [("x", F32, [2, 2])], ["b", "c", "d"])
    with pytest.raises(gx.GraphError) as caught:
        gx.load(path)
    messages = [d.message for d in caught.value.diagnostics]
    assert len(messages) == 3
    for message, name in zip(messages, ("first", "second", "third"), strict=True):
        assert f"node '{name}'" in message


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_a_truncated_file_is_an_error(tmp_path: Path, cut: int) -> None:
    path = encoder(tmp_path / "layer.onnx")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(gx.GraphError, match="damaged"):
        gx.load(path)


def test_a_cycle_is_an_error(tmp_path: Path) -> None:
    nodes = [make_node("Relu", ["b"], ["a"], name="one"), make_node("Relu", ["a"], ["b"])]
    path = saved(tmp_path / "m.onnx", nodes, [("x", F32, [2])], ["b"])
    with pytest.raises(gx.GraphError, match=r"node 'one' \(Relu\) reads 'b', which nothing before"):
        gx.load(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd"])
def test_external_data_does_not_leave_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    folder = tmp_path / "in"
    folder.mkdir()
    path = saved(folder / "m.onnx", [make_node("Add", ["x", "w"], ["y"])], [("x", F32, [16])],
                 ["y"], {"w": np.zeros(16, np.float32)})  # fmt: skip
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(gx.InputError, match="lies outside"):
        gx.compile(gx.load(path), device="cpu")


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    weights = {"w": np.arange(1024, dtype=np.float32)}
    path = saved(tmp_path / "m.onnx", [make_node("Add", ["x", "w"], ["y"])], [("x", F32, [1024])],
                 ["y"], weights)  # fmt: skip
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin")
    assert (tmp_path / "w.bin").exists()
    with gx.compile(gx.load(path), device="cpu") as exe:
        got = exe.run(x=np.ones(1024, np.float32))["y"]
    np.testing.assert_array_equal(got, weights["w"] + 1)


@pytest.mark.parametrize("name", ["null", "yes", "1e5", "a: b", "x y", "- z", "é", "and", "", "S"])
def test_any_name_can_be_written_as_yaml(tmp_path: Path, name: str) -> None:
    nodes = [
        make_node("Relu", ["x"], [name or "made"], name=name),
        make_node("Mul", [name or "made", "w!"], ["out/0"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, [("x", F32, ["S", 3])], ["out/0"],
                 {"w!": np.float32([1, 2, 3])})  # fmt: skip
    graph = gx.load(path, dims={"S": 2})
    back = gx.load(write_imported(graph, tmp_path / "out", "m.onnx")[0])
    graph.weight_file = back.weight_file
    assert back == graph
    with gx.compile(back, device="cpu") as exe:
        (got,) = exe.run(x=np.float32([[1, -1, 2], [3, 4, -5]])).values()
    np.testing.assert_array_equal(got, np.float32([[1, 0, 6], [3, 8, 0]]))


def test_an_extent_beyond_memory_is_an_error_of_the_graph(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [make_node("Relu", ["x"], ["y"])],
                 [("x", F32, [1 << 40, 1 << 40])], ["y"])  # fmt: skip
    with pytest.raises(gx.GraphexecError):
        gx.make_plan(gx.load(path))


def test_a_question_mark_names_no_dim(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [make_node("Relu", ["x"], ["y"])],
                 [("x", F32, ["?", "?", "n"])], ["y"])  # fmt: skip
    assert list(gx.load(path).dims) == ["n", "x_0", "x_1"]


def near_gelu(root: float, half: float, one: float) -> list[Any]:
    constants = {"root": root, "half": half, "one": one}
    return [
        *(make_node("Constant", [], [name], value_float=v) for name, v in constants.items()),
        make_node("Div", ["x", "root"], ["a"]),
        make_node("Erf", ["a"], ["b"]),
        make_node("Add", ["one", "b"], ["c"]),
        make_node("Mul", ["half", "c"], ["d"]),
        make_node("Mul", ["d", "x"], ["y"]),
    ]


@pytest.mark.parametrize(
    ("numbers", "whole"),
    [((2**0.5, 0.5, 1), True), ((1.4, 0.5, 1), False), ((2**0.5, 0.6, 1), False),
     ((2**0.5, 0.5, 2), False)],
)  # fmt: skip
def test_only_a_gelu_is_a_gelu(
    tmp_path: Path, numbers: tuple[float, float, float], whole: bool
) -> None:
    path = saved(tmp_path / "m.onnx", near_gelu(*numbers), [("x", F32, [3, 4])], ["y"])
    graph = gx.load(path)
    assert (len(graph.nodes) == 1) == whole
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    (want,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    with gx.compile(graph, device="cpu") as exe:
        np.testing.assert_allclose(exe.run(x=x)["y"], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", ["axis", "keep", "other", "single"])
def test_only_a_layer_norm_is_a_norm(tmp_path: Path, change: str) -> None:
    axis = 0 if change == "axis" else -1
    size = 1 if change == "single" else 5
    power = "x" if change == "other" else "centered"
    nodes = [
        make_node("ReduceMean", ["x"], ["mean"], axes=[axis]),
        make_node("Sub", ["x", "mean"], ["centered"]),
        make_node("Mul", [power, power], ["square"]),
        make_node("ReduceMean", ["square"], ["variance"], axes=[axis]),
        make_node("Constant", [], ["eps"], value_float=1e-3),
        make_node("Add", ["variance", "eps"], ["sum"]),
        make_node("Sqrt", ["sum"], ["root"]),
        make_node("Div", ["centered", "root"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, [("x", F32, [4, size])], ["y"])
    graph = gx.load(path)
    assert ("norm" in {n.op for n in graph.nodes.values()}) == (change == "keep")
    x = np.random.default_rng(0).standard_normal((4, size)).astype(np.float32)
    (want,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    with gx.compile(graph, device="cpu") as exe:
        np.testing.assert_allclose(exe.run(x=x)["y"], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", ["none", "axis", "wide mask", "late scale"])
def test_only_attention_is_attention(tmp_path: Path, change: str) -> None:
    mask_shape = [3, 1, 4, 6] if change == "wide mask" else [4, 6]
    nodes = [
        make_node("MatMul", ["q", "k"], ["s"]),
        make_node("Constant", [], ["scale"], value_float=0.5),
    ]
    if change == "late scale":
        nodes += [make_node("Add", ["s", "mask"], ["m0"]), make_node("Mul", ["m0", "scale"], ["m"])]
    else:
        nodes += [make_node("Mul", ["s", "scale"], ["s0"]), make_node("Add", ["s0", "mask"], ["m"])]
    nodes += [
        make_node("Softmax", ["m"], ["p"], axis=2 if change == "axis" else -1),
        make_node("MatMul", ["p", "v"], ["y"]),
    ]
    shapes = {"q": [1, 2, 4, 8], "k": [1, 2, 8, 6], "v": [1, 2, 6, 8], "mask": mask_shape}
    path = saved(tmp_path / "m.onnx", nodes, [(n, F32, s) for n, s in shapes.items()], ["y"])
    graph = gx.load(path)
    assert ("attention" in {n.op for n in graph.nodes.values()}) == (change == "none")
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    (want,) = ReferenceEvaluator(str(path)).run(None, given)
    with gx.compile(graph, device="cpu") as exe:
        np.testing.assert_allclose(exe.run(**given)["y"], want, rtol=1e-4, atol=1e-5)
