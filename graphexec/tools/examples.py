"""The example graphs of graphs/*.yaml, built in code: an installed graphexec has no such folder.

A test checks that they equal the files, except that the weights of `multi_head_attention` are
inputs here. `minilm` is none of them: it is nothing without its weights.
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


def transformer_layer() -> Graph:
    """A layer of a decoder: RMS norms, rotary positions, grouped queries, SwiGLU."""
    g = Graph("transformer_layer",
              dims={"B": 2, "S": 64, "E": 128, "G": 2, "R": 2, "D": 32, "F": 256})  # fmt: skip
    x, start = g.input("x", ("B", "S", "E")), g.input("start", (), "i32")
    g1, g2 = g.input("g1", ("E",)), g.input("g2", ("E",))
    wq = g.input("wq", ("G * R * D", "E"))
    wk, wv = (g.input(name, ("G * D", "E")) for name in ("wk", "wv"))
    wo = g.input("wo", ("E", "G * R * D"))
    wg, wu, wd = g.input("wg", ("F", "E")), g.input("wu", ("F", "E")), g.input("wd", ("E", "F"))
    h = g.norm(x, kind="rms", weight=g1, name="h")
    q0, k0, v0 = (g.map(f"h @ T({w})", h=h, **{w: w}, name=f"{w[1]}0") for w in (wq, wk, wv))
    q1 = g.copy(q0, axes="B S (G R D) -> B G R S D", name="q1")
    k1 = g.copy(k0, axes="B S (G 1 D) -> B G 1 S D", name="k1")
    v1 = g.copy(v0, axes="B S (G 1 D) -> B G 1 S D", name="v1")
    q2, k2 = g.rope(q1, at=start, name="q2"), g.rope(k1, at=start, name="k2")
    a = g.attention(q2, k2, v1, causal=True, scale="D ** -0.5", name="a")
    c = g.copy(a, axes="B G R S D -> B S (G R D)", name="c")
    r = g.map("x + c @ T(wo)", x=x, c=c, wo=wo, name="r")
    m = g.norm(r, kind="rms", weight=g2, name="m")
    gate, up = (g.map(f"m @ T({w})", m=m, **{w: w}, name=name)
                for w, name in ((wg, "gate"), (wu, "up")))  # fmt: skip
    s = g.map("silu(gate) * up", gate=gate, up=up, name="s")
    g.output(y=g.map("r + s @ T(wd)", r=r, s=s, wd=wd, name="y"))
    return g


def mlp_mixer() -> Graph:
    """A layer of MLP-Mixer: products along patches, then along channels."""
    g = Graph("mlp_mixer", dims={"B": 4, "P": 64, "C": 96, "FP": 128, "FC": 384})
    x = g.input("x", ("B", "P", "C"))
    g1, d1, g2, d2 = (g.input(name, ("C",)) for name in ("g1", "d1", "g2", "d2"))
    w1, b1 = g.input("w1", ("FP", "P")), g.input("b1", ("FP", 1))
    w2, b2 = g.input("w2", ("P", "FP")), g.input("b2", ("P", 1))
    w3, b3 = g.input("w3", ("C", "FC")), g.input("b3", ("FC",))
    w4, b4 = g.input("w4", ("FC", "C")), g.input("b4", ("C",))
    n1 = g.norm(x, kind="layer", weight=g1, bias=d1, name="n1")
    t1 = g.map("gelu(w1 @ n1 + b1)", w1=w1, n1=n1, b1=b1, name="t1")
    t2 = g.map("x + w2 @ t1 + b2", x=x, w2=w2, t1=t1, b2=b2, name="t2")
    n2 = g.norm(t2, kind="layer", weight=g2, bias=d2, name="n2")
    c1 = g.map("gelu(n2 @ w3 + b3)", n2=n2, w3=w3, b3=b3, name="c1")
    g.output(y=g.map("t2 + c1 @ w4 + b4", t2=t2, c1=c1, w4=w4, b4=b4, name="y"))
    return g


def masks() -> Graph:
    """Attention in a causal window, and with ALiBi's slopes: masks made of coordinates."""
    g = Graph("masks", dims={"B": 2, "H": 4, "S": 64, "D": 32, "W": 16})
    q, k, v = (g.input(name, ("B", "H", "S", "D")) for name in "qkv")
    window = g.map("where(index(1) <= index(0) and index(1) > index(0) - W, 0.0, -inf)",
                   shape=["S", "S"], name="window")  # fmt: skip
    slopes = g.map("-(2.0 ** (-8 * (index(0) + 1) / H)) * abs(index(1) - index(2))",
                   shape=["H", "S", "S"], name="slopes")  # fmt: skip
    windowed = g.attention(q, k, v, mask=window, scale="D ** -0.5", name="windowed")
    mask = g.map("window + slopes", window=window, slopes=slopes, name="mask")
    alibi = g.attention(q, k, v, mask=mask, scale="D ** -0.5", name="alibi")
    g.output(windowed=windowed, alibi=alibi)
    return g


EXAMPLES: tuple[Callable[[], Graph], ...] = (
    attention, causal_gqa, copies, diamond, multi_head_attention, parallel_branches,
    transformer_layer, mlp_mixer, masks,
)  # fmt: skip
