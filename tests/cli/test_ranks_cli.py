"""graphexec under mpirun, and with the variables of torchrun: one prints, and all end together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import start_ranks
from start_ranks import STARTERS, by_mpirun, by_variables

PROGRAM = Path(sys.executable).with_name("graphexec")
OPS = Path(__file__).with_name("rank_ops")

GRAPH = """
version: 1
name: meeting
dims: {N: 4}
inputs:
  x: {shape: [N, 3], dtype: f32}
nodes:
  h: {op: trouble, x: x}
  s: {op: meet, x: h}
  y: s + 1
outputs: {y: y}
"""


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH)
    return path


def run(graph, *more):
    fixed = ("--ops", OPS, "--device", "cpu", "--mesh", "tp=2")
    return [str(word) for word in (PROGRAM, "run", graph, *fixed, *more)]


@pytest.mark.parametrize("start", STARTERS.values(), ids=STARTERS)
def test_rank_0_prints_and_writes(start, graph, tmp_path):
    out = tmp_path / "out.npz"
    logs = tmp_path / "logs"
    done = start(2, run(graph, "-i", "x=ones", "-o", out, "--log-dir", logs))
    assert set(done.codes) == {0}, done.err
    assert done.out.count("meeting ran on cpu") == 1
    with np.load(out) as arrays:
        np.testing.assert_array_equal(arrays["y"], np.full((4, 3), 3, np.float32))
    assert sorted(path.name for path in logs.iterdir()) == ["rank0.log", "rank1.log"]
    assert "meeting ran on cpu" in (logs / "rank1.log").read_text()


def test_one_process_is_told_how_to_start_more(graph):
    done = subprocess.run(run(graph), capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: the mesh tp=2 has 2 ranks, and this is one process alone" in done.stderr
    assert f"mpirun -n 2 graphexec run {graph} " in done.stderr


def test_a_wrong_number_of_ranks(graph):
    done = by_variables(3, run(graph))
    assert done.codes == (2, 2, 2)
    assert done.err.count("error: there are 3 ranks, but the mesh tp=2 has 2") == 1


def test_a_mesh_that_is_none(graph):
    done = subprocess.run(run(graph, "--mesh", "tp"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "'tp': expected axes and numbers, such as tp=2" in done.stderr


@pytest.mark.parametrize(
    ("other", "told", "code"),
    [
        (("-D", "N=5"), "error: dim N is 5 on rank 1 and 4 on rank 0\n", 2),
        (("--streams", "1"), "error: option streams is 1 on rank 1 and 4 on rank 0\n", 2),
        (("-i", "x=missing.npy"), "error: rank 1: input 'x': there is no file 'missing.npy'\n", 2),
    ],
)
def test_a_rank_that_was_started_otherwise(graph, other, told, code):
    here = {"MASTER_PORT": str(start_ranks.free_port())}
    processes = [
        *start_ranks.begin(1, run(graph), here, 2),
        *start_ranks.begin(1, run(graph, *other), {**here, "RANK": "1"}, 2),
    ]
    done = start_ranks.finish(processes)
    assert done.codes == (code, code)
    assert told in done.err
    assert done.err.count("error:") == 1


def test_another_file_and_another_version(graph, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(GRAPH.replace("s + 1", "s + 2"))
    code = (
        "import graphexec.base.version as v; v.__version__ = '9.9'\n"
        "from graphexec.cli import main; main()"
    )
    here = {"MASTER_PORT": str(start_ranks.free_port())}
    changed = [sys.executable, "-c", code, *run(other)[1:]]
    processes = [
        *start_ranks.begin(1, run(graph), here, 2),
        *start_ranks.begin(1, changed, {**here, "RANK": "1"}, 2),
    ]
    done = start_ranks.finish(processes)
    assert done.codes == (2, 2)
    assert "error: graphexec is 9.9 on rank 1 and " in done.err
    assert "error: graph is meeting (" in done.err


# What happens in the second of three steps. The message names the rank, its place, the collective.
TROUBLE = {
    "kill": "{rank} (process {pid} on {host}) died: its process has ended without a word; rank "
            "{other} is waiting at node 's' (all_reduce on tp0)",
    "fail": "{rank}: node 'h': ValueError: no such number",
    "stop": "{rank} (process {pid} on {host}) was stopped by a signal; rank {other} is waiting at "
            "node 's' (all_reduce on tp0)",
    "busy": "{rank} (process {pid} on {host}) did not come to node 's' (all_reduce on tp0) within "
            "4 s; rank {other} waits there",
}  # fmt: skip
TROUBLE["exit"] = TROUBLE["kill"]


@pytest.mark.parametrize(
    ("what", "rank"), [*((what, 1) for what in TROUBLE), ("kill", 0), ("stop", 0)]
)
def test_trouble_of_one_rank_ends_all(what, rank, graph):
    more = {"TROUBLE": what, "TROUBLE_RANK": str(rank)}
    limit = ("--timeout", "4") if what == "busy" else ()
    done = by_variables(2, run(graph, "--steps", "3", *limit), more)
    own = {"kill": -9, "exit": 3, "stop": -9}.get(what, 1)
    assert done.codes == ((own, 1) if rank == 0 else (1, own)), done.err
    check_message(done.err, what, rank)


@pytest.mark.parametrize("what", ["kill", "fail", "exit"])
def test_trouble_under_mpirun(what, graph):
    more = {"TROUBLE": what, "TROUBLE_RANK": "1"}
    done = by_mpirun(2, run(graph, "--steps", "3"), more)
    assert done.code == {"kill": 137, "exit": 3, "fail": 1}[what]
    check_message(done.err, what, 1)


def check_message(err, what, rank):
    told = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(told) == 1, err
    begin, _, end = (
        TROUBLE[what]
        .format(rank=f"error: rank {rank}", other=1 - rank, pid="*", host=os.uname().nodename)
        .partition("*")
    )
    assert told[0].startswith(begin)
    assert told[0].endswith(end)
