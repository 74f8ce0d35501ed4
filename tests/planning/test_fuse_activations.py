"""fuse-activations: which products apply one, near misses, and the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from exact import draw
from hardware import Chip

import graphexec as gx
from graphexec.ir.program import Gemm, Work
from graphexec.machine.support import Support, no
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare

ON = ("fuse-activations",)


@dataclass(frozen=True)
class WithoutActivations(Chip):
    """A chip that adds biases and applies no activation."""

    def support(self, work: Work) -> Support:
        if isinstance(work, Gemm) and work.activation:
            return no(f"it has no {work.activation}")
        return super().support(work)


def layer(expression: str = "relu(g + b)", dtype: str = "f32") -> gx.Graph:
    """A product g, a map of it and of b, and a product of that."""
    graph = gx.Graph("g")
    graph.input("x", (5, 16), dtype)
    graph.input("w", (16, 32), dtype)
    graph.input("b", (32,), dtype)
    graph.gemm("x", "w", name="g")
    graph.map(expression, g="g", b="b", name="u")
    graph.output(y=graph.gemm("u", "w", trans_b=True, name="y"))
    return graph


def commands(graph: gx.Graph, device: str = "cpu", **options: Any) -> list[tuple[str, str]]:
    program = plan_graph(graph, device=device, resident=True, rewrite=ON, **options).program
    works = [(c.node, c.work) for c in program.commands]
    return [(n, w.activation if isinstance(w, Gemm) else "a kernel") for n, w in works]


def notes(graph: gx.Graph, **options: Any) -> list[str]:
    found = plan_graph(graph, resident=True, rewrite=ON, **options).notes
    return [note.text for note in found if note.rewrite == "fuse-activations"]


def assert_right(graph: gx.Graph) -> None:
    rng = np.random.default_rng(4)
    inputs = {i.name: draw(rng, i.shape, i.dtype) for i in graph.inputs.values()}
    found = compare(graph, inputs, device=gx.CpuDevice(poison=True), rewrite=ON)
    assert found.ok, found


@pytest.mark.parametrize("expression", ["relu(g + b)", "relu(b + g)", "max(g + b, 0)"])
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_relu(expression: str, dtype: str) -> None:
    graph = layer(expression, dtype)
    assert commands(graph) == [("u", "relu"), ("y", "")]
    assert notes(graph) == ["product 'g' adds its bias and applies relu of 'u'"]
    assert_right(graph)


def test_gelu_by_tanh_where_the_device_has_it() -> None:
    graph = layer("gelu_tanh(g + b)", "f16")
    assert commands(graph, "hip", hardware=Chip()) == [("u", "gelu_tanh"), ("y", "")]
    assert commands(graph) == [("g", ""), ("u", "a kernel"), ("y", "")]
    (text,) = notes(graph)
    assert text.endswith("a kernel of its own computes gelu_tanh faster")
    assert_right(graph)


def test_it_is_off_unless_asked_for() -> None:
    program = plan_graph(layer(), device="hip", hardware=Chip(), resident=True).program
    assert [c.node for c in program.commands] == ["g", "u", "y"]


@pytest.mark.parametrize(
    "expression",
    ["gelu(g + b)", "silu(g + b)", "relu(g) + b", "relu(g + b + b)", "relu(g - b)", "max(g + b, 1)",
     "relu(g + g * b)"],
)  # fmt: skip
def test_other_activations_stay_in_kernels(expression: str) -> None:
    graph = layer(expression)
    assert commands(graph, "hip", hardware=Chip())[:2] == [("g", ""), ("u", "a kernel")]
    assert_right(graph)


def test_near_misses() -> None:
    refused = layer()
    assert commands(refused, "hip", hardware=WithoutActivations())[1] == ("u", "a kernel")
    assert notes(refused, device="hip", hardware=WithoutActivations()) == [
        "'u' applies relu by a command of its own: it has no relu"
    ]
    kept = layer()
    kept.output(g="g")
    column = gx.Graph("g")
    column.input("x", (5, 16))
    column.input("w", (16, 32))
    column.input("b", (5, 1))
    column.gemm("x", "w", name="g")
    column.output(u=column.map("relu(g + b)", g="g", b="b", name="u"))
    scaled = layer()
    scaled.gemm("x", "w", "g", name="more")  # adds to g
    scaled.output(v=scaled.map("relu(more + b)", more="more", b="b", name="v"))
    for graph in (kept, column, scaled):
        found = commands(graph, "hip", hardware=Chip())
        assert "relu" not in [how for _, how in found], found
        assert_right(graph)


def test_nan_stays_nan() -> None:
    graph = layer()
    given = {name: np.ones(shape, np.float32) for name, shape in
             (("x", (5, 16)), ("w", (16, 32)), ("b", (32,)))}  # fmt: skip
    given["b"][3] = np.nan
    with gx.compile(graph, device="cpu", rewrite=ON) as exe:
        assert np.isnan(exe.run(**given)["y"]).all()
