"""keep-in-place, and states of random graphs against an interpreter written here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.program import Memcpy
from graphexec.planning.moves import Move, one_by_one
from graphexec.planning.pipeline import Compiled, plan_graph

Array = np.ndarray[Any, Any]


def planned(nodes: str, states: str, outputs: str = "y: y", **options: Any) -> Compiled:
    text = (
        "version: 1\ninputs: {x: {shape: [4], dtype: f32}, at: {shape: [], dtype: i32}}\n"
        f"state: {{{states}}}\nnodes: {{{nodes}}}\noutputs: {{{outputs}}}\n"
    )
    return plan_graph(gx.loads(text), **options)


def notes(compiled: Compiled) -> dict[str, str]:
    """What keep-in-place says of each state; "" where the value is computed at home."""
    return {note.nodes[-1]: "" if note.applied else note.text.partition(": ")[2]
            for note in compiled.notes if note.rewrite == "keep-in-place"}  # fmt: skip


def test_a_map_is_computed_where_the_state_lies() -> None:
    found = planned("y: x + s", "s: {shape: [4], dtype: f32, next: y}")
    assert notes(found) == {"s": ""}
    assert found.program.tensors["y"].storage == "state.s"
    apart = planned("y: x + s", "s: {shape: [4], dtype: f32, next: y}",
                    no_rewrite=["keep-in-place"])  # fmt: skip
    assert [c.node for c in apart.program.commands if isinstance(c.work, Memcpy)][-1] == "s.home"


SLICED = "z: {op: copy, x: x, slice: {0: [0, 2]}}"
STATE = "s: {shape: [4], dtype: f32, next: y}"
WHY_NOT = {
    "its old value is needed afterwards":
        (f"y: {{op: append, into: s, x: z, at: at}}, {SLICED}, d: y - s", STATE, "y: y, d: d"),
    "it is a state":
        ("y: a + b", "a: {shape: [4], dtype: f32, next: b}, b: {shape: [4], dtype: f32, next: y}",
         "y: y"),
    "reads it in another order":
        ("y: {op: copy, x: s, permute: [1, 0]}, z: y + 1", STATE.replace("[4]", "[2, 2]"), "z: z"),
    "would write it even if rows do not fit":
        (f"y: {{op: append, into: s, x: z, at: at}}, {SLICED}",
         f"{STATE}, n: {{shape: [4], dtype: f32, next: n + x}}", "y: y"),
}  # fmt: skip


@pytest.mark.parametrize("why", WHY_NOT)
def test_why_a_value_is_computed_elsewhere(why: str) -> None:
    nodes, states, outputs = WHY_NOT[why]
    off = ["fold-copies", "fuse-maps"]
    found = notes(planned(nodes, states, outputs, no_rewrite=off))
    assert any(why in text for text in found.values()), found


def test_an_input_is_brought_where_the_state_lies() -> None:
    unread = planned("y: x + 1", "s: {shape: [4], dtype: f32, next: x}")
    assert notes(unread) == {"s": ""}
    read = planned("y: x + s", "s: {shape: [4], dtype: f32, next: x}")
    assert notes(read) == {"s": "its old value is needed afterwards"}


def test_readers_of_the_old_value_come_first() -> None:
    nodes = f"y: {{op: append, into: s, x: z, at: at}}, {SLICED}, old: s * 2"
    found = planned(nodes, STATE, "y: y, old: old")
    assert notes(found) == {"s": ""}
    order = [c.label for c in found.program.commands if c.node in ("y", "old")]
    assert sorted(order) == ["append", "check", "map"]
    assert order[-1] == "append"


def test_alike_checks_are_made_once() -> None:
    states = ", ".join(f"s{i}: {{shape: [4, 1], dtype: f32, next: a{i}}}" for i in range(6))
    nodes = ", ".join(f"a{i}: {{op: append, into: s{i}, x: y, at: at}}" for i in range(6))
    found = planned(f"{nodes}, y: {{op: copy, x: x, reshape: [4, 1]}}", states)
    assert sum(c.label == "check" for c in found.program.commands) == 1
    assert set(notes(found).values()) == {""}


def test_a_check_of_a_place_that_is_computed_comes_before_all_writes() -> None:
    """Also where nothing but the fault word orders it with an append that stands before it."""
    states = ", ".join(f"{s}: {{shape: [4], dtype: f32, next: {s}1}}" for s in "ab")
    nodes = (
        f"{SLICED}, a1: {{op: append, into: a, x: z, at: at}}, "
        "later: at + 1, b1: {op: append, into: b, x: z, at: later}"
    )
    found = planned(nodes, states, "y: a1, z: b1")
    assert notes(found) == {"a": "", "b": ""}
    order = [command.node for command in found.program.commands]
    assert order[:5] == ["at.h2d", "a1", "later", "b1", "x.h2d"]


def test_moves_in_a_circle_need_one_temporary() -> None:
    views = {n: View.dense(n, TensorType((2,), DType.F32)) for n in "abcd"}
    moves = {n: Move(views[n], views[m]) for n, m in zip("abcd", "bcab", strict=True)}
    done = list(one_by_one(moves))
    assert sum(not home for _, _, home in done) == 1
    values = {n: n for n in views}
    for name, move, home in done:
        values[name if home else f"{name}.old"] = values[move.source.storage]
    assert [values[n] for n in "abcd"] == list("bcab")


# Random graphs --------------------------------------------------------------------------------

Step = tuple[str, tuple[int, ...]]


@st.composite
def with_states(draw: st.DrawFn) -> tuple[gx.Graph, list[Step], list[int], dict[str, int]]:
    """A graph over tensors of shape [6, 2], its steps, the next tensors of its states, and outputs.

    Tensors are numbered: the input, the states, then the nodes.
    """
    count = draw(st.integers(1, 3))
    graph = gx.Graph("random")
    names = [str(graph.input("x", (6, 2)))]
    counter = graph.state("n", (), "i32", next="n + 1")
    for i in range(count):
        names.append(str(graph.state(f"s{i}", (6, 2), init=i + 1)))
    steps: list[Step] = []
    for i in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(["add", "scale", "turn", "append", "row"]))
        of = draw(st.tuples(*[st.integers(0, len(names) - 1)] * 2))
        a, b = (names[n] for n in of)
        if kind == "add":
            made = graph.map("a + b", a=a, b=b, name=f"t{i}")
        elif kind == "scale":
            made = graph.map("0.5 * a", a=a, name=f"t{i}")
        elif kind == "turn":
            made = graph.copy(a, slice={0: [None, None, -1]}, name=f"t{i}")
        elif kind == "row":
            made = graph.reduce(a, kind="mean", axis=[0], keep=True, name=f"r{i}")
            made = graph.map("a + b", a=a, b=made, name=f"t{i}")
        else:
            rows = graph.copy(b, slice={0: [0, 2]}, name=f"r{i}")
            made = graph.append(a, rows, counter, name=f"t{i}")
        names.append(str(made))
        steps.append((kind, of))
    nexts = draw(st.lists(st.integers(0, len(names) - 1), min_size=count, max_size=count))
    for i, number in enumerate(nexts):
        graph.set_next(f"s{i}", names[number])
    outputs = draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=3, unique=True))
    graph.output(**{f"o{number}": names[number] for number in outputs})
    return graph, steps, nexts, {f"o{number}": number for number in outputs}


def live(steps: list[Step], first: int, wanted: list[int]) -> set[int]:
    """The numbers of the tensors that others need."""
    found, left = set[int](), [*wanted]
    while left:
        number = left.pop()
        if number not in found:
            found.add(number)
            kind, (a, b) = steps[number - first] if number >= first else ("", (number, number))
            left += [a] if kind in ("scale", "turn", "row") else [a, b]
    return found


def interpreted(
    steps: list[Step], x: Array, states: list[Array], n: int, wanted: list[int]
) -> list[Array] | None:
    """All tensors by their numbers; None if rows do not fit."""
    found = [x, *states]
    needed = live(steps, len(found), wanted)
    for kind, (a, b) in steps:
        if kind == "add":
            found.append(found[a] + found[b])
        elif kind == "scale":
            found.append(np.float32(0.5) * found[a])
        elif kind == "turn":
            found.append(found[a][::-1])
        elif kind == "row":
            found.append(found[a] + found[a].mean(0, keepdims=True, dtype=np.float64)
                         .astype(np.float32))  # fmt: skip
        elif n > 4 and len(found) in needed:
            return None
        else:
            whole = found[a].copy()
            whole[n : n + 2] = found[b][: len(whole[n : n + 2])]
            found.append(whole)
    return found


@settings(max_examples=60)
@given(with_states(), st.integers(1, 4), st.booleans())
def test_random_graphs_follow_the_interpreter(
    drawn: tuple[gx.Graph, list[Step], list[int], dict[str, int]], streams: int, in_place: bool,
) -> None:  # fmt: skip
    graph, steps, nexts, outputs = drawn
    device = gx.CpuDevice(delays=streams, poison=True)
    off = () if in_place else ("keep-in-place",)
    rng = np.random.default_rng(0)
    with gx.compile(graph, device=device, streams=streams, no_rewrite=off) as exe:
        states = [np.full((6, 2), i + 1, np.float32) for i in range(len(nexts))]
        n = 0
        for _ in range(7):
            x = rng.normal(size=(6, 2)).astype(np.float32)
            expected = interpreted(steps, x, states, n, [*nexts, *outputs.values()])
            if expected is None:
                with pytest.raises(gx.ExecutionError, match="do not fit"):
                    exe.run(x=x)
            else:
                found = exe.run(x=x)
                for name, number in outputs.items():
                    np.testing.assert_allclose(found[name], expected[number], 1e-5, 1e-5)
                states, n = [expected[number] for number in nexts], n + 1
            assert exe.state["n"] == n
            for i, state in enumerate(states):
                np.testing.assert_allclose(exe.state[f"s{i}"], state, 1e-5, 1e-5)
