"""Embeddings, parts in place and named axes on the HIP device, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hip_lab import MODES, Lab

import graphexec as gx
from graphexec.runtime.hip.device import HipDevice, Mode


def model() -> gx.Graph:
    g = gx.Graph("embedding", dims={"B": 2, "S": 5, "H": 2, "D": 16, "V": 11})
    g.input("ids", ("B", "S"), "i64")
    g.input("table", ("V", "H * D"))
    g.input("w", ("H * D", "H * D"))
    x = g.gather("table", "ids", name="x")
    rows = g.concat([g.gemm(x, "w", name="p"), g.softmax(x, name="q"), x], axis=0, name="rows")
    columns = g.concat([g.gemm(x, "w", alpha=0.5, name="r"), x], axis=-1, name="columns")
    heads = g.copy(x, axes="B S (H D) -> B H S D", name="heads")
    g.output(rows=rows, columns=columns, heads=heads)
    return g


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("streams", [1, 3])
def test_embedding(lab: Lab, streams: int, mode: Mode) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(-11, 11, (2, 5))
    table, w = (rng.standard_normal(s).astype("f4") for s in ((11, 32), (32, 32)))
    with (
        lab.nothing_left(),
        gx.compile(model(), device=HipDevice(mode=mode), streams=streams) as exe,
    ):
        inside = {node.name for node in exe.rewritten.nodes if node.into is not None}
        assert inside == {"p", "q", "r"}
        found = exe.run(ids=ids, table=table, w=w)
        with pytest.raises(gx.DataError, match=r"gather 'x': input 'ids' has the index 11 at"):
            exe.run(ids=ids * 0 + 11, table=table, w=w)
    x = table[ids].astype("f8")
    weights = np.exp(x - x.max(-1, keepdims=True))
    softmax = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(found["rows"], np.concatenate([x @ w, softmax, x]), 1e-4, 1e-5)
    columns = np.concatenate([x @ w / 2, x], -1)
    np.testing.assert_allclose(found["columns"], columns, 1e-4, 1e-5)
    np.testing.assert_array_equal(
        found["heads"], table[ids].reshape(2, 5, 2, 16).transpose(0, 2, 1, 3)
    )
