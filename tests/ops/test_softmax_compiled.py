"""Softmax on the CPU by the compiled body, and by NumPy without one, against float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from exact import draw
from test_softmax import check, give

from graphexec.ops.kit.generate import compiled
from graphexec.ops.softmax import prepared

RNG = np.random.default_rng(0)

CASES = [
    ("f32", (70, 40), {}), ("f16", (5, 33), {}), ("bf16", (3, 4, 50), {"scale": 0.25}),
    ("f32", (40, 70), {"axis": 0}), ("f16", (2, 65, 9), {"axis": 1}),
    ("f32", (3, 20, 31), {"causal": True}), ("f16", (31, 20), {"causal": True}),
]  # fmt: skip


@pytest.fixture(autouse=True, params=["C", "NumPy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = []

    def asked(body: compiled.Body) -> compiled.Library | None:
        made.append(compiled.library(body) if request.param == "C" else None)
        return made[-1]

    monkeypatch.setattr(prepared, "_FEWEST", 0)
    monkeypatch.setattr(prepared, "library", asked)
    yield
    assert made
    assert all((code is not None) == (request.param == "C") for code in made)


@pytest.mark.parametrize(("dtype", "shape", "attrs"), CASES)
def test_numbers(dtype: str, shape: tuple[int, ...], attrs: dict[str, object]) -> None:
    check(draw(RNG, shape, dtype), **attrs)


@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_masks_and_rows_that_see_nothing(dtype: str) -> None:
    mask = draw(RNG, (1, 30, 1), dtype)
    mask[0, 3] = -np.inf
    found = check(draw(RNG, (4, 30, 20), dtype), mask, scale=2.0, causal=True)
    assert (found[:, 3] == 0).all()
    assert (found[:, :10] == 0).all()  # their queries come before all keys


def test_nan_and_infinity_spoil_their_row_only() -> None:
    x = draw(RNG, (30, 20), "f32")
    x[4, 5], x[6, 7] = np.nan, np.inf
    found = give(x)
    spoilt = np.isnan(found).all(axis=1)
    assert spoilt.nonzero()[0].tolist() == [4, 6]
    assert not np.isnan(found[~spoilt]).any()
