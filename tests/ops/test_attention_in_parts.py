"""Attention of few queries in parts of the keys: how many, and the numbers by NumPy.

Those of the GPU's kernels are checked in test_attention_triton.py."""

from __future__ import annotations

from typing import Any

import pytest
from attention_cases import Shape, arrays, assert_close, dtype_of, exact, graph_of

import graphexec as gx
from graphexec.base.tensor import TensorType, View
from graphexec.ir.plan import Launch
from graphexec.machine.support import Facts
from graphexec.ops.attention.in_parts import parts_of
from graphexec.ops.attention.problem import Problem


class InParts(gx.CpuDevice):
    """A device that computes attention of few queries in parts, as GPUs do."""

    def facts(self) -> Facts:
        return Facts(programs=132)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize(
    ("q", "k", "mask", "attrs"),
    [
        ((3, 1, 32), (3, 1024, 32), None, {"causal": True}),
        ((2, 3, 1, 16), (2, 1, 600, 16), (2, 3, 1, 600), {}),
        ((2, 1100, 16), (1024, 16), None, {"causal": True, "scale": -1.0}),
        ((5, 16), (515, 16), (5, 515), {"out_dtype": "f32"}),
    ],
)
def test_numbers(q: Shape, k: Shape, mask: Shape | None, attrs: dict[str, Any], dtype: str) -> None:
    given = arrays(dtype, q, k, mask=mask)
    graph = graph_of({n: (array.shape, dtype_of(array)) for n, array in given.items()}, **attrs)
    with gx.compile(graph, device=InParts(poison=True)) as exe:
        labels = [i.command for i in exe.plan.instructions if isinstance(i, Launch)]
        assert "parts combined" in labels
        found = exe.run(**given)["y"].astype(gx.DType(dtype).numpy())
    assert_close(found, exact(given, attrs), dtype)


@pytest.mark.parametrize(
    ("queries", "keys", "heads", "count"),
    [(1, 4096, 32, 4), (1, 8192, 8, 16), (1, 511, 8, 1), (1, 512, 8, 4), (16, 512, 8, 4),
     (17, 1023, 8, 1), (17, 1024, 8, 8), (64, 1024, 44, 3), (64, 1024, 45, 1),
     (65, 100000, 2, 33), (1, 100000, 2, 64), (1, 4096, 200, 1), (1, 4096, 1, 16),
     (65, 100000, 1, 1), (1, 1000, 8, 8), (1, 2049, 8, 16)],
)  # fmt: skip
def test_how_many(queries: int, keys: int, heads: int, count: int) -> None:
    """A program for each of 132 multiprocessors, of about 128 keys at least; 3 to 64 parts."""
    shapes = {"q": (heads, queries, 16), "k": (heads, keys, 16), "v": (heads, keys, 16)}
    views = [View.dense(n, TensorType(s, gx.DType.F16)) for n, s in shapes.items()]
    problem = Problem.of((*views, views[0]), 1.0, False)
    assert parts_of(problem, programs=132) == count
    assert parts_of(problem, programs=0) == 1


def test_parts_are_of_f32() -> None:
    views = [View.dense(n, TensorType((8, 4096, 16), gx.DType.F64)) for n in "qkv"]
    problem = Problem.of((*views, views[0]), 1.0, False).grouped()
    assert parts_of(problem, programs=100_000) == 1
