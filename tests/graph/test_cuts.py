"""What a graph says of ranks: read, written, and told where it is wrong."""

from __future__ import annotations

import pytest

import graphexec as gx
from graphexec.graph.infer import infer
from graphexec.graph.partition.cuts import cuts_of

TEXT = """\
version: 1
name: g
dims: {B: 4, E: 6, F: 8, N: 8}
mesh: {dp: 2, tp: 2}
cut: {F: tp, B: dp}
inputs:
  x: {shape: [B, E], dtype: f32}
  w: {shape: [F * N, E], dtype: f32}
  v: {shape: [N, E], dtype: f32, cut: {N: tp}}
state:
  s: {shape: [F], dtype: f32, next: s2}
nodes:
  s2: s * 2
outputs: {y: s2, z: x, a: w, b: v}
"""


def cuts(text: str) -> dict[str, tuple[str, ...]]:
    graph = gx.loads(text)
    return cuts_of(graph, infer(graph), graph.mesh)


def test_dims_are_matched_by_name() -> None:
    assert cuts(TEXT) == {"x": ("dp", ""), "w": ("tp", ""), "v": ("tp", ""), "s": ("tp",)}


def test_it_is_written_as_it_was_read() -> None:
    graph = gx.loads(TEXT)
    assert gx.loads(graph.to_yaml()) == graph
    assert graph.with_dims(B=8).mesh == {"dp": 2, "tp": 2}


@pytest.mark.parametrize(
    ("old", "new", "told", "line"),
    [
        ("F: tp, B", "F: tq, B", "the mesh has no axis 'tq'", 5),
        ("F: tp, B", "G: tp, B", "the graph has no dim 'G'", 5),
        ("F: 8, N", "F: 9, N", "F = 9 does not divide among the 2 ranks of 'tp'", 5),
        ("F * N", "N * F", "'F' is not the leading factor of N * F", 8),
        ("[B, E]", "[B, B]", "two axes of 'x' would be cut along 'dp'", 7),
        ("cut: {N: tp}", "cut: {F: tp}", "no axis of 'v' is named 'F'", 9),
        ("{dp: 2, tp: 2}", "{dp: 2}", "the mesh has no axis 'tp'", 5),
    ],
)
def test_what_is_wrong_is_told_where_it_is(old: str, new: str, told: str, line: int) -> None:
    text = TEXT.replace(old, new)
    assert text != TEXT
    with pytest.raises(gx.GraphError) as caught:
        cuts(text)
    assert told in str(caught.value)
    assert f"<text>:{line}:" in str(caught.value)


def test_a_dim_that_no_shape_names() -> None:
    with pytest.raises(gx.GraphError, match="no shape of an input, weight or state names the dim"):
        cuts(TEXT.replace("E: 6,", "E: 6, Q: 4,").replace("F: tp, B", "F: tp, Q: tp, B"))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{dp: 2, tp: 2}", "{dp: 0, tp: 2}", "how many ranks lie along 'dp'"),
        ("{dp: 2, tp: 2}", "{dp: 1.5, tp: 2}", "how many ranks lie along 'dp'"),
        ("{dp: 2, tp: 2}", "{'d p': 2, tp: 2}", "'d p' is not a name for an axis"),
        ("{F: tp, B: dp}", "[F, B]", "expected dims, each with an axis of the mesh"),
        ("{F: tp, B: dp}", "{F: 2}", "expected an axis of the mesh for dim 'F'"),
    ],
)
def test_what_cannot_be_read(old: str, new: str, told: str) -> None:
    with pytest.raises(gx.GraphError, match=told):
        gx.loads(TEXT.replace(old, new))
