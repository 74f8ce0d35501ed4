"""fuse-few-rows: the maps that become part of a product of few rows, those that do not, numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from exact import Array, draw, wide
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ops.gemm import few_rows_on_cpu
from graphexec.planning.pipeline import Compiled, plan_graph

K, F = 256, 300


def base(m: int = 1, n: int = F, dtype: str = "f16", turned: bool = False) -> gx.Graph:
    """p = x w, and r of the result's shape."""
    g = gx.Graph("g")
    x, w = g.input("x", (m, K), dtype), g.input("w", (K, n) if turned else (n, K), dtype)
    g.input("r", (m, F), dtype)
    g.gemm(x, w, trans_b=not turned, name="p")
    return g


def planned(g: gx.Graph, device: str = "hip", **options: object) -> Compiled:
    return plan_graph(g, device=device, resident=True, **options)


def labels(compiled: Compiled) -> list[str]:
    return [command.label for command in compiled.program.commands]


def said(compiled: Compiled) -> list[str]:
    return [note.text for note in compiled.notes if note.rewrite == "fuse-few-rows"]


def halves(g: gx.Graph, *names: str) -> None:
    for name, at in zip(names, range(0, 10 * F, F), strict=False):
        g.copy("p", slice={1: [at, at + F, 1]}, name=name)


def test_a_residual() -> None:
    g = base()
    g.output(g.map("p + r", name="y"))
    compiled = planned(g)
    assert labels(compiled) == ["few rows + map"]
    assert said(compiled) == ["'p' is computed within 'y', and not stored"]
    assert "p" not in compiled.program.storages


def test_gate_and_up_are_two_parts_of_one_product() -> None:
    g = base(n=2 * F)
    halves(g, "gate", "up")
    g.output(g.map("silu(gate) * up", name="y"))
    compiled = planned(g)
    assert labels(compiled) == ["few rows + map"]
    (command,) = compiled.program.commands
    assert dict(command.work.defines)["PARTS"] == "2"


def test_of_two_products_the_last_takes_the_map() -> None:
    g = gx.Graph("g")
    x = g.input("x", (1, K), "f16")
    for name in ("gate", "up"):
        g.gemm(x, g.input(f"w_{name}", (F, K), "f16"), trans_b=True, name=name)
    g.output(g.map("silu(gate) * up", name="y"))
    assert labels(planned(g)) == ["few rows", "few rows + map"]


def test_maps_become_one_before() -> None:
    g = base()
    g.map("p * 2", name="a")
    g.map("silu(a) + r", name="b")
    g.output(g.map("exp(b)", name="y"))
    assert labels(planned(g)) == ["few rows + map"]


def test_the_result_takes_the_bytes_of_the_residual() -> None:
    g = base()
    square = g.input("square", (F, F), "f16")
    g.gemm("r", square, name="h")
    g.map("p + h", name="y")
    g.output(g.gemm("y", square, name="z"))
    compiled = planned(g, "cpu")
    assert labels(compiled) == ["few rows", "few rows + map", "few rows"]
    places = {tensor.name: tensor for tensor in compiled.bound.plan.tensors}
    assert (places["p"].buffer, places["p"].offset) == (places["y"].buffer, places["y"].offset)


def test_equal_ones_become_a_batch() -> None:
    g = gx.Graph("g")
    for name in "abc":
        x, w = g.input(f"x{name}", (1, K), "f16"), g.input(f"w{name}", (F - 44, K), "f16")
        p = g.gemm(x, w, trans_b=True, name=f"p{name}")
        assert p == f"p{name}"
        g.output(**{name: g.map(f"silu(p{name})", name=f"y{name}")})
    (command,) = planned(g, streams=1).program.commands
    assert len(command.nodes) == 3


NearMiss = Callable[[], gx.Graph]


def read_twice() -> gx.Graph:
    g = base()
    g.output(g.map("p + r", name="y"), g.softmax("p", name="s"))
    return g


def given_out() -> gx.Graph:
    g = base()
    g.output("p", g.map("p + r", name="y"))
    return g


def reduced() -> gx.Graph:
    g = base()
    g.output(g.norm("p", kind="rms", name="y"))
    return g


