"""The attention kernel in C for vectors of every width, on views of any strides."""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attention_cases import assert_close, exact
from exact import Array, rounded, to_dtype, wide
from hardware import Chip
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base import host_compiler
from graphexec.base.host_compiler import NATIVE, HostCompilerError, load_library
from graphexec.base.tensor import TensorType, View
from graphexec.ir.operand import FLOATS
from graphexec.ops.attention import compiled
from graphexec.ops.attention.compiled import FLAGS, SOURCE, Compiled, Kernel
from graphexec.ops.attention.problem import Problem
from graphexec.planning.pipeline import plan_graph


def flag_sets() -> dict[str, tuple[str, ...]]:
    """Compiler flags for vectors of several widths, those that this CPU supports."""
    found: dict[str, tuple[str, ...]] = {"native": (NATIVE,), "baseline": ()}
    if platform.machine() == "x86_64" and " avx2 " in Path("/proc/cpuinfo").read_text():
        found["avx2"] = ("-mavx2", "-mfma")
    return found


@pytest.fixture(scope="module", params=flag_sets())
def kernel(request: pytest.FixtureRequest) -> Kernel:
    try:
        return load_library(SOURCE, (*FLAGS, *flag_sets()[request.param]), Kernel)
    except HostCompilerError as error:
        pytest.skip(f"a C compiler is needed: {error}")


def serial(n: int, body: Any) -> None:
    body(0, n)


