"""graphs/smollm2.yaml on the HIP device, with a small random model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hip_lab import MODES, Lab
from language_model_reference import PROMPTS, expected, replayed, small, stepwise

import graphexec as gx
from graphexec.runtime.hip.device import HipDevice, Mode


@pytest.mark.parametrize("mode", MODES)
def test_a_small_model_step_by_step_and_replayed(lab: Lab, tmp_path: Path, mode: Mode) -> None:
    with (
        lab.nothing_left(),
        gx.compile(small(tmp_path), device=HipDevice(mode=mode), streams=3) as exe,
    ):
        for number in (0, 1):
            assert stepwise(exe, PROMPTS[number], 6) == expected(number)[:6]
            assert replayed(exe, PROMPTS[number], 6) == expected(number)[:6]
