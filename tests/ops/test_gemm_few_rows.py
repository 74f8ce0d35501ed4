"""Products of few rows by the kernel in C and by NumPy, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import UNIT, Array, assert_within, draw, to_dtype, wide
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.program import Command, Gemm, Kernel
from graphexec.machine.costs import GPU
from graphexec.ops.gemm import few_rows_on_cpu
from graphexec.planning.few_rows import LEAST_BYTES

HALVES = ("f16", "bf16", "f32")


@pytest.fixture(params=["C", "NumPy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By the compiled kernel; or without a C compiler."""
    if request.param == "NumPy":
        monkeypatch.setattr(few_rows_on_cpu, "library", lambda: None)
    elif few_rows_on_cpu.library() is None:
        pytest.skip("needs a C compiler")
    return str(request.param)


def graph_of(arrays: dict[str, Array], **attrs: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, array in arrays.items():
        graph.input(name, array.shape, gx.DType.of(array.dtype).value)
    graph.gemm(**{name: name for name in arrays}, **attrs, name="y")
    graph.output("y")
    return graph


def check(arrays: dict[str, Array], **attrs: Any) -> Array:
    """Run it as one kernel and compare with float64; returns what it gave."""
    device = gx.CpuDevice(poison=True)
    with gx.compile(graph_of(arrays, **attrs), device=device, streams=2, costs=GPU) as exe:
        (command,) = commands(exe)
        assert isinstance(command.work, Kernel)
        assert command.label == "few rows"
        found = exe.run(**arrays)["y"]
    compare(found, arrays, **attrs)
    return found


def commands(exe: gx.Executable) -> list[Command]:
    return [c for c in exe._compiled.program.commands if c.label != "memcpy"]


def compare(found: Array, arrays: dict[str, Array], **attrs: Any) -> None:
    a, b = wide(arrays["a"]), wide(arrays["b"])
    a = np.swapaxes(a, -1, -2) if attrs.get("trans_a") else a
    b = np.swapaxes(b, -1, -2) if attrs.get("trans_b") else b
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 1.0)
    expected, size = alpha * np.matmul(a, b), abs(alpha) * np.matmul(abs(a), abs(b))
    for name, factor in (("c", beta), ("bias", 1.0)):
        if name in arrays and factor:
            expected = expected + factor * wide(arrays[name])
            size = size + abs(factor * wide(arrays[name]))
    dtype = str(attrs.get("out_dtype") or gx.DType.of(arrays["a"].dtype).value)
    assert_within(found, expected, dtype, (a.shape[-1] + 8) * UNIT["f32"] * size)


@st.composite
def products(draw_from: st.DrawFn) -> tuple[dict[str, Array], dict[str, Any]]:
    """Operands of a product with enough weights, and its attributes."""
    d = draw_from
    dtype, m = d(st.sampled_from(HALVES)), d(st.integers(1, 8))
    k = d(st.one_of(st.integers(1, 70), st.sampled_from((333, 576, 1030))))
    least = -(-LEAST_BYTES // (k * gx.DType(dtype).itemsize))
    n = least + d(st.integers(0, 40))
    trans_a, trans_b = d(st.booleans()) and m == 1, d(st.booleans())
    batch = d(st.sampled_from(((), (2,), (3, 1), (2, 2)))) if m < 3 else ()
    shared = d(st.booleans())
    out = d(st.sampled_from((dtype, "f32")))
    rng = np.random.default_rng(d(st.integers(0, 2**32 - 1)))
    shapes = {
        "a": (*batch, *((k, m) if trans_a else (m, k))),
        "b": (*(() if shared else batch), *((n, k) if trans_b else (k, n))),
    }
    dtypes = {"a": dtype, "b": dtype}
    for name, choices in {"c": ((*batch, m, n), (m, 1), (n,)), "bias": ((n,),)}.items():
        if d(st.booleans()):
            shapes[name], dtypes[name] = (
                d(st.sampled_from(choices)),
                d(st.sampled_from((dtype, out))),
            )
    attrs: dict[str, Any] = {"trans_a": trans_a, "trans_b": trans_b, "out_dtype": out}
    attrs["alpha"] = d(st.sampled_from((1.0, -0.5, 3.0)))
    if "c" in shapes:
        attrs["beta"] = d(st.sampled_from((1.0, -0.25, 0.0)))
    return {n: draw(rng, shape, dtypes[n]) for n, shape in shapes.items()}, attrs


@settings(max_examples=150)
@given(products())
def test_numbers(given_: tuple[dict[str, Array], dict[str, Any]]) -> None:
    arrays, attrs = given_
    check(arrays, **attrs)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("trans_b", [True, False])
@pytest.mark.parametrize("m", range(1, 9))
def test_rows(way: str, m: int, trans_b: bool, dtype: str) -> None:
    rng = np.random.default_rng(m)
    b = draw(rng, (301, 257) if trans_b else (257, 301), dtype)
    c, bias = draw(rng, (m, 301), dtype), draw(rng, (301,), dtype)
    check({"a": draw(rng, (m, 257), dtype), "b": b, "c": c, "bias": bias},
          trans_b=trans_b, beta=0.5)  # fmt: skip


@pytest.mark.parametrize("trans_b", [True, False])
def test_special_numbers_stay_in_their_columns(way: str, trans_b: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = draw(rng, (3, 256), "f16"), draw(rng, (256, 300), "f16")
    b[7, 20], b[255, 41], b[0, 299] = np.nan, np.inf, -np.inf
    arrays = {"a": a, "b": np.ascontiguousarray(b.T) if trans_b else b}
    with gx.compile(graph_of(arrays, trans_b=trans_b), device="cpu") as exe:
        found = exe.run(**arrays)["y"]
    assert np.isnan(found[:, 20]).all()
    assert (np.isinf(found[:, (41, 299)])).all()
    assert np.isfinite(np.delete(found, (20, 41, 299), axis=1)).all()


def test_what_is_not_needed_is_not_read(way: str) -> None:
    """c times 0 may be NaN; alpha = 0 reads neither a nor b, which the BLAS knows."""
    rng = np.random.default_rng(0)
    arrays = {"a": draw(rng, (1, 256), "f32"), "b": draw(rng, (256, 256), "f32"),
              "c": to_dtype(np.full((1, 256), np.nan), "f32")}  # fmt: skip
    check(arrays, beta=0.0)
    with gx.compile(graph_of(arrays, alpha=0.0, beta=0.0), device="cpu") as exe:
        assert isinstance(commands(exe)[-1].work, Gemm)


@pytest.mark.parametrize("trans_b", [True, False])
def test_the_bits_do_not_depend_on_the_cores(trans_b: bool) -> None:
    rng = np.random.default_rng(0)
    b = draw(rng, (5003, 300) if trans_b else (300, 5003), "f16")
    arrays = {"a": draw(rng, (3, 300), "f16"), "b": b}
    found = []
    for cores in (1, 2, 5):
        device = gx.CpuDevice(cores=cores)
        with gx.compile(graph_of(arrays, trans_b=trans_b), device=device) as exe:
            found += [exe.run(**arrays)["y"] for _ in range(2)]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
