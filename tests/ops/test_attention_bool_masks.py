"""Masks of bools, true where a key is seen: on every kernel that runs without a GPU the same bits
as a mask that adds 0 or -inf, and right numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attention_cases import Plain, assert_close, exact
from exact import DTYPES, Array, draw
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ops.attention import compiled
from graphexec.ops.attention.problem import addend
from graphexec.tools.compare import compare

MASKS: list[tuple[int, ...]] = [(2, 3, 20, 70), (3, 1, 70), (2, 1, 20, 1), (70,), (1, 1), ()]


def operands(dtype: str, mask: tuple[int, ...], queries: int = 20, keys: int = 70) -> Any:
    """q, k, v, and a mask whose first query sees no key."""
    rng = np.random.default_rng(4)
    found = {"q": draw(rng, (2, 3, queries, 16), dtype)}
    found |= {name: draw(rng, (2, 3, keys, 16), dtype) for name in "kv"}
    seen = rng.random(mask) < 0.7
    if len(mask) > 1 and mask[-2] > 1:
        seen[..., 0, :] = False
    return found | {"mask": seen}


def graph_of(arrays: dict[str, Array], **attrs: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, array in arrays.items():
        graph.input(name, array.shape, next(d for d in gx.DType if d.numpy() == array.dtype))
    graph.output(y=graph.attention(**{n: n for n in arrays}, **attrs, name="y"))
    return graph


def run(arrays: dict[str, Array], device: Any = "cpu", **attrs: Any) -> Array:
    with gx.compile(graph_of(arrays, **attrs), device=device) as exe:
        return exe.run(**arrays)["y"]


@pytest.mark.parametrize("way", ["C", "NumPy", "unfused"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
def test_numbers(
    mask: tuple[int, ...], dtype: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "NumPy":
        monkeypatch.setattr(compiled, "native_kernel", lambda: None)
    elif way == "C" and compiled.native_kernel() is None:
        pytest.skip("needs a C compiler")
    device = Plain(poison=True) if way == "unfused" else "cpu"
    given = operands(dtype, mask)
    added = given | {"mask": addend(given["mask"])}
    for causal in (False, True):
        found = run(given, device, causal=causal)
        assert_close(found, exact(added, {"causal": causal}), dtype)
        np.testing.assert_array_equal(found, run(added, device, causal=causal))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_numbers_of_the_kernels_for_gpus(dtype: str) -> None:
    pytest.importorskip("triton", reason="pip install 'graphexec[fused]'")
    from test_attention_triton import Case, interpret

    cases = [Case(operands(dtype, mask)) for mask in MASKS]
    cases += [Case(operands(dtype, (20, 70)), {"causal": True})]
    cases += [Case(operands(dtype, (3, 5, 1300), 5, 1300), in_parts=True)]
    for case, found in zip(cases, interpret(cases), strict=True):
        added = case.arrays | {"mask": addend(case.arrays["mask"])}
        assert_close(found.astype(case.arrays["q"].dtype), exact(added, case.attrs), dtype)


def test_they_compile_for_gpus() -> None:
    pytest.importorskip("triton", reason="pip install 'graphexec[fused]'")
    from test_attention_triton import GPUS, Case

    from graphexec.runtime.hip import triton as hip_triton

    for name in ("sm_90", "gfx942"):
        kernel = Case(operands("f16", (3, 1, 70))).kernel()
        assert hip_triton.compile_kernel(kernel, GPUS[name]).code


def test_a_mask_that_a_map_makes_of_integers() -> None:
    arrays = operands("f32", (2, 1, 1, 70)) | {"mask": np.ones((2, 70), np.int32)}
    arrays["mask"][1, 50:] = 0
    graph = gx.Graph("g")
    for name, array in arrays.items():
        graph.input(name, array.shape, next(d for d in gx.DType if d.numpy() == array.dtype))
    keys = graph.copy("mask", reshape=[2, 1, 1, 70], name="keys")
    seen = graph.map("keys != 0", keys=keys, name="seen")
    graph.output(y=graph.attention("q", "k", "v", seen, name="y"))
    assert compare(graph, arrays, device="cpu").ok
    added = arrays | {"mask": addend(arrays["mask"] != 0)[:, None, None, :]}
    with gx.compile(graph, device=Plain(poison=True)) as exe:
        assert_close(exe.run(**arrays)["y"], exact(added, {}), "f32")


def test_other_integers_are_refused() -> None:
    arrays = operands("f32", (70,)) | {"mask": np.ones(70, np.int32)}
    with pytest.raises(gx.GraphError, match="mask"):
        gx.make_plan(graph_of(arrays))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 90), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_random_sizes(queries: int, keys: int, dtype: str, seed: int) -> None:
    given = operands(dtype, (2, 1, queries, keys), queries, keys)
    given["mask"][...] = np.random.default_rng(seed).random(given["mask"].shape) < 0.5
    added = given | {"mask": addend(given["mask"])}
    assert_close(run(given), exact(added, {}), dtype)
