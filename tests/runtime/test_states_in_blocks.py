"""Blocks with states of their own: the same as a graph that is written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphexec as gx
from graphexec.graph.infer import infer
from graphexec.graph.states import dims_of_states

Array = np.ndarray[Any, Any]

LAYERS = """
version: 1
dims: {L: 3, C: 4}
inputs: {x0: {shape: [1, 2], dtype: f32}}
state:
  n: {shape: [], dtype: i32, next: n + 1}
blocks:
  layer:
    inputs: [x, at]
    state:
      keys: {shape: [C, 2], dtype: f32, init: {file: s.npz, key: "l{i}"}, next: k}
      seen: {shape: [], dtype: i32, next: seen + 1}
    nodes:
      k: {op: append, into: keys, x: x, at: at}
      s: {op: reduce, kind: sum, x: k, axis: [0], keep: true}
      y: x + 0.5 * s
    outputs: {x: y}
nodes:
  trunk: {block: layer, x: x0, at: n, repeat: L}
outputs: {y: trunk, first: trunk.0.keys}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "s.npz", **{f"l{i}": np.full((4, 2), i, np.float32) for i in range(3)})
    return tmp_path


def test_each_repetition_has_states_of_its_own(folder: Path) -> None:
    graph = gx.loads(LAYERS, folder=folder)
    assert graph.warnings == []
    assert gx.loads(graph.to_yaml(), folder=folder) == graph
    keys = [np.full((4, 2), i, np.float32) for i in range(3)]
    with gx.compile(graph, device="cpu", streams=2) as exe:
        names = [f"trunk.{i}.{name}" for i in range(3) for name in ("keys", "seen")]
        assert sorted(exe.state) == sorted(["n", *names])
        for step in range(4):
            x = np.array([[step, 1]], np.float32)
            found = exe.run(x0=x)
            assert np.array_equal(found["first"], keys[0])
            for i in range(3):
                keys[i][step] = x
                x = x + 0.5 * keys[i].sum(0, keepdims=True)
                assert np.array_equal(exe.state[f"trunk.{i}.keys"], keys[i])
                assert exe.state[f"trunk.{i}.seen"] == step + 1
            np.testing.assert_allclose(found["y"], x, 1e-6)
        with pytest.raises(gx.ExecutionError, match=r"node 'trunk.0.k': its rows do not fit"):
            exe.run(x0=x)
        assert np.array_equal(exe.state["trunk.2.keys"], keys[2])


def test_dims_of_states_in_blocks_are_fixed(folder: Path) -> None:
    graph = gx.loads(LAYERS.replace("shape: [1, 2]", "shape: [C, 2]").replace("n + 1", "n"),
                     folder=folder)  # fmt: skip
    assert dims_of_states(graph).keys() == {"C"}
    with (
        gx.compile(graph, device="cpu") as exe,
        pytest.raises(
            gx.DataError, match=r"the inputs imply C=3, but state 'trunk\.0\.keys' has C=4"
        ),
    ):
        exe.run(x0=np.zeros((3, 2), np.float32))


def test_mistakes_point_into_the_block(folder: Path) -> None:
    for old, new, message in (
        ("next: k}", "next: s}", "next: the state is f32[4, 2], its next value f32[1, 2]"),
        ("next: seen + 1", "next: seem + 1", "'seem' is no tensor, dim or const"),
        ("next: seen + 1", "next: n + 1", "'n' is no tensor, dim or const"),
        ('key: "l{i}"', 'key: "m{i}"', "there is no array 'm0'"),
    ):  # fmt: skip
        with pytest.raises(gx.GraphError) as caught:
            infer(gx.loads(LAYERS.replace(old, new), "g.yaml", folder=folder))
        assert message in str(caught.value)
        assert "--> g.yaml:" in str(caught.value)


def test_a_block_in_python_has_states() -> None:
    graph = gx.Graph("model", dims={"L": 2})
    x = graph.input("x0", (2,))
    layer = graph.block("layer", inputs=["x"])
    h = layer.state("h", (2,), init=1)
    y = layer.map("x + h", x=layer["x"], h=h, name="y")
    layer.set_next(h, y)
    layer.output(x=y)
    graph.output(y=layer(x, repeat="L", name="trunk"))
    with gx.compile(graph, device="cpu") as exe:
        one = np.ones(2, np.float32)
        assert exe.run(x0=one)["y"].tolist() == [3, 3]
        assert exe.state["trunk.0.h"].tolist() == [2, 2]
        exe.replay(1)
        assert exe.state["trunk.1.h"].tolist() == [6, 6]
