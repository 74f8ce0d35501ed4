"""A HIP device for tests: the emulator, or what `GRAPHEXEC_HIP_LIBRARY_PATH` names."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hip_lab import Lab

collect_ignore = (
    [] if "GRAPHEXEC_HIP_LIBRARY_PATH" in os.environ else ["test_attention_on_a_gpu.py"]
)


@pytest.fixture(scope="session")
def opened_lab() -> Lab:
    return Lab.open()


@pytest.fixture
def lab(opened_lab: Lab) -> Iterator[Lab]:
    """The device, with the emulator as new before and after the test."""
    opened_lab.reset()
    yield opened_lab
    opened_lab.reset()


@pytest.fixture
def emulated(lab: Lab) -> Lab:
    """Like `lab`, for tests that need the emulator."""
    if lab.emulator is None:
        pytest.skip("needs the emulator: unset GRAPHEXEC_HIP_LIBRARY_PATH")
    return lab
