"""Graphs of several ranks, evaluated side by side in float64, against the whole graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import FOLDER

import graphexec as gx
from graphexec.frontend.expand import expand
from graphexec.frontend.weights import WeightFiles
from graphexec.graph.infer import infer
from graphexec.graph.partition import partition
from graphexec.graph.partition.collective import AllGather, AllReduce
from graphexec.ir.ranks import Ranks
from graphexec.ir.typed import TypedGraph, TypedWeight

Array = np.ndarray[Any, Any]
Values = dict[str, Array]
OPS = gx.known_ops()


def cuts_of(graph: gx.Graph, cut: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """By the first name of an extent."""
    flat = expand(graph)
    found = {}
    for item in (*flat.inputs.values(), *flat.weights.values(), *flat.states.values()):
        extents = [str(extent).split("*")[0].strip() for extent in item.shape or ()]
        if any(name in cut for name in extents):
            found[item.name] = tuple(cut.get(name, "") for name in extents)
    return found


def ranks_of(graph: gx.Graph, mesh: Mapping[str, int], cut: Mapping[str, str]) -> list[TypedGraph]:
    typed, count = infer(graph), int(np.prod(list(mesh.values())))
    cuts = cuts_of(graph, cut)
    return [partition(typed, cuts, Ranks.of(r, mesh), OPS)[0] for r in range(count)]


def begun(graph: TypedGraph, inputs: Values, files: WeightFiles) -> Values:
    values = {name: inputs[name] for name in graph.inputs}
    values |= {name: files.read(weight) for name, weight in graph.weights.items()}
    for name, state in graph.states.items():
        init = state.init
        values[name] = (files.read(init) if isinstance(init, TypedWeight)
                        else np.full(state.type.shape, init, state.type.dtype.numpy()))  # fmt: skip
    return {n: v.astype(np.float64) if v.dtype.kind == "f" or v.dtype.kind == "V" else v
            for n, v in values.items()}  # fmt: skip


def evaluated(graphs: Sequence[TypedGraph], inputs: Values) -> list[Values]:
    """Every tensor of every rank."""
    with WeightFiles() as files:
        values = [begun(graph, inputs, files) for graph in graphs]
    for nodes in zip(*(graph.nodes for graph in graphs), strict=True):
        assert len({(node.name, node.op.name) for node in nodes}) == 1
        found = [
            {key: values[r][graphs[r].same.get(t, t)] for key, t in node.operands.items()}
            for r, node in enumerate(nodes)
        ]
        for r, node in enumerate(nodes):
            op = node.op
            if isinstance(op, AllReduce | AllGather):
                parts = [found[other]["x"] for other in op.communicator.ranks]
                assert r in op.communicator.ranks
                if isinstance(op, AllGather):
                    result = np.concatenate(parts, op.axis)
                else:
                    fold = {"sum": np.add, "prod": np.multiply, "max": np.maximum,
                            "min": np.minimum}[op.reduction]  # fmt: skip
                    result = fold.reduce(parts)
            else:
                with np.errstate(all="ignore"):
                    result = np.asarray(op.reference(found[r], node.attrs, node.type))
            assert result.shape == node.type.shape, (node.name, result.shape, node.type)
            values[r][node.name] = result
    return values


def check(
    graph: gx.Graph, mesh: Mapping[str, int], cut: Mapping[str, str], seed: int = 0
) -> list[TypedGraph]:
    rng = np.random.default_rng(seed)
    whole, graphs = infer(graph), ranks_of(graph, mesh, cut)
    inputs = {
        name: rng.integers(0, 2, t.shape) if not t.dtype.is_float else rng.standard_normal(t.shape)
        for name, t in whole.inputs.items()
    }
    (right,) = evaluated([whole], inputs)
    for rank, found in enumerate(evaluated(graphs, inputs)):
        for name, tensor in whole.outputs.items():
            mine = graphs[rank].outputs[name]
            np.testing.assert_allclose(
                found[graphs[rank].same.get(mine, mine)], right[whole.same.get(tensor, tensor)],
                rtol=1e-9, atol=1e-9, err_msg=name,
            )  # fmt: skip
        for name, state in graphs[rank].states.items():
            expected = right[whole.same.get(whole.states[name].next, whole.states[name].next)]
            part = found[graphs[rank].same.get(state.next, state.next)]
            assert part.shape == state.type.shape
            if part.shape == expected.shape:
                np.testing.assert_allclose(part, expected, rtol=1e-9, atol=1e-9)
    return graphs


def meetings(graph: TypedGraph) -> list[str]:
    return [node.op.name for node in graph.nodes if isinstance(node.op, AllReduce | AllGather)]


MLP = """
version: 1
dims: {B: 3, E: 8, F: 12}
inputs:
  x: {shape: [B, E], dtype: f64}
  w1: {shape: [F, E], dtype: f64}
  b1: {shape: [F], dtype: f64}
  w2: {shape: [E, F], dtype: f64}
  b2: {shape: [E], dtype: f64}
nodes:
  u: gelu(x @ T(w1) + b1)
  y: x + u @ T(w2) + b2
  g: {op: gemm, a: u, b: w2, trans_b: true, c: x, bias: b2, beta: 2}
outputs: {y: y, g: g}
"""


@pytest.mark.parametrize("ranks", [2, 4])
def test_an_mlp(ranks: int) -> None:
    graphs = check(gx.loads(MLP), {"tp": ranks}, {"F": "tp"})
    assert meetings(graphs[0]) == ["all_reduce", "all_reduce"]


@pytest.mark.parametrize(
    "cut", [{"B": "dp"}, {"E": "tp"}, {"F": "tp", "B": "dp"}, {"F": "dp", "E": "tp"}]
)
def test_an_mlp_in_a_mesh(cut: dict[str, str]) -> None:
    text = MLP.replace("B: 3", "B: 6")
    check(gx.loads(text), {"dp": 2, "tp": 2}, cut)


def test_a_language_model(tmp_path: Path) -> None:
    from language_model_reference import SMALL, small

    graph = small(tmp_path)
    for cut in ({"G": "tp", "F": "tp", "V": "tp"}, {"G": "tp"}, {"F": "tp"}):
        if SMALL["V"] % 2 and "V" in cut:
            cut = {name: axis for name, axis in cut.items() if name != "V"}
        graphs = check(graph, {"tp": 2}, cut)
        assert meetings(graphs[0])


@pytest.mark.parametrize("name", ["transformer_layer", "mlp_mixer", "masks", "attention",
                                  "multi_head_attention", "causal_gqa", "diamond",
                                  "parallel_branches", "copies"])  # fmt: skip
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_dim_of_an_example(name: str, ranks: int) -> None:
    """Each dim that can be cut, by itself."""
    graph = gx.load(FOLDER / f"{name}.yaml")
    tensors = expand(graph)
    shapes = [[str(extent).split("*")[0].strip() for extent in item.shape or ()]
              for item in (*tensors.inputs.values(), *tensors.weights.values())]  # fmt: skip
    for dim, extent in graph.dims.items():
        counts = [shape.count(dim) for shape in shapes]
        if extent % ranks == 0 and max(counts) == 1:
            check(graph, {"tp": ranks}, {dim: "tp"})
