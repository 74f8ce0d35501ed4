"""Options(reproducible=True): the same bits on every number of streams and cores, for every profile
and memory limit.

The mode and the machine of HIP are in tests/runtime/test_hip_reproducible.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import graphs, repeated_graphs

import graphexec as gx
from graphexec.machine.costs import CPU, Measured, signature
from graphexec.planning.pipeline import plan_graph
from graphexec.planning.profile import MeasuredSchedule, Profile, schedule_key
from graphexec.planning.scheduling import ONE_STREAM
from graphexec.runtime.cpu.cores import Cores
from graphexec.runtime.cpu.engine import REPRODUCIBLE_SPLIT
from graphexec.tools.examples import EXAMPLES

Array = np.ndarray[Any, Any]
FOLDER = Path(__file__).parents[1] / "graphs"


def inputs_of(graph: gx.Graph, seed: int) -> dict[str, Array]:
    with gx.compile(graph, device="cpu", verify=False) as exe:
        types = exe.inputs
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(t.shape).astype(t.dtype.numpy()) for n, t in types.items()}


def bits(graph: gx.Graph, inputs: dict[str, Array], **options: Any) -> dict[str, bytes]:
    device = options.pop("device", gx.CpuDevice())
    with gx.compile(graph, device=device, reproducible=True, **options) as exe:
        return {name: array.tobytes() for name, array in exe.run(**inputs).items()}


def layers(width: int = 8, size: int = 32, depth: int = 2) -> gx.Graph:
    """Equal chains side by side, for which batches pay on few streams and not on many."""
    graph = gx.Graph("layers")
    ends = []
    for branch in range(width):
        tensor = graph.input(f"x{branch}", (size, size))
        for step in range(depth):
            tensor = graph.gemm(tensor, graph.input(f"w{branch}_{step}", (size, size)))
        ends.append(graph.softmax(tensor))
    graph.output(**{f"y{n}": end for n, end in enumerate(ends)})
    return graph


@settings(max_examples=10, deadline=None)
@given(st.one_of(graphs(bait=True), repeated_graphs()), st.integers(0, 9))
def test_any_graph_on_one_to_eight_streams(graph: gx.Graph, seed: int) -> None:
    inputs = inputs_of(graph, seed)
    found = [
        bits(graph, inputs, streams=streams, device=gx.CpuDevice(cores=cores, delays=seed))
        for streams, cores in ((1, 1), (2, 3), (4, 2), (8, 5), ("auto", 2))
    ]
    assert all(each == found[0] for each in found)


@settings(max_examples=15, deadline=None)
@given(st.one_of(graphs(bait=True), repeated_graphs()), st.sampled_from(["cpu", "hip"]))
def test_the_program_of_any_graph_is_the_same(graph: gx.Graph, device: str) -> None:
    """Also with other costs: all that a device computes."""
    slow = replace(CPU, launch=CPU.launch * 100, name="slow")
    programs = [
        plan_graph(graph, device=device, streams=streams, costs=costs, reproducible=True).program
        for streams, costs in ((1, None), (2, slow), (8, None), ("auto", slow))
    ]
    assert all(program == programs[0] for program in programs)


def test_batches_depend_on_the_streams_unless_they_may_not() -> None:
    """What the option is for: without it, the programs differ."""

    def programs(**options: Any) -> set[int]:
        return {
            len(plan_graph(layers(), streams=streams, costs=costs, **options).program.commands)
            for streams in (1, 2, 8)
            for costs in (None, replace(CPU, launch=0.0, name="no launches"))
        }

    assert len(programs()) > 1
    assert len(programs(reproducible=True)) == 1


@pytest.mark.parametrize("build", EXAMPLES, ids=lambda build: build.__name__)
def test_the_examples_on_any_number_of_streams_and_cores(build: Any) -> None:
    graph = build()
    inputs = inputs_of(graph, 1)
    first = bits(graph, inputs, streams=1, device=gx.CpuDevice(cores=1))
    for streams, cores in ((1, 2), (2, 1), (3, 16), (8, 7)):
        device = gx.CpuDevice(cores=cores)
        assert bits(graph, inputs, streams=streams, device=device) == first


def large(m: int, k: int, n: int, batch: tuple[int, ...]) -> gx.Graph:
    """One product, cut among the cores, with a softmax and an attention over its result."""
    graph = gx.Graph("large")
    a, b = graph.input("a", (*batch, m, k)), graph.input("b", (*batch, k, n))
    y = graph.gemm(a, b, alpha=k**-0.5, name="y")
    graph.output(y=y, s=graph.softmax(y, axis=-2), t=graph.attention(y, y, y))
    return graph


@pytest.mark.parametrize(
    ("m", "k", "n", "batch"), [(515, 300, 129, ()), (130, 257, 120, (5,)), (96, 128, 70, (3, 17))]
)
def test_how_work_is_cut_does_not_depend_on_the_cores(
    m: int, k: int, n: int, batch: tuple[int, ...]
) -> None:
    graph = large(m, k, n, batch)
    inputs = inputs_of(graph, 2)
    first = bits(graph, inputs, device=gx.CpuDevice(cores=1))
    for cores in (2, 3, 8, 24):
        assert bits(graph, inputs, device=gx.CpuDevice(cores=cores)) == first


def test_ranges_are_those_of_the_split() -> None:
    """Not only where the bits happen to show it: other BLAS libraries round otherwise."""

    def ranges(count: int, number: int, parts: int | None) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        cores = Cores(count, REPRODUCIBLE_SPLIT)
        cores.parallel(number, lambda low, high: found.append((low, high)), parts)
        cores.close()
        return sorted(found)

    for number, parts in ((1000, None), (7, None), (515, REPRODUCIBLE_SPLIT)):
        found = [ranges(count, number, parts) for count in (1, 2, 5, 40)]
        assert all(each == found[0] for each in found)


def test_profiles_change_the_schedule_alone() -> None:
    """A profile by which launches cost nothing, other kernels are faster, and one stream is."""
    graph = layers()
    inputs = inputs_of(graph, 3)
    plain = plan_graph(graph, reproducible=True)
    apart = plan_graph(graph, no_rewrite="all")
    commands = [*plain.program.commands, *apart.program.commands]
    profile = Profile(
        "cpu",
        {signature(command): Measured(500.0, 1.0, choice=1) for command in commands},
        schedules={schedule_key(4, resident=False): MeasuredSchedule(ONE_STREAM, {})},
    )
    assert plan_graph(graph, costs=profile).program != plain.program
    measured = plan_graph(graph, costs=profile, reproducible=True)
    assert measured.program == plain.program
    assert measured.profile is None  # nor algorithms of the BLAS
    assert measured.plan.stats is not None
    assert measured.plan.stats.costs == "profile"
    assert bits(graph, inputs, costs=profile) == bits(graph, inputs)


def test_memory_limits_are_kept_by_the_same_program() -> None:
    """Which program is planned under a limit does not depend on the number of streams."""
    graph = layers(width=6, size=64, depth=3)
    whole = plan_graph(graph, reproducible=True).allocation.device_bytes
    for limit in range(whole // 3, whole, whole // 6):
        found = []
        for streams in (1, 2, 4, 8):
            try:
                compiled = plan_graph(graph, streams=streams, memory_limit=limit, reproducible=True)
            except gx.InputError:
                continue
            assert compiled.allocation.device_bytes <= limit
            found.append(compiled.program)
        assert all(program == found[0] for program in found)
