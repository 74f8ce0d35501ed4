"""Any graph on any number of streams: right numbers, an accepted plan, no redundant wait.

The plans run on the CPU but are made with the costs of a GPU, so that many streams pay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from exact import PRECISION
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import graphs, repeated_graphs, stream_counts

import graphexec as gx
from graphexec.ir.graph import Node
from graphexec.ir.plan import Wait
from graphexec.machine.costs import GPU

Array = np.ndarray[Any, Any]

any_graphs = st.one_of(graphs(), repeated_graphs())


# The same graph in float64, node after node, written down a second time --------------------------


def evaluate(graph: gx.Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    values = {name: np.asarray(array, np.float64) for name, array in inputs.items()}
    for node in graph.nodes.values():
        operands = {key: values[name] for key, name in node.operands.items()}
        values[node.name] = {"gemm": gemm, "softmax": softmax, "copy": copy}[node.op](
            node, operands
        )
    return values


def gemm(node: Node, given: dict[str, Array]) -> Array:
    flags = node.attrs
    left = "...km" if flags.get("trans_a") else "...mk"
    right = "...nk" if flags.get("trans_b") else "...kn"
    y = flags.get("alpha", 1.0) * np.einsum(f"{left},{right}->...mn", given["a"], given["b"])
    if "c" in given:
        y = y + flags.get("beta", 1.0) * given["c"]
    return y + given.get("bias", 0.0)


def softmax(node: Node, given: dict[str, Array]) -> Array:
    z = node.attrs.get("scale", 1.0) * given["x"] + given.get("mask", 0.0)
    axis = node.attrs.get("axis", -1)
    if node.attrs.get("causal"):
        queries, keys = z.shape[-2:]
        seen = np.arange(keys) <= np.arange(queries)[:, None] + keys - queries
        z = np.where(seen, z, -np.inf)
    top = np.maximum(z.max(axis, keepdims=True), -1e300)
    powers = np.exp(z - top)
    total = powers.sum(axis, keepdims=True)
    return np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)


def copy(node: Node, given: dict[str, Array]) -> Array:
    x = given["x"]
    index = [slice(None)] * x.ndim
    for axis, bounds in node.attrs.get("slice", {}).items():
        index[axis] = slice(*bounds)
    x = x[tuple(index)]
    if "permute" in node.attrs:
        x = x.transpose(node.attrs["permute"])
    return x.reshape(node.attrs["reshape"]) if "reshape" in node.attrs else x


# Errors, as far as rounding explains them --------------------------------------------------------


def explained(graph: gx.Graph, types: dict[str, Any], values: dict[str, Array]) -> dict[str, float]:
    """An absolute bound of each tensor's error: what its operands bring, and its own rounding."""
    bound = dict.fromkeys(graph.inputs, 0.0)
    size = {name: float(np.abs(v).max()) for name, v in values.items()}
    for node in graph.nodes.values():
        given = {key: (bound[n], size[n]) for key, n in node.operands.items()}
        unit = 2.0 ** (1 - PRECISION[types[node.name].dtype.value])
        first = types[next(iter(node.operands.values()))].dtype
        wide = 2.0**-50 if first == "f64" else 2.0**-20
        error = 0.0
        if node.op == "gemm":
            (ea, sa), (eb, sb) = given["a"], given["b"]
            k = values[node.operands["a"]].shape[-2 if node.attrs.get("trans_a") else -1]
            alpha = abs(node.attrs.get("alpha", 1.0))
            error = alpha * k * (ea * sb + sa * eb + ea * eb + k * wide * (sa + ea) * (sb + eb))
            for key, factor in (("c", abs(node.attrs.get("beta", 1.0))), ("bias", 1.0)):
                if key in given and factor:
                    ec, sc = given[key]
                    # beta · c + bias may be rounded by itself where both are given.
                    error += factor * (ec + (unit + wide) * (sc + ec))
        elif node.op == "softmax":
            z = abs(node.attrs.get("scale", 1.0)) * given["x"][0] + given.get("mask", (0.0, 0.0))[0]
            top = (
                abs(node.attrs.get("scale", 1.0)) * given["x"][1] + given.get("mask", (0.0, 0.0))[1]
            )
            error = min(1.0, 2 * np.expm1(min(2 * z + wide * (8 * top + 64), 50.0)))
        else:
            error = given["x"][0]
        bound[node.name] = error + unit * (size[node.name] + error) + 2.0**-24
    return bound


@settings(max_examples=80, deadline=None)
@given(any_graphs, stream_counts())
def test_numbers(graph: gx.Graph, streams: int) -> None:
    device = gx.CpuDevice(delays=streams, poison=True)
    with gx.compile(graph, device=device, streams=streams, costs=GPU) as exe:
        types = exe.graph.types()
        rng = np.random.default_rng(len(graph.nodes))
        inputs = {
            n: rng.standard_normal(t.shape).astype(t.dtype.numpy()) for n, t in exe.inputs.items()
        }
        found = exe.run(**inputs)
    values = evaluate(graph, inputs)
    bound = explained(graph, types, values)
    assert found.keys() == graph.outputs.keys()
    for name, tensor in graph.outputs.items():
        assert found[name].dtype == types[tensor].dtype.numpy()
        assert found[name].shape == values[tensor].shape
        difference = np.abs(found[name].astype(np.float64) - values[tensor])
        assert np.all(difference <= bound[tensor]), (tensor, float(difference.max()), bound[tensor])


@settings(max_examples=80, deadline=None)
@given(any_graphs, stream_counts())
def test_the_verifier_accepts_and_refuses_every_plan_with_a_wait_less(
    graph: gx.Graph, streams: int
) -> None:
    plan = gx.make_plan(graph, streams=streams, costs=GPU, verify=False)
    assert gx.find_hazards(plan) == []
    assert len(plan.streams) <= streams
    for index, step in enumerate(plan.instructions):
        if isinstance(step, Wait) and step.role in ("dependency", "join"):
            less = plan.instructions[:index] + plan.instructions[index + 1 :]
            assert gx.find_hazards(replace(plan, instructions=less)), (index, step)


@settings(max_examples=40, deadline=None)
@given(any_graphs, stream_counts())
def test_plans_are_deterministic(graph: gx.Graph, streams: int) -> None:
    assert gx.make_plan(graph, streams=streams, costs=GPU) == gx.make_plan(
        graph, streams=streams, costs=GPU
    )
    again = gx.loads(graph.to_yaml())
    assert (
        gx.make_plan(again, streams=streams, costs=GPU).to_json()
        == gx.make_plan(graph, streams=streams, costs=GPU).to_json()
    )
