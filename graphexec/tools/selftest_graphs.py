"""The graphs that selftest compares with float64: every op, each in one dtype."""

from __future__ import annotations

from collections.abc import Callable

from graphexec.ir.graph import Graph

DTYPES = ("f16", "bf16", "f32", "f64")


def gemms(dtype: str) -> Graph:
    """Batches, transposes, alpha, beta and biases."""
    g = Graph(f"gemm_{dtype}")
    a, b = g.input("a", (2, 3, 17, 24), dtype), g.input("b", (3, 24, 33), dtype)
    c, bias = g.input("c", (2, 3, 17, 33), dtype), g.input("bias", (33,), dtype)
    x, w = g.input("x", (2, 1, 33, 24), dtype), g.input("w", (24, 32), dtype)
    rest, shift = g.input("rest", (2, 3, 17, 32), dtype), g.input("shift", (32,), dtype)
    g.output(
        plain=g.gemm(a, b, name="plain"),
        turned=g.gemm(x, a, trans_b=True, alpha=0.5, name="turned"),
        added=g.gemm(a, b, c=c, beta=-1.5, name="added"),
        biased=g.gemm(a, b, bias=bias, name="biased"),
        layer=g.gemm(a, w, bias=shift, name="layer"),
        residual=g.gemm(a, w, c=rest, beta=0.5, bias=shift, name="residual"),
    )
    return g


def softmaxes(dtype: str) -> Graph:
    """Axes, masks and a long row."""
    g = Graph(f"softmax_{dtype}")
    x, mask = g.input("x", (3, 40, 70), dtype), g.input("mask", (40, 70), dtype)
    long = g.input("long", (2, 5000), dtype)
    g.output(
        last=g.softmax(x, name="last"),
        first=g.softmax(x, axis=0, name="first"),
        causal=g.softmax(x, causal=True, scale=0.25, name="causal"),
        masked=g.softmax(x, mask=mask, name="masked"),
        rows=g.softmax(long, name="rows"),
    )
    return g


def copies(dtype: str) -> Graph:
    """Layouts and casts."""
    g = Graph(f"copy_{dtype}")
    x = g.input("x", (6, 20, 14), dtype)
    g.output(
        same=g.copy(x, name="same"),
        turned=g.copy(x, permute=[2, 0, 1], name="turned"),
        part=g.copy(x, slice={1: [1, None, 3]}, name="part"),
        **{to: g.copy(x, dtype=to, name=f"to_{to}") for to in DTYPES if to != dtype},
    )
    return g


def attentions(dtype: str) -> Graph:
    """Masks, narrow heads and a decoder's one query."""
    g = Graph(f"attention_{dtype}")
    q, k, v = (
        g.input(name, (2, 4, n, 64), dtype) for name, n in (("q", 150), ("k", 203), ("v", 203))
    )
    mask, few = g.input("mask", (150, 203), "f32"), g.input("few", (2, 1, 203, 40), dtype)
    narrow = g.attention(q, k, few, name="narrow")
    one, past = g.input("one", (2, 2, 4, 1, 64), dtype), g.input("past", (2, 2, 1, 1500, 64), dtype)
    g.output(
        plain=g.attention(q, k, v, name="plain"),
        causal=g.attention(q, k, v, causal=True, name="causal"),
        masked=g.attention(q, k, v, mask=mask, scale=0.5, name="masked"),
        rows=g.copy(narrow, permute=[0, 2, 1, 3], reshape=[2, 150, -1], name="rows"),
        early=g.attention(k, q, q, causal=True, name="early"),
        decoded=g.attention(one, past, past, causal=True, name="decoded"),
    )
    return g


def many_attentions(dtype: str) -> Graph:
    """Enough blocks of queries to fill a GPU: other kernels may be used then."""
    g = Graph(f"many_attentions_{dtype}")
    q, k = (g.input(name, (10, 16, n, 64), dtype) for name, n in (("q", 130), ("k", 150)))
    wide, few = g.input("wide", (10, 16, 130, 128), dtype), g.input("few", (10, 1, 150, 128), dtype)
    g.output(
        plain=g.attention(q, k, k, name="plain"),
        causal=g.attention(q, k, k, causal=True, name="causal"),
        grouped=g.attention(wide, few, few, causal=True, name="grouped"),
    )
    return g


