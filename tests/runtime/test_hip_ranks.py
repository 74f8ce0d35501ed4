"""Ranks on GPUs, by RCCL: on the emulator each is a process, and arrives when the seed says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hip_emulator import build
from start_ranks import Done, by_variables

PROGRAM = Path(__file__).parent / "ranks" / "rank_programs.py"


@pytest.fixture(scope="module")
def emulator() -> dict[str, str]:
    """The environment in which the emulator is the GPU."""
    if "GRAPHEXEC_HIP_LIBRARY_PATH" in os.environ:
        pytest.skip("needs the emulator: unset GRAPHEXEC_HIP_LIBRARY_PATH")
    return {"GRAPHEXEC_HIP_LIBRARY_PATH": str(build.build()), "LD_PRELOAD": ""}


def run(ranks: int, emulator: dict[str, str], *words: str, **more: str) -> Done:
    return by_variables(ranks, [sys.executable, str(PROGRAM), *words], {**emulator, **more})


def fine(done: Done, ranks: int) -> None:
    assert sorted(done.out.splitlines()) == [f"fine {r}" for r in range(ranks)], done.err
    assert set(done.codes) == {0}


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_kind_of_collective(emulator, ranks):
    fine(run(ranks, emulator, "rccl_kinds"), ranks)


@pytest.mark.parametrize(("mode", "seed"), [("stream", "1"), ("graph", "2"), ("graph", "3")])
def test_a_plan_on_two_ranks(emulator, mode, seed):
    done = run(2, emulator, "plan", "hip", RANK_MODE=mode, GRAPHEXEC_EMULATOR_SEED=seed)
    fine(done, 2)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("kind", "rank 0 has all_reduce sum of 8 f32, rank 1 has reduce_scatter sum of 4 f32"),
        ("count", "rank 0 has all_reduce sum of 8 f32, rank 1 has all_reduce sum of 4 f32"),
        ("reduction", "rank 0 has all_reduce sum of 8 f32, rank 1 has all_reduce max of 8 f32"),
        ("absent", "rank 1 does not come"),
    ],
)
def test_the_emulator_names_what_is_wrong(emulator, what, told):
    done = run(2, emulator, "rccl_wrong", what, GRAPHEXEC_EMULATOR_RCCL_PATIENCE="2")
    assert told in done.err
    assert "told 0: hipStreamSynchronize failed: hipErrorLaunchFailure" in done.out


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("kill", "died: its process has ended without a word"),
        ("stop", "was stopped by a signal"),
        ("leave", "has ended"),
    ],
)
def test_a_rank_that_does_not_come(emulator, how, what):
    done = run(3, emulator, "failing", how, "hip")
    assert done.codes[:2] == (1, 1), done.err
    told = sorted(done.out.splitlines())
    assert len(told) == 2
    for rank, line in enumerate(told):
        assert line.startswith(f"told {rank}: rank 2 (process ")
        assert what in line
        assert "at node 'sum' (all_reduce on tp0)" in line
