"""Shared by tests of rewrites: a graph after a rewrite, and its numbers against float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from test_properties import evaluate, explained

import graphexec as gx
from graphexec.planning.pipeline import Compiled, plan_graph

Array = np.ndarray[Any, Any]


def after(graph: gx.Graph, *names: str, device: str = "cpu", **options: Any) -> Compiled:
    """The graph planned with these rewrites alone."""
    return plan_graph(graph, device=device, rewrite=names, no_rewrite=["all"], **options)


def applied(compiled: Compiled) -> list[str]:
    """What the rewrites did, in words."""
    return [note.text for note in compiled.notes if note.applied]


def refused(compiled: Compiled) -> list[str]:
    """The notes of rewrites that did not apply."""
    return [note.text for note in compiled.notes if not note.applied]


def commands(compiled: Compiled) -> list[str]:
    """Every command but transfers as `node:label`."""
    return [
        f"{c.node}:{c.label}"
        for c in compiled.program.commands
        if not c.node.endswith((".h2d", ".d2h"))
    ]


def draw(types: Mapping[str, Any], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(t.shape).astype(t.dtype.numpy()) for n, t in types.items()}


def assert_right(
    graph: gx.Graph, *names: str, device: Any = None, streams: int = 3
) -> dict[str, Array]:
    """The outputs are what float64 says but for rounding, with these rewrites alone, or with the
    default ones; and `compare` finds no fault."""
    device = device or gx.CpuDevice(poison=True)
    switches: dict[str, Any] = {"rewrite": names, "no_rewrite": ["all"]} if names else {}
    with gx.compile(graph, device=device, streams=streams, **switches) as exe:
        inputs = draw(exe.inputs, len(graph.nodes))
        found, types = exe.run(**inputs), exe.graph.types()
    values = evaluate(graph, inputs)
    bound = explained(graph, types, values)
    for name, tensor in graph.outputs.items():
        assert found[name].dtype == types[tensor].dtype.numpy()
        assert found[name].shape == values[tensor].shape
        difference = np.abs(found[name].astype(np.float64) - values[tensor])
        assert np.all(difference <= bound[tensor]), (tensor, float(difference.max()))
    return found
