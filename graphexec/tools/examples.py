"""The example graphs of graphs/*.yaml, built in code: an installed graphexec has no such folder.

A test checks that they equal the files, except that the weights of `multi_head_attention` are
inputs here.
"""

from __future__ import annotations

from collections.abc import Callable

from graphexec.ir.graph import Graph


def attention() -> Graph:
    """Scaled dot-product attention."""
    g = Graph("attention", dims={"B": 2, "H": 8, "S": 128, "D": 64}, consts={"scale": "D ** -0.5"})
    q, k, v = (g.input(name, ("B", "H", "S", "D"), "f16") for name in "qkv")
    scores = g.gemm(q, k, trans_b=True, alpha="scale", name="scores")
    probs = g.softmax(scores, axis=-1, name="probs")
    g.output(out=g.gemm(probs, v, name="ctx"))
    return g


def causal_gqa() -> Graph:
    """Causal attention with grouped-query heads."""
    g = Graph("causal_gqa", dims={"B": 1, "G": 2, "R": 4, "Q": 64, "S": 96, "D": 64},
              consts={"scale": "D ** -0.5"})  # fmt: skip
    q = g.input("q", ("B", "G", "R", "Q", "D"), "bf16")
    k, v = (g.input(name, ("B", "G", 1, "S", "D"), "bf16") for name in "kv")
    scores = g.gemm(q, k, trans_b=True, out_dtype="f32", name="scores")
    probs = g.softmax(scores, scale="scale", causal=True, name="probs")
    g.output(out=g.gemm(g.copy(probs, dtype="bf16", name="half"), v, name="ctx"))
    return g


def copies() -> Graph:
    """Casts, slices, permutations, reshapes, and a stop in host memory."""
    g = Graph("copies", dims={"A": 12, "B": 20, "C": 16})
    x = g.input("x", ("A", "B", "C"), "f32")
    half = g.copy(x, dtype="f16", name="half")
    every2 = g.copy(half, slice={1: [2, None, 2]}, name="every2")
    turned = g.copy(every2, permute=[2, 0, 1], name="turned")
    flat = g.copy(turned, reshape=["C", -1], name="flat")
    parked = g.copy(flat, to="host", name="parked")
    again = g.copy(x, name="again")
    back = g.copy(parked, to="device", dtype="f64", after=[again], name="back")
    g.output(flat, parked, back, again)
    return g


def diamond() -> Graph:
    """Two branches from one tensor, joined, and a skip."""
    g = Graph("diamond", dims={"M": 96, "N": 80})
    x, wl, wr = g.input("x", ("M", "N")), g.input("wl", ("N", "N")), g.input("wr", ("N", "N"))
    top = g.softmax(x, axis=0, name="top")
    left = g.gemm(top, wl, name="left")
    right = g.gemm(top, wr, trans_b=True, name="right")
    join = g.gemm(left, right, trans_b=True, alpha="1 / N", name="join")
    g.output(g.gemm(join, top, c=x, beta=2, name="out"), join)
    return g


def multi_head_attention() -> Graph:
    """Projections, heads split and merged by copies, a bias."""
    g = Graph("multi_head_attention", dims={"B": 2, "S": 64, "E": 64, "H": 4},
              consts={"scale": "(E / H) ** -0.5"})  # fmt: skip
    x = g.input("x", ("B", "S", "E"))
    weights = {name: g.input(name, ("E", "E")) for name in ("wq", "wk", "wv", "wo")}
    bias = g.input("bo", ("E",))
    heads = {}
    projected = {name: g.gemm(x, weights[f"w{name}"], name=name) for name in "qkv"}
    for name, tensor in projected.items():
        split = g.copy(tensor, reshape=["B", "S", "H", "E / H"], name=f"{name}_split")
        heads[name] = g.copy(split, permute=[0, 2, 1, 3], name=f"{name}_heads")
    scores = g.gemm(heads["q"], heads["k"], trans_b=True, alpha="scale", name="scores")
    ctx = g.gemm(g.softmax(scores, name="probs"), heads["v"], name="ctx")
    merged = g.copy(ctx, permute=[0, 2, 1, 3], reshape=["B", "S", "E"], name="merged")
    g.output(out=g.gemm(merged, weights["wo"], bias=bias, shape=["B", "S", "E"], name="y"))
    return g


def parallel_branches() -> Graph:
    """Eight independent chains of GEMMs, joined at the end."""
    g = Graph("parallel_branches", dims={"N": 64}, consts={"shrink": "N ** -0.5"})
    x = g.input("x", ("N", "N"))
    weights = [g.input(f"w{n}", ("N", "N")) for n in range(8)]
    ends = []
    for n, w in enumerate(weights):
        tensor = x
        for step in range(3 if n else 4):
            tensor = g.gemm(tensor, w, alpha="shrink", name=f"c{n}_{step}")
        ends.append(tensor)
    total = ends[0]
    for n in range(1, 8):
        total = g.gemm(ends[n], weights[n], alpha="shrink", c=total, beta=1, name=f"sum{n}")
    g.output(out=total)
    return g


EXAMPLES: tuple[Callable[[], Graph], ...] = (
    attention, causal_gqa, copies, diamond, multi_head_attention, parallel_branches,
)  # fmt: skip
