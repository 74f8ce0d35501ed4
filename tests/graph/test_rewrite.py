"""rewrite: an equivalent graph; each rewrite by itself and switched off by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hardware import Chip

import graphexec as gx
from graphexec.graph import rewrite as stage
from graphexec.graph.infer import infer
from graphexec.graph.rewriting import GraphRewrite, Note, ProgramRewrite, Target, target_of
from graphexec.ir.program import Program, Work
from graphexec.ir.typed import TypedGraph
from graphexec.machine.costs import GPU
from graphexec.machine.support import Facts, Support
from graphexec.planning import rewrite as planning_stage
from graphexec.planning.pipeline import plan_graph
from graphexec.planning.rewrite import chosen_rewrites, known_rewrites


def typed() -> TypedGraph:
    graph = gx.Graph("g")
    graph.input("x", (2, 3))
    graph.softmax("x", name="a")
    graph.softmax("x", name="dead")
    graph.copy("dead", name="dead_too", after=["a"])
    graph.copy("x", name="first")
    graph.copy("a", name="b", after=["first"])
    graph.gemm("b", "b", trans_b=True, name="y")
    graph.output(out="y", again="a")
    return infer(graph)


def names(graph: TypedGraph) -> list[str]:
    return [n.name for n in graph.nodes]


def rewrite(graph: TypedGraph, *names: str) -> TypedGraph:
    """The graph after the named rewrites; after all of them if none is named."""
    return stage.rewrite(graph, Target(), names or [*known_rewrites()])[0]


# Switching ------------------------------------------------------------------------------------


def test_every_rewrite_has_a_name_and_a_line_of_doc() -> None:
    known = known_rewrites()
    assert len(known) == len(stage.GRAPH_REWRITES) + len(planning_stage.PROGRAM_REWRITES)
    for name, each in known.items():
        assert name == each.name
        assert name == name.lower()
        assert each.doc
        assert "\n" not in each.doc


def extra(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two further rewrites, off by default, that change nothing; returns their arguments."""
    seen = []

    def graph(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
        seen.append(f"graph {target.device} {target.facts.programs} {target.costs.name}")
        return graph, (Note(("y",), "saw 'y'"), Note(("a",), "'a' is too small", applied=False))

    def program(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
        seen.append(f"program {len(program.commands)}")
        return program, (Note(("y",), "saw 'y' again"),)

    rewrites = GraphRewrite("look", "looks", graph, default=False)
    programs = ProgramRewrite("stare", "stares", program, default=False)
    monkeypatch.setattr(stage, "GRAPH_REWRITES", (*stage.GRAPH_REWRITES, rewrites))
    every = (*planning_stage.PROGRAM_REWRITES, programs)
    monkeypatch.setattr(planning_stage, "PROGRAM_REWRITES", every)
    return seen


def test_those_that_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    extra(monkeypatch)
    default = chosen_rewrites()
    assert default == {name for name, each in known_rewrites().items() if each.default}
    assert chosen_rewrites(["look"]) == default | {"look"}
    assert chosen_rewrites(["look"], ["dead-nodes"]) == default - {"dead-nodes"} | {"look"}
    assert chosen_rewrites(["all"]) == {*known_rewrites()}
    assert chosen_rewrites(["all"], ["stare"]) == {*known_rewrites()} - {"stare"}
    assert chosen_rewrites((), ["all"]) == set()
    assert chosen_rewrites(["look"], ["all"]) == {"look"}


def test_unknown_names_and_contradictions_are_the_users() -> None:
    with pytest.raises(gx.InputError, match="did you mean 'dead-nodes'") as found:
        chosen_rewrites(["dead-nods"], ["xyz"])
    assert len(found.value.diagnostics) == 2
    assert "known are " in str(found.value)
    with pytest.raises(gx.InputError, match="'dead-nodes' is switched both on and off"):
        chosen_rewrites(["dead-nodes"], ["dead-nodes"])


def test_rewrites_are_told_the_target_and_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = extra(monkeypatch)
    graph = gx.Graph("g")
    graph.input("x", (2, 2))
    graph.output(y=graph.softmax("x", name="y"))
    assert plan_graph(graph, no_rewrite=["all"]).notes == ()
    compiled = plan_graph(graph, device="hip", rewrite=["look", "stare"], hardware=Chip(programs=7))
    assert seen == [f"graph hip 7 {GPU.name}", "program 3"]
    assert [(n.rewrite, n.text, n.applied) for n in compiled.notes] == [
        ("look", "saw 'y'", True),
        ("look", "'a' is too small", False),
        ("stare", "saw 'y' again", True),
    ]


def test_a_target_by_name() -> None:
    cpu = target_of("cpu")
    assert (cpu.device, cpu.facts, cpu.costs) == ("cpu", gx.CpuDevice().facts(), Target().costs)
    assert target_of("something").facts == Facts(programs=0, any_batch=False)
    assert replace(target_of("hip"), costs=Target().costs).device == "hip"


def test_a_device_says_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = extra(monkeypatch)

    class Able:
        name = "cpu"
        group = None

        def support(self, work: Work) -> Support:
            return gx.CpuDevice().support(work)

        def facts(self) -> Facts:
            return Facts(programs=9)

        def open(self, *given: object) -> object:
            return gx.CpuDevice().open(*given)  # type: ignore[arg-type]

    graph = gx.Graph("g")
    graph.input("x", (2, 2))
    graph.output(y=graph.softmax("x"))
    gx.compile(graph, device=Able(), rewrite=["look"]).close()  # type: ignore[arg-type]
    assert seen == ["graph cpu 9 cpu model"]


# dead-nodes -----------------------------------------------------------------------------------


def test_dead_nodes_are_left_out() -> None:
    """`after` of a needed node keeps the nodes it names; `after` of a dead node keeps nothing."""
    before = typed()
    after = rewrite(before, "dead-nodes")
    assert names(after) == ["a", "first", "b", "y"]
    assert (after.inputs, after.outputs, after.name) == (before.inputs, before.outputs, "g")
    assert all(n in before.nodes for n in after.nodes)
    assert rewrite(after, "dead-nodes") == after


def test_what_is_left_out_is_said() -> None:
    _, notes = stage.rewrite(typed(), Target(), ["dead-nodes"])
    assert [n.nodes for n in notes] == [("dead",), ("dead_too",)]
    assert notes[0] == Note(
        ("dead",), "left out 'dead', which no output needs", rewrite="dead-nodes"
    )


def test_a_rewrite_can_be_switched_off() -> None:
    before = typed()
    assert stage.rewrite(before, Target(), ()) == (before, ())


def test_the_old_graph_is_not_changed() -> None:
    before = typed()
    rewrite(before)
    assert before == typed()


def test_a_graph_whose_outputs_are_inputs_needs_no_node() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2,))
    graph.copy("x")
    graph.output("x")
    assert rewrite(infer(graph)).nodes == ()


