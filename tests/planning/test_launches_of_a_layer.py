"""The commands that a layer of a model takes, on the CPU and on a GPU, and its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exact import Array, draw
from hardware import Chip

import graphexec as gx
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare

ENCODER = """
version: 1
name: encoder
dims: {{B: 2, S: 16, E: 32, H: 4, D: 8, F: 64}}
file: w.npz
inputs:
  x: {{shape: [B, S, E], dtype: {dtype}}}
  seen: {{shape: [B, S], dtype: i32}}
weights: {{wq: wq, bq: bq, wk: wk, bk: bk, wv: wv, bv: bv, wo: wo, bo: bo, wu: wu, bu: bu, wd: wd,
          bd: bd, g: g, d: d}}
nodes:
  keys: {{op: copy, x: seen, reshape: [B, 1, 1, S]}}
  mask: keys != 0
  q: x @ T(wq) + bq
  k: x @ T(wk) + bk
  v: x @ T(wv) + bv
  qh: {{op: copy, x: q, axes: B S (H D) -> B H S D}}
  kh: {{op: copy, x: k, axes: B S (H D) -> B H S D}}
  vh: {{op: copy, x: v, axes: B S (H D) -> B H S D}}
  a: {{op: attention, q: qh, k: kh, v: vh, mask: mask}}
  c: {{op: copy, x: a, axes: B H S D -> B S (H D)}}
  r: x + c @ T(wo) + bo
  h: {{op: norm, x: r, weight: g, bias: d}}
  u: gelu(h @ T(wu) + bu)
  y: h + u @ T(wd) + bd
  z: {{op: norm, x: y, weight: g, bias: d}}
outputs: [z]
"""

DECODER = """
version: 1
name: decoder
dims: {{B: 2, S: 16, E: 32, G: 2, R: 2, D: 8, F: 64}}
file: w.npz
inputs:
  x: {{shape: [B, S, E], dtype: {dtype}}}
  at: {{shape: [], dtype: i32}}
weights: {{wq: wq, wk: wk, wv: wv, wo: wo, wu: wu, wg: wg, wd: wd, g: g}}
nodes:
  h: {{op: norm, kind: rms, x: x, weight: g}}
  q: h @ T(wq)
  k: h @ T(wk)
  v: h @ T(wv)
  q1: {{op: copy, x: q, axes: B S (G R D) -> B G R S D}}
  k1: {{op: copy, x: k, axes: B S (G 1 D) -> B G 1 S D}}
  v1: {{op: copy, x: v, axes: B S (G 1 D) -> B G 1 S D}}
  q2: {{op: rope, x: q1, at: at}}
  k2: {{op: rope, x: k1, at: at}}
  a: {{op: attention, q: q2, k: k2, v: v1, causal: true}}
  c: {{op: copy, x: a, axes: B G R S D -> B S (G R D)}}
  r: x + c @ T(wo)
  m: {{op: norm, kind: rms, x: r, weight: g}}
  gate: m @ T(wg)
  up: m @ T(wu)
  s: silu(gate) * up
  y: r + s @ T(wd)
  z: {{op: norm, kind: rms, x: y, weight: g}}
outputs: [z]
"""

ROWS = {
    "encoder": {"wq": 32, "wk": 32, "wv": 32, "wo": 32, "wu": 64},
    "decoder": {"wq": 32, "wk": 16, "wv": 16, "wo": 32, "wu": 64, "wg": 64},
}
COMMANDS = {
    "encoder": [
        "map", "gemm", "attention", "gemm", "map + layer norm", "gemm", "map", "gemm",
        "map + layer norm",
    ],
    "decoder": [
        "rms norm", "gemm", "rope", "causal attention", "gemm", "map + rms norm", "gemm", "map",
        "gemm", "map + rms norm",
    ],
}  # fmt: skip
CHIP = Chip(attention=("f16", "bf16"), any_batch=False)


def layer(folder: Path, kind: str, dtype: str) -> gx.Graph:
    rng = np.random.default_rng(9)
    arrays: dict[str, Array] = {}
    for name, rows in ROWS[kind].items():
        arrays[name] = draw(rng, (rows, 32), dtype, 0.2)
        arrays["b" + name[1:]] = draw(rng, (rows,), dtype, 0.2)
    arrays |= {"wd": draw(rng, (32, 64), dtype, 0.2), "bd": draw(rng, (32,), dtype)}
    arrays |= {"g": draw(rng, (32,), dtype), "d": draw(rng, (32,), dtype)}
    np.savez(folder / "w.npz", **arrays)
    text = {"encoder": ENCODER, "decoder": DECODER}[kind]
    (folder / "g.yaml").write_text(text.format(dtype=dtype))
    return gx.load(folder / "g.yaml")


@pytest.mark.parametrize("device", ["cpu", "hip"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_commands(tmp_path: Path, kind: str, device: str) -> None:
    hardware = CHIP if device == "hip" else None
    graph = layer(tmp_path, kind, "f16")
    plan = plan_graph(graph, device=device, hardware=hardware, resident=True, streams=1)
    found = [command.label for command in plan.program.commands]
    assert sorted(found) == sorted(COMMANDS[kind])


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_numbers(tmp_path: Path, kind: str, dtype: str) -> None:
    graph = layer(tmp_path, kind, dtype)
    rng = np.random.default_rng(2)
    given = {"x": draw(rng, (2, 16, 32), dtype)}
    if kind == "decoder":
        given["at"] = np.array(7, np.int32)
    else:
        given["seen"] = (np.arange(16) < np.array([[16], [9]])).astype(np.int32)
    found = compare(graph, given, device=gx.CpuDevice(poison=True))
    assert found.ok, found
