"""append: what it infers, every mistake, and its bytes on the CPU and the emulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hip_lab import Lab
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.graph.infer import infer
from graphexec.runtime.hip.device import HipDevice
from graphexec.tools.compare import compare

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
DTYPES = ("f16", "bf16", "f32", "f64", "i8", "u8", "i32", "i64", "bool")


def graph_of(
    into: Shape, x: Shape, axis: int, dtype: str = "f32", at: Shape = (),
    count: Shape | None = None, integer: str = "i32",
) -> gx.Graph:  # fmt: skip
    graph = gx.Graph()
    tensors = [graph.input("into", into, dtype), graph.input("x", x, dtype)]
    tensors.append(graph.input("at", at, integer))
    more = {} if count is None else {"count": graph.input("count", count, "i64")}
    graph.output(y=graph.append(*tensors, axis=axis, name="y", **more))
    return graph


MISTAKES = {
    "there is no axis 2 in [4, 3]": ((4, 3), (4, 3), 2, {}),
    "x has the shape of into but for axis 0: into is f32[4, 3], x f32[2, 2]":
        ((4, 3), (2, 2), 0, {}),
    "5 rows never fit into 4": ((4, 3), (5, 3), 0, {}),
    "at has the shape [], found [4]": ((4, 3), (2, 3), 0, {"at": (4,)}),
    "at has the shape [] or [4], one for each entry of axis 0, found [3]":
        ((4, 3), (4, 2), 1, {"at": (3,)}),
    "count has the shape [] or [4], one for each entry of axis 0, found [1]":
        ((4, 3), (4, 2), 1, {"count": (1,)}),
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str) -> None:
    into, x, axis, more = MISTAKES[message]
    with pytest.raises(gx.GraphError) as caught:
        infer(graph_of(into, x, axis, **more))
    assert [d.message for d in caught.value.diagnostics] == [f"append 'y': {message}"]


def test_places_are_integers_and_rows_of_one_dtype() -> None:
    with pytest.raises(gx.GraphError, match="dtype must be i32, i64"):
        infer(graph_of((4,), (2,), 0, integer="f32"))
    graph = gx.Graph()
    graph.input("into", (4,)), graph.input("x", (2,), "f16"), graph.input("at", (), "i32")
    graph.output(y=graph.append("into", "x", "at"))
    with pytest.raises(gx.GraphError, match="share a dtype"):
        infer(graph)


def by_hand(into: Array, x: Array, at: Array, count: Array, axis: int) -> Array | None:
    """The definition, row by row; None if rows do not fit."""
    found, rows = into.copy(), x.shape[axis]
    for entry in range(into.shape[0]):
        place = int(at[entry] if at.ndim else at)
        number = min(max(int(count[entry] if count.ndim else count), 0), rows)
        if place < 0 or place + number > into.shape[axis]:
            return None
        for row in range(number):
            target = [slice(None)] * into.ndim
            source = [slice(None)] * into.ndim
            target[axis], source[axis] = place + row, row
            if axis % into.ndim:
                target[0] = source[0] = entry
            found[tuple(target)] = x[tuple(source)]
    return found


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    into = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(into), len(into) - 1))
    place = axis % len(into)
    rows = draw(st.integers(1, into[place]))
    each = (into[0],) if place and draw(st.booleans()) else ()
    counted = draw(st.sampled_from([None, (), each]))
    near = st.integers(-1, into[place])
    return {
        "into": into, "x": (*into[:place], rows, *into[place + 1 :]), "axis": axis,
        "dtype": draw(st.sampled_from(DTYPES)), "integer": draw(st.sampled_from(["i32", "i64"])),
        "at": draw(near) if not each else draw(st.lists(near, min_size=into[0], max_size=into[0])),
        "count": None if counted is None else draw(st.integers(-1, rows + 1)) if not counted
        else draw(st.lists(st.integers(-1, rows + 1), min_size=into[0], max_size=into[0])),
    }  # fmt: skip


def check(case: dict[str, Any], device: Any) -> None:
    at = np.array(case["at"], DType(case["integer"]).numpy())
    count = None if case["count"] is None else np.array(case["count"], np.int64)
    graph = graph_of(case["into"], case["x"], case["axis"], case["dtype"], at.shape,
                     None if count is None else count.shape, case["integer"])  # fmt: skip
    rng, kind = np.random.default_rng(0), DType(case["dtype"]).numpy()
    most = 2 if case["dtype"] == "bool" else 100
    into, x = (rng.integers(0, most, case[n]).astype(kind) for n in ("into", "x"))
    rows = np.array(x.shape[case["axis"]])
    expected = by_hand(into, x, at, rows if count is None else count, case["axis"])
    given = {"into": into, "x": x, "at": at, **({} if count is None else {"count": count})}
    with gx.compile(graph, device=device, streams=2) as exe:
        if expected is None:
            with pytest.raises(gx.ExecutionError, match=r"node 'y': its rows do not fit"):
                exe.run(**given)
        else:
            assert exe.run(**given)["y"].tobytes() == expected.tobytes()
    if expected is not None and kind.kind != "b":
        assert compare(graph, given, device="cpu").ok


@settings(max_examples=80)
@given(cases())
def test_rows_on_the_cpu(case: dict[str, Any]) -> None:
    check(case, gx.CpuDevice(poison=True, check_access=True))


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab.open()


@settings(max_examples=25)
@given(case=cases())
def test_rows_on_the_emulator(lab: Lab, case: dict[str, Any]) -> None:
    check(case, HipDevice(mode="stream"))


def test_what_is_moved_is_the_rows() -> None:
    g = gx.Graph("cache")
    kept, x = g.state("kept", (1000, 64)), g.input("x", (2, 64))
    g.set_next(kept, g.append(kept, x, at=g.input("at", (), "i32"), name="more"))
    g.output(x=x)
    plan = gx.make_plan(g)
    (append,) = [i for i in plan.launches.values() if i.command == "append"]
    assert append.cost is not None
    assert append.cost.bytes == 2 * 2 * 64 * 4
