"""fuse-epilogue: products add their bias if the target does that; otherwise all stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hardware import PLAIN, Chip, of
from hypothesis import given, settings
from hypothesis import strategies as st
from rewritten import after, draw
from strategies import repeated_graphs

import graphexec as gx
from graphexec.cli.app import app
from graphexec.ir.program import Command, Gemm, GemmBatch, Work
from graphexec.machine.support import Facts, Support
from graphexec.planning.pipeline import Compiled, plan_graph
from graphexec.tools.compare import compare_executable
from graphexec.tools.explain import explain

CHIPS = [Chip(), Chip(batches=()), Chip(with_c=of("f32", "f64")), Chip(with_c=(), any_batch=False)]


def layer(dtype: str = "f32", rows: int = 6, c: bool = True, count: int = 1) -> gx.Graph:
    g = gx.Graph("layer")
    w = g.input("w", (64, 64), dtype)
    for n in range(count):
        x, bias = g.input(f"x{n}", (rows, 64), dtype), g.input(f"bias{n}", (64,), dtype)
        more = {"c": g.softmax(g.input(f"c{n}", (rows, 64), dtype), name=f"s{n}")} if c else {}
        g.output(**{f"y{n}": g.gemm(x, w, bias=bias, name=f"g{n}", **more)})
    return g


def products(compiled: Compiled) -> list[Command]:
    return [c for c in compiled.program.commands if isinstance(c.work, Gemm | GemmBatch)]


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("c", [False, True])
@pytest.mark.parametrize("rows", [1, 6])
def test_one_command_and_no_bytes_besides(dtype: str, c: bool, rows: int) -> None:
    """Also of the product in f32 that a sum in half precision takes in."""
    compiled = plan_graph(layer(dtype, rows, c))
    (command,) = products(compiled)
    work = command.work
    assert isinstance(work, Gemm)
    assert work.bias is not None
    assert (work.c is not None) == c
    assert [command.node for command in compiled.program.commands].count("g0") == 1
    touched = {v.storage for c in compiled.program.commands for v in (*c.reads, *c.writes)}
    assert set(compiled.program.storages) == touched
    assert {t.name for t in compiled.plan.tensors} == set(compiled.program.tensors)
    assert not any("." in name for name in compiled.program.tensors)


@settings(max_examples=60)
@given(repeated_graphs(), st.sampled_from(CHIPS), st.booleans())
def test_what_is_fused_is_supported(graph: gx.Graph, chip: Chip, resident: bool) -> None:
    """And nothing else changes: every node is still computed, by as many commands or fewer."""
    before = plan_graph(graph, hardware=chip, resident=resident, no_rewrite=["fuse-epilogue"])
    found = plan_graph(graph, hardware=chip, resident=resident)
    for command in products(before):
        assert not isinstance(command.work, Gemm) or command.work.bias is command.work.c is None
    for command in products(found):
        assert not chip.support(command.work).refused
    named = [
        {n for c in p.program.commands for n in (c.nodes or (c.node,))} for p in (before, found)
    ]
    assert named[0] == named[1]


@settings(max_examples=30)
@given(repeated_graphs(), st.sampled_from([PLAIN, *CHIPS]))
def test_numbers(graph: gx.Graph, chip: Chip) -> None:
    class Device(gx.CpuDevice):
        def support(self, work: Work) -> Support:
            return chip.support(work)

        def facts(self) -> Facts:
            return chip.facts()

    with gx.compile(graph, device=Device(poison=True)) as exe:
        assert compare_executable(exe, draw(exe.inputs)).ok


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("c", [False, True])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_what_is_shown_is_what_runs(dtype: str, c: bool, count: int, tmp_path: Path) -> None:
    graph = layer(dtype, c=c, count=count)
    file = tmp_path / "layer.yaml"
    file.write_text(graph.to_yaml(), encoding="utf-8")

    def shown(*args: str) -> str:
        done = CliRunner().invoke(app, [*args, "--device", "cpu"])
        assert done.exit_code == 0, done.output
        return done.output

    with gx.compile(gx.load(file), device="cpu") as exe:
        shown("plan", str(file), "-o", str(tmp_path / "plan.json"))
        written = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
        assert written == json.loads(exe.plan.to_json())
        assert shown("explain", str(file), "g0").strip() == explain(exe._compiled, "g0").strip()


def test_a_memory_limit_gives_up_the_batch_and_not_the_bias() -> None:
    graph = gx.Graph("in_turn")
    x, bias = graph.input("x", (64, 64)), graph.input("bias", (64,))
    total = x
    for branch in range(8):
        y = graph.gemm(graph.gemm(x, x, bias=bias, alpha=1.0 + branch), x, bias=bias)
        total = graph.gemm(total, y, bias=bias)
    graph.output(out=total)
    usual = plan_graph(graph, streams=1)
    assert any(command.nodes for command in products(usual))
    assert usual.plan.stats is not None
    found = plan_graph(graph, streams=1, memory_limit=usual.plan.stats.arena_bytes - 1)
    assert not any(command.nodes for command in products(found))
    assert all(isinstance(c.work, Gemm) and c.work.bias is not None for c in products(found))
    assert any(n.rewrite == "batch" and "given up" in n.text for n in found.notes)
    assert not any(n.rewrite == "fuse-epilogue" and "given up" in n.text for n in found.notes)


def test_why_not_is_told() -> None:
    found = plan_graph(layer("f16"), hardware=Chip(with_c=of("f32")))
    told = "'g0' adds c and the bias by a command of its own: the device adds no c with the bias"
    assert f"rewrite fuse-epilogue did not apply: {told}" in explain(found, "g0")
    assert after(layer(), "fuse-epilogue").notes[0].text == (
        "'g0' adds c and the bias as it writes the result"
    )


def test_commands_of_other_nodes_are_not_joined() -> None:
    """A copy of the user's own that a product happens to be added to."""
    g = gx.Graph("own")
    x, row = g.input("x", (64, 64)), g.input("row", (64, 64))
    c = g.copy(row, permute=[1, 0], name="turned")
    g.output(y=g.gemm(x, x, c=c, name="y"))
    found = plan_graph(g)
    assert [c.label for c in found.program.commands if c.label != "memcpy"] == ["copy", "gemm"]
    assert not any(note.rewrite == "fuse-epilogue" for note in found.notes)
