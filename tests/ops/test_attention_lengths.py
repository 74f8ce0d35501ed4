"""attention with length, at, start, window, softcap and masks of bools, against the definition."""

from __future__ import annotations

from math import tanh
from typing import Any

import numpy as np
import pytest
from hip_lab import Lab
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.graph.infer import infer
from graphexec.planning.pipeline import plan_graph
from graphexec.runtime.hip.device import HipDevice
from graphexec.tools.compare import compare

Array = np.ndarray[Any, Any]
BATCH, HEADS, HEAD = 3, 2, 8


def sees(case: dict[str, Any], entry: int, i: int, j: int) -> bool:
    """Whether query i sees key j, word by word."""
    m, n = case["m"], case["n"]

    def of(name: str) -> int | None:
        value = case[name]
        return value[entry] if isinstance(value, list) else value

    length = of("length")
    if of("at") is not None:
        length = of("at") + m
    cut = n if length is None else min(length, n)
    start = of("start") if of("start") is not None else cut - m
    p = start + i
    if j >= cut or (case["causal"] and j > p):
        return False
    if case["window"] is not None and j <= p - case["window"]:
        return False
    return case["bools"] is None or bool(case["bools"][i, j])


def by_hand(case: dict[str, Any], q: Array, k: Array, v: Array) -> Array:
    out = np.zeros((BATCH, HEADS, case["m"], HEAD))
    cap, mask = case["softcap"], case["floats"]
    for entry, head, i in np.ndindex(BATCH, HEADS, case["m"]):
        z = {}
        for j in range(case["n"]):
            if sees(case, entry, i, j):
                s = 0.3 * float(q[entry, head, i].astype(float) @ k[entry, 0, j].astype(float))
                s = cap * tanh(s / cap) if cap is not None else s
                z[j] = s + (0.0 if mask is None else float(mask[i, j]))
        if z:
            top = max(z.values())
            total = sum(np.exp(s - top) for s in z.values())
            out[entry, head, i] = sum(np.exp(s - top) / total * v[entry, 0, j].astype(float)
                                      for j, s in z.items())  # fmt: skip
    return out


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    m, n = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    number = st.integers(-2, n + 2)
    each = number | st.lists(number, min_size=BATCH, max_size=BATCH)
    which = draw(st.sampled_from(["length", "at", ""]))
    seed = draw(st.integers(0, 9))
    rng = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["none", "bool", "float"]))
    return {
        "m": m, "n": n, "seed": seed,
        "length": draw(each) if which == "length" else None,
        "at": draw(each) if which == "at" else None,
        "start": draw(st.none() | each), "causal": draw(st.booleans()),
        "window": draw(st.none() | st.integers(1, 4)),
        "softcap": draw(st.none() | st.sampled_from([0.5, 3.0])),
        "bools": rng.random((m, n)) < 0.7 if kind == "bool" else None,
        "floats": rng.normal(size=(m, n)).astype(np.float32) if kind == "float" else None,
        "integer": draw(st.sampled_from(["i32", "i64"])),
    }  # fmt: skip


def graph_of(case: dict[str, Any], dtype: str) -> tuple[gx.Graph, dict[str, Array]]:
    graph, rng = gx.Graph(), np.random.default_rng(case["seed"])
    arrays: dict[str, Array] = {}

    def of(name: str, array: Array) -> str:
        arrays[name] = array
        kind = DType.of(array.dtype).value
        return str(graph.input(name, array.shape, kind))

    kind = DType(dtype).numpy()
    q, k, v = (
        of(name, rng.normal(size=shape).astype(kind))
        for name, shape in (("q", (BATCH, HEADS, case["m"], HEAD)),
                            ("k", (BATCH, 1, case["n"], HEAD)), ("v", (BATCH, 1, case["n"], HEAD)))
    )  # fmt: skip
    more: dict[str, Any] = {}
    for name in ("length", "at", "start"):
        if case[name] is not None:
            more[name] = of(name, np.array(case[name], DType(case["integer"]).numpy()))
    for name in ("bools", "floats"):
        if case[name] is not None:
            more["mask"] = of(name, case[name])
    for name in ("window", "softcap"):
        if case[name] is not None:
            more[name] = case[name]
    a = graph.attention(q, k, v, scale=0.3, causal=case["causal"], name="a", **more)
    graph.output(a=a)
    return graph, arrays


