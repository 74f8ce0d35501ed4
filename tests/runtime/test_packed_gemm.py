"""Products with weights by the kernel that has them packed: numbers, parts, and who uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.host_compiler import HostCompilerError
from graphexec.base.tensor import Array
from graphexec.runtime.cpu import packed_gemm
from graphexec.runtime.cpu.cores import Cores
from graphexec.runtime.cpu.gemm import prepare_gemm

pytestmark = pytest.mark.skipif(packed_gemm._make() is None, reason="there is no C compiler")

TOLERANCE = {"f2": 1e-3, "f4": 1e-5}


@pytest.fixture(autouse=True, scope="module")
def packed_however_small() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_gemm, "_FEWEST_FLOPS", 0)
        yield


def product(
    a: Array, b: Array, out: Array, alpha: float = 1.0, beta: float = 0.0, cores: int = 2,
    **addends: Array,
) -> int:  # fmt: skip
    """Compute into `out`; returns how often b was packed."""
    packed: list[Array] = []

    def once(make: Any) -> Array:
        packed.append(make())
        return packed[0]

    helpers = Cores(cores)
    try:
        prepare_gemm(a, b, out, alpha, beta, helpers, **addends, once=once)()
    finally:
        helpers.close()
    return len(packed)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes around the tiles, matrices and results with gaps, every addend."""
    m, n, k = draw(st.integers(1, 60)), draw(st.integers(1, 110)), draw(st.integers(1, 70))
    batch = draw(st.sampled_from([(), (2,), (2, 3)]))
    dtype, result = draw(st.sampled_from([("f4", "f4"), ("f2", "f2"), ("f2", "f4")]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))

    def matrix(*shape: int, dtype: str = dtype) -> Array:
        gap = draw(st.integers(0, 3))
        wide = rng.standard_normal((*shape[:-1], shape[-1] + gap)).astype(dtype)
        return wide[..., : shape[-1]]

    given: dict[str, Any] = {"a": matrix(*batch, m, k), "out": matrix(*batch, m, n, dtype=result)}
    shared = draw(st.booleans())
    b = matrix(n, k).T if draw(st.booleans()) else matrix(k, n)
    given["b"] = np.broadcast_to(b, (*batch, k, n)) if shared else matrix(*batch, k, n)
    given["alpha"] = draw(st.sampled_from([1.0, -0.5]))
    if draw(st.booleans()):
        given["bias"] = matrix(*batch, n, dtype=result)
    if draw(st.booleans()):
        given |= {"beta": 2.0, "c": matrix(*batch, m, n, dtype=result)}
    return given


def exact(a: Array, b: Array, alpha: float, beta: float = 0.0, **addends: Array) -> Array:
    found = alpha * (a.astype(np.float64) @ b.astype(np.float64))
    if "c" in addends:
        found = found + beta * addends["c"].astype(np.float64)
    if "bias" in addends:
        found = found + addends["bias"].astype(np.float64)[..., None, :]
    return found


@given(problems(), st.integers(1, 3))
def test_numbers(problem: dict[str, Any], cores: int) -> None:
    out = problem.pop("out")
    out[...] = np.nan
    assert product(out=out, cores=cores, **problem) == 1
    expected = exact(**problem)
    scale = np.abs(problem["a"]).max() * np.abs(problem["b"]).max() * problem["a"].shape[-1]
    tolerance = TOLERANCE[out.dtype.str[1:]] * max(1.0, float(scale))
    np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance)


def test_a_result_in_place_of_c() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(s).astype("f4") for s in ((50, 40), (40, 70), (50, 70)))
    out = c.copy()
    product(a, b, out, beta=-1.0, bias=np.ones(70, "f4"))
    np.testing.assert_allclose(out, exact(a, b, 1.0, -1.0, c=c) + 1, rtol=0, atol=1e-4)


def test_long_sums_wait_in_the_result() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((13, 5000)), rng.standard_normal((5000, 40))
    out, bias = np.full((13, 40), np.nan, "f4"), np.ones(40, "f4")
    product(a.astype("f4"), b.astype("f4"), out, alpha=0.5, bias=bias)
    np.testing.assert_allclose(out, 0.5 * (a @ b) + 1, rtol=0, atol=2e-3)


def test_neither_rows_nor_parts_change_a_digit() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((500, 700), np.float32), rng.standard_normal((700, 130), np.float32)
    whole, other, some = (np.empty((rows, 130), "f4") for rows in (500, 500, 7))
    product(a, b, whole, cores=1)
    product(a, b, other, cores=5)
    product(a[31:38], b, some)
    assert (whole == other).all()
    assert (whole[31:38] == some).all()


def test_f64_and_turned_rows_are_left_to_the_blas() -> None:
    a, b = np.ones((40, 30), "f4"), np.ones((30, 50), "f4")
    turned = np.asfortranarray(a)
    for left, right, kind in ((turned, b, "f4"), (a.astype("f8"), b.astype("f8"), "f8")):
        out = np.empty((40, 50), kind)
        assert product(left, right, out) == 0
        assert (out == 30).all()


def test_requests_in_flight_share_what_was_packed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed, pack = [], packed_gemm.Kernel.pack

    def counted(self: packed_gemm.Kernel, b: Array) -> Array:
        packed.append(b)
        return pack(self, b)

    monkeypatch.setattr(packed_gemm.Kernel, "pack", counted)
    rng = np.random.default_rng(0)
    w = rng.standard_normal((90, 64)).astype("f2")
    np.save(tmp_path / "w.npy", w)
    text = """{version: 1, name: weights, inputs: {x: {shape: [30, 64], dtype: f16}},
               weights: {w: {file: w.npy}}, nodes: {y: x @ T(w)}, outputs: {y: y}}"""
    g = gx.loads(text, folder=tmp_path)
    requests = [{"x": rng.standard_normal((30, 64)).astype("f2")} for _ in range(6)]
    with gx.compile(g, device="cpu") as exe:
        found = [result["y"] for result in exe.map(requests, in_flight=3)]
    assert len(packed) == 1
    for request, y in zip(requests, found, strict=True):
        np.testing.assert_allclose(y, exact(request["x"], w.T, 1.0), atol=0.05)


def test_without_a_compiler_numpy_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise HostCompilerError("no C compiler was found")

    monkeypatch.setattr(packed_gemm, "load_library", refuse)
    packed_gemm._make.cache_clear()
    try:
        out = np.empty((40, 50), "f4")
        assert product(np.ones((40, 30), "f4"), np.ones((30, 50), "f4"), out) == 0
        assert (out == 30).all()
    finally:
        monkeypatch.undo()
        packed_gemm._make.cache_clear()
