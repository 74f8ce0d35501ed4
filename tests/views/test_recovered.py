"""The graph that is recovered from a plan, against the graph that was written."""

from dataclasses import replace

import pytest

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.ir.plan import Buffer, Launch, PlacedTensor, Plan, Range, Stream
from graphexec.planning.pipeline import plan_graph
from graphexec.views.outline import Arrow, Outline, of_graph
from graphexec.views.recovered import of_plan


def links(outline: Outline) -> set[tuple[tuple[str, str], tuple[str, str], str]]:
    """Arrows by kind and name of their ends, with the tensor's type."""
    keys = [(box.kind, box.name) for box in outline.boxes]
    return {(keys[a.source], keys[a.target], a.label) for a in outline.arrows if not a.order_only}


def without_views(outline: Outline, computed: set[str]) -> Outline:
    """The outline without views: their readers read the viewed tensors."""
    into = {a.target: a for a in outline.arrows if not a.order_only}
    free = {n for n, b in enumerate(outline.boxes) if b.kind == "op" and b.name not in computed}

    def seen_through(arrow: Arrow) -> Arrow:
        while arrow.source in free:
            arrow = replace(into[arrow.source], target=arrow.target)
        return arrow

    arrows = [seen_through(a) for a in outline.arrows if a.target not in free]
    return replace(outline, arrows=tuple(arrows))


@pytest.mark.parametrize("name", [
    "attention", "causal_gqa", "diamond", "multi_head_attention", "parallel_branches",
])  # fmt: skip
@pytest.mark.parametrize("device", ["cpu", "hip"])
def test_a_plan_read_from_a_file_has_the_arrows_that_were_written(name, device):
    compiled = plan_graph(gx.load(f"graphs/{name}.yaml"), device=device, no_rewrite=["all"])
    plan = Plan.from_json(compiled.plan.to_json())
    found = of_plan(plan)
    computed = {i.node for i in plan.instructions if isinstance(i, Launch)}
    assert links(found) == links(without_views(of_graph(compiled.graph), computed))
    assert all(a.source < a.target for a in found.arrows)


def test_a_node_of_two_launches_is_one_box_with_the_reads_of_both():
    """y = a b + c: the affine launch starts from c before b is there."""
    tensors = tuple(
        PlacedTensor(name, "arena", 8 * n, 8, (2,), DType.F32) for n, name in enumerate("abcy")
    )
    a, b, c, y = (Range("arena", 8 * n, 8 * n + 8) for n in range(4))
    plan = Plan("p", "cpu", {}, (Stream(0),), (Buffer("arena", 32, "device", "arena"),), tensors, (
        Launch(0, "a", "copy", (), (a,)), Launch(0, "c", "copy", (), (c,)),
        Launch(0, "y", "affine", (c,), (y,)), Launch(0, "b", "copy", (a,), (b,)),
        Launch(0, "y", "gemm", (a, b, y), (y,)),
    ))  # fmt: skip
    found = of_plan(plan)
    assert [(b.name, b.op) for b in found.boxes] == [
        ("a", "copy"), ("c", "copy"), ("b", "copy"), ("y", "affine + gemm"),
    ]  # fmt: skip
    op = {name: ("op", name) for name in "abcy"}
    assert {(s, t) for s, t, _ in links(found)} == {
        (op["c"], op["y"]), (op["a"], op["b"]), (op["a"], op["y"]), (op["b"], op["y"]),
    }  # fmt: skip


def test_what_is_read_and_written_in_place_has_boxes_too():
    buffers = (Buffer("in.x", 8, "host", "input"), Buffer("w", 8, "device", "weights"),
               Buffer("out.z", 8, "host", "output"))  # fmt: skip
    reads, writes = (Range("in.x", 0, 8), Range("w", 0, 8)), (Range("out.z", 0, 8),)
    weight = PlacedTensor("wq", "w", 0, 8, (2,), DType.F32)
    plan = Plan("p", "cpu", {}, (Stream(0),), buffers, (weight,), (
        Launch(0, "y", "gemm", reads, writes),
    ))  # fmt: skip
    assert links(of_plan(plan)) == {
        (("input", "x"), ("op", "y"), ""), (("weight", "wq"), ("op", "y"), "f32[2]"),
        (("op", "y"), ("output", "z"), ""),
    }  # fmt: skip


def test_a_tensor_that_is_two_outputs_has_two_boxes():
    buffers = tuple(Buffer(f"out.{n}", 8, "host", "output") for n in "pq")
    y = Range("arena", 0, 8)
    copies = (Launch(0, "y.d2h", "memcpy", (y,), (Range(b.id, 0, 8),)) for b in buffers)
    plan = Plan("p", "cpu", {}, (Stream(0),), (Buffer("arena", 8, "device", "arena"), *buffers),
                (), (Launch(0, "y", "gemm", (), (y,)), *copies))  # fmt: skip
    assert {t for _, t, _ in links(of_plan(plan))} == {("output", "p"), ("output", "q")}
