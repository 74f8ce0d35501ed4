"""Ranks in processes of their own: they meet, compute together, and fail together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import start_ranks
from start_ranks import STARTERS, by_variables

PROGRAM = Path(__file__).with_name("rank_programs.py")


def program(*words: str) -> list[str]:
    return [sys.executable, str(PROGRAM), *words]


def fine(done: start_ranks.Done, ranks: int) -> None:
    assert sorted(done.out.splitlines()) == [f"fine {r}" for r in range(ranks)], done.err
    assert set(done.codes) == {0}


# Meeting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("starter", "ranks"), [("mpirun", 4), ("variables", 3)])
def test_every_kind_of_collective(starter, ranks):
    fine(STARTERS[starter](ranks, program("kinds")), ranks)


def test_communicators_of_some_ranks():
    fine(by_variables(4, program("halves_of_the_ranks")), 4)


@pytest.mark.parametrize("start", STARTERS.values(), ids=STARTERS)
def test_sends_that_are_one_meeting(start):
    fine(start(3, program("ring")), 3)


@pytest.mark.parametrize("start", STARTERS.values(), ids=STARTERS)
def test_a_plan_on_two_ranks(start):
    fine(start(2, program("plan")), 2)


def test_states_of_ranks(tmp_path):
    fine(by_variables(2, program("states", str(tmp_path))), 2)


# Failing ----------------------------------------------------------------------------------------

RANK = r"rank 2 (process "


@pytest.mark.parametrize(
    ("how", "what", "code"),
    [
        ("kill", "died: its process has ended without a word", -9),
        ("leave", "has ended", 0),
        ("busy", "did not come to node 'sum' (all_reduce on tp0) within 2 s", 7),
    ],
)
def test_a_rank_that_does_not_come(how, what, code):
    done = by_variables(3, program("failing", how))
    assert done.codes == (1, 1, code), done.err
    told = sorted(done.out.splitlines())
    assert len(told) == 2
    for rank, line in enumerate(told):
        assert line.startswith(f"told {rank}: rank 2 (process "), line
        assert what in line
        assert "node 'sum' (all_reduce on tp0)" in line


def test_a_network_that_is_cut():
    script = Path(__file__).with_name("cut_network.py")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    told = sorted(done.stdout.split("\n"))[-2:]
    assert len(told) == 2, done.stderr
    for rank, line in enumerate(told):
        assert line.startswith(f"told {rank}: rank {1 - rank} (process "), done.stderr
        assert "cannot be reached any more" in line
        assert "at node 'sum' (all_reduce on tp0)" in line


def test_an_exception_of_one_rank_is_told_to_the_other():
    done = by_variables(2, program("raising"))
    reason = "node 'product': ValueError: no such number"
    lines = [line for line in done.out.splitlines() if line.startswith("told")]
    assert sorted(lines) == [
        *[f"told 0: RankFailed: rank 1: {reason}"] * 2, *[f"told 1: ExecutionError: {reason}"] * 2
    ]  # fmt: skip


# Differing --------------------------------------------------------------------------------------

MEETING = "error: the ranks' plans do not fit together: meeting 1 of tp0 is all_reduce sum of"


AT = " (node 'sum') on rank"


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("facts", "error: file is b on rank 1 and a on rank 0"),
        ("size", f"{MEETING} 128 f32{AT} 0, and all_reduce sum of 144 f32{AT} 1"),
        ("kind", f"{MEETING} 128 f32{AT} 0, and all_gather sum of 128 f32{AT} 1"),
    ],
)
def test_what_differs_is_named(what, told):
    done = by_variables(2, program("other", what))
    lines = [line for line in done.out.splitlines() if line.startswith("told")]
    assert sorted(lines) == [f"told 0: {told}", f"told 1: {told}"], done.err


@pytest.mark.parametrize(
    ("world", "more", "told"),
    [
        (3, {}, "rank 2 did not come within 1 s"),
        (2, {"RANK": "0"}, "rank 1 did not come within 1 s"),
    ],
)
def test_ranks_that_do_not_come(world, more, told):
    more = {**more, "GRAPHEXEC_RANKS_START": "1"}
    done = start_ranks.finish(start_ranks.begin(2, program("meeting"), more, world))
    assert set(done.out.splitlines()) == {f"ExecutionError: {told}"}, done.err


def test_ranks_that_were_told_other_numbers():
    port = str(start_ranks.free_port())
    processes = [
        *start_ranks.begin(1, program("meeting"), {"MASTER_PORT": port}, 2),
        *start_ranks.begin(1, program("meeting"), {"MASTER_PORT": port, "RANK": "1"}, 3),
    ]  # fmt: skip
    done = start_ranks.finish(processes)
    told = "rank 1 was told that there are 3 ranks, rank 0 that there are 2"
    assert done.out.splitlines() == [f"InputError: error: {told}"] * 2


def test_a_port_of_another_program_is_left_alone():
    """torchrun's store listens on MASTER_PORT itself."""
    import socket

    with socket.create_server(("", 0)) as store:
        port = str(store.getsockname()[1])
        fine(by_variables(2, program("halves"), {"MASTER_PORT": port}), 2)
