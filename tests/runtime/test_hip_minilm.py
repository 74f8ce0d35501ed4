"""graphs/minilm.yaml on the HIP device, with a small random model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hip_lab import MODES, Lab
from minilm_reference import run_small, small

from graphexec.runtime.hip.device import HipDevice, Mode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "least"), [("f32", 1 - 1e-9), ("f16", 0.9999)])
def test_a_small_model(lab: Lab, tmp_path: Path, dtype: str, least: float, mode: Mode) -> None:
    with lab.nothing_left():
        found = run_small(small(tmp_path, dtype, S=12), device=HipDevice(mode=mode), streams=3)
    assert found.min() >= least
