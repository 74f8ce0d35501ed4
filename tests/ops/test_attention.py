"""attention: what it infers, what it costs, and every mistake."""

from __future__ import annotations

from typing import Any

import pytest
from attention_cases import Shape, graph_of
from hardware import PLAIN

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.graph.infer import infer
from graphexec.planning.pipeline import plan_graph


def inferred(types: dict[str, tuple[Shape, str]], **attrs: Any) -> TensorType:
    return infer(graph_of(types, **attrs)).types()["y"]


QKV = {"q": ((2, 3, 5, 8), "f16"), "k": ((2, 1, 7, 8), "f16"), "v": ((2, 1, 7, 4), "f16")}


def test_the_result() -> None:
    assert inferred(QKV) == TensorType((2, 3, 5, 4), gx.DType.F16)
    assert inferred(QKV, out_dtype="f32").dtype is gx.DType.F32
    turned = {"q": ((8, 5), "f32"), "k": ((8, 7), "f32"), "v": ((3, 4, 7), "f32")}
    flags = {"trans_q": True, "trans_k": True, "trans_v": True}
    assert inferred(turned, **flags) == TensorType((3, 5, 4), gx.DType.F32)


ERRORS: dict[str, tuple[dict[str, tuple[Shape, str]], dict[str, Any], str]] = {
    "rank": ({**QKV, "k": ((8,), "f16")}, {}, "operand 'k' needs at least 2 axes, (…, N, D)"),
    "dtype": ({**QKV, "v": ((2, 1, 7, 4), "f32")}, {}, "'q' and 'v' share a dtype"),
    "head": ({**QKV, "k": ((2, 1, 7, 9), "f16")}, {}, "the extents D differ: 8 in q, 9 in k"),
    "length": ({**QKV, "v": ((2, 1, 6, 4), "f16")}, {}, "the extents N differ: 7 in k, 6 in v"),
    "batch": ({**QKV, "k": ((2, 2, 7, 8), "f16")}, {}, "the leading axes [2, 2] of k do not"),
    "mask": ({**QKV, "mask": ((5, 6), "f32")}, {}, "mask of shape [5, 6] does not broadcast"),
    "mask rank": ({**QKV, "mask": ((1, 1, 1, 5, 7), "f32")}, {}, "does not broadcast"),
    "turned": (QKV, {"trans_k": True}, "the extents D differ: 8 in q, 7 in k"),
    "scale": (QKV, {"scale": float("nan")}, "scale: "),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    types, attrs, message = ERRORS[case]
    with pytest.raises(gx.GraphError) as caught:
        inferred(types, **attrs)
    assert len(caught.value.diagnostics) == 1
    assert "attention 'y'" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("operand", ["q", "k", "v", "mask"])
def test_operands_in_host_memory_are_refused(operand: str) -> None:
    graph = gx.Graph()
    for name in ("q", "k", "v", "mask"):
        graph.input(name, (3, 3))
    graph.copy(operand, to="host", name="parked")
    names = {n: "parked" if n == operand else n for n in ("q", "k", "v", "mask")}
    graph.output(graph.attention(**names))
    with pytest.raises(gx.GraphError, match=f"operand '{operand}' is in host memory"):
        infer(graph)


def test_cost() -> None:
    plain, causal = (
        plan_graph(graph_of(dict.fromkeys("qkv", ((2, 64, 16), "f16")), causal=causal))
        .program.commands[3].cost for causal in (False, True)
    )  # fmt: skip
    assert plain.flops == 2 * 2 * 64 * 64 * (16 + 16) == 2 * causal.flops
    assert plain.bytes == 4 * 2 * 64 * 16 * 2


def test_the_arena_does_not_hold_the_scores() -> None:
    length = 512
    graph = graph_of(dict.fromkeys("qkv", ((1, 8, length, 16), "f32")))
    plan = gx.make_plan(graph)
    assert plan.stats.arena_bytes == 4 * 8 * length * 16 * 4
    apart = plan_graph(graph, hardware=PLAIN).plan.stats.arena_bytes
    assert apart > 8 * length * length * 4
