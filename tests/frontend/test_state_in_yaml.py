"""The section `state`: what is read, written, and told of mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphexec as gx
from graphexec.graph.infer import infer

TEXT = """\
version: 1
dims: {S: 2, C: 8}
consts: {half: 0.5}
inputs: {x: {shape: [S, 3], dtype: f32}}
state:
  n: {shape: [], dtype: i32, next: n + S}
  layer.k: {shape: [C, 3], dtype: f32, init: half, next: k1}
nodes:
  k1: {op: append, into: layer.k, x: x, at: n}
outputs: {k: k1}
"""


def messages(text: str, path: Path | None = None) -> str:
    with pytest.raises(gx.GraphError) as caught:
        infer(gx.loads(text, "g.yaml", folder=path))
    return str(caught.value)


def test_yaml_and_python_make_the_same_graph() -> None:
    graph = gx.loads(TEXT)
    assert graph.warnings == []
    assert gx.loads(graph.to_yaml()) == graph
    built = gx.Graph("graph", dims={"S": 2, "C": 8}, consts={"half": 0.5})
    x = built.input("x", ("S", 3))
    n = built.state("n", (), "i32", next="n + S")
    k = built.state("layer.k", ("C", 3), init="half")
    k1 = built.append(k, x, n, name="k1")
    built.set_next(k, k1)
    built.output(k=k1)
    assert built == graph
    typed = infer(graph)
    assert {name: str(s.type) for name, s in typed.states.items()} == {
        "n": "i32[]", "layer.k": "f32[8, 3]",
    }  # fmt: skip
    assert typed.states["n"].next == "n.next"
    assert typed.states["layer.k"].init == 0.5
    assert graph.with_dims(S=1).states == graph.states


MISTAKES = {
    "state 'n' needs the key 'next'": ("dtype: i32, next: n + S", "dtype: i32"),
    "'m' is no tensor, dim or const": ("next: n + S", "next: m + S"),
    "next: the state is f32[8, 3], its next value f32[2, 3]": ("next: k1", "next: x"),
    "next: the state is f32[8, 3], its next value f16[8, 3]":
        ("next: k1", "next: 'cast(layer, f16)'"),
    "next: the state is i32[], its next value i64[]": ("next: n + S", "next: 'cast(n, i64)'"),
    "init: 0.5 is no i32": ("next: n + S", "init: 0.5, next: n"),
    "init: 3000000000 does not fit into i32": ("next: n + S", "init: 3000000000, next: n"),
    "expected a number or {file: …, key: …} for the init": ("init: half", "init: [1]"),
    "the init of state 'layer.k' needs the key 'file'": ("init: half", "init: {key: a}"),
    "there is no weights file 'none.npy'": ("init: half", "init: {file: none.npy}"),
    "state 'n' has no key 'begin'": ("next: n + S", "begin: 1, next: n"),
    "unknown dtype 'i33'": ("dtype: i32", "dtype: i33"),
    "the name 'n' is used twice": ("nodes:\n", "nodes:\n  n: x + 1\n"),
    "makes a tensor 'n.next', and there is one of that name":
        ("nodes:\n", "nodes:\n  n.next: x + 1\n"),
    "an extent must be at least 1": ("shape: [C, 3]", "shape: [C - 8, 3]"),
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_have_their_place(message: str) -> None:
    old, new = MISTAKES[message]
    if "layer, f16" in new:
        text = TEXT.replace("layer.k", "layer").replace(old, new)
    else:
        assert old in TEXT
        text = TEXT.replace(old, new, 1)
    found = messages(text)
    assert message in found
    assert "--> g.yaml:" in found
    assert "Traceback" not in found


def test_arrays_in_files_are_checked(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", a=np.zeros((8, 3), np.float32), b=np.zeros((3, 8), np.float32),
             c=np.zeros((8, 3)))  # fmt: skip
    for key, message in (
        ("a", ""), ("b", "shape is stated as [8, 3], but it is [3, 8]"),
        ("c", "the stored array is f64, stated is f32"), ("d", "there is no array 'd'"),
    ):  # fmt: skip
        text = TEXT.replace("init: half", f"init: {{file: s.npz, key: {key}}}")
        if not message:
            graph = gx.loads(text, folder=tmp_path)
            assert gx.loads(graph.to_yaml(), folder=tmp_path) == graph
            infer(graph)
        else:
            assert message in messages(text, tmp_path)


def test_a_state_that_nothing_reads_is_told() -> None:
    text = TEXT.replace("nodes:", "  spare: {shape: [2], dtype: f32, next: spare}\nnodes:")
    assert gx.loads(text).warnings == []  # its next value reads it
    made = "x2: {op: map, expr: half * index(0), shape: [2]}"
    text = text.replace("next: spare", "next: x2").replace("nodes:", f"nodes:\n  {made}")
    found = gx.loads(text).warnings
    assert [w.message for w in found] == ["state 'spare' is not used"]


def test_mistakes_in_python() -> None:
    graph = gx.Graph()
    k = graph.state("k", (2,))
    graph.output(k=k)
    with pytest.raises(gx.GraphError, match="it has no next value"):
        infer(graph)
    with pytest.raises(gx.GraphError, match="no state 'kk'"):
        graph.set_next("kk", k)
    with pytest.raises(gx.GraphError, match="'q' is no tensor"):
        graph.set_next(k, "q")
    graph.set_next(k, k)
    with pytest.raises(gx.GraphError, match="has a next value already"):
        graph.set_next(k, k)
    with pytest.raises(gx.GraphError, match="init has no key 'fil'"):
        graph.state("m", (2,), init={"fil": "a.npy"})
    with pytest.raises(gx.GraphError, match="names no file"):
        graph.state("m", (2,), init={"key": "a"})
