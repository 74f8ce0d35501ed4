"""What a graph says of all its weights, `file` and `prefix`, and weights that are only a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import graphexec as gx
from graphexec.base.casts import cast_into
from graphexec.graph.infer import infer
from graphexec.ir.graph import Weight

WQ = np.arange(8, dtype=np.float32).reshape(2, 4)
NORM = np.array([1.5, -2, 0.25, 8], np.float32)

TEXT = """\
version: 1
name: g
dims: {H: 2, D: 2}
inputs:
  x: {shape: [3, H * D], dtype: f32}
file: model.safetensors
prefix: model.layers.0.
weights:
  wq: {key: wq, shape: [H, D * H], dtype: f32}
  norm: norm.weight
  own: {file: own.npy}
nodes:
  q: {op: gemm, a: x, b: wq, bias: own, trans_b: true}
outputs: {q: q, norm: norm}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    arrays = {"model.layers.0.wq": WQ, "model.layers.0.norm.weight": NORM, "norm.weight": NORM * 2}
    save_file(arrays, tmp_path / "model.safetensors")
    np.save(tmp_path / "own.npy", np.array([10, 20], np.float32))
    return tmp_path


def built(folder: Path) -> gx.Graph:
    g = gx.Graph("g", dims={"H": 2, "D": 2}, folder=folder, file="model.safetensors",
                 prefix="model.layers.0.")  # fmt: skip
    x = g.input("x", (3, "H * D"))
    wq = g.weight("wq", key="wq", shape=("H", "D * H"), dtype="f32")
    norm = g.weight("norm", key="norm.weight")
    own = g.weight("own", Path("own.npy"))
    g.output(q=g.gemm(x, wq, trans_b=True, bias=own, name="q"), norm=norm)
    return g


def messages(graph: gx.Graph) -> list[str]:
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    return [d.message for d in caught.value.diagnostics]


def refused(text: str) -> list[Any]:
    with pytest.raises(gx.GraphError) as caught:
        gx.loads(text, "g.yaml")
    return list(caught.value.diagnostics)


