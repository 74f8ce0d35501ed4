"""run_tapped hands over arrays with the dtype and shape of the node."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphexec as gx

Array = np.ndarray[Any, Any]
DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_tapped_has_the_type_of_its_node(dtype: str) -> None:
    graph = gx.Graph(dims={"N": 6})
    graph.input("x", ("N", 10), dtype)
    graph.softmax("x", name="p")
    graph.gemm("p", "p", trans_b=True, name="g")
    graph.output("g")
    seen: dict[str, Array] = {}
    for extent in (6, 9):  # also where the plan for other sizes is made
        x = np.linspace(-2, 2, extent * 10).reshape(extent, 10).astype(DTYPES[dtype])
        with gx.compile(graph, device="cpu") as exe:
            found = exe.run_tapped({"x": x}, lambda node, a: seen.update({node: a.copy()}))
        assert {n: a.dtype for n, a in seen.items()} == dict.fromkeys(
            ("x.h2d", "p", "g", "g.d2h"), np.dtype(DTYPES[dtype])
        )
        assert seen["p"].shape == (extent, 10)
        assert seen["g"].shape == (extent, extent)
        assert np.array_equal(seen["x.h2d"], x)
        assert np.array_equal(seen["g"], found["g"])
        assert np.array_equal(seen["g.d2h"], found["g"])
