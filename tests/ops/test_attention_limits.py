"""Attention whose kernel for GPUs reads on the device how many keys there are.

Numbers in Triton's interpreter and by NumPy; keys that are not seen are NaN, so none was read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attention_cases import FROBENIUS
from exact import Array, draw, wide
from hardware import HALVES, Chip
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.ir.plan import Launch
from graphexec.machine.support import Facts
from graphexec.ops.attention import OP
from graphexec.planning.pipeline import Compiled, plan_graph

PROGRAMS = 132
USUAL = {a.name: a.default for a in OP.attributes}


class OnCpu(gx.CpuDevice):
    """A device that computes attention by the kernels for GPUs, by NumPy."""

    def facts(self) -> Facts:
        return Facts(programs=PROGRAMS)


def operands(dtype: str, q: tuple[int, ...], keys: int, /, seed: int = 0, **places: Any) -> Any:
    """q, k and v, of which all queries of an entry of axis 0 share keys, and integers."""
    rng, shared = np.random.default_rng(seed), (*q[:1], *(1 for _ in q[1:-2]), keys, q[-1])
    found = {"q": draw(rng, q, dtype), "k": draw(rng, shared, dtype), "v": draw(rng, shared, dtype)}
    return found | {name: np.asarray(value) for name, value in places.items()}


def graph_of(arrays: dict[str, Array], attrs: dict[str, Any]) -> gx.Graph:
    graph = gx.Graph("g")
    for name, array in arrays.items():
        graph.input(name, array.shape, DType.of(array.dtype))
    graph.output(y=graph.attention(**{n: n for n in arrays}, **attrs, name="y"))
    return graph


def spoil(arrays: dict[str, Array], keys: Array) -> dict[str, Array]:
    """The arrays with NaN in place of keys and values from `keys` on, one number an entry."""
    found = arrays | {name: arrays[name].copy() for name in "kv"}
    for entry, count in enumerate(np.broadcast_to(keys, arrays["k"].shape[:1])):
        for name in "kv":
            found[name][entry, ..., max(0, int(count)) :, :] = np.nan
    return found


def exact(arrays: dict[str, Array], attrs: dict[str, Any]) -> Array:
    """The definition, in float64."""
    numbers = {n: a if a.dtype.kind in "iub" else wide(a) for n, a in arrays.items()}
    return OP.reference(numbers, {**USUAL, **attrs}, None)  # type: ignore[arg-type]


def ends(arrays: dict[str, Array]) -> Array:
    """How many keys there are, of each entry."""
    keys, queries = arrays["k"].shape[-2], arrays["q"].shape[-2]
    length = arrays.get("length", np.array(keys))
    return np.asarray(np.minimum(arrays["at"] + queries if "at" in arrays else length, keys))


def compiled(arrays: dict[str, Array], attrs: dict[str, Any], programs: int = PROGRAMS) -> Compiled:
    chip = Chip(attention=HALVES, programs=programs)
    return plan_graph(graph_of(arrays, attrs), device="hip", hardware=chip, resident=True)


def labels(arrays: dict[str, Array], attrs: dict[str, Any], programs: int = PROGRAMS) -> list[str]:
    return [c.label for c in compiled(arrays, attrs, programs).program.commands]


def assert_right(found: Array, arrays: dict[str, Array], attrs: dict[str, Any]) -> None:
    expected, dtype = exact(arrays, attrs), str(DType.of(arrays["q"].dtype).value)
    assert np.isfinite(wide(found)).all()
    assert np.all(wide(found)[np.all(expected == 0, axis=-1)] == 0)
    error = np.linalg.norm(wide(found) - expected)
    assert error <= FROBENIUS[dtype] * np.linalg.norm(expected), (attrs, error)


i32, i64 = np.int32, np.int64
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    name: (lambda dtype, given=given: operands(dtype, *given[:2], **given[2]), given[3])
    for name, given in {
        "grouped heads": ((2, 3, 1, 32), 2000, {"length": i32(700)}, {"causal": True}),
        "one each": ((3, 4, 1, 16), 1100, {"length": i64([1100, 5, 129])}, {}),
        "none": ((2, 4, 1, 16), 1100, {"length": i32([0, -3])}, {}),
        "more than there are": ((2, 4, 1, 16), 1100, {"length": i64(2**40)}, {}),
        "at": ((2, 5, 16), 1300, {"at": i32([290, 0])}, {"causal": True}),
        "at the last": ((2, 16, 16), 1300, {"at": i32(1284)}, {"causal": True}),
        "at before": ((2, 16, 16), 1300, {"at": i32(-7)}, {"causal": True}),
        "start": (
            (2, 5, 16), 1300, {"length": i32(900), "start": i64([400, -3])}, {"causal": True},
        ),
        "across blocks": ((2, 5, 16), 1300, {"at": i32([126, 382])}, {"causal": True}),
        "start alone": ((2, 1, 16), 1300, {"start": i64([700, 2**40])}, {"causal": True}),
        "window": ((2, 3, 16), 1300, {"length": i32([1000, 20])}, {"causal": True, "window": 200}),
        "window at start": (
            (3, 3, 16), 1300, {"length": i32(900), "start": i32([500, 1200, -9])}, {"window": 130},
        ),
        "window of one": ((2, 4, 1, 16), 600, {"at": i32(300)}, {"causal": True, "window": 1}),
        "window without length": ((2, 3, 16), 1300, {}, {"window": 100, "causal": True}),
        "wide window": ((2, 3, 16), 1300, {"at": i32(40)}, {"window": 2**62, "causal": True}),
        "prompt": ((2, 150, 16), 400, {"at": i32([0, 211])}, {"causal": True}),
        "prompt in parts": ((2, 150, 16), 1300, {"length": i32([1300, 700])}, {"causal": True}),
        "prompt past its keys": ((2, 300, 16), 140, {"length": i64([140, 9])}, {"causal": True}),
        "prompt at start": (
            (2, 150, 16), 400, {"length": i32(390), "start": i32([-20, 100])}, {"causal": True},
        ),
        "prompt in a window": ((2, 300, 16), 700, {"at": i32(220)}, {"causal": True, "window": 90}),
        "prompt that sees all": ((2, 300, 16), 300, {"length": i32([200, 1])}, {}),
        "one key": ((2, 3, 16), 1, {"length": i32([0, 1])}, {}),
        "few keys": ((200, 2, 16), 40, {"length": i32(30)}, {"causal": True}),
        "negative scale": ((2, 3, 40), 1300, {"length": i32(700)}, {"scale": -0.5}),
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_numbers_of_the_kernels(dtype: str) -> None:
    pytest.importorskip("triton", reason="pip install 'graphexec[fused]'")
    given = [(make(dtype), attrs) for make, attrs in CASES.values()]
    rng = np.random.default_rng(5)
    for mask in ((2, 3, 1300), (2, 1, 1300), (3, 1300)):
        seen = rng.random(mask) < 0.6
        added = np.where(seen, rng.normal(size=mask), -np.inf).astype(np.float32)
        for each in (seen, added):
            arrays = operands(dtype, (2, 3, 16), 1300, length=i32([300, 0]), mask=each)
            given.append((arrays, {"causal": True}))
    _check_interpreted(given)


def _check_interpreted(given: list[tuple[dict[str, Array], dict[str, Any]]]) -> None:
    from test_attention_triton import Case, interpret

    class Limited(Case):
        def compiled(self) -> Compiled:
            found = compiled(self.arrays, self.attrs)
            self.in_parts = len(found.program.commands) == 2
            return found

        def kernels(self) -> Any:
            works = [command.work for command in self.compiled().program.commands]
            assert [w.entry for w in works] in (["attention"], ["attention", "combine"])
            return works

    cases = [Limited(spoil(arrays, ends(arrays)), attrs) for arrays, attrs in given]
    for (arrays, attrs), found in zip(given, interpret(list(cases)), strict=True):
        assert_right(found, arrays, attrs)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_numbers_by_numpy(name: str, dtype: str) -> None:
    make, attrs = CASES[name]
    arrays = make(dtype)
    with gx.compile(graph_of(arrays, attrs), device=OnCpu(poison=True, check_access=True)) as exe:
        found = exe.run(**arrays)["y"]
    assert_right(found, arrays, attrs)


@st.composite
def drawn(choose: st.DrawFn) -> tuple[dict[str, Array], dict[str, Any]]:
    batch, m, n = (
        choose(st.integers(1, 3)),
        choose(st.integers(1, 160)),
        choose(st.integers(1, 700)),
    )
    number = st.integers(-10, n + 10)
    each = number | st.lists(number, min_size=batch, max_size=batch)
    kind = choose(st.sampled_from([i32, i64]))
    heads = choose(st.sampled_from([(), (2,)]))
    places = {name: kind(choose(each))
              for name in choose(st.sampled_from([("length",), ("at",), ()]))}  # fmt: skip
    if choose(st.booleans()):
        places["start"] = kind(choose(each))
    dtype, seed = choose(st.sampled_from(["f16", "bf16"])), choose(st.integers(0, 9))
    attrs = {"causal": choose(st.booleans()), "window": choose(st.none() | st.integers(1, n + 5))}
    if not places and attrs["window"] is None:
        attrs["window"] = 7
    return operands(dtype, (batch, *heads, m, 16), n, seed=seed, **places), attrs


@settings(max_examples=6, deadline=None)
@given(st.lists(drawn(), min_size=6, max_size=6))
def test_any_call(given: list[tuple[dict[str, Array], dict[str, Any]]]) -> None:
    pytest.importorskip("triton", reason="pip install 'graphexec[fused]'")
    _check_interpreted(given)


@pytest.mark.parametrize("gpu", ["sm_90", "gfx942"])
@pytest.mark.parametrize(
    "name", ["grouped heads", "one each", "start", "window", "few keys", "prompt"]
)
def test_they_compile_for_gpus(name: str, gpu: str) -> None:
    pytest.importorskip("triton", reason="pip install 'graphexec[fused]'")
    from test_attention_triton import GPUS, SHARED

    from graphexec.runtime.hip import triton as hip_triton

    make, attrs = CASES[name]
    for command in compiled(make("f16"), attrs).program.commands:
        made = hip_triton.compile_kernel(command.work, GPUS[gpu])
        assert made.shared_bytes <= SHARED[gpu]


def test_where_it_is_used() -> None:
    """Halves on a GPU; else a mask says what is seen."""
    causal = {"causal": True}
    arrays = operands("f16", (2, 4, 1, 16), 2048, at=i32(3))
    assert labels(arrays, causal) == ["attention by length in 16 parts", "parts combined"]
    few = operands("f16", (2, 4, 1, 16), 100, at=i32(3))
    assert labels(few, causal) == ["attention by length"]
    local = operands("f16", (2, 4, 1, 16), 100)
    assert labels(local, {"window": 9}) == ["attention by window"]
    assert "mask" in labels(operands("f32", (2, 4, 1, 16), 2048, at=i32(3)), causal)
    assert "mask" in labels(arrays, {"softcap": 3.0})
    assert "mask" in labels(operands("f16", (2, 4, 1, 512), 2048, at=i32(3)), causal)
    assert "mask" in labels(arrays, causal, programs=0)


@pytest.mark.parametrize("lengths", ["one", "each", "vectors"])
def test_independent_attentions_become_one(lengths: str) -> None:
    """A batch whose members share a length, or have each one of their own."""
    graph, arrays, expected = gx.Graph("g"), {}, {}
    for n in range(6):
        number = {"one": 47, "each": 40 * n, "vectors": [7, 300, 40 * n, 0]}[lengths]
        given = operands("f16", (4, 1, 64), 300, seed=n, length=i32(number))
        expected[f"y{n}"] = given
        names = {name: name if lengths == "one" and name == "length" else f"{name}{n}"
                 for name in given}  # fmt: skip
        for name, array in given.items():
            if names[name] not in arrays:
                graph.input(names[name], array.shape, DType.of(array.dtype))
                arrays[names[name]] = array
        graph.output(**{f"y{n}": graph.attention(**names)})
    with gx.compile(graph, device=OnCpu(poison=True), resident=True) as exe:
        launches = [i.command for i in exe.plan.instructions if isinstance(i, Launch)]
        assert launches == ["attention by length"]
        found = exe.run(**arrays)
    for name, given in expected.items():
        assert_right(found[name], given, {})