def check(case: dict[str, Any], dtype: str, device: Any) -> None:
    graph, arrays = graph_of(case, dtype)
    with gx.compile(graph, device=device) as exe:
        found = exe.run(**arrays)["a"].astype(np.float64)
    expected = by_hand(case, arrays["q"], arrays["k"], arrays["v"])
    np.testing.assert_allclose(found, expected, 0, {"f32": 1e-5, "f16": 1e-2, "f64": 1e-12}[dtype])
    assert compare(graph, arrays, device=device).ok


@settings(max_examples=60)
@given(cases(), st.sampled_from(["f32", "f64", "f16"]))
def test_on_the_cpu(case: dict[str, Any], dtype: str) -> None:
    check(case, dtype, gx.CpuDevice(poison=True, check_access=True))


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab.open()


@settings(max_examples=15)
@given(case=cases(), dtype=st.sampled_from(["f32", "f16"]))
def test_on_the_emulator(lab: Lab, case: dict[str, Any], dtype: str) -> None:
    check(case, dtype, HipDevice(mode="stream"))


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("m", [1, 4])
def test_keys_after_the_last_are_not_read(dtype: str, m: int) -> None:
    """What lies there may be no number, as in a cache that was never filled."""
    rng, kind = np.random.default_rng(3), DType(dtype).numpy()
    graph = gx.Graph()
    q, k = graph.input("q", (2, m, 16), dtype), graph.input("k", (2, 900, 16), dtype)
    graph.output(a=graph.attention(q, k, k, at=graph.input("at", (), "i32"), causal=True))
    queries, keys = (rng.normal(size=shape).astype(kind) for shape in ((2, m, 16), (2, 900, 16)))
    with gx.compile(graph, device="cpu") as exe:
        for at in (0, 63, 64, 300, 900 - m):
            cut = at + m
            spoiled = keys.copy()
            spoiled[:, -(-cut // 64) * 64 :] = np.nan
            found = exe.run(q=queries, k=spoiled, at=np.array(at, np.int32))["a"]
            wide, known = queries.astype(np.float64), keys[:, :cut].astype(np.float64)
            z = wide @ known.swapaxes(-1, -2) / 4
            z = np.where(np.arange(cut) <= at + np.arange(m)[:, None], z, -np.inf)
            p = np.exp(z - z.max(-1, keepdims=True))
            expected = p / p.sum(-1, keepdims=True) @ known
            np.testing.assert_allclose(found.astype(np.float64), expected, 0, 4e-3)


def test_layers_that_see_the_same_keys_share_what_they_see() -> None:
    graph = gx.Graph()
    q, k = graph.input("q", (2, 3, 8)), graph.input("k", (2, 9, 8))
    n, m = graph.input("n", (), "i32"), graph.input("m", (), "i32")
    first = graph.attention(q, k, k, at=n, causal=True, name="first")
    second = graph.attention(first, k, k, at=n, causal=True, name="second")
    third = graph.attention(second, k, k, at=m, causal=True, name="third")
    graph.output(y=third)
    commands = plan_graph(graph).program.commands
    assert [c.node for c in commands if c.label == "mask"] == ["first", "third"]
    rng = np.random.default_rng(0)
    given = {"q": rng.normal(size=(2, 3, 8)), "k": rng.normal(size=(2, 9, 8))}
    arrays = {name: array.astype(np.float32) for name, array in given.items()}
    arrays |= {"n": np.array(2, np.int32), "m": np.array(5, np.int32)}
    assert compare(graph, arrays, device="cpu").ok


MISTAKES = {
    "length has the shape [] or [3], one for each entry of axis 0, found [2]": {"length": [1, 2]},
    "length and at say the same": {"length": 3, "at": 2},
    "a window has at least one key, found 0": {"window": 0},
    "softcap is above 0, found -1": {"softcap": -1},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str) -> None:
    usual = dict.fromkeys(("length", "at", "start", "window", "softcap", "bools", "floats"))
    case = {**usual, "m": 2, "n": 5, "seed": 0, "causal": False, "integer": "i32"}
    graph, _ = graph_of({**case, **MISTAKES[message]}, "f32")
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    assert message in str(caught.value)


def test_places_are_integers() -> None:
    graph = gx.Graph()
    q = graph.input("q", (2, 4, 8))
    graph.output(a=graph.attention(q, q, q, length=graph.input("n", (), "f32")))
    with pytest.raises(gx.GraphError, match=r"operand 'length' is f32.*must be i32, i64"):
        infer(graph)
