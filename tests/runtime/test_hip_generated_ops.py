"""Ops whose kernels are generated, in whole plans on a HIP device."""

from __future__ import annotations

from pathlib import Path

import pytest
from hip_lab import MODES, Lab, Mode, assert_right, inputs_of

import graphexec as gx

MODEL = """
version: 1
name: block
dims: {{B: 2, S: 6, E: 40}}
inputs:
  x: {{shape: [B, S, E], dtype: {dtype}}}
  r: {{shape: [B, S, E], dtype: {dtype}}}
  g: {{shape: [E], dtype: {dtype}}}
nodes:
  h: silu(x) * r + 0.5
  layer: {{op: norm, x: h, weight: g, bias: g}}
  across: {{op: norm, x: layer, kind: rms, axis: 1}}
  place: "where(h > 0, index(-1), -1) + index(0) * 1.5"
  largest: {{op: reduce, x: h, kind: max, axis: -1}}
  mean: {{op: reduce, x: across, kind: mean, axis: [0, 2]}}
  total: {{op: reduce, x: h, kind: logsumexp}}
outputs: [layer, across, place, largest, mean, total]
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_a_plan_of_generated_kernels(lab: Lab, dtype: str, mode: Mode, tmp_path: Path) -> None:
    path = tmp_path / "block.yaml"
    path.write_text(MODEL.format(dtype=dtype))
    with lab.compile(gx.load(path), mode) as exe:
        inputs = inputs_of(exe)
        outputs = exe.run(**inputs)
        assert_right(exe, inputs, outputs)
