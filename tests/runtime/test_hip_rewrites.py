"""Rewritten graphs on the HIP device: strided operands, arrays of pointers, sums in place."""

from __future__ import annotations

import pytest
from hip_lab import MODES, Lab
from rewritten import after, applied, assert_right
from strategies import Seeded, random_graph

import graphexec as gx
from graphexec.runtime.hip.device import HipDevice, Mode


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(lab: Lab, seed: int) -> None:
    graph = random_graph(Seeded(seed), 10, bait=True)
    with lab.nothing_left():
        assert_right(graph, device=HipDevice(mode=MODES[seed % 2]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [1, 3])
def test_heads(lab: Lab, batch: int, mode: Mode) -> None:
    """Heads beside one another go into and out of GEMMs as they lie, whatever the batch."""
    g = gx.Graph("heads")
    q, k, v = (g.input(n, (batch, 16, 4, 8), "f16") for n in "qkv")
    qh, kh, vh = (g.copy(n, permute=[0, 2, 1, 3], name=f"{n}h") for n in (q, k, v))
    probs = g.softmax(g.gemm(qh, kh, trans_b=True, alpha=8**-0.5, name="scores"), name="probs")
    ctx = g.gemm(probs, vh, name="ctx")
    g.output(y=g.copy(ctx, permute=[0, 2, 1, 3], reshape=[batch, 16, 32], name="y"))
    assert len(applied(after(g, "fold-copies", "permuted-results", device="hip"))) == 4
    assert_right(g, device=HipDevice(mode=mode))


def test_a_chain_of_sums(lab: Lab) -> None:
    g = gx.Graph("sums")
    x = g.input("x", (16, 16), "f16")
    total = g.softmax(x)
    for _ in range(3):
        total = g.gemm(x, x, alpha=0.1, c=total)
    g.output(g.copy(total, dtype="f32"))
    assert_right(g, device=HipDevice())