def turned_halves() -> gx.Graph:
    g = base(n=2 * F, turned=True)
    halves(g, "gate", "up")
    g.output(g.map("silu(gate) * up", name="y"))
    return g


def thirds() -> gx.Graph:
    g = base(n=3 * F)
    halves(g, "one", "two", "three")
    g.output(g.map("one * two + three", name="y"))
    return g


def coordinates() -> gx.Graph:
    g = base()
    g.output(g.map("p + index(-1)", name="y"))
    return g


NOT: dict[str, tuple[NearMiss, str]] = {
    "read twice": (read_twice, "others read the product as well"),
    "given out": (given_out, "others read the product as well"),
    "reduced": (reduced, "it is no map with one result"),
    "turned halves": (turned_halves, "the elements of the matrix are no neighbours along K"),
    "thirds": (thirds, "it reads too many columns of the product"),
    "coordinates": (coordinates, "it is no map with one result"),
}


@pytest.mark.parametrize("case", NOT)
def test_near_misses(case: str) -> None:
    make, why = NOT[case]
    compiled = planned(make())
    assert "few rows" in labels(compiled)
    texts = said(compiled)
    assert texts
    assert all(text.endswith(f"stay apart: {why}") for text in texts), texts


@pytest.mark.parametrize("turned", [True, False])
def test_compare_measures_the_map_for_all_of_it(turned: bool) -> None:
    g = base(2, F if turned else 2 * F, turned=turned)
    if not turned:
        halves(g, "gate", "up")
    g.output(g.map("silu(p) + r" if turned else "silu(gate) * up + r", name="y"))
    rng = np.random.default_rng(0)
    inputs = {name: draw(rng, tuple(port.shape), "f16", 0.25) for name, port in g.inputs.items()}
    found = gx.compare(g, inputs, device="cpu")
    assert found.ok
    assert [(node.name, node.how, node.by) for node in found.not_computed] == [
        (name, "part of", ("y",)) for name in (["p"] if turned else ["p", "gate", "up"])
    ]


def test_it_can_be_switched_off() -> None:
    g = base()
    g.output(g.map("p + r", name="y"))
    assert labels(planned(g, no_rewrite=["fuse-few-rows"])) == ["few rows", "map"]


@settings(max_examples=60)
@given(
    st.integers(1, 8), st.sampled_from(["f16", "bf16", "f32"]), st.booleans(),
    st.sampled_from(["p + r", "silu(p) * r", "gate * up", "silu(gate) * up + r", "p * p - r"]),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_numbers_on_the_cpu(
    m: int, dtype: str, turned: bool, expression: str, by_numpy: bool, seed: int
) -> None:
    two = "gate" in expression
    turned = turned and not two
    g = base(m, 2 * F if two else F, dtype, turned)
    if two:
        halves(g, "gate", "up")
    g.output(y=g.map(expression, name="y"))
    rng = np.random.default_rng(seed)
    arrays = {name: draw(rng, tuple(port.shape), dtype, 0.25) for name, port in g.inputs.items()}
    with pytest.MonkeyPatch.context() as patch:
        if by_numpy:
            patch.setattr(few_rows_on_cpu, "library", lambda: None)
        with gx.compile(g, device=gx.CpuDevice(poison=True)) as exe:
            assert "few rows + map" in [c.label for c in exe._compiled.program.commands]
            given_ = {n: a for n, a in arrays.items() if n in exe.inputs}
            found = exe.run(**given_)["y"]
    check(found, expression, {name: wide(array) for name, array in arrays.items()}, turned, dtype)


def check(
    found: Array, expression: str, arrays: dict[str, Array], turned: bool, dtype: str
) -> None:
    p = arrays["x"] @ (arrays["w"] if turned else arrays["w"].T)
    names = {"p": p, "gate": p[:, :F], "up": p[:, F:], **arrays}
    expected = eval(expression, {"silu": lambda z: z / (1 + np.exp(-z))}, names)
    limit = {"f16": 2**-10, "bf16": 2**-7, "f32": 2**-19}[dtype]
    size = 1 + abs(p).max() ** 2
    assert (abs(wide(found) - expected) <= limit * (abs(expected) + 2**-3 * size)).all()
