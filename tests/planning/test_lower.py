"""lower: commands in an order that is right, transfers at the edge, bytes inside storages."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from strategies import graphs

import graphexec as gx
from graphexec.base.tensor import View
from graphexec.graph.infer import infer
from graphexec.ir.program import Gemm, Kernel, Memcpy, Program
from graphexec.planning.lower import lower
from graphexec.planning.pipeline import plan_graph


def program(graph: gx.Graph, resident: bool = False) -> Program:
    return lower(infer(graph), resident)


def base() -> gx.Graph:
    graph = gx.Graph("g", dims={"N": 4})
    graph.input("x", ("N", "N"))
    graph.input("y", ("N", "N"))
    return graph


def nodes(found: Program) -> list[str]:
    return [c.node for c in found.commands]


def written(found: Program) -> set[str]:
    return {v.storage for c in found.commands for v in c.writes}


@settings(max_examples=60, deadline=None)
@given(graphs(max_nodes=8))
def test_contract(graph: gx.Graph) -> None:
    """Views lie inside their storages; nothing is read before it is written; what the work
    touches is what the command says it touches."""
    found = program(graph)
    filled = {s.name for s in found.storages.values() if s.role in ("input", "weights")}
    for number, command in enumerate(found.commands):
        assert all(a < number for a in command.after)
        assert command.writes
        for view in (*command.reads, *command.writes):
            low, high = view.byte_range()
            assert 0 <= low < high <= found.storages[view.storage].nbytes
        assert {v.storage for v in command.reads} <= filled
        filled |= {v.storage for v in command.writes}
        assert {id(v) for v in views_of(command.work)} <= {
            id(v) for v in (*command.reads, *command.writes)
        } | ids_of_unread(command.work)
        assert command.cost.bytes > 0
    assert set(found.outputs) == set(graph.outputs)
    assert {v.storage for v in found.outputs.values()} <= filled
    assert all(found.storages[v.storage].role == "output" for v in found.outputs.values())


def views_of(work: object) -> Iterable[View]:
    if isinstance(work, Gemm):
        return (work.a, work.b, work.out)
    if isinstance(work, Memcpy):
        return (work.src, work.dst)
    assert isinstance(work, Kernel)
    return [a for a in work.args if isinstance(a, View)]


def ids_of_unread(work: object) -> set[int]:
    return {id(work.out)} if isinstance(work, Gemm) else set()


# Transfers ------------------------------------------------------------------------------------


def test_transfers() -> None:
    graph = base()
    graph.gemm("x", "y", name="m")
    graph.output(out="m")
    found = program(graph)
    assert nodes(found) == ["x.h2d", "y.h2d", "m", "m.d2h"]
    assert [s.role for s in found.storages.values()].count("input") == 2
    assert found.storages["in.x"].space == found.storages["out.out"].space == "host"
    up, down = found.commands[0].work, found.commands[-1].work
    assert isinstance(up, Memcpy)
    assert isinstance(down, Memcpy)
    assert (up.src, up.dst) == (found.inputs["x"], found.tensors["x"])
    assert (down.src, down.dst) == (found.tensors["m"], found.outputs["out"])
    assert (up.direction, down.direction) == ("h2d", "d2h")
    assert found.commands[0].cost.bytes == 2 * 64


def test_copies_of_the_user_have_a_direction() -> None:
    graph = base()
    graph.copy("x", to="host", name="parked")
    graph.copy("parked", to="host", name="there")
    graph.copy("there", to="device", name="back")
    graph.softmax("back", name="s")
    graph.copy("s", name="same")
    graph.output("same", "there")
    compiled = plan_graph(graph, no_rewrite=["all"])
    found = {c.node: c.work.direction for c in compiled.program.commands
             if isinstance(c.work, Memcpy)}  # fmt: skip
    assert {name: found.get(name) for name in ("parked", "there", "back", "same")} == {
        "parked": "d2h", "there": "h2h", "back": "h2d", "same": "d2d",
    }  # fmt: skip


def test_inputs_that_nothing_reads_are_not_uploaded() -> None:
    graph = base()
    graph.output(graph.softmax("x"))
    found = program(graph)
    assert set(found.inputs) == {"x"}
    assert "in.y" not in found.storages


def test_an_input_named_by_after_alone_is_uploaded() -> None:
    graph = base()
    graph.output(graph.softmax("x", after=["y"], name="s"))
    found = program(graph)
    (softmax,) = [c for c in found.commands if c.node == "s"]
    assert [found.commands[i].node for i in softmax.after] == ["y.h2d"]


def test_a_tensor_with_several_names_is_copied_out_once() -> None:
    graph = base()
    graph.softmax("x", name="s")
    graph.output(a="s", b="s", c="x")
    found = program(graph)
    assert nodes(found) == ["x.h2d", "s", "s.d2h", "x.d2h"]
    assert found.outputs["a"] == found.outputs["b"] != found.outputs["c"]


def test_resident_programs_have_no_transfers() -> None:
    graph = base()
    graph.gemm("x", "y", name="m")
    graph.softmax("m", name="s")
    graph.output("s", "m")
    found = program(graph, resident=True)
    assert nodes(found) == ["m", "s"]
    assert all(s.space == "device" for s in found.storages.values())
    assert found.tensors["x"] == found.inputs["x"]
    assert found.tensors["s"] == found.outputs["s"]
    assert {found.storages[v.storage].role for v in found.outputs.values()} == {"output"}


def test_resident_outputs_that_are_inputs_or_aliases_have_bytes_of_their_own() -> None:
    graph = base()
    graph.copy("x", reshape=[-1], name="flat")
    graph.output("x", "flat", "y")
    found = program(graph, resident=True)
    assert {found.storages[v.storage].role for v in found.outputs.values()} == {"output"}
    assert len({v.storage for v in found.outputs.values()}) == 3


# Results --------------------------------------------------------------------------------------


def test_a_result_in_host_memory_is_written_in_place() -> None:
    graph = base()
    graph.copy("x", to="host", name="parked")
    graph.output(kept="parked")
    found = program(graph)
    assert nodes(found) == ["x.h2d", "parked"]
    assert found.tensors["parked"].storage == "out.kept"


def test_a_reshape_is_a_window() -> None:
    graph = base()
    graph.softmax("x", name="s")
    graph.copy("s", reshape=[2, 8], name="seen")
    graph.output(graph.softmax("seen", name="t"))
    found = program(graph)
    assert "seen" not in nodes(found)
    assert "seen" not in found.storages
    assert found.tensors["seen"] == View.dense("s", infer(graph).types()["seen"])


def test_scratch_lives_under_the_name_of_its_node() -> None:
    graph = base()
    graph.output(graph.gemm("x", "y", out_dtype="f16", name="m"))
    found = program(graph)
    assert found.storages["m.wide"].nbytes == 64
    assert [c.node for c in found.commands].count("m") == 2


def test_weights_are_uploaded_by_the_device_not_by_commands(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import numpy as np

    folder = tmp_path_factory.mktemp("weights")
    np.save(folder / "w.npy", np.eye(4, dtype=np.float32))
    graph = gx.Graph("g", folder=folder)
    graph.input("x", (4, 4))
    graph.weight("w", "w.npy")
    graph.weight("unused", "w.npy")
    graph.output(graph.gemm("x", "w", name="m"))
    found = program(graph)
    assert nodes(found) == ["x.h2d", "m", "m.d2h"]
    assert list(found.weights) == ["w"]
    assert found.storages["w"].role == "weights"
    assert "w" not in written(found)


# Order without data ---------------------------------------------------------------------------


def test_after_names_every_command_of_a_node() -> None:
    graph = base()
    graph.gemm("x", "y", out_dtype="f16", name="m")
    graph.softmax("x", after=["m"], name="s")
    graph.output("m", "s")
    found = program(graph)
    (softmax,) = [c for c in found.commands if c.node == "s"]
    assert [found.commands[i].node for i in softmax.after] == ["m", "m"]


def test_after_a_window_is_after_what_made_its_bytes() -> None:
    graph = base()
    graph.softmax("x", name="s")
    graph.copy("s", reshape=[-1], name="one")
    graph.copy("one", reshape=[2, 8], name="two")
    graph.softmax("y", after=["two"], name="late")
    graph.output("two", "late")
    found = program(graph)
    (late,) = [c for c in found.commands if c.node == "late"]
    assert [found.commands[i].node for i in late.after] == ["s"]


def test_every_command_of_a_node_is_after() -> None:
    graph = base()
    graph.softmax("x", name="s")
    graph.gemm("x", "y", out_dtype="f16", after=["s"], name="m")
    graph.output("m", "s")
    found = program(graph)
    assert all(c.after for c in found.commands if c.node == "m")


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in.x", "in.y", "out.m", "m.wide"])
def test_names_of_the_compilers_own_bytes_are_refused(name: str) -> None:
    graph = base()
    graph.softmax("x", name=name)
    graph.gemm("x", "y", out_dtype="f16", name="m")
    graph.output("m", other=name)
    with pytest.raises(gx.GraphError, match=f"the compiler uses the name '{name}'"):
        program(graph)


@pytest.mark.parametrize("name", ["x.h2d", "m.d2h"])
def test_names_of_transfers_are_refused(name: str) -> None:
    """A launch has its node's name, so two nodes would share one."""
    graph = base()
    graph.softmax("x", name=name)
    graph.gemm("x", "y", name="m")
    graph.output("m", other=name)
    with pytest.raises(gx.GraphError, match=f"the compiler uses the name '{name}'"):
        program(graph)


@pytest.mark.parametrize("name", ["arena", "weights", "host_arena", "in", "out", "h2d"])
def test_other_names_are_free(name: str) -> None:
    graph = base()
    graph.softmax("x", name=name)
    graph.output(name)
    gx.make_plan(graph)