class Operand:
    """A tensor whose axes lie in memory in any order, with a gap after each, among NaN."""

    def __init__(
        self, shape: tuple[int, ...], dtype: str, order: tuple[int, ...] | None = None,
        gap: int = 0, fixed: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        strides, step = [0] * len(shape), 1
        for axis in reversed(order or range(len(shape))):
            if axis not in fixed:  # else one entry serves the whole axis
                strides[axis], step = step, step * shape[axis] + gap
        kind = gx.DType(dtype)
        self.memory = np.full(step + gap + 8, np.nan, kind.numpy())
        self.view = View("x", shape, kind, tuple(strides), 4)
        size = kind.itemsize
        self.array = np.ndarray(
            shape,
            kind.numpy(),
            self.memory.view(np.uint8).data,
            4 * size,
            tuple(s * size for s in strides),
        )

    def around(self) -> int:
        """The number of unchanged elements of the memory."""
        return int(np.isnan(self.memory.astype(np.float64)).sum())


def problem_of(operands: dict[str, Operand], scale: float, causal: bool) -> Problem:
    views = [operands[name].view if name in operands else None for name in ("q", "k", "v", "mask")]
    q, k, v, mask = views
    assert q
    assert k
    assert v
    return Problem(q, k, v, mask, operands["out"].view, scale, causal)


def compute(kernel: Kernel, operands: dict[str, Operand], scale: float, causal: bool) -> None:
    work = Compiled(problem_of(operands, scale, causal), kernel)
    names = ("q", "k", "v", "out", "mask")
    work.compute([operands[n].array for n in names if n in operands], serial)


sizes = st.one_of(st.integers(1, 9), st.integers(1, 140))


@st.composite
def calls(choose: st.DrawFn) -> tuple[dict[str, Operand], float, bool]:
    batch = tuple(choose(st.lists(st.integers(1, 3), max_size=2)))
    m, n = choose(sizes), choose(sizes)
    d, dv = (choose(st.one_of(st.integers(1, 20), st.sampled_from([32, 64, 80]))) for _ in range(2))
    axes = len(batch) + 2
    dtype = choose(st.sampled_from(["f32", "f32", "f16", "bf16"]))
    rng = np.random.default_rng(choose(st.integers(0, 2**32 - 1)))

    def operand(rows: int, columns: int, dtype: str, fixed: tuple[int, ...] = ()) -> Operand:
        order = tuple(choose(st.permutations(range(axes))))
        made = Operand((*batch, rows, columns), dtype, order, choose(st.integers(0, 3)), fixed)
        made.array[...] = to_dtype(rng.standard_normal(made.array.shape), dtype)
        return made

    some_axes = st.lists(st.sampled_from(range(axes)), unique=True).map(tuple)
    batch_axes = tuple(a for a in choose(some_axes) if a < len(batch))
    operands = {
        "q": operand(m, d, dtype),
        "k": operand(n, d, dtype, batch_axes),
        "v": operand(n, dv, dtype, batch_axes),
        "out": operand(m, dv, choose(st.sampled_from([dtype, "f64"]))),
    }
    if choose(st.booleans()):
        kind = choose(st.sampled_from(["f16", "bf16", "f32", "f64"]))
        operands["mask"] = mask = operand(m, n, kind, choose(some_axes))
        mask.array[...] = np.where(rng.random(mask.array.shape) < 0.3, -np.inf, mask.array)
    operands["out"].array[...] = np.nan
    return operands, choose(st.sampled_from([0.125, 1.0, -0.5, 0.0, 30.0])), choose(st.booleans())


@settings(max_examples=150)
@given(call=calls())
def test_any_call(kernel: Kernel, call: tuple[dict[str, Operand], float, bool]) -> None:
    operands, scale, causal = call
    out = operands["out"]
    before = out.around()
    compute(kernel, operands, scale, causal)
    assert out.around() == before - out.array.size, "something else was written"
    given = {name: x.array for name, x in operands.items() if name != "out"}
    attrs = {"scale": scale, "causal": causal}
    terms = exact({**given, "v": np.abs(wide(given["v"]))}, attrs)[0]
    dtype = "f32" if out.view.dtype is gx.DType.F64 else str(out.view.dtype)
    assert_close(out.array.astype(gx.DType(dtype).numpy()), exact(given, attrs), dtype, terms)


def dense(given: dict[str, Array], out: str | None = None) -> dict[str, Operand]:
    found = {}
    for name, array in given.items():
        dtype = next(d for d in gx.DType if d.numpy() == array.dtype)
        found[name] = Operand(array.shape, str(dtype))
        found[name].array[...] = array
    shape = (*given["q"].shape[:-1], given["v"].shape[-1])
    found["out"] = Operand(shape, out or str(found["v"].view.dtype))
    return found


def ones_and(v: Array, out: str) -> dict[str, Operand]:
    """One query and one key, whose weight is 1: the values pass through unchanged."""
    one = np.ones((len(v), 1, 1), v.dtype)
    return dense({"q": one, "k": one, "v": v[:, None, :]}, out)


def every_number(dtype: str) -> Array:
    return np.arange(1 << 16, dtype=np.uint16).view(gx.DType(dtype).numpy())


@np.errstate(invalid="ignore")  # which ml_dtypes says of NaN
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_every_half_precision_number_is_read(kernel: Kernel, dtype: str) -> None:
    every = every_number(dtype).reshape(256, 256)
    operands = ones_and(every, "f64")
    compute(kernel, operands, 1.0, False)
    assert np.array_equal(operands["out"].array[:, 0], wide(every), equal_nan=True)


@np.errstate(invalid="ignore")  # which ml_dtypes says of NaN
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_results_are_rounded_to_nearest_ties_to_even(kernel: Kernel, dtype: str) -> None:
    rng = np.random.default_rng(0)
    exponents = np.linspace(-149, 127.9, 64 * 200)
    some = (np.exp2(exponents) * rng.choice([-1, 1], exponents.size)).astype(np.float32)
    numbers = every_number(dtype)
    numbers = np.unique(wide(numbers[np.isfinite(numbers)]))
    ties = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)[: 1023 * 64]
    special = np.array([np.inf, -np.inf, np.nan, 65519.996, 65520, -65520, 0] * 64, np.float32)
    v = np.concatenate([some, ties, special])
    v = v[: len(v) // 64 * 64].reshape(-1, 64)
    operands = ones_and(v, dtype)
    compute(kernel, operands, 1.0, False)
    assert np.array_equal(wide(operands["out"].array[:, 0]), rounded(v, dtype), equal_nan=True)


@pytest.mark.parametrize("order", [1, -1])
def test_weights_are_exact_to_a_few_roundings(kernel: Kernel, order: int) -> None:
    """One query; the logits run over all that have a weight, up or down, and the values pick each
    of the lower half out."""
    logits = np.linspace(-90, 0, 512).astype(np.float32)
    v = np.eye(512, 256, dtype=np.float32)
    given = {"q": np.ones((1, 1), np.float32), "k": logits[::order, None], "v": v[::order]}
    operands = dense(given)
    compute(kernel, operands, 1.0, False)
    e = np.exp(wide(logits))
    expected = (e / e.sum())[:256]
    error = np.abs(wide(operands["out"].array[0]) - expected)
    # All weights are divided by 2^10; what is then below 2^-125 counts as nothing.
    assert np.all(error <= expected * (1e-6 + np.abs(logits[:256]) * 2e-7) + 2.0**-115)


def some_call() -> dict[str, Operand]:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((3, n, 32), dtype=np.float32) for n in (300, 200, 200))
    return dense({"q": q, "k": k, "v": v})


