"""Attention by every kernel there is for the GPU at hand, its numbers against float64.

Not collected unless `GRAPHEXEC_HIP_LIBRARY_PATH` names the libraries of a real device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from attention_cases import FROBENIUS
from exact import Array, draw, wide

import graphexec as gx
from graphexec.machine.costs import Measured, signature
from graphexec.ops.attention.portable import ALTERNATIVES
from graphexec.planning.pipeline import plan_graph
from graphexec.planning.profile import Profile
from graphexec.runtime.hip.device import HipDevice

pytestmark = pytest.mark.hip

CHOICES = range(2 + ALTERNATIVES)
"""The usual kernel, that for Hopper (the usual one elsewhere), and those that `tune` tries."""


@dataclass(frozen=True)
class Case:
    """(batch, heads, queries, head size), heads and length of k and v, and more."""

    q: tuple[int, int, int, int]
    keys: int
    heads: int | None = None
    causal: bool = False
    scale: float | None = None
    by_rows: bool = False  # the length before the heads in memory, seen turned
    mask: str = ""  # of "keys", or of "pairs" of queries and keys
    length: int | tuple[int, ...] | None = None  # one, or one for each entry of the batch
    window: int | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of q, k and v: (batch, heads, queries that share their keys, length, head size)."""
        b, h, m, d = self.q
        heads = self.heads or h
        return {"q": (b, heads, h // heads, m, d)} | dict.fromkeys(
            "kv", (b, heads, 1, self.keys, d)
        )

    def graph(self, dtype: str) -> gx.Graph:
        g = gx.Graph("attention")
        views = {}
        for name, (batch, heads, group, length, width) in self.shapes.items():
            if self.by_rows:
                x = g.input(name, (batch, length, heads, group, width), dtype)
                views[name] = g.copy(x, permute=[0, 2, 3, 1, 4], name=f"{name}_turned")
            else:
                views[name] = g.input(name, (batch, heads, group, length, width), dtype)
        more: dict[str, Any] = {} if self.scale is None else {"scale": self.scale}
        if self.mask:
            rows = 1 if self.mask == "keys" else self.q[2]
            more["mask"] = g.input("mask", (self.q[0], 1, 1, rows, self.keys), dtype)
        if self.length is not None:
            more["length"] = g.input("length", np.shape(self.length), "i32")
        if self.window is not None:
            more["window"] = self.window
        g.output(out=g.attention(**views, causal=self.causal, name="y", **more))
        return g

    @property
    def ends(self) -> Array:
        """How many keys there are, of each entry of the batch."""
        each = self.keys if self.length is None else self.length
        return np.minimum(np.broadcast_to(each, self.q[:1]), self.keys)

    def exact(
        self, q: Array, k: Array, v: Array, mask: Array | None = None, length: Array | None = None
    ) -> Array:
        q, k, v = map(wide, (q, k, v))
        k, v = (np.nan_to_num(x) for x in (k, v))
        if self.by_rows:
            q, k, v = (x.transpose(0, 2, 3, 1, 4) for x in (q, k, v))
        m, n = q.shape[-2], k.shape[-2]
        z = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        if mask is not None:
            z = z + wide(mask)
        z = np.where(self._seen(m, n), z, -np.inf)
        top = z.max(-1, keepdims=True)
        e = np.exp(z - np.where(top == -np.inf, 0, top))
        total = e.sum(-1, keepdims=True)
        return np.asarray((e / np.where(total == 0, 1, total)) @ v)

    def _seen(self, m: int, n: int) -> Array:
        end = self.ends.reshape(-1, 1, 1, 1, 1)
        key, place = np.arange(n), end - m + np.arange(m)[:, None]
        seen = key < end
        if self.causal:
            seen = seen & (key <= place)
        return seen if self.window is None else seen & (key > place - self.window)


CASES = {
    "even": Case((4, 40, 256, 128), 256),
    "even, causal": Case((4, 40, 256, 64), 256, causal=True),
    "odd": Case((3, 50, 200, 64), 333),
    "odd, causal": Case((5, 30, 131, 128), 515, causal=True),
    "longer tiles than queries": Case((12, 12, 3, 64), 1000, causal=True),
    "one key": Case((12, 12, 5, 128), 1),
    "many tiles of one entry": Case((1, 1, 20000, 64), 300),
    "many tiles of one entry, causal": Case((1, 1, 17000, 64), 17100, causal=True),
    "tiles in pairs": Case((4, 66, 300, 64), 700, causal=True),
    "grouped": Case((4, 40, 140, 64), 150, heads=1),
    "rows": Case((3, 48, 140, 64), 150, causal=True, by_rows=True),
    "grouped rows": Case((2, 48, 140, 128), 150, heads=6, by_rows=True),
    "grouped rows, causal": Case((3, 40, 300, 64), 400, heads=8, causal=True, by_rows=True),
    "decoding": Case((2, 8, 1, 128), 5000, heads=2, causal=True),
    "few queries": Case((1, 3, 70, 64), 1300, causal=True),
    "mask of keys": Case((3, 48, 140, 32), 150, mask="keys"),
    "mask of keys, even": Case((2, 12, 128, 32), 128, mask="keys"),
    "mask of keys, causal": Case((3, 8, 300, 64), 333, causal=True, mask="keys"),
    "mask of keys, decoding": Case((2, 8, 1, 128), 5000, heads=2, mask="keys"),
    "mask of pairs": Case((3, 48, 140, 64), 150, mask="pairs"),
    "length": Case((8, 32, 1, 128), 4096, heads=8, causal=True, length=500),
    "length of all": Case((2, 8, 1, 64), 2048, heads=2, causal=True, length=2048),
    "length, each": Case((4, 8, 1, 128), 5000, heads=2, length=(5000, 1, 0, 129)),
    "length, not in parts": Case((8, 40, 1, 64), 400, causal=True, length=77),
    "length, few queries": Case((3, 12, 5, 64), 1300, causal=True, length=(131, 3, 1300)),
    "length, mask of pairs": Case((2, 8, 5, 64), 1300, mask="pairs", length=(700, 1300)),
    "length, mask of keys": Case((2, 8, 1, 64), 1300, heads=2, mask="keys", length=700),
    "window": Case((3, 8, 3, 128), 3000, causal=True, length=(2900, 100, 500), window=300),
    "window alone": Case((2, 8, 1, 64), 3000, heads=2, causal=True, window=1000),
    "length, prompt": Case((1, 32, 1000, 64), 2048, heads=8, causal=True, length=1500),
    "length, prompt in a window": Case((2, 16, 300, 128), 900, causal=True, length=800, window=99),
    "length, many queries": Case((2, 8, 40, 64), 1300, causal=True, length=700),
    "large": Case((3, 48, 140, 128), 300, scale=10.0),
    "large, causal": Case((3, 48, 140, 64), 140, scale=10.0, causal=True),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_numbers(name: str, dtype: str, choice: int) -> None:
    case, device = CASES[name], HipDevice()
    graph = case.graph(dtype)
    plan = plan_graph(graph, device="hip", hardware=device, resident=True)
    found = [c for c in plan.program.commands if "attention" in c.label]
    if not found:
        pytest.skip("Triton is missing")
    (command,) = found
    profile = Profile("", {signature(command): Measured(1.0, choice=choice)})
    rng = np.random.default_rng(1)
    with gx.compile(graph, device=device, costs=profile) as exe:
        drawn = {n: t.shape for n, t in exe.inputs.items() if n != "length"}
        inputs = {n: draw(rng, shape, dtype) for n, shape in drawn.items()}
        if case.mask:  # a third of the keys is hidden, the first never
            inputs["mask"][rng.random(inputs["mask"].shape) < 0.3] = -np.inf
            inputs["mask"][..., 0] = 0
        if case.length is not None:
            inputs["length"] = np.array(case.length, np.int32)
        if "attention by length" in command.label:  # what is not read may be no number
            for entry, end in enumerate(case.ends):
                inputs["k"][entry, ..., end:, :] = np.nan
                inputs["v"][entry, ..., end:, :] = np.nan
        found = wide(exe.run(**inputs)["out"])
        again = exe.run(**inputs)["out"]
    expected = case.exact(**inputs)
    assert np.isfinite(found).all()
    assert np.array_equal(wide(again), found)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= FROBENIUS[dtype], error