def test_the_pipeline_passes_the_names_on() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2,))
    graph.copy("x", name="dead")
    graph.output("x")
    with_it = gx.make_plan(graph, no_rewrite=["dead-nodes"])
    assert "dead" in [t.name for t in with_it.tensors]
    assert "dead" not in [t.name for t in gx.make_plan(graph).tensors]


def test_a_chain_of_ten_thousand_nodes() -> None:
    graph = gx.Graph("g")
    name = graph.input("x", (1,))
    for _ in range(10_000):
        name = graph.node("copy", name, name=f"n{len(graph.nodes)}")
    graph.output("n4999")
    assert len(rewrite(infer(graph), "dead-nodes").nodes) == 5000


# Within a memory limit ------------------------------------------------------------------------


def test_rewrites_that_keep_tensors_longer_give_way_to_a_memory_limit() -> None:
    """A product that is needed early and late: kept, or computed again."""
    graph = gx.Graph("g")
    x, row = graph.input("x", (64, 8)), graph.input("row", (8, 64))
    early = graph.gemm(x, row, name="early")
    y = graph.gemm(early, x, name="y0")
    for step in range(3):
        y = graph.gemm(graph.gemm(y, row, name=f"up{step}"), y, name=f"y{step + 1}")
    late = graph.gemm(x, row, name="late")
    graph.output(out=graph.gemm(late, y, name="out"))
    both = ["common-subexpressions"]
    once = plan_graph(graph, streams=1, rewrite=both, no_rewrite=["all"])
    twice = plan_graph(graph, streams=1, no_rewrite=["all"])
    assert twice.allocation.arena_bytes < once.allocation.arena_bytes
    tight = plan_graph(
        graph, streams=1, rewrite=both, no_rewrite=["all"],
        memory_limit=once.allocation.arena_bytes - 1,
    )  # fmt: skip
    assert tight.notes == ()
    assert tight.rewritten == twice.rewritten
    roomy = plan_graph(graph, streams=1, memory_limit=once.allocation.arena_bytes)
    assert "late" in roomy.rewritten.same
