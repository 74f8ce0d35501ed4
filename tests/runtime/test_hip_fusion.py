"""Fused commands on the GPU, or the emulator: products that share their input, softmax and its
neighbours, what follows a reduction, masks of bools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exact import draw
from hip_lab import Lab, inputs_of

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.tools.compare import compare_executable

PROJECTIONS = """
version: 1
name: projections
dims: {{B: 2, S: 6, H: 4, D: 8}}
file: w.npz
inputs:
  x: {{shape: [B, S, 32], dtype: {dtype}}}
  seen: {{shape: [B, 1, 1, S], dtype: i32}}
weights: {{wq: wq, wk: wk, wv: wv, bq: bq, bk: bk, bv: bv, wg: wg, wu: wu}}
nodes:
  q: x @ T(wq) + bq
  k: x @ T(wk) + bk
  v: x @ T(wv) + bv
  qh: {{op: copy, x: q, axes: B S (H D) -> B H S D}}
  kh: {{op: copy, x: k, axes: B S (1 D) -> B 1 S D}}
  vh: {{op: copy, x: v, axes: B S (1 D) -> B 1 S D}}
  mask: seen != 0
  a: {{op: attention, q: qh, k: kh, v: vh, mask: mask}}
  c: {{op: copy, x: a, axes: B H S D -> B S (H D)}}
  gate: x @ T(wg)
  up: x @ T(wu)
  y: silu(gate) * up + c
outputs: [y]
"""


@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_projections(lab: Lab, tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(7)
    rows = {"wq": 32, "wk": 8, "wv": 8, "wg": 32, "wu": 32}
    arrays = {name: draw(rng, (count, 32), dtype, 0.3) for name, count in rows.items()}
    arrays |= {f"b{n[1]}": draw(rng, (rows[n],), dtype) for n in ("wq", "wk", "wv")}
    np.savez(tmp_path / "w.npz", **arrays)
    (tmp_path / "g.yaml").write_text(PROJECTIONS.format(dtype=dtype))
    graph = gx.load(tmp_path / "g.yaml")
    given = {"x": draw(rng, (2, 6, 32), dtype), "seen": np.ones((2, 1, 1, 6), np.int32)}
    given["seen"][1, ..., 3:] = 0
    with lab.compile(graph) as exe:
        products = [i.node for i in exe.plan.instructions
                    if isinstance(i, Launch) and i.command == "gemm"]  # fmt: skip
        assert {"q+k+v", "gate+up"} <= set(products)
        found = compare_executable(exe, given)
        assert found.ok, [row for row in (*found.nodes, *found.outputs) if not row.ok]


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_softmax_and_maps(lab: Lab, causal: bool, dtype: str) -> None:
    graph = gx.Graph("g")
    for name in ("x", "z"):
        graph.input(name, (3, 9, 40), dtype)
    graph.map("x * 0.5 + z", x="x", z="z", name="before")
    graph.softmax("before", causal=causal, name="p")
    graph.output(y=graph.map("p * z", p="p", z="z", name="y"))
    with lab.compile(graph) as exe:
        found = compare_executable(exe, inputs_of(exe, 0))
        assert [row.name for row in found.nodes] == ["y"]
        assert found.ok, [row for row in (*found.nodes, *found.outputs) if not row.ok]


@pytest.mark.parametrize("axis", [1, 2])
def test_what_follows_a_reduction(lab: Lab, axis: int) -> None:
    graph = gx.Graph("g")
    graph.input("x", (3, 20, 48))
    graph.input("n", (3, 48 if axis == 1 else 20))
    graph.map("x + 1", x="x", name="t")
    graph.reduce("t", kind="sum", axis=axis, name="total")
    graph.output(y=graph.map("total * 2 + n", total="total", n="n", name="y"))
    with lab.compile(graph) as exe:
        found = compare_executable(exe, inputs_of(exe, 0))
        assert [row.name for row in found.nodes] == ["y"]
        assert found.ok, [row for row in (*found.nodes, *found.outputs) if not row.ok]


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("function", ["relu", "gelu_tanh"])
def test_activations_that_the_library_applies(lab: Lab, function: str, dtype: str) -> None:
    graph = gx.Graph("g")
    graph.input("x", (24, 32), dtype)
    graph.input("w", (64, 32), dtype)
    graph.input("b", (64,), dtype)
    graph.gemm("x", "w", trans_b=True, name="g")
    graph.output(y=graph.map(f"{function}(g + b)", g="g", b="b", name="y"))
    with lab.compile(graph, rewrite=("fuse-activations",)) as exe:
        found = compare_executable(exe, inputs_of(exe, 0))
        assert [row.name for row in found.nodes][-1] == "y"
        if lab.emulator is None and function == "gelu_tanh":  # cuBLASLt loses its small results
            assert all(row.relative <= row.tolerance for row in found.nodes)
            return
        assert found.ok, [row for row in (*found.nodes, *found.outputs) if not row.ok]
