"""Every example graph runs on the CPU and gives what NumPy gives in float64.

Each computation is written here a second time, without graphexec. Inputs are rounded to the
graph's dtypes first; the tolerance is that of the coarsest dtype a value passes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import FILES, FOLDER
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.machine.costs import GPU

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


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


def gelu(z: Array) -> Array:
    return z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2


def layer_norm(z: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    centred = z - z.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def rms_norm(z: Array, weight: Array) -> Array:
    return z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-5) * weight


def rotated(z: Array, first: int) -> Array:
    """(positions, D): feature i and feature i + D/2 as one complex number, turned."""
    half = z.shape[-1] // 2
    angles = np.outer(first + np.arange(len(z)), 10000.0 ** (-np.arange(half) / half))
    turned = (z[:, :half] + 1j * z[:, half:]) * np.exp(1j * angles)
    return np.hstack([turned.real, turned.imag])


def transformer_layer(x: Arrays, depth: int = 32) -> Arrays:
    """A sentence after the other, a head after the other."""
    y, first = np.empty_like(x["x"]), int(x["start"])
    for b, tokens in enumerate(x["x"]):
        h = rms_norm(tokens, x["g1"])
        q, k, v = (h @ x[w].T for w in ("wq", "wk", "wv"))
        seen = np.tril(np.ones((len(h), len(h)), bool))
        heads = []
        for head in range(q.shape[1] // depth):
            group = head // (q.shape[1] // k.shape[1])
            queries, keys, values = (
                z[:, n * depth : (n + 1) * depth] for z, n in ((q, head), (k, group), (v, group))
            )
            scores = rotated(queries, first) @ rotated(keys, first).T / math.sqrt(depth)
            heads.append(softmax(np.where(seen, scores, -np.inf)) @ values)
        r = tokens + np.hstack(heads) @ x["wo"].T
        m = rms_norm(r, x["g2"])
        gate = m @ x["wg"].T
        y[b] = r + (gate / (1 + np.exp(-gate)) * (m @ x["wu"].T)) @ x["wd"].T
    return {"y": y}


def mlp_mixer(x: Arrays) -> Arrays:
    columns = layer_norm(x["x"], x["g1"], x["d1"]).swapaxes(1, 2)  # channels, patches
    along = gelu(columns @ x["w1"].T + x["b1"].ravel()) @ x["w2"].T + x["b2"].ravel()
    mixed = x["x"] + along.swapaxes(1, 2)
    hidden = gelu(layer_norm(mixed, x["g2"], x["d2"]) @ x["w3"] + x["b3"])
    return {"y": mixed + hidden @ x["w4"] + x["b4"]}


def masks(x: Arrays, window: int = 16) -> Arrays:
    out = {"windowed": np.empty_like(x["q"]), "alibi": np.empty_like(x["q"])}
    heads, depth = x["q"].shape[1::2]
    for b, h, i in np.ndindex(x["q"].shape[:3]):
        first = max(0, i - window + 1)  # the query's own key is the last of them
        scores = x["k"][b, h, first : i + 1] @ x["q"][b, h, i] / math.sqrt(depth)
        slope = 2.0 ** (-8 * (h + 1) / heads)
        away = i - np.arange(first, i + 1)
        for name, bias in (("windowed", 0.0), ("alibi", slope * away)):
            out[name][b, h, i] = softmax(scores - bias) @ x["v"][b, h, first : i + 1]
    return out


COMPUTED: dict[str, tuple[Callable[[Arrays], Arrays], float]] = {
    # the computation, and the relative error (Frobenius) its dtypes explain
    "attention": (attention, 2e-3),
    "causal_gqa": (causal_gqa, 1e-2),
    "copies": (copies, 0.0),
    "diamond": (diamond, 1e-5),
    "multi_head_attention": (multi_head_attention, 1e-5),
    "parallel_branches": (parallel_branches, 1e-5),
    "transformer_layer": (transformer_layer, 1e-5),
    "mlp_mixer": (mlp_mixer, 1e-5),
    "masks": (masks, 1e-5),
}


def drawn(exe: gx.Executable) -> Arrays:
    rng = np.random.default_rng(0)
    return {n: array(rng, t) for n, t in exe.inputs.items()}


def array(rng: np.random.Generator, type: gx.TensorType) -> Array:
    """Normal numbers; integers are places."""
    numpy = type.dtype.numpy()
    if not type.dtype.is_float:
        return rng.integers(0, 100, type.shape, numpy)
    return rng.standard_normal(type.shape).astype(numpy)


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


def right_at(
    stem: str, compute: Callable[[Arrays], Arrays], tolerance: float, dims: dict[str, int]
) -> None:
    with gx.compile(gx.load(FOLDER / f"{stem}.yaml", dims=dims), device="cpu") as exe:
        inputs = drawn(exe)
        found = exe.run(**inputs)
    expected = compute({name: array.astype(np.float64) for name, array in inputs.items()})
    for name, array in expected.items():
        assert found[name].shape == array.shape
        error = np.linalg.norm(found[name].astype(np.float64) - array)
        assert error <= tolerance * np.linalg.norm(array)


@pytest.mark.parametrize(("stem", "dims"), [
    ("attention", {"B": 1, "H": 2, "S": 33}), ("causal_gqa", {"Q": 7, "S": 5 + 7, "R": 1}),
    ("diamond", {"M": 3, "N": 1}), ("copies", {"A": 1, "B": 3, "C": 5}),
    ("parallel_branches", {"N": 1}),
    ("multi_head_attention", {"S": 1, "B": 1}),
    ("transformer_layer", {"B": 1, "S": 7, "R": 3}), ("transformer_layer", {"S": 1, "G": 1}),
    ("mlp_mixer", {"P": 5, "FP": 3}), ("masks", {"S": 9, "H": 3}), ("masks", {"B": 1, "S": 80}),
])  # fmt: skip
def test_other_dims(stem: str, dims: dict[str, int]) -> None:
    compute, tolerance = COMPUTED[stem]
    right_at(stem, compute, tolerance, dims)


def extents(**most: int) -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries({dim: st.integers(1, extent) for dim, extent in most.items()})


@settings(max_examples=20)
@given(extents(B=3, S=20, E=24, G=3, R=3, D=8, F=20))
def test_a_layer_of_a_decoder_of_any_size(dims: dict[str, int]) -> None:
    dims |= {"E": dims["E"] + 1, "D": 2 * dims["D"]}  # a norm needs two elements, rope pairs
    right_at("transformer_layer", partial(transformer_layer, depth=dims["D"]), 2e-5, dims)


@settings(max_examples=20)
@given(extents(B=3, P=20, C=20, FP=12, FC=12))
def test_a_layer_of_a_mixer_of_any_size(dims: dict[str, int]) -> None:
    right_at("mlp_mixer", mlp_mixer, 2e-5, dims | {"C": dims["C"] + 1})


@settings(max_examples=20)
@given(extents(B=3, H=5, S=40, D=24, W=50))
def test_masks_of_any_size(dims: dict[str, int]) -> None:
    right_at("masks", partial(masks, window=dims["W"]), 2e-5, dims)


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
