"""Every example graph runs on the CPU and gives what NumPy gives in float64.

Each computation is written here a second time, without graphexec. Inputs are rounded to the
graph's dtypes first; the tolerance is that of the coarsest dtype a value passes through.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphexec as gx
from graphexec.machine.costs import GPU

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
FOLDER = Path(__file__).parent.parent / "graphs"
FILES = sorted(FOLDER.glob("*.yaml"))


def softmax(z: Array, axis: int = -1) -> Array:
    powers = np.exp(z - z.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def attention(x: Arrays) -> Arrays:
    scores = np.einsum("bhqd,bhkd->bhqk", x["q"], x["k"]) / 8.0
    return {"out": np.einsum("bhqk,bhkd->bhqd", softmax(scores), x["v"])}


def causal_gqa(x: Arrays) -> Arrays:
    out = np.zeros_like(x["q"])
    batches, groups, heads, queries, depth = x["q"].shape
    positions = x["k"].shape[3]
    for b, g, r, query in np.ndindex(batches, groups, heads, queries):
        seen = positions - queries + query + 1  # the last queries of all positions
        scores = x["k"][b, g, 0, :seen] @ x["q"][b, g, r, query] / np.sqrt(depth)
        out[b, g, r, query] = softmax(scores) @ x["v"][b, g, 0, :seen]
    return {"out": out}


def copies(x: Arrays) -> Arrays:
    half = x["x"].astype(np.float16).astype(np.float64)
    flat = np.stack([half[:, 2::2, c].reshape(-1) for c in range(half.shape[2])])
    return {"flat": flat, "parked": flat, "back": flat, "again": x["x"]}


def diamond(x: Arrays) -> Arrays:
    top = softmax(x["x"], axis=0)
    join = top @ x["wl"] @ (top @ x["wr"].T).T / x["x"].shape[1]
    return {"join": join, "out": join @ top + 2 * x["x"]}


def multi_head_attention(x: Arrays) -> Arrays:
    with np.load(FOLDER / "multi_head_attention.npz") as archive:
        weights = {name: archive[name].astype(np.float64) for name in archive}
    q, k, v = (x["x"] @ weights[name] for name in ("wq", "wk", "wv"))
    heads = []
    for part in np.split(np.arange(q.shape[-1]), 4):
        scores = q[..., part] @ k[..., part].swapaxes(-1, -2) / np.sqrt(len(part))
        heads.append(softmax(scores) @ v[..., part])
    return {"out": np.concatenate(heads, axis=-1) @ weights["wo"] + weights["bo"]}


def parallel_branches(x: Arrays) -> Arrays:
    total = np.zeros_like(x["x"])
    for branch in range(8):
        total += x["x"] @ np.linalg.matrix_power(x[f"w{branch}"] / np.sqrt(len(total)), 4)
    return {"out": total}


COMPUTED: dict[str, tuple[Callable[[Arrays], Arrays], float]] = {
    # the computation, and the relative error (Frobenius) its dtypes explain
    "attention": (attention, 2e-3),
    "causal_gqa": (causal_gqa, 1e-2),
    "copies": (copies, 0.0),
    "diamond": (diamond, 1e-5),
    "multi_head_attention": (multi_head_attention, 1e-5),
    "parallel_branches": (parallel_branches, 1e-5),
}


def drawn(exe: gx.Executable) -> Arrays:
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal(t.shape).astype(t.dtype.numpy()) for n, t in exe.inputs.items()}


def test_every_graph_is_computed_here_and_described() -> None:
    assert {f.stem for f in FILES} == set(COMPUTED)
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    for file in FILES:
        assert sum(line.startswith(f"| `{file.name}` |") for line in lines) == 1


@pytest.mark.parametrize("streams", [1, 2, 4, 8])
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_numbers(file: Path, streams: int) -> None:
    compute, tolerance = COMPUTED[file.stem]
    graph = gx.load(file)
    assert not graph.warnings
    device = gx.CpuDevice(poison=True, delays=streams)
    with gx.compile(graph, device=device, streams=streams, costs=GPU) as exe:
        assert len(exe.plan.streams) <= streams
        inputs = drawn(exe)
        found = exe.run(**inputs)
        again = exe.run(**inputs)
    expected = compute({name: array.astype(np.float64) for name, array in inputs.items()})
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].tobytes() == again[name].tobytes()
        error = np.linalg.norm(found[name].astype(np.float64) - array)
        assert error <= tolerance * np.linalg.norm(array)


@pytest.mark.parametrize(("stem", "dims"), [
    ("attention", {"B": 1, "H": 2, "S": 33}), ("causal_gqa", {"Q": 7, "S": 5 + 7, "R": 1}),
    ("diamond", {"M": 3, "N": 1}), ("copies", {"A": 1, "B": 3, "C": 5}),
    ("parallel_branches", {"N": 1}),
    ("multi_head_attention", {"S": 1, "B": 1}),
])  # fmt: skip
def test_other_dims(stem: str, dims: dict[str, int]) -> None:
    compute, tolerance = COMPUTED[stem]
    with gx.compile(gx.load(FOLDER / f"{stem}.yaml", dims=dims), device="cpu") as exe:
        inputs = drawn(exe)
        found = exe.run(**inputs)
    expected = compute({name: array.astype(np.float64) for name, array in inputs.items()})
    for name, array in expected.items():
        error = np.linalg.norm(found[name].astype(np.float64) - array)
        assert error <= tolerance * np.linalg.norm(array)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_compare_agrees(file: Path) -> None:
    graph = gx.load(file)
    with gx.compile(graph, device="cpu") as exe:
        inputs = drawn(exe)
    assert gx.compare(graph, inputs, device="cpu").ok


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_to_yaml_round_trips(file: Path) -> None:
    graph = gx.load(file)
    assert gx.loads(graph.to_yaml(), folder=FOLDER) == graph


def test_independent_branches_run_side_by_side() -> None:
    graph = gx.load(FOLDER / "parallel_branches.yaml", dims={"N": 192})
    plan = gx.make_plan(graph, streams=8, no_rewrite=["batch"])
    assert len(plan.streams) > 1


@pytest.mark.parametrize("batch", [(), ("batch",)])
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_more_streams_are_never_predicted_slower(file: Path, batch: tuple[str, ...]) -> None:
    for dims in ({}, {"N": 192} if "N" in gx.load(file).dims else {}):
        graph = gx.load(file, dims=dims)
        plans = [gx.make_plan(graph, streams=n, no_rewrite=batch) for n in (1, 2, 3, 4, 5)]
        found = [plan.stats.predicted_ns for plan in plans if plan.stats is not None]
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_small_graphs_stay_on_one_stream_of_the_cpu(file: Path) -> None:
    graph = gx.load(file)
    assert gx.make_plan(graph).instructions == gx.make_plan(graph, streams=1).instructions


def test_the_branches_reuse_memory() -> None:
    stats = gx.make_plan(gx.load(FOLDER / "parallel_branches.yaml"), streams=4).stats
    assert stats is not None
    assert stats.arena_lower_bound <= stats.arena_bytes < stats.naive_bytes
