"""A copy is what its memory spaces make it, whatever it is called."""

from __future__ import annotations

import pytest

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.ir.program import Cost, Memcpy
from graphexec.machine.costs import GPU, engine_of, signature, tasks_of
from graphexec.machine.simulate import COMPUTE, TO_DEVICE, TO_HOST
from graphexec.planning.pipeline import Compiled, plan_graph
from graphexec.views.predict import microseconds
from graphexec.views.transfers import Transfers

N = 4096


def compiled(name: str) -> Compiled:
    """x comes in, is copied on the device by a node called `name`, and goes out."""
    graph = gx.Graph("g")
    graph.input("x", (N, N), "f32")
    graph.softmax("x", name="s")
    graph.output(y=graph.copy("s", name=name, after=["s"]))
    return plan_graph(graph, device="hip", no_rewrite=["all"])


@pytest.mark.parametrize("name", ["y.h2d", "y.d2h", "plain"])
def test_a_copy_on_the_device_is_the_compute_engines(name: str) -> None:
    found = compiled(name)
    copy = next(c for c in found.program.commands if c.node == name)
    assert isinstance(copy.work, Memcpy)
    assert copy.work.direction == "d2d"
    assert engine_of(copy) == COMPUTE
    moved = 2 * 4 * N * N
    assert copy.cost == Cost(0, moved)
    assert GPU.alone(copy)[0] == pytest.approx(moved / GPU.bytes)
    tasks = tasks_of(found.program, GPU)
    engines = {c.node: e for c, e in zip(found.program.commands, tasks.engine, strict=True)}
    assert engines == {"x.h2d": TO_DEVICE, "s": COMPUTE, name: COMPUTE, f"{name}.d2h": TO_HOST}


def test_its_name_changes_neither_its_signature_nor_its_picture() -> None:
    plain, odd = compiled("plain"), compiled("y.h2d")
    for one, other in zip(plain.program.commands, odd.program.commands, strict=True):
        assert signature(one) == signature(other)
    assert microseconds(plain.plan) == microseconds(odd.plan)
    transfers = Transfers(odd.plan)
    launches = [i for i in odd.plan.instructions if isinstance(i, Launch)]
    assert [transfers.of(i) for i in launches] == ["h2d", None, None, "d2h"]
    assert [transfers.tensor(i) for i in launches] == ["x", "s", "y.h2d", "y.h2d"]
