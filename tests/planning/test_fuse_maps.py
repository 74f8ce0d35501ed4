"""fuse-maps: what is computed stays the same where commands become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphexec as gx
from graphexec.planning.pipeline import plan_graph

COORDINATES = """
version: 1
name: coordinates
inputs:
  x: {{shape: [4], dtype: f32}}
nodes:
  twice: {{op: map, expr: "index(-1) * 2.0", shape: [4, 40]}}
  total: {{op: reduce, x: twice, kind: {kind}, axis: -1}}
  y: total + x
outputs: [y{more}]
"""


def graph(path: Path, kind: str, more: str = "") -> gx.Graph:
    path.write_text(COORDINATES.format(kind=kind, more=more))
    return gx.load(path)


@pytest.mark.parametrize(("kind", "expected"), [("sum", 1560.0), ("max", 78.0), ("mean", 39.0)])
def test_rows_of_coordinates_keep_their_length(tmp_path: Path, kind: str, expected: float) -> None:
    """A kernel that reads nothing and stores one element a row could not know its rows."""
    g = graph(tmp_path / "graph.yaml", kind)
    with gx.compile(g, device="cpu") as exe:
        y = exe.run(x=np.arange(4, dtype=np.float32))["y"]
    np.testing.assert_array_equal(y, np.float32(expected) + np.arange(4, dtype=np.float32))
    assert "twice" in plan_graph(g).program.tensors


def test_a_stored_row_tells_its_length(tmp_path: Path) -> None:
    """Then one kernel computes both."""
    g = graph(tmp_path / "graph.yaml", "sum", ", twice")
    assert ("twice", "total") in [c.nodes for c in plan_graph(g).program.commands]
    with gx.compile(g, device="cpu") as exe:
        found = exe.run(x=np.zeros(4, np.float32))
    np.testing.assert_array_equal(found["y"], np.full(4, 1560, np.float32))
    np.testing.assert_array_equal(found["twice"], np.tile(np.arange(40) * 2.0, (4, 1)))


def test_coordinates_along_axes_that_are_gone(tmp_path: Path) -> None:
    """A reshape leaves out an axis whose coordinate is computed with."""
    path = tmp_path / "graph.yaml"
    path.write_text(
        "version: 1\nname: gone\ninputs:\n  x: {shape: [1, 1, 7], dtype: f32}\nnodes:\n"
        "  a: x + index(-2) + index(-1)\n  b: {op: copy, x: a, reshape: [7]}\n"
        "  y: b * 2\noutputs: [y]\n"
    )
    with gx.compile(gx.load(path), device="cpu") as exe:
        y = exe.run(x=np.ones((1, 1, 7), np.float32))["y"]
    np.testing.assert_array_equal(y, 2.0 * (1 + np.arange(7)))
