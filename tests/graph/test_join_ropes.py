"""join-ropes: which ropes become one, near misses, the numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact import draw
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare

LAYER = """
version: 1
name: layer
dims: {{B: {b}, S: {s}, G: {g}, R: {r}, D: {d}, E: 16}}
file: w.npz
inputs:
  x: {{shape: [B, S, E], dtype: {dtype}}}
  at: {{shape: {at}, dtype: i32}}
  place: {{shape: [S], dtype: i32}}
  place2: {{shape: [B, 1, 1, S], dtype: i32}}
weights: {{wq: wq, wk: wk, wv: wv}}
nodes:
  q0: x @ T(wq)
  k0: x @ T(wk)
  v0: x @ T(wv)
  q1: {{op: copy, x: q0, axes: B S (G R D) -> B G R S D}}
  k1: {{op: copy, x: k0, axes: B S (G 1 D) -> B G 1 S D}}
  v1: {{op: copy, x: v0, axes: B S (G 1 D) -> B G 1 S D}}
  q2: {{op: rope, x: q1, {q}}}
  k2: {{op: rope, x: k1, {k}}}
  a:  {{op: attention, q: q2, k: k2, v: v1, causal: true}}
  {more}
outputs: [{outputs}]
"""


def layer(
    folder: Path, q: str = "at: at", k: str = "", more: str = "", outputs: str = "a",
    dtype: str = "f32", at: str = "[]", sizes: tuple[int, ...] = (2, 6, 2, 2, 8),
) -> gx.Graph:  # fmt: skip
    b, s, g, r, d = sizes
    rng = np.random.default_rng(5)
    rows = {"wq": g * r * d, "wk": g * d, "wv": g * d}
    np.savez(folder / "w.npz", **{n: draw(rng, (count, 16), dtype) for n, count in rows.items()})
    text = LAYER.format(b=b, s=s, g=g, r=r, d=d, q=q, k=k or q, more=more, outputs=outputs,
                        dtype=dtype, at=at)  # fmt: skip
    (folder / "g.yaml").write_text(text)
    return gx.load(folder / "g.yaml")


def ropes(graph: gx.Graph, **options: Any) -> list[str]:
    plan = gx.make_plan(graph, device="cpu", resident=True, **options)
    return [i.node for i in plan.instructions if isinstance(i, Launch) and i.command == "rope"]


def assert_right(graph: gx.Graph, **options: Any) -> None:
    rng = np.random.default_rng(3)
    inputs = {
        name: draw(rng, type.shape, type.dtype) if type.dtype.is_float
        else rng.integers(0, 50, type.shape).astype(type.dtype.numpy())
        for name, type in plan_graph(graph).graph.inputs.items()
    }  # fmt: skip
    found = compare(graph, inputs, device=gx.CpuDevice(poison=True), **options)
    assert found.ok, found


@pytest.mark.parametrize(
    "settings",
    ["at: at", "position: place", "at: at, theta: 500", "at: at, pairs: interleaved",
     "at: at, rotate: 4"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_queries_and_keys_are_rotated_by_one_command(
    tmp_path: Path, settings: str, dtype: str
) -> None:
    graph = layer(tmp_path, settings, dtype=dtype)
    assert set(ropes(graph)) == {"q2+k2"}
    assert set(ropes(graph, no_rewrite="join-ropes")) == {"q2", "k2"}
    assert_right(graph)


def test_a_position_for_each_of_the_batch(tmp_path: Path) -> None:
    graph = layer(tmp_path, at="[B]")
    assert ropes(graph) == ["q2+k2"]
    assert_right(graph)


def test_one_token(tmp_path: Path) -> None:
    """Its heads lie one after another, so that they are no windows but reshapes."""
    graph = layer(tmp_path, sizes=(1, 1, 2, 2, 8))
    assert ropes(graph) == ["q2+k2"]
    assert_right(graph)


def test_what_is_said(tmp_path: Path) -> None:
    notes = plan_graph(layer(tmp_path)).notes
    texts = [note.text for note in notes if note.rewrite == "join-ropes"]
    assert texts == ["'q2' and 'k2' are rotated by one command"]


def test_near_misses(tmp_path: Path) -> None:
    for change in (
        {"k": "at: at, theta: 500"},
        {"k": "position: place"},
        {"q": "position: place2"},  # may differ from head to head
        {"outputs": "a, k2"},
    ):
        graph = layer(tmp_path, **change)
        assert sorted(ropes(graph)) == ["k2", "q2"], change
        assert_right(graph)
    apart = layer(tmp_path)  # of products that are not joined
    assert sorted(ropes(apart, no_rewrite="join-projections")) == ["k2", "q2"]
    assert_right(apart, no_rewrite="join-projections")


def test_heads_that_are_read_twice_stay_where_they_are(tmp_path: Path) -> None:
    graph = layer(tmp_path, more="z: q1 * 2", outputs="a, z")
    assert ropes(graph) == ["q2+k2"]
    assert_right(graph)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3),
              st.sampled_from([2, 4, 8])),
    st.sampled_from(["at: at", "position: place"]), st.sampled_from(["f32", "f16"]),
)  # fmt: skip
@example(
    (2, 5, 2, 3, 2), "at: at", "f16"
)  # large logits, which need to be seen as they were rounded
def test_random_sizes(tmp_path: Path, sizes: tuple[int, ...], given: str, dtype: str) -> None:
    assert_right(layer(tmp_path, given, sizes=sizes, dtype=dtype))
