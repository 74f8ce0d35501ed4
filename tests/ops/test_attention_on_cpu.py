"""The numbers of attention on the CPU against float64, computed either way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from attention_cases import Shape, arrays, assert_close, check, exact, graph_of
from exact import DTYPES, Array, draw, run, to_dtype, wide
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import TensorType, View
from graphexec.ops.attention import by_numpy, compiled
from graphexec.ops.attention.problem import Problem


@pytest.fixture(autouse=True, scope="module", params=["compiled", "by NumPy"])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "by NumPy":
            patch.setattr(compiled, "native_kernel", lambda: None)
        elif compiled.native_kernel() is None:
            pytest.skip("a C compiler is needed")
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", [1, 3, 16, 64, 80, 256])
def test_head_sizes(head: int, dtype: str) -> None:
    check(arrays(dtype, (2, 33, head), (2, 47, head), (2, 47, 5)))
    check(arrays(dtype, (9, 8), (11, 8), (11, head)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 70), (70, 1), (40, 64), (64, 40)])
def test_causal(queries: int, keys: int, dtype: str) -> None:
    """Aligned to the last key; with more queries than keys the first ones see nothing."""
    given = arrays(dtype, (2, queries, 8), (2, keys, 8))
    found = check(given, causal=True)
    assert np.all(wide(found)[:, : max(0, queries - keys)] == 0)
    check(given | {"mask": to_dtype([[0.5]], "f32")}, causal=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("large", [30.0, 1000.0])
def test_large_logits(large: float, dtype: str) -> None:
    """Logits whose exp overflows; in f16 the logits overflow too."""
    check(arrays(dtype, (2, 40, 64), (2, 50, 64), large=large), scale=1.0)
    check(arrays(dtype, (2, 40, 64), (2, 50, 64), large=large), scale=-1.0, causal=True)


@pytest.mark.parametrize("shift", [-1e4, -200.0, 100.0, 1e4])
def test_a_shift_of_all_logits_changes_nothing(shift: float) -> None:
    given = arrays("f32", (20, 8), (30, 8))
    moved = check(given | {"mask": to_dtype([[shift]], "f32")})
    assert np.allclose(check(given), moved, atol=1e-6 * abs(shift))


@pytest.mark.parametrize(("value", "shift"), [(1e-25, -60), (1e25, 60), (1e-25, 60), (1e25, -60)])
def test_values_at_the_ends_of_f32(value: float, shift: float) -> None:
    """Weights are multiplied with the values before they are normalised: neither may overflow."""
    given = arrays("f32", (20, 8), (30, 8)) | {"mask": to_dtype([[shift]], "f32")}
    check(given | {"v": given["v"] * np.float32(value)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask_dtype", DTYPES)
def test_masks_of_any_dtype(mask_dtype: str, dtype: str) -> None:
    check(arrays(dtype, (2, 3, 7, 8), (2, 3, 9, 8), mask=(7, 9), mask_dtype=mask_dtype))


@pytest.mark.parametrize("mask", [(2, 3, 7, 9), (3, 1, 9), (2, 1, 7, 1), (9,), (1, 1), ()])
def test_masks_broadcast(mask: Shape) -> None:
    check(arrays("f32", (2, 3, 7, 8), (2, 3, 9, 8), mask=mask))
    check(arrays("f32", (2, 3, 7, 8), (2, 3, 9, 8), mask=mask), causal=True, scale=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_keys_hidden(dtype: str) -> None:
    given = arrays(dtype, (5, 8), (7, 8)) | {"mask": to_dtype(-np.inf, "f32")}
    assert np.all(wide(check(given)) == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_grouped_queries_share_keys(dtype: str) -> None:
    check(arrays(dtype, (2, 2, 3, 10, 8), (2, 2, 1, 12, 8)))
    check(arrays(dtype, (10, 8), (4, 12, 8)))
    check(arrays(dtype, (4, 1, 10, 8), (3, 12, 8), (12, 6)), causal=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposed_operands(dtype: str) -> None:
    check(arrays(dtype, (2, 8, 10), (2, 8, 12), (2, 6, 12)), trans_q=True, trans_k=True,
          trans_v=True)  # fmt: skip


@pytest.mark.parametrize(("dtype", "out"), [("f16", "f32"), ("bf16", "f16"), ("f32", "f16"),
                                            ("f64", "f32"), ("f32", "f64")])  # fmt: skip
def test_another_dtype_of_the_result(dtype: str, out: str) -> None:
    given = arrays(dtype, (10, 8), (12, 8))
    types = {name: (array.shape, dtype) for name, array in given.items()}
    found = run(graph_of(types, out_dtype=out), given)["y"]
    coarse = max(dtype, out, key=["f64", "f32", "f16", "bf16"].index)
    assert found.dtype == gx.DType(out).numpy()
    assert_close(found.astype(gx.DType(coarse).numpy()), exact(given, {}), coarse)


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("attrs", [{}, {"causal": True}, {"scale": 3.0}])
@pytest.mark.parametrize("mask", [None, (700, 1100)])
def test_several_blocks(mask: Shape | None, attrs: dict[str, Any], dtype: str) -> None:
    assert by_numpy._QUERIES < 700 < 1100 < 3 * by_numpy._KEYS
    check(arrays(dtype, (2, 700, 8), (2, 1100, 8), mask=mask), ways="one", **attrs)


@contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of so few queries and keys that small problems have many."""
    sizes = {"_QUERIES": 4, "_KEYS": 3, "_CAUSAL_QUERIES": 3, "_FEWEST_QUERIES": 2, "_ALIGNMENT": 2}
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(by_numpy, name, size)
        yield


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_blocks_are_of_every_query_and_the_keys_that_it_sees(m: int, n: int, causal: bool) -> None:
    q, k = (View.dense(name, TensorType((2, rows, 4), gx.DType.F32))
            for name, rows in (("q", m), ("k", n)))  # fmt: skip
    seen = np.zeros((n, m), int)
    with small_blocks():
        work = by_numpy.ByNumpy(Problem(q, k, k, None, q, 1.0, causal))
        for rows, some in work.blocks:
            assert rows.stop - rows.start <= 4
            for keys in some:
                assert keys.rows.stop - keys.rows.start <= 3
                seen[keys.rows, rows] += 1 if keys.hidden is None else ~keys.hidden
    expected = np.tri(m, n, n - m, dtype=int).T if causal else np.ones((n, m), int)
    assert np.array_equal(seen, expected)


