"""few-rows: the products that become one kernel, what is said of them, what measurements decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import draw, wide
from hardware import PLAIN, Chip
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.program import Command, Gemm, Kernel
from graphexec.machine.costs import Measured, signature
from graphexec.planning.few_rows import LEAST_BYTES
from graphexec.planning.pipeline import Compiled, plan_graph
from graphexec.planning.profile import Profile
from graphexec.tools.explain import explain

N, K = 256, 512


def product(m: int = 1, n: int = N, k: int = K, dtype: str = "f16", **attrs: Any) -> gx.Graph:
    g = gx.Graph("g")
    a, b = g.input("a", (m, k), dtype), g.input("b", (n, k), dtype)
    for name, shape in {"c": (m, n), "bias": (n,)}.items():
        if name in attrs:
            attrs[name] = g.input(name, shape, dtype) if attrs[name] else None
    g.output(g.gemm(a, b, **{"trans_b": True} | attrs, name="y"))
    return g


def planned(g: gx.Graph, device: str = "hip", **options: Any) -> Compiled:
    return plan_graph(g, device=device, **options)


def computing(compiled: Compiled) -> list[Command]:
    return [c for c in compiled.program.commands if c.label != "memcpy" or "." not in c.node]


def said(compiled: Compiled) -> list[str]:
    return [note.text for note in compiled.notes if note.rewrite == "few-rows"]


@pytest.mark.parametrize("device", ["cpu", "hip"])
@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
def test_one_kernel_does_all(device: str, m: int, dtype: str) -> None:
    compiled = planned(product(m, dtype=dtype, c=True, bias=True, out_dtype="f32"), device)
    (command,) = computing(compiled)
    assert isinstance(command.work, Kernel)
    assert [view.storage for view in command.reads] == ["a", "b", "c", "bias"]
    (text,) = said(compiled)
    assert "'y' has few rows: a kernel that does the work of" in text
    assert not [name for name in compiled.program.storages if name.startswith("y.")]


def test_a_product_alone_is_one_launch_either_way() -> None:
    assert said(planned(product())) == ["'y' has few rows: a kernel reads the matrix once"]


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
def test_eight_rows_of_halves_are_for_the_matrix_units_of_a_gpu(dtype: str) -> None:
    compiled = planned(product(8, dtype=dtype))
    halves = dtype != "f32"
    assert said(compiled) == [
        "'y' is computed by the BLAS: it has 8 rows of halves" if halves
        else "'y' has few rows: a kernel reads the matrix once"
    ]  # fmt: skip
    assert said(planned(product(8, dtype=dtype), "cpu")) == [
        "'y' has few rows: a kernel reads the matrix once"
    ]


def entries(*rows: int) -> gx.Graph:
    """A batch whose entries share the matrix."""
    g = gx.Graph("g")
    a, b, c = (
        g.input(name, shape, "f16")
        for name, shape in {"a": (*rows, K), "b": (K, N), "c": (*rows, N)}.items()
    )
    g.output(g.gemm(a, b, c=c, name="y"))
    return g


NOT: dict[str, gx.Graph] = {
    "nine rows": product(9),
    "f64": product(dtype="f64"),
    "a small matrix": product(n=LEAST_BYTES // K // 2 - 1),
    "nothing to multiply": product(alpha=0),
    "nine rows in three entries": entries(3, 3),
}


@pytest.mark.parametrize("case", NOT)
def test_what_stays_with_the_library(case: str) -> None:
    compiled = planned(NOT[case])
    assert not said(compiled)
    assert any(isinstance(c.work, Gemm) for c in computing(compiled))


def test_the_smallest_matrix() -> None:
    assert said(planned(product(n=LEAST_BYTES // K // 2)))


def test_it_can_be_switched_off() -> None:
    for options in ({"no_rewrite": ["few-rows"]}, {"no_rewrite": "all"}):
        compiled = planned(product(bias=True), **options)
        assert any(isinstance(c.work, Gemm) for c in computing(compiled))
        assert not said(compiled)


def test_a_device_need_not_add_a_bias() -> None:
    """Nor round the product before it does."""
    for chip in (PLAIN, Chip()):
        (command,) = computing(planned(product(bias=True, c=True), hardware=chip))
        assert command.label == "few rows"


def test_rows_of_a_batch_that_share_the_matrix_are_rows() -> None:
    (command,) = computing(planned(entries(2, 2, 1)))
    assert isinstance(command.work, Kernel)
    assert dict(command.work.defines)["ROWS"] == "4"


def test_equal_ones_become_a_batch() -> None:
    g = gx.Graph("g")
    x = g.input("x", (1, K), "f16")
    for name in "qkv":
        g.output(**{name: g.gemm(x, g.input(f"w{name}", (N, K), "f16"), trans_b=True)})
    (command,) = computing(planned(g, streams=1, resident=False))
    assert isinstance(command.work, Kernel)
    assert len(command.nodes) == 3
    assert command.label == "few rows"


def test_the_result_takes_the_bytes_of_c() -> None:
    g = gx.Graph("g")
    a, b = g.input("a", (2, K), "f16"), g.input("b", (N, K), "f16")
    h = g.softmax(g.input("r", (2, N), "f16"), name="h")
    g.output(g.softmax(g.gemm(a, b, c=h, trans_b=True, name="y"), name="z"))
    compiled = planned(g, "cpu")
    (command,) = [c for c in compiled.program.commands if c.label == "few rows"]
    places = {tensor.name: tensor for tensor in compiled.bound.plan.tensors}
    assert command.writes[0].storage in ("h", "y")
    assert (places["h"].buffer, places["h"].offset) == (places["y"].buffer, places["y"].offset)


def test_after_holds() -> None:
    g = gx.Graph("g")
    a, b = g.input("a", (1, K), "f16"), g.input("b", (N, K), "f16")
    first = g.softmax(a, name="first")
    bias = g.input("bias", (N,), "f16")
    g.output(first, g.gemm(a, b, trans_b=True, bias=bias, name="y", after=[first]))
    commands = planned(g).program.commands
    (command,) = [c for c in commands if c.label == "few rows"]
    assert [commands[index].node for index in command.after] == ["first"]
    assert command.after_nodes == ("first",)


@settings(max_examples=30)
@given(st.floats(1, 100), st.floats(1, 100), st.booleans())
def test_where_both_were_measured_the_faster_is_taken(
    kernel: float, library: float, bias: bool
) -> None:
    g = product(bias=bias)
    one = computing(planned(g))
    several = computing(planned(g, no_rewrite=["few-rows"]))
    times = {signature(one[0]): Measured(kernel)}
    times |= {signature(c): Measured(library / len(several)) for c in several}
    compiled = planned(g, costs=Profile("gpu", times))
    launches = len(several) - 1  # of 1 µs each, which the BLAS takes more
    is_kernel = kernel <= library + launches
    assert [c.label for c in computing(compiled)] == [
        c.label for c in (one if is_kernel else several)
    ]
    (text,) = said(compiled)
    assert ("measured" in text) is not is_kernel


def test_one_measurement_decides_nothing() -> None:
    (command,) = computing(planned(product()))
    compiled = planned(product(), costs=Profile("gpu", {signature(command): Measured(1e6)}))
    assert computing(compiled)[0].label == "few rows"


@pytest.mark.parametrize("device", ["cpu", "hip"])
def test_results_may_be_windows(device: str) -> None:
    """Parts of a concat are written where they belong."""
    g = gx.Graph("g")
    x = g.input("x", (2, K), "f16")
    for name in ("one", "two"):
        g.gemm(x, g.input(f"w_{name}", (N, K), "f16"), trans_b=True, name=name)
    g.output(y=g.concat(["one", "two"], axis=1, name="y"))
    compiled = planned(g, device)
    parts = [c for c in compiled.program.commands if c.label == "few rows"]
    assert [part.writes[0].strides for part in parts] == [(2 * N, 1)] * 2
    if device == "cpu":
        rng = np.random.default_rng(0)
        arrays = {
            name: draw(rng, tuple(port.shape), "f16", 0.125) for name, port in g.inputs.items()
        }
        with gx.compile(g, device=device) as exe:
            found = wide(exe.run(**arrays)["y"])
        weights = np.concatenate([wide(arrays[f"w_{name}"]) for name in ("one", "two")])
        np.testing.assert_allclose(found, wide(arrays["x"]) @ weights.T, 2**-10, 2**-10)


def test_explain_says_so() -> None:
    g = product(c=True)
    found = str(explain(planned(g), "y"))
    assert (
        "'y' has few rows: a kernel that does the work of 2 commands reads the matrix once" in found
    )
