"""What attention makes of extreme numbers, by every kernel that runs without a GPU: values whose
mean is finite but whose sum is not, and masks (docs/yaml.md has the table)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import Array, to_dtype, wide

import graphexec as gx
from graphexec.ops.attention import compiled

WAYS = ("C", "NumPy", "Triton", "Triton, in parts", "unfused")
UNIT = {"f16": 2e-3, "bf16": 8e-3, "f32": 5e-5, "f64": 1e-12}
LOWEST = {"f16": -65504.0, "bf16": -3.3895313892515355e38, "f32": -3.4028234663852886e38}


def attend(way: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, Array]) -> Array:
    """The result of one way, as float64."""
    if way.startswith("Triton"):
        pytest.importorskip("triton", reason="pip install 'graphexec[fused]'")
        from test_attention_triton import Case, interpret

        (found,) = interpret([Case(given, in_parts="parts" in way)])
        return wide(found)
    graph = gx.Graph("g")
    for name, array in given.items():
        graph.input(name, array.shape, next(d for d in gx.DType if d.numpy() == array.dtype))
    if way == "unfused":
        scores = graph.gemm("q", "k", trans_b=True, alpha=given["q"].shape[-1] ** -0.5)
        masked = {"mask": "mask"} if "mask" in given else {}
        graph.output(y=graph.gemm(graph.softmax(scores, **masked), "v"))
    else:
        graph.output(y=graph.attention(**{n: n for n in given}))
    if way == "NumPy":
        monkeypatch.setattr(compiled, "native_kernel", lambda: None)
    elif way == "C" and compiled.native_kernel() is None:
        pytest.skip("needs a C compiler")
    no_rewrite = ("all",) if way == "unfused" else ()
    with gx.compile(graph, device="cpu", no_rewrite=no_rewrite) as exe:
        return wide(exe.run(**given)["y"])


def operands(dtype: str, value: float, queries: int, keys: int, logit: float = 0.0) -> Any:
    q = np.full((1, 2, queries, 16), logit / 4)
    k, v = np.ones((1, 2, keys, 16)), np.full((1, 2, keys, 16), value)
    return {name: to_dtype(x, dtype) for name, x in (("q", q), ("k", k), ("v", v))}


LARGE = [
    ("f32", 1e38, 8, 4, 0.0),
    ("f32", 3e38, 8, 2000, 3.0),
    ("f32", 1e38, 2, 700, 0.0),  # by NumPy also where there is a compiler
    ("bf16", 1e36, 8, 1000, 0.0),
    ("bf16", -3e38, 16, 1000, 16.0),
    ("f16", 65504.0, 8, 1000, 0.0),
    ("f64", 1e305, 8, 4, 16.0),
    ("f64", 1.7e308, 8, 600, -30.0),
]


def serves(way: str, dtype: str, keys: int) -> bool:
    """Whether a kernel is for such operands."""
    if way.startswith("Triton"):
        return dtype in ("f16", "bf16") and (keys >= 512 or "parts" not in way)
    return way != "C" or dtype != "f64"


@pytest.mark.parametrize(
    ("way", "dtype", "value", "queries", "keys", "logit"),
    [
        (way, dtype, value, queries, keys, logit)
        for way in WAYS
        for dtype, value, queries, keys, logit in LARGE
        if way != "unfused" and serves(way, dtype, keys)
    ],
)
def test_a_finite_mean_of_large_values_is_finite(
    way: str, dtype: str, value: float, queries: int, keys: int, logit: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = attend(way, monkeypatch, operands(dtype, value, queries, keys, logit))
    assert np.abs(found / value - 1).max() <= UNIT[dtype]


def test_infinite_values_stay_infinite(monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands("f32", 1.0, 8, 40)
    given["v"][0, 1, 3, 5] = np.inf
    for way in ("C", "NumPy"):
        found = attend(way, monkeypatch, given)
        assert np.isposinf(found[0, 1, :, 5]).all()
        assert np.isfinite(np.delete(found[0, 1], 5, axis=1)).all()


# Masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize(
    ("way", "dtype"),
    [(way, d) for way in WAYS for d in ("f32", "bf16", "f16") if serves(way, d, 1024)],
)
def test_masks(way: str, dtype: str, mask_dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the mask: a number for all keys, and one for every second key."""
    numbers = (-np.inf, LOWEST[mask_dtype], -1e4, np.nan, np.inf)
    keys = 1024 if "parts" in way else 32
    given = operands(dtype, 0.0, 2 * len(numbers), keys)
    given["v"][...] = to_dtype(np.where(np.arange(keys) % 2, 2.0, 4.0), dtype)[:, None]
    mask = np.zeros((2 * len(numbers), keys))
    for row, number in enumerate(numbers):
        mask[2 * row] = number
        mask[2 * row + 1, ::2] = number
    given["mask"] = to_dtype(mask, mask_dtype)
    found = attend(way, monkeypatch, given)[..., 0]
    for row, number in enumerate(numbers):
        everywhere, half = found[..., 2 * row], found[..., 2 * row + 1]
        if number == -np.inf:
            assert (everywhere == 0).all()  # a query that sees no key
        elif number < 0:
            assert np.abs(everywhere - 3).max() < 0.03  # the softmax of equal logits
        else:
            assert np.isnan(everywhere).all()
        if number < 0:
            assert np.abs(half - 2).max() < 0.02  # the others alone
        else:
            assert np.isnan(half).all()
