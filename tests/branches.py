"""Graphs of equal independent branches, for the rewrite `batch`."""

from __future__ import annotations

from collections.abc import Callable

import graphexec as gx


def chains(
    count: int,
    length: int,
    size: int = 32,
    dtype: str = "f32",
    *,
    shared: bool = False,
    softmax: bool = False,
) -> gx.Graph:
    """`count` chains of `length` GEMMs of size³, each with an input of its own.

    The weights are each chain's own, or with `shared` those of its step; with `softmax`, one
    follows every GEMM.
    """
    g = gx.Graph(f"chains_{count}x{length}")
    weights: dict[str, str] = {}
    ends = []
    for chain in range(count):
        y = g.input(f"x{chain}", (size, size), dtype)
        for step in range(length):
            name = f"w{step}" if shared else f"w{chain}_{step}"
            if name not in weights:
                weights[name] = g.input(name, (size, size), dtype)
            y = g.gemm(y, weights[name], alpha=size**-0.5, name=f"c{chain}_{step}")
            if softmax:
                y = g.softmax(y, name=f"s{chain}_{step}")
        ends.append(y)
    g.output(**{f"y{chain}": end for chain, end in enumerate(ends)})
    return g


def mixed() -> gx.Graph:
    """Three chains of 32³, two of 48³ that start later, and one of another dtype."""
    g = gx.Graph("mixed")
    for chain, (size, dtype) in enumerate(
        [(32, "f32"), (48, "f32"), (32, "f32"), (48, "f32"), (32, "f32"), (32, "f16")]
    ):
        y = g.input(f"x{chain}", (size, size), dtype)
        w = g.input(f"w{chain}", (size, size), dtype)
        if size == 48:
            y = g.softmax(y, name=f"s{chain}")
        for step in range(3):
            y = g.gemm(y, w, alpha=size**-0.5, name=f"c{chain}_{step}")
        g.output(**{f"y{chain}": y})
    return g


BRANCHES: dict[str, Callable[[], gx.Graph]] = {
    "8 × 8": lambda: chains(8, 8),
    "32 × 4": lambda: chains(32, 4),
    "8 × 4, f16": lambda: chains(8, 4, 64, "f16"),
    "shared weights": lambda: chains(8, 4, shared=True),
    "softmax": lambda: chains(6, 3, softmax=True),
    "odd sizes": lambda: chains(5, 3, 7, softmax=True),
    "mixed": mixed,
}