def maps(dtype: str) -> Graph:
    """Chains that fuse, broadcasts, and integers beside floats."""
    g = Graph(f"map_{dtype}")
    x, row = g.input("x", (5, 33, 70), dtype), g.input("row", (70,), dtype)
    ids = g.input("ids", (5, 33, 1), "i32")
    g.output(
        gelu=g.map("gelu(x * row + 1)", x=x, row=row, name="gelu"),
        chosen=g.map("where(ids > 0, x, -0.5) // 0.25", ids=ids, x=x, name="chosen"),
        squares=g.map(
            "sqrt(y * y + 1)", y=g.map("x - row", x=x, row=row, name="d"), name="squares"
        ),
        places=g.map("cast(ids, i64) * 3 - index(1)", ids=ids, name="places"),
    )
    return g


def reductions(dtype: str) -> Graph:
    """Along rows, columns and everything."""
    g = Graph(f"reduce_{dtype}")
    x = g.input("x", (7, 30, 300), dtype)
    g.output(
        rows=g.reduce(x, kind="mean", axis=-1, name="rows"),
        columns=g.reduce(x, kind="sum", axis=1, keep=True, name="columns"),
        largest=g.reduce(x, kind="max", axis=[0, 2], name="largest"),
        places=g.reduce(x, kind="argmin", axis=-1, name="places"),
        everything=g.reduce(x, kind="logsumexp", name="everything"),
    )
    return g


def norms(dtype: str) -> Graph:
    """Layer and RMS norm of a sum, which is a result as well."""
    g = Graph(f"norm_{dtype}")
    x, r = g.input("x", (9, 20, 384), dtype), g.input("r", (9, 20, 384), dtype)
    w, b = g.input("w", (384,), dtype), g.input("b", (384,), dtype)
    added = g.map("x + r", x=x, r=r, name="added")
    g.output(
        added,
        layer=g.norm(added, kind="layer", weight=w, bias=b, name="layer"),
        rms=g.norm(added, kind="rms", weight=w, eps=1e-6, name="rms"),
    )
    return g


def gathers(dtype: str) -> Graph:
    """Rows and columns by their numbers."""
    g = Graph(f"gather_{dtype}")
    x, ids = g.input("x", (12, 40), dtype), g.input("ids", (3, 5), "i32")
    g.output(
        rows=g.gather(x, index=ids, name="rows"),
        columns=g.gather(x, index=ids, axis=1, name="columns"),
    )
    return g


def concats(dtype: str) -> Graph:
    """Parts that are given, and parts that are written where they belong."""
    g = Graph(f"concat_{dtype}")
    x, y = g.input("x", (4, 6, 10), dtype), g.input("y", (4, 3, 10), dtype)
    g.output(
        given=g.concat([x, y, x], axis=1, name="given"),
        made=g.concat([g.softmax(x, name="part"), g.copy(y, name="rest")], axis=1, name="made"),
    )
    return g


def appends(dtype: str) -> Graph:
    """Rows along the first and a later axis, at places known on the device."""
    g = Graph(f"append_{dtype}")
    into, x = g.input("into", (3, 40, 17), dtype), g.input("x", (3, 7, 17), dtype)
    at, each = g.map("5", shape=[], name="at"), g.map("4 * index(0)", shape=[3], name="each")
    g.output(
        first=g.append(into, g.copy(into, slice={0: [1, 3]}), g.map("1", shape=[]), name="first"),
        rows=g.append(into, x, at, axis=1, name="rows"),
        counted=g.append(into, x, each, each, axis=1, name="counted"),
    )
    return g


def rotations(dtype: str) -> Graph:
    """Rotary embeddings of both kinds."""
    g = Graph(f"rope_{dtype}")
    x, position = g.input("x", (2, 3, 17, 64), dtype), g.input("position", (17,), "i32")
    g.output(
        halves=g.rope(x, position=position, name="halves"),
        pairs=g.rope(x, position=position, pairs="interleaved", rotate=32, name="pairs"),
    )
    return g


GRAPHS: dict[str, Callable[[str], Graph]] = {
    "gemm": gemms, "softmax": softmaxes, "copy": copies, "attention": attentions, "map": maps,
    "reduce": reductions, "norm": norms, "gather": gathers, "concat": concats, "rope": rotations,
    "append": appends,
}  # fmt: skip
"""By op, of a dtype."""
