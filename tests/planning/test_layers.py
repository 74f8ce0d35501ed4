"""A model of layers: as blocks it is planned as in its long form, and its kernels are made once."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import graphexec as gx
from graphexec.base.tensor import DType, View
from graphexec.ir.body import Body, Writer
from graphexec.ops.kit.generate import Generated, kernel_of

HEAD = """\
version: 1
name: encoder
dims: {B: 2, S: 5, E: 8, H: 2, D: 4, F: 16, L: 3}
file: model.safetensors
inputs:
  x0: {shape: [B, S, E], dtype: f32}
  mask: {shape: [B, 1, 1, S], dtype: f32}
"""
WEIGHTS = """\
wq: {key: q.weight, shape: [E, E]}
bq: q.bias
wo: {key: o.weight, shape: [E, E]}
wu: {key: up.weight, shape: [F, E]}
bu: up.bias
wd: {key: down.weight, shape: [E, F]}
g: norm.weight
d: norm.bias
"""
NODES = """\
q: x @ T(wq) + bq
qh: {op: copy, x: q, axes: B S (H D) -> B H S D}
a: {op: attention, q: qh, k: qh, v: qh, mask: mask, scale: D ** -0.5}
c: {op: copy, x: a, axes: B H S D -> B S (H D)}
r: x + c @ T(wo)
h: {op: norm, kind: layer, x: r, weight: g, bias: d}
u: gelu(h @ T(wu) + bu)
y: h + u @ T(wd)
"""
SHAPES = {"q.weight": (8, 8), "q.bias": (8,), "o.weight": (8, 8), "up.weight": (16, 8),
          "up.bias": (16,), "down.weight": (8, 16), "norm.weight": (8,),
          "norm.bias": (8,)}  # fmt: skip


def indented(text: str, by: int) -> str:
    return "".join(" " * by + line + "\n" for line in text.splitlines())


BLOCKS = (
    f"{HEAD}blocks:\n  layer:\n    inputs: {{x: [B, S, E], mask: null}}\n"
    f"    prefix: 'layers.{{i}}.'\n    weights:\n{indented(WEIGHTS, 6)}"
    f"    nodes:\n{indented(NODES, 6)}    outputs: {{x: y}}\n"
    "nodes:\n  trunk: {block: layer, x: x0, mask: mask, repeat: L}\n"
    "  mean: {op: reduce, kind: mean, x: trunk, axis: 1}\noutputs: [mean]\n"
)


def long_form(layers: int) -> str:
    """The same graph, every layer written out."""
    weights = re.sub(r"(?m)^(\w+):", r"\1_#:", WEIGHTS)
    weights = re.sub(r"(\w+\.(weight|bias))", r"layers.#.\1", weights)
    nodes = """\
q_#: $ @ T(wq_#) + bq_#
qh_#: {op: copy, x: q_#, axes: B S (H D) -> B H S D}
a_#: {op: attention, q: qh_#, k: qh_#, v: qh_#, mask: mask, scale: D ** -0.5}
c_#: {op: copy, x: a_#, axes: B H S D -> B S (H D)}
r_#: $ + c_# @ T(wo_#)
h_#: {op: norm, kind: layer, x: r_#, weight: g_#, bias: d_#}
u_#: gelu(h_# @ T(wu_#) + bu_#)
y_#: h_# + u_# @ T(wd_#)
"""
    given = ["x0", *(f"y_{i}" for i in range(layers))]
    every_weight = "".join(weights.replace("#", str(i)) for i in range(layers))
    every_node = "".join(
        nodes.replace("#", str(i)).replace("$", given[i]) for i in range(layers)
    )  # fmt: skip
    return (f"{HEAD}weights:\n{indented(every_weight, 2)}nodes:\n{indented(every_node, 2)}"
            f"  mean: {{op: reduce, kind: mean, x: {given[-1]}, axis: 1}}\n"
            "outputs: [mean]\n")  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    save_file({f"layers.{i}.{key}": rng.standard_normal(shape, np.float32)
               for i in range(3) for key, shape in SHAPES.items()},
              tmp_path / "model.safetensors")  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("streams", [1, 4])
def test_blocks_are_planned_as_their_long_form(folder: Path, streams: int) -> None:
    blocks, flat = gx.loads(BLOCKS, folder=folder), gx.loads(long_form(3), folder=folder)
    assert not blocks.warnings
    assert not flat.warnings
    found = re.sub(r"trunk\.(\d)\.(\w+)", r"\2_\1", gx.make_plan(blocks, streams=streams).to_json())
    assert found == gx.make_plan(flat, streams=streams).to_json()


def test_they_compute_the_same(folder: Path) -> None:
    x = np.random.default_rng(1).standard_normal((2, 5, 8), np.float32)
    mask = np.where(np.arange(5) < 4, 0, -np.inf).astype(np.float32) + np.zeros((2, 1, 1, 5), "f")
    results = []
    for text in (BLOCKS, long_form(3)):
        with gx.compile(gx.loads(text, folder=folder), device="cpu") as exe:
            results.append(exe.run(x0=x, mask=mask)["mean"])
    np.testing.assert_array_equal(*results)
    assert np.isfinite(results[0]).all()


def many_layers(layers: int) -> gx.Graph:
    graph = gx.Graph("layers")
    x, w = graph.input("x", (16, 32), "f16"), graph.input("w", (32, 32), "f16")
    layer = graph.block("layer", ["x", "w"])
    h = layer.norm(layer["x"], kind="rms")
    layer.output(x=layer["x"] + layer.silu(h @ layer["w"].T) * h)
    graph.output(y=layer(x, w, repeat=layers))
    return graph


def test_more_layers_make_no_more_kernels() -> None:
    gx.make_plan(many_layers(4))
    before = kernel_of.cache_info().misses
    plan = gx.make_plan(many_layers(40))
    assert kernel_of.cache_info().misses == before
    assert len(plan.launches) > 40


def body(constant: float) -> Body:
    writer = Writer()
    return writer.body(writer.load(0, DType.F32) * constant)


def test_kernels_are_alike_but_for_their_storages() -> None:
    def view(name: str, offset: int = 0) -> View:
        return View(name, (4, 8), DType.F32, (8, 1), offset)

    one = Generated(body(2.0))(view("a"), view("b"))
    two = Generated(body(2.0))(view("b"), view("c"))
    assert [a.storage for a in two.args if isinstance(a, View)] == ["b", "c"]
    assert one.text == two.text
    assert (
        Generated(body(-0.0))(view("a"), view("b")).text
        != Generated(body(0.0))(view("a"), view("b")).text
    )
    odd = Generated(body(2.0))(view("a", 1), view("b"))
    assert [a.offset for a in odd.args if isinstance(a, View)] == [1, 0]
    assert odd.text != one.text  # vectors need an even place