def test_values(folder: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with gx.compile(gx.loads(TEXT, folder=folder), device="cpu") as exe:
        out = exe.run(x=x)
    assert np.array_equal(out["q"], x.astype(np.float64) @ WQ.T + [10, 20])
    assert np.array_equal(out["norm"], NORM)  # the one with the prefix


def test_yaml_and_code_give_one_graph(folder: Path) -> None:
    read, made = gx.loads(TEXT, folder=folder), built(folder)
    assert read == made
    assert read.weights["norm"] == Weight("norm", key="norm.weight")
    assert made.to_yaml() == TEXT
    assert infer(made).weights == infer(read).weights


def test_file_and_prefix_are_content(folder: Path) -> None:
    for old, new in (("file: model.", "file: other."), ("prefix: model", "prefix: models")):
        assert gx.loads(TEXT.replace(old, new)) != gx.loads(TEXT)


def test_shapes_stay_expressions(folder: Path) -> None:
    graph = gx.loads(TEXT, folder=folder)
    assert graph.weights["wq"].shape == ("H", "D * H")
    assert infer(graph).weights["wq"].type.shape == (2, 4)
    other = graph.with_dims(H=1, D=4)
    assert other.weights["wq"].shape == ("H", "D * H")
    assert (other.weight_file, other.weight_prefix) == ("model.safetensors", "model.layers.0.")
    assert gx.loads(other.to_yaml()) == other
    (found,) = messages(other)
    assert found == "weight 'wq': shape is stated as [1, 4], but it is [2, 4]"
    assert messages(gx.loads(TEXT, dims={"H": 1, "D": 4}, folder=folder)) == [found]


def test_a_copy_points_at_the_same_places(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(gx.GraphError) as caught:
        infer(gx.loads(TEXT, folder=folder).with_dims(H=2))
    (found,) = caught.value.diagnostics
    assert found.mark is not None
    assert (found.mark.line, found.mark.column) == (6, 7)


def test_an_executable_at_other_sizes_reads_the_same_weights(folder: Path) -> None:
    text = TEXT.replace("dims: {", "dims: {B: 3, ").replace("shape: [3,", "shape: [B,")
    with gx.compile(gx.loads(text, folder=folder), device="cpu") as exe:
        (folder / "model.safetensors").unlink()
        out = exe.run(x=np.ones((1, 4), np.float32))
    assert np.array_equal(out["q"], WQ.sum(1)[None] + [10, 20])


def test_a_file_of_one_array_needs_no_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", only=NORM)
    text = "version: 1\nfile: w.npz\nprefix: p.\nweights: {w: {}}\noutputs: [w]\n"
    graph = gx.loads(text, folder=tmp_path)
    assert infer(graph).weights["w"].type.shape == (4,)
    assert gx.loads(graph.to_yaml()) == graph


def test_a_key_that_is_not_there_is_told_with_its_prefix(folder: Path) -> None:
    with pytest.raises(gx.GraphError) as caught:
        infer(gx.loads(TEXT.replace("norm: norm.weight", "norm: norm.weigth"), folder=folder))
    (found,) = caught.value.diagnostics
    assert "there is no array 'model.layers.0.norm.weigth' in 'model.safetensors'" in found.message
    assert found.help == "did you mean 'model.layers.0.norm.weight'?"
    assert found.mark is not None
    assert (found.mark.line, found.mark.column) == (10, 9)


def test_the_prefix_is_before_keys_of_other_files_too(folder: Path) -> None:
    np.savez(folder / "other.npz", **{"p.w": NORM, "w": WQ})
    g = gx.Graph(folder=folder, prefix="p.")
    g.output(g.weight("w", "other.npz", "w"))
    assert infer(g).weights["w"].type.shape == (4,)


def test_weights_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(gx.GraphError, match="'w' names no file, and the graph has none") as caught:
        gx.Graph().weight("w", key="k")
    assert "Graph(file=…)" in caught.value.diagnostics[0].help
    found = refused("version: 1\nweights: {v: w.npy, w: {key: k}, u: {}}\noutputs: [w, v, u]\n")
    assert [d.message for d in found] == [f"weight '{w}' needs the key 'file'" for w in "vwu"]
    assert found[0].label == "the text 'w.npy' is the key of an array, not a file"
    assert "'file: …' at the top of the graph" in found[0].help


@pytest.mark.parametrize("value", ["1", "null", "[a]", "''", "true"])
def test_weights_that_are_no_weights(value: str) -> None:
    (found,) = refused(f"version: 1\nfile: w.npz\nweights: {{w: {value}}}\noutputs: [w]\n")
    assert found.message.startswith("expected a key, or a mapping with the keys file, key, shape")


@pytest.mark.parametrize("value", ["1", "null", "[a]", "''", "{a: b}"])
@pytest.mark.parametrize("key", ["file", "prefix"])
def test_defaults_that_are_no_texts(key: str, value: str) -> None:
    text = f"version: 1\nfile: w.npz\n{key}: {value}\nweights: {{w: k}}\noutputs: [w]\n"
    if key == "file":
        text = text.replace("file: w.npz\n", "", 1)
    found = refused(text)
    assert len(found) == 1  # and not that the weight has no file
    assert found[0].message.startswith("expected ")
    assert found[0].mark.column == len(key) + 3


@pytest.mark.parametrize("text", [
    "file: 'w{i}.npz'\nweights: {w: k}", "file: w.npz\nprefix: 'l.{i}.'\nweights: {w: k}",
    "file: w.npz\nweights: {w: 'k.{i}'}", "file: w.npz\nweights: {w: {key: 'k.{i}'}}",
    "weights: {w: {file: 'w{i}.npz'}}",
])  # fmt: skip
def test_the_number_of_a_repetition_has_no_value_outside_a_block(text: str) -> None:
    (found,) = refused(f"version: 1\n{text}\noutputs: [w]\n")
    assert found.message == "'{i}' has no value here"
    assert found.help == "{i} is the number of a repetition of a block, and this is in none"
    assert found.mark is not None


def test_nor_in_code() -> None:
    for make in (lambda: gx.Graph(file="w{i}.npz"), lambda: gx.Graph(prefix="l.{i}."),
                 lambda: gx.Graph().weight("w", "w{i}.npz"),
                 lambda: gx.Graph(file="w.npz").weight("w", key="k.{i}")):  # fmt: skip
        with pytest.raises(gx.GraphError, match=r"has '\{i\}': '.*\{i\}"):
            make()


@pytest.mark.parametrize("text", ["{x}", "{", "}", "{}", "{{}}", "{ i }", "{I}", "%s", "$i", "{0}"])
def test_other_braces_are_literal(tmp_path: Path, text: str) -> None:
    save_file({f"{text}.{text}": NORM}, tmp_path / f"{text}.safetensors")
    g = gx.Graph(folder=tmp_path, file=f"{text}.safetensors", prefix=f"{text}.")
    g.output(g.weight("w", key=text))
    assert infer(gx.loads(g.to_yaml(), folder=tmp_path)).weights["w"].type.shape == (4,)


def test_what_no_weight_uses_is_a_warning() -> None:
    text = "version: 1\nfile: w.npz\nprefix: p.\nweights: {w: {file: v.npy}}\noutputs: [w]\n"
    found = gx.loads(text).warnings
    assert [(d.message, d.label) for d in found] == [
        ("'file' is not used", "no weight is read from it"),
        ("'prefix' is not used", "no weight has a key"),
    ]
    assert gx.loads(TEXT).warnings == []


@pytest.mark.parametrize("stored", ["<f2", "<f4", "<f8", "<i4"])
@pytest.mark.parametrize("wanted", ["f16", "bf16", "f32", "f64"])
def test_weights_of_floats_are_converted_once(tmp_path: Path, stored: str, wanted: str) -> None:
    """Also those of blocks; rounded once, and integers stay."""
    values = np.array([1 + 2**-8 + 2**-40, -3.25, 65504, 0]).astype(stored)
    np.save(tmp_path / "w.npy", values)
    text = (
        f"version: 1\nfile: w.npy\nweight_dtype: {wanted}\n"
        "inputs: {x: {shape: [4], dtype: f32}}\nweights: {w: {file: w.npy}}\n"
        "blocks: {b: {inputs: [x], weights: {w: {file: w.npy}}, nodes: {y: w}, outputs: {y: y}}}\n"
        "nodes: {own: {op: copy, x: w}, b: {block: b, x: x}, of_block: {op: copy, x: b}}\n"
        "outputs: {own: own, of_block: of_block}\n"
    )
    graph = gx.loads(text, folder=tmp_path)
    assert gx.loads(graph.to_yaml(), folder=tmp_path) == graph
    with gx.compile(graph, device="cpu") as exe:
        found = exe.run(x=np.zeros(4, np.float32))
    dtype = values.dtype if stored == "<i4" else gx.DType(wanted).numpy()
    right = np.empty(4, dtype)
    cast_into(right, values)
    for array in found.values():
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, right)


def test_a_weight_dtype_is_one_of_floats(tmp_path: Path) -> None:
    text = "version: 1\nweight_dtype: i8\ninputs: {x: {shape: [4], dtype: f32}}\noutputs: {y: x}\n"
    with pytest.raises(gx.GraphError, match="unknown dtype of floats 'i8'"):
        gx.loads(text)