@pytest.mark.parametrize("causal", [False, True])
def test_blocks_are_independent(kernel: Kernel, causal: bool) -> None:
    """Blocks give the same bits one at a time in any order, and concurrently in threads."""
    operands = some_call()
    compute(kernel, operands, 0.2, causal)
    expected = operands["out"].array.tobytes()

    def shuffled(n: int, body: Any) -> None:
        assert n > 8
        for i in np.random.default_rng(1).permutation(n):
            body(int(i), int(i) + 1)

    def side_by_side(n: int, body: Any) -> None:
        threads = [threading.Thread(target=body, args=(i, i + 1)) for i in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    work = Compiled(problem_of(operands, 0.2, causal), kernel)
    arrays = [operands[n].array for n in ("q", "k", "v", "out")]
    for parallel in (shuffled, *(side_by_side,) * 10):
        operands["out"].array[...] = np.nan
        work.compute(arrays, parallel)
        assert operands["out"].array.tobytes() == expected


def test_a_mask_of_the_lowest_numbers_is_not_one_of_infinities(kernel: Kernel) -> None:
    """If all keys of a query have this mask, their weights are equal, as in a softmax."""
    operands = some_call()
    lowest = np.finfo(np.float32).min
    operands["mask"] = Operand((3, 300, 200), "f32")
    operands["mask"].array[...] = lowest
    compute(kernel, operands, 0.2, False)
    mean = wide(operands["v"].array).mean(axis=1, keepdims=True)
    assert np.allclose(operands["out"].array, mean, atol=1e-6)


# Without it ------------------------------------------------------------------------------------


@pytest.fixture
def asked_anew() -> Iterator[None]:
    compiled._make.cache_clear()
    yield
    compiled._make.cache_clear()


@pytest.fixture
def compiler() -> tuple[str, ...]:
    try:
        return host_compiler.find_compiler()
    except HostCompilerError as error:
        pytest.skip(f"a C compiler is needed: {error}")


def small(dtype: str = "f32") -> tuple[gx.Graph, dict[str, Array]]:
    graph = gx.Graph("g")
    for name in "qkv":
        graph.input(name, (40, 8), dtype)
    graph.output(y=graph.attention("q", "k", "v"))
    rng = np.random.default_rng(0)
    return graph, {name: rng.standard_normal((40, 8), dtype=np.float32) for name in "qkv"}


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize("failure", ["none", "not found", "fails", "unreadable", "no folder"])
def test_without_a_compiler_numpy_computes_it(
    failure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if failure == "none":
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(host_compiler.shutil, "which", lambda name: None)
    elif failure == "no folder":
        (tmp_path / "graphexec").touch()
    else:
        monkeypatch.setenv(
            "CC", {"not found": "/nowhere/cc", "fails": "false", "unreadable": "'"}[failure]
        )
    graph, given = small()
    with (
        caplog.at_level(logging.DEBUG, "graphexec"),
        gx.compile(graph, device="cpu") as exe,
    ):
        found = exe.run(**given)["y"]
        exe.run(**given)
    assert_close(found, exact(given, {}), "f32")
    said = [m for m in caplog.messages if m.startswith("attention is computed by NumPy: ")]
    assert len(said) == 1


def small_problem(dtype: gx.DType, queries: int = 40) -> Problem:
    q, k = (View.dense(n, TensorType((r, 8), dtype)) for n, r in (("q", queries), ("k", 40)))
    return Problem(q, k, k, None, q, 1.0, False)


@pytest.mark.usefixtures("asked_anew", "compiler")
def test_it_is_compiled_for_a_session_and_then_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not while planning, which may be for a GPU; not in a run, which may have a timeout."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graph, given = small()
    plan_graph(small("f16")[0], device="hip", hardware=Chip(attention={"f16"}))
    plan_graph(graph, device="cpu")
    assert not list(tmp_path.rglob("*.so"))
    with gx.compile(graph, device="cpu") as exe, monkeypatch.context() as patch:
        (library,) = tmp_path.rglob("*.so")
        patch.setattr(compiled, "native_kernel", None)
        exe.run(**given)
    written = library.stat().st_mtime_ns
    compiled._make.cache_clear()
    with gx.compile(graph, device="cpu") as exe:
        exe.run(**given)
    assert [p.stat().st_mtime_ns for p in tmp_path.rglob("*.so")] == [written]


@pytest.mark.usefixtures("asked_anew")
def test_threads_that_ask_at_once_have_it_compiled_once(
    compiler: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, log = tmp_path / "compiler", tmp_path / "calls"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {" ".join(compiler)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    start, found = threading.Barrier(4), []

    def ask() -> None:
        start.wait()
        found.append(compiled.native_kernel())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert found[0] is not None
    assert len(set(found)) == 1
    assert log.read_text().count(" -o ") == 1


def test_it_computes_what_it_is_faster_at() -> None:
    """Not f64; f32 from 3 queries on: fewer queries are limited by memory."""
    for dtype in FLOATS:
        fits = [compiled.fits(small_problem(dtype, queries)) for queries in (1, 2, 3, 40)]
        some, few = dtype is not gx.DType.F64, dtype in (gx.DType.F16, gx.DType.BF16)
        assert fits == [few, few, some, some]
