"""compare judges elements: a few wrong ones of millions are found, right ones never blamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import graphs, repeated_graphs, stream_counts

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.ir.approximate import Approximate
from graphexec.ir.op import Attrs, Call, In, Op, Out
from graphexec.ir.program import Command, Kernel, Parallel
from graphexec.tools import selftest_graphs
from graphexec.tools.compare import Comparison, compare_executable
from graphexec.tools.examples import EXAMPLES, transformer_layer

Array = np.ndarray[Any, Any]
Damage = Callable[[Array], None]


class Damaged(Op):
    """Another op whose result is computed in float64, rounded, and then damaged."""

    doc = "For tests."

    def __init__(self, like: Op, damage: Damage) -> None:
        self.name, self.operands, self.attributes = (  # type: ignore[misc]
            like.name, like.operands, like.attributes)  # fmt: skip
        self.like, self.damage = like, damage

    def infer(self, types: Mapping[str, TensorType], attrs: Attrs) -> TensorType:
        return self.like.infer(types, attrs)

    def reference(self, arrays: Mapping[str, Array], attrs: Attrs, type: TensorType) -> Array:
        return self.like.reference(arrays, attrs, type)

    def error(
        self, operands: Mapping[str, Approximate], attrs: Attrs, type: TensorType, exact: Array
    ) -> Array | None:
        return self.like.error(operands, attrs, type, exact)

    def lower(self, call: Call) -> list[Command]:
        views = list(call.operands.values())

        def compute(arrays: list[Array], parallel: Parallel) -> None:
            named = zip(call.operands, arrays[:-1], strict=True)
            wide = {name: array.astype(np.float64) for name, array in named}
            arrays[-1][...] = self.like.reference(wide, call.attrs, call.type)
            self.damage(arrays[-1])

        args = (*views, call.out)
        kernel = Kernel(Path("damaged.hip"), "damaged", args, (1, 1, 1), (1, 1, 1), compute)
        return [call.command(self.name, kernel, *map(In, views), Out(call.out))]


def damaged(op: str, dtype: str, damage: Damage) -> Comparison:
    known = gx.known_ops()
    graph = gx.Graph("damaged", ops={**known, op: Damaged(known[op], damage)})
    x = graph.input("x", (400, 256), dtype)
    if op == "gemm":
        node = graph.gemm(x, graph.input("w", (256, 300), dtype), name="node")
    elif op == "softmax":
        node = graph.softmax(x, scale=2.0, name="node")
    elif op == "attention":
        node = graph.attention(x, x, x, name="node")
    else:
        node = graph.copy(x, permute=[1, 0], name="node")
    graph.output(y=node)
    rng = np.random.default_rng(len(op))
    inputs = {"x": rng.standard_normal((400, 256))} | (
        {"w": rng.standard_normal((256, 300))} if op == "gemm" else {}
    )
    given = {name: array.astype(gx.DType(dtype).numpy()) for name, array in inputs.items()}
    return gx.compare(graph, given, device="cpu", no_rewrite="all")


def one_zero(y: Array) -> None:
    y[np.unravel_index(np.abs(y.astype(np.float64)).argmax(), y.shape)] = 0


def a_wrong_row(y: Array) -> None:
    y[7] = y[8]


def swapped_rows(y: Array) -> None:
    y[[3, 5]] = y[[5, 3]]


@pytest.mark.parametrize("damage", [one_zero, a_wrong_row, swapped_rows])
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("op", ["gemm", "softmax", "copy", "attention"])
def test_local_damage_is_found_where_it_is(op: str, dtype: str, damage: Damage) -> None:
    assert damaged(op, dtype, lambda y: None).ok
    where: list[tuple[int, ...]] = []

    def noting(y: Array) -> None:
        before = y.copy()
        damage(y)
        where.extend(map(tuple, np.argwhere(before != y).tolist()))

    found = damaged(op, dtype, noting)
    assert not found.ok
    assert found.first_bad == "node"
    for (row,) in (found.nodes, found.outputs):
        assert row.worst.index in where
        assert abs(row.worst.found - row.worst.expected) > row.worst.bound


def test_some_zeros_among_millions() -> None:
    """They do not show in the norm."""
    size, places = 2048, np.random.default_rng(3).integers(0, 2048, (4, 2))

    def zeros(y: Array) -> None:
        y[tuple(places.T)] = 0

    known = gx.known_ops()
    graph = gx.Graph("large", ops={**known, "copy": Damaged(known["copy"], zeros)})
    x = graph.input("x", (size, size), "f16")
    graph.output(y=graph.copy(x, permute=[1, 0], name="turned"))
    given = np.random.default_rng(4).standard_normal((size, size), np.float32).astype(np.float16)
    found = gx.compare(graph, {"x": given}, device="cpu", no_rewrite="all")
    (row,) = found.nodes
    assert row.relative < 2e-3 <= row.tolerance
    assert not row.ok
    assert row.worst.found == 0
    assert list(row.worst.index) in places.tolist()


def test_an_op_without_a_bound_is_judged_by_its_largest_element() -> None:
    class Plain(Damaged):
        def error(self, *given: Any) -> None:
            return None

    def damage(y: Array) -> None:
        y[11, 13] = 1 if y[11, 13] < 0 else -1

    for hurt, ok in ((lambda y: None, True), (damage, False)):
        known = gx.known_ops()
        graph = gx.Graph("plain", ops={**known, "copy": Plain(known["copy"], hurt)})
        graph.output(y=graph.copy(graph.input("x", (600, 600)), name="n"))
        x = np.random.default_rng(5).standard_normal((600, 600), np.float32)
        found = gx.compare(graph, {"x": x}, device="cpu", no_rewrite="all")
        assert found.ok is ok
        assert ok or found.nodes[0].worst.index == (11, 13)


def test_a_wider_tolerance_widens_the_bounds_of_elements() -> None:
    known = gx.known_ops()

    def damage(y: Array) -> None:
        y[2, 3] += np.float32(1e-3)

    graph = gx.Graph("g", ops={**known, "copy": Damaged(known["copy"], damage)})
    x = graph.input("x", (8, 8))
    graph.output(y=graph.softmax(graph.copy(x, dtype="f16", name="n"), name="s"))
    given = {"x": np.random.default_rng(6).uniform(1, 2, (8, 8)).astype(np.float32)}
    assert not gx.compare(graph, given, device="cpu", no_rewrite="all").nodes[0].worst.ok
    assert gx.compare(graph, given, device="cpu", no_rewrite="all", tolerance=0.1).ok


def inputs_of(exe: Any, seed: int, size: float) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        name: (size * rng.standard_normal(t.shape)).astype(t.dtype.numpy())
        for name, t in exe.inputs.items()
    }


BUILDS = [*selftest_graphs.GRAPHS.values()]


@pytest.mark.parametrize("no_rewrite", [(), ("all",), ("fuse-attention",)])
@pytest.mark.parametrize("build", [*BUILDS, *EXAMPLES], ids=lambda build: build.__name__)
def test_right_results_are_not_blamed(build: Any, no_rewrite: tuple[str, ...]) -> None:
    dtypes = ("f16", "bf16", "f32", "f64") if build in BUILDS else ("",)
    for number, dtype in enumerate(dtypes):
        graph = build(dtype) if dtype else build()
        with gx.compile(graph, device="cpu", no_rewrite=no_rewrite) as exe:
            # Weights of 3 make scores of 10,000 of this one: in f32 their exponentials are off.
            for size in (1.0, 0.03, 1.0 if build is transformer_layer else 3.0):
                found = compare_executable(exe, inputs_of(exe, number, size))
                assert found.ok, [row for row in (*found.nodes, *found.outputs) if not row.ok]


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(graphs(bait=True), repeated_graphs()), stream_counts(), st.booleans(),
    st.integers(0, 99), st.sampled_from([1e-3, 1.0, 20.0]),
)  # fmt: skip
def test_right_results_of_any_graph_are_not_blamed(
    graph: gx.Graph, streams: int, rewritten: bool, seed: int, size: float
) -> None:
    no_rewrite = () if rewritten else ("all",)
    with (
        np.errstate(over="ignore"),
        gx.compile(graph, device="cpu", streams=streams, no_rewrite=no_rewrite) as exe,
    ):
        found = compare_executable(exe, inputs_of(exe, seed, size))
    unbounded = [r for r in (*found.nodes, *found.outputs) if not r.worst.ok]
    finite = [r for r in unbounded if np.isfinite(r.worst.found) and np.isfinite(r.worst.expected)]
    assert not finite, finite


@pytest.mark.parametrize("addend", ["c", "bias"])
def test_a_wider_addend_is_summed_as_products_are(addend: str) -> None:
    graph = gx.Graph("wider")
    x = graph.input("x", (4, 4), "f32")
    added = {addend: graph.input("added", (4,), "f64")}
    graph.output(y=graph.gemm(x, x, **added, out_dtype="f64"))
    given = {"x": np.full((4, 4), 1e-6, np.float32), "added": np.full(4, np.pi)}
    assert gx.compare(graph, given, device="cpu").ok


@pytest.mark.parametrize("mask", [-np.inf, -65504.0, -1e4, 0.0])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_masks_of_every_kind_are_not_blamed(dtype: str, mask: float) -> None:
    graph = gx.Graph("masked")
    q = graph.input("q", (2, 24, 16), dtype)
    m = graph.input("m", (24, 24), dtype)
    a, s = graph.attention(q, q, q, mask=m, name="a"), graph.softmax(m, mask=m, name="s")
    graph.output(a=a, s=s)
    rng = np.random.default_rng(8)
    hidden = np.where(rng.random((24, 24)) < 0.5, mask, 0.0)
    hidden[3] = mask  # nothing is seen, or all alike
    given = {"q": rng.standard_normal((2, 24, 16)), "m": hidden}
    arrays = {name: a.astype(gx.DType(dtype).numpy()) for name, a in given.items()}
    found = gx.compare(graph, arrays, device="cpu")
    rows = (*found.nodes, *found.outputs)
    assert all(row.worst.ok for row in rows), rows