def test_one_query_with_large_logits_among_others() -> None:
    given = arrays("f32", (3, 300, 8), (3, 600, 8))
    given["q"][1, 200] *= 1e4
    check(given)


def test_a_hidden_key_may_have_a_logit_beyond_the_exponential() -> None:
    """Only the first query has large logits; the sums of all others are of ordinary size."""
    given = arrays("f32", (9, 8), (9, 8))
    given["q"][1:, 0] = given["k"][:5, 0] = 0
    given["q"][0, 0] = given["k"][5:, 0] = 1e3
    check(given, causal=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_spoil_their_query_only(value: float) -> None:
    given = arrays("f32", (6, 8), (7, 8))
    clean, _ = exact(given, {})
    given["q"][2, 3] = value
    types = {name: (array.shape, "f32") for name, array in given.items()}
    found = run(graph_of(types), given)["y"]
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4, 5]
    assert np.allclose(found[others], clean[others], atol=1e-5)


def test_the_same_bits_on_any_number_of_cores_and_again() -> None:
    given = arrays("f32", (4, 300, 32), (4, 300, 32))
    assert max(compiled._SERIAL_FLOPS, by_numpy._SERIAL_FLOPS) < 4 * 4 * 300 * 300 * 32
    graph = graph_of({name: (array.shape, "f32") for name, array in given.items()})
    found = set()
    for cores in (1, 2, 3, 2):
        with gx.compile(graph, device=gx.CpuDevice(cores=cores)) as exe:
            found |= {exe.run(**given)["y"].tobytes() for _ in range(3)}
    assert len(found) == 1


extents = st.integers(1, 6)


@st.composite
def calls(choose: st.DrawFn) -> tuple[dict[str, Array], dict[str, Any]]:
    batch = choose(st.lists(extents, max_size=3))
    m, n, d, dv = (choose(st.integers(1, 9)) for _ in range(4))
    rng = np.random.default_rng(choose(st.integers(0, 2**32 - 1)))
    dtype = choose(st.sampled_from(DTYPES))

    def shape(rows: int, columns: int) -> Shape:
        kept = batch[choose(st.integers(0, len(batch))) :]
        return (*(choose(st.sampled_from([1, e])) for e in kept), rows, columns)

    attrs: dict[str, Any] = {"causal": choose(st.booleans())}
    if choose(st.booleans()):
        attrs["scale"] = choose(st.sampled_from([1.0, -0.5, 0.0, 20]))
    given = {}
    for name, rows, columns in (("q", m, d), ("k", n, d), ("v", n, dv)):
        attrs[f"trans_{name}"] = turned = choose(st.booleans())
        given[name] = draw(rng, shape(columns, rows) if turned else shape(rows, columns), dtype)
    if choose(st.booleans()):
        full = np.broadcast_shapes(*(given[name].shape[:-2] for name in "qkv"))
        of_mask = (*full, m, n)[choose(st.integers(0, len(full) + 2)) :]
        of_mask = tuple(choose(st.sampled_from([1, e])) for e in of_mask)
        given["mask"] = draw(rng, of_mask, choose(st.sampled_from(DTYPES)), 3)
        given["mask"][rng.random(of_mask) < 0.3] = -np.inf
    return given, attrs


@settings(max_examples=120, deadline=None)
@given(calls())
def test_any_call(call: tuple[dict[str, Array], dict[str, Any]]) -> None:
    given, attrs = call
    check(given, by_terms=True, **attrs)
    with small_blocks():
        check(given, by_terms=True, ways="one", **attrs)
