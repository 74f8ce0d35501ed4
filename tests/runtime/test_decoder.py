"""A tiny decoder with a cache and sampling on the device, against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hip_lab import MODES, Lab

import graphexec as gx
from graphexec.runtime.hip.device import HipDevice, Mode

Array = np.ndarray[Any, Any]

DECODER = """
version: 1
dims: {S: 1, C: 12, V: 11, E: 8, G: 2, D: 4}
inputs:
  ids: {shape: [1, S], dtype: i32}
  emb: {shape: [V, E], dtype: f32}
  wk: {shape: [E, G * D], dtype: f32}
  wv: {shape: [E, G * D], dtype: f32}
  wq: {shape: [E, G * D], dtype: f32}
state:
  n: {shape: [], dtype: i32, next: n + S}
  k: {shape: [1, G, C, D], dtype: f32, next: k1}
  v: {shape: [1, G, C, D], dtype: f32, next: v1}
  last: {shape: [1, 1], dtype: i32, next: token}
  tokens: {shape: [1, C], dtype: i32, init: -1, next: tokens1}
nodes:
  t: where(ids < 0, last, ids)
  x: {op: gather, x: emb, index: t}
  q0: x @ wq
  k0: x @ wk
  v0: x @ wv
  q: {op: copy, x: q0, axes: 1 S (G D) -> 1 G S D}
  kn: {op: copy, x: k0, axes: 1 S (G D) -> 1 G S D}
  vn: {op: copy, x: v0, axes: 1 S (G D) -> 1 G S D}
  k1: {op: append, into: k, x: kn, at: n, axis: 2}
  v1: {op: append, into: v, x: vn, at: n, axis: 2}
  a: {op: attention, q: q, k: k1, v: v1, at: n, causal: true, scale: 0.5}
  h0: {op: copy, x: a, axes: 1 G S D -> 1 S (G D)}
  h: x + h0
  end: {op: copy, x: h, slice: {1: [S - 1, S]}}
  logits: end @ T(emb)
  best: {op: reduce, kind: argmax, x: logits, axis: -1}
  token: {op: copy, x: best, dtype: i32}
  at: n + S - 1
  tokens1: {op: append, into: tokens, x: token, at: at, axis: 1}
outputs: {token: token, logits: logits}
"""
PROMPT = [3, 1, 4, 1]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab.open()


@pytest.fixture(params=["cpu", *MODES])
def device(request: pytest.FixtureRequest, lab: Lab) -> Any:
    lab.reset()
    lab.seed(7)  # an order of the streams' work
    if request.param == "cpu":
        return gx.CpuDevice(delays=3, poison=True)
    mode: Mode = request.param
    return HipDevice(mode=mode)


def weights() -> dict[str, Array]:
    rng = np.random.default_rng(5)
    shapes = {"emb": (11, 8), "wk": (8, 8), "wv": (8, 8), "wq": (8, 8)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def logits_of(tokens: list[int], w: dict[str, Array]) -> Array:
    """Those after the last token, with no cache, in float64."""
    emb, wq, wk, wv = (w[n].astype(np.float64) for n in ("emb", "wq", "wk", "wv"))
    x = emb[tokens]
    q, k, v = ((x @ m).reshape(len(tokens), 2, 4).transpose(1, 0, 2) for m in (wq, wk, wv))
    z = 0.5 * q[:, -1:] @ k.transpose(0, 2, 1)
    p = np.exp(z - z.max(-1, keepdims=True))
    a = (p / p.sum(-1, keepdims=True)) @ v
    found: Array = (x[-1] + a.transpose(1, 0, 2).reshape(8)) @ emb.T
    return found


def generated(count: int) -> list[int]:
    """Greedy, by NumPy."""
    w, tokens = weights(), list(PROMPT)
    for _ in range(count):
        tokens.append(int(np.argmax(logits_of(tokens, w))))
    return tokens[len(PROMPT) :]


def ids(*tokens: int) -> Array:
    return np.array([tokens], np.int32)


def test_a_prompt_then_token_by_token(device: Any) -> None:
    w, tokens = weights(), list(PROMPT)
    with gx.compile(gx.loads(DECODER), device=device, streams=3) as exe:
        given = ids(*PROMPT)
        for _ in range(8):
            found = exe.run(ids=given, **w)
            np.testing.assert_allclose(found["logits"][0, 0], logits_of(tokens, w), 1e-4, 1e-4)
            tokens.append(int(found["token"][0, 0]))
            given = ids(tokens[-1])
        assert tokens[len(PROMPT) :] == generated(8)


@pytest.mark.parametrize("chunks", [[4], [2, 2], [1, 3], [1, 1, 1, 1]], ids=str)
def test_replay_generates_the_same_tokens(device: Any, chunks: list[int]) -> None:
    w, left = weights(), list(PROMPT)
    with gx.compile(gx.loads(DECODER), device=device, streams=2) as exe:
        for size in chunks:
            exe.run(ids=ids(*left[:size]), **w)
            del left[:size]
        exe.run(ids=ids(-1), **w)
        exe.replay(6)
        kept = exe.state["tokens"][0, 3:11].tolist()
        assert kept == generated(8)
        with pytest.raises(gx.ExecutionError, match=r"step 2 of 3"):
            exe.replay(3)
        assert exe.state["n"] == 12
        assert exe.state["tokens"][0, 3:].tolist() == generated(9)


def test_sequences_of_their_own(device: Any) -> None:
    w = weights()
    graph = gx.loads(DECODER)
    with (
        gx.compile(graph, device=device) as one,
        gx.compile(graph, device=device, weights_from=one) as other,
    ):
        one.run(ids=ids(*PROMPT), **w)
        other.run(ids=ids(7, 8), **w)
        for exe in (one, other):
            exe.run(ids=ids(-1), **w)
        one.replay(2)
        assert one.state["tokens"][0, 3:7].tolist() == generated(4)
        assert other.state["n"] == 3
