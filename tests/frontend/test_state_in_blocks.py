"""States that blocks declare: each repetition has its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphexec as gx
from graphexec.frontend.expand import expand
from graphexec.graph.infer import infer
from graphexec.views.outline import of_graph
from graphexec.views.repetitions import folded

LAYERS = """\
version: 1
dims: {S: 1, C: 6, E: 4, L: 3}
inputs: {x0: {shape: [S, E], dtype: f32}}
state:
  n: {shape: [], dtype: i32, next: n + S}
blocks:
  layer:
    inputs: [x, n]
    state:
      keys: {shape: [C, E], dtype: f32, next: k}
      steps: {shape: [], dtype: i32, init: 5, next: steps + 1}
    nodes:
      h: x * 2.0
      k: {op: append, into: keys, x: h, at: n, axis: 0}
      sum: {op: reduce, kind: sum, x: k, axis: 0, keep: true}
      y: x + sum
    outputs: {x: y}
nodes:
  trunk: {block: layer, x: x0, n: n, repeat: L}
  last: trunk * 1.0
outputs: {y: trunk, last: last}
"""


def test_each_repetition_has_its_own() -> None:
    graph = gx.loads(LAYERS)
    assert not graph.warnings
    flat = expand(graph)
    assert list(flat.states) == [
        "n", *(f"trunk.{i}.{name}" for i in range(3) for name in ("keys", "steps"))
    ]  # fmt: skip
    assert flat.states["trunk.1.keys"].next == "trunk.1.k"
    assert flat.states["trunk.1.steps"].operands == {"steps": "trunk.1.steps"}
    assert flat.nodes["trunk.2.k"].operands == {"into": "trunk.2.keys", "x": "trunk.2.h", "at": "n"}
    assert gx.loads(graph.to_yaml()) == graph
    assert len(infer(graph.with_dims(L=5)).states) == 11


def expected(steps: list[np.ndarray]) -> list[np.ndarray]:
    keys = [np.zeros((6, 4)) for _ in range(3)]
    found, n = [], 0
    for x in steps:
        y = x.astype(np.float64)
        for layer in keys:
            layer[n : n + len(y)] = y * 2
            y = y + layer.sum(0, keepdims=True)
        n += len(x)
        found.append(y)
    return found


def test_steps_and_states_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = [rng.standard_normal((rows, 4), np.float32) for rows in (2, 1, 1)]  # a prompt, tokens
    with gx.compile(gx.loads(LAYERS), device="cpu") as exe:
        for x, y in zip(steps, expected(steps), strict=True):
            np.testing.assert_allclose(exe.run(x0=x)["y"], y, rtol=1e-5)
        assert exe.state["trunk.2.steps"] == 8
        assert exe.state["n"] == 4
        np.testing.assert_array_equal(exe.state["trunk.0.keys"][3], steps[2][0] * 2)
        exe.save_state(tmp_path / "s.npz")
        exe.reset()
        assert exe.state["trunk.0.steps"] == 5
        exe.load_state(tmp_path / "s.npz")
        assert exe.state["trunk.1.steps"] == 8
        with pytest.raises(gx.ExecutionError, match=r"trunk\.0\.k"):
            exe.run(x0=np.ones((3, 4), np.float32))
    other = gx.compile(gx.loads(LAYERS, dims={"L": 2}), device="cpu")
    with other, pytest.raises(gx.DataError):
        other.load_state(tmp_path / "s.npz")


def test_next_may_lie_in_a_block_and_states_swap() -> None:
    graph = gx.loads("""\
version: 1
inputs: {x: {shape: [2], dtype: f32}}
state:
  a: {shape: [2], dtype: f32, next: t.h}
  b: {shape: [2], dtype: f32, next: t}
blocks:
  layer:
    inputs: [x, a]
    state: {p: {shape: [2], dtype: f32, next: q}, q: {shape: [2], dtype: f32, init: 1, next: p}}
    nodes: {h: x + a + p * 0, y: h * 2 + q}
    outputs: [y]
nodes: {t: {block: layer, x: x, a: a}}
outputs: {y: t, b: b}
""")
    with gx.compile(graph, device="cpu") as exe:
        one, two = (exe.run(x=np.ones(2, np.float32)) for _ in range(2))
        np.testing.assert_array_equal(one["y"], [3, 3])
        np.testing.assert_array_equal(two["b"], [3, 3])
        np.testing.assert_array_equal(two["y"], [4, 4])
        np.testing.assert_array_equal(exe.state["t.p"], [0, 0])


@pytest.mark.parametrize(("old", "new", "message"), [
    ("next: k}", "next: z}", "'z' is no tensor"),
    ("next: k}", "}", "state 'keys' needs the key 'next'"),
    ("[C, E], dtype: f32, next: k", "[C, 3], dtype: f32, next: k", "trunk.0."),
    ("  last: trunk", "  trunk.1.keys: x0\n  last: trunk", "the name 'trunk.1.keys' is used twice"),
])  # fmt: skip
def test_mistakes_say_who_uses_the_block(old: str, new: str, message: str) -> None:
    assert LAYERS.count(old) == 1
    with pytest.raises(gx.GraphError) as caught:
        infer(gx.loads(LAYERS.replace(old, new), path="m.yaml"))
    (found, *_) = caught.value.diagnostics
    assert message in found.message
    assert found.mark is not None
    assert any("used by 'trunk' at m.yaml:1" in note for note in found.notes)


def test_pictures_fold_states() -> None:
    names = [box.name for box in folded(of_graph(infer(gx.loads(LAYERS)))).boxes]
    assert names.count("trunk.{i}.keys ×3") == 2  # its value, and its next
    assert not any(name.startswith("trunk.0") for name in names)
