"""Inputs of other sizes: dims are solved, plans for them are made and kept, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphexec as gx
from graphexec import api
from graphexec.base.errors import DataError, GraphError
from graphexec.frontend.weights import WeightFiles
from graphexec.runtime.plan_cache import LIMIT, solve_dims

TEXT = """\
version: 1
name: sized
dims: {M: 4, N: 6}
inputs:
  x: {shape: [M, N], dtype: f32}
  w: {shape: [N, 3], dtype: f32}
nodes:
  y: {op: gemm, a: x, b: w}
  p: {op: softmax, x: y}
outputs: {out: p}
"""
HALF = TEXT.replace("shape: [N, 3]", "shape: [N // 2, 3]").replace("a: x", "a: half").replace(
    "nodes:", "nodes:\n  half: {op: copy, x: x, slice: {1: [0, null, 2]}}"
)  # fmt: skip


@pytest.fixture(params=["cpu", pytest.param("hip", marks=pytest.mark.hip)])
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "cpu":
        yield gx.CpuDevice(poison=True)
        return
    from hip_lab import Lab

    from graphexec.runtime.hip.device import HipDevice

    lab = Lab.open()
    lab.reset()
    with lab.nothing_left():
        yield HipDevice()
    lab.reset()


def arrays(m: int, n: int, rows: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(m * 100 + n)
    shapes = {"x": (m, n), "w": (n if rows is None else rows, 3)}
    return {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def expected(x: Any, w: Any) -> Any:
    y = x.astype(np.float64) @ w.astype(np.float64)
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def assert_runs(exe: gx.Executable, given: dict[str, Any]) -> None:
    np.testing.assert_allclose(exe.run(**given)["out"], expected(**given), rtol=1e-5, atol=1e-6)


def test_other_sizes_are_other_plans(device: Any) -> None:
    with gx.compile(gx.loads(TEXT), device=device, streams=2) as exe:
        for m, n in [(4, 6), (5, 6), (4, 9), (1, 1), (4, 6), (5, 6)]:
            assert_runs(exe, arrays(m, n))
        pending = [exe.submit(**arrays(m, 6)) for m in (3, 4, 5)]
        shapes = [p.result()["out"].shape for p in pending]
        assert shapes == [(3, 3), (4, 3), (5, 3)]
        found = list(exe.map([arrays(m, 6) for m in (2, 4, 2, 7)]))
        assert [f["out"].shape[0] for f in found] == [2, 4, 2, 7]
        assert exe.plan.dims == {"M": 4, "N": 6}


def test_a_plan_is_made_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = api.plan_graph

    def counting(graph: gx.Graph, **options: Any) -> Any:
        made.append(graph.dims["M"])
        return original(graph, **options)

    monkeypatch.setattr(api, "plan_graph", counting)
    with gx.compile(gx.loads(TEXT), device="cpu") as exe:
        for m in (7, 8, 7, 8, 4):
            assert_runs(exe, arrays(m, 6))
        assert made == [4, 7, 8]
        for m in range(10, 10 + LIMIT):
            assert_runs(exe, arrays(m, 6))
        assert len(exe._resized) == LIMIT
        del made[:]
        assert_runs(exe, arrays(10 + LIMIT - 1, 6))
        assert made == []
        assert_runs(exe, arrays(7, 6))
        assert made == [7], "it was the one used longest ago, and went"


def test_requests_in_flight_survive_their_plan(device: Any) -> None:
    with gx.compile(gx.loads(TEXT), device=device) as exe:
        given = [arrays(m, 6) for m in range(5, 5 + LIMIT + 2)]
        pending = [exe.submit(**g) for g in given]
        for p, g in zip(pending, given, strict=True):
            np.testing.assert_allclose(p.result()["out"], expected(**g), rtol=1e-5, atol=1e-6)


def test_extents_that_are_expressions_follow(device: Any) -> None:
    with gx.compile(gx.loads(HALF), device=device) as exe:
        exe.run(**arrays(4, 6, rows=3))
        assert exe.run(**arrays(4, 10, rows=5))["out"].shape == (4, 3)
        with pytest.raises(DataError) as caught:
            exe.run(**arrays(4, 10, rows=4))
        assert "declared as [N // 2, 3]: expected [5, 3] with M=4, N=10" in str(caught.value)


def test_inputs_that_disagree_are_located() -> None:
    with gx.compile(gx.loads(TEXT, "sized.yaml"), device="cpu") as exe:
        with pytest.raises(DataError) as caught:
            exe.run(**arrays(4, 6, rows=7))
        message = str(caught.value)
        assert ("an array of shape [7, 3] is given for input 'w', declared as [N, 3]: "
                "'N' is 7 by axis 0, but 6 by axis 1 of input 'x'") in message  # fmt: skip
        assert "--> sized.yaml:6:" in message
        assert_runs(exe, arrays(4, 6))


def test_all_mistakes_at_once() -> None:
    graph = gx.loads(TEXT)
    with pytest.raises(DataError) as caught:
        solve_dims(graph, {"x": (4, 6, 1), "w": (6, 4)})
    assert len(caught.value.diagnostics) == 2
    assert "the numbers of axes differ" in str(caught.value)
    assert "axis 1 is 3 whatever the dims are" in str(caught.value)


def test_a_fixed_extent_does_not_change() -> None:
    graph = gx.Graph("fixed")
    graph.output(y=graph.softmax(graph.input("x", (2, 3), "f32")))
    with gx.compile(graph, device="cpu") as exe, pytest.raises(DataError, match="axis 0 is 2"):
        exe.run(x=np.zeros((4, 3), np.float32))


def test_sizes_the_graph_does_not_have() -> None:
    graph = gx.loads(HALF)  # N // 2 rows of w, but every second column of x: odd N differ
    with gx.compile(graph, device="cpu") as exe:
        with pytest.raises(GraphError):
            exe.run(**arrays(4, 7, rows=3))
        exe.run(**arrays(4, 6, rows=3))


def test_dtypes_are_not_guessed() -> None:
    with gx.compile(gx.loads(TEXT), device="cpu") as exe:
        given = arrays(9, 6)
        with pytest.raises(DataError, match=r"must be f32\[4, 6\], found float64\[9, 6\]"):
            exe.run(x=given["x"].astype(np.float64), w=given["w"])


def test_weights_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "w.npy", np.eye(6, dtype=np.float32))
    text = TEXT.replace("  w: {shape: [N, 3], dtype: f32}\n", "").replace(
        "nodes:", "weights:\n  w: {file: w.npy}\nnodes:"
    )
    (tmp_path / "g.yaml").write_text(text)
    read = []
    original = WeightFiles.read
    monkeypatch.setattr(WeightFiles, "read", lambda files, w: read.append(w) or original(files, w))
    with gx.compile(gx.load(tmp_path / "g.yaml"), device="cpu") as exe:
        for m in (4, 5, 6):
            x = arrays(m, 6)["x"]
            np.testing.assert_allclose(exe.run(x=x)["out"], expected(x, np.eye(6)), rtol=1e-5)
    assert len(read) == 1


def test_later_changes_of_the_graph_do_not_count(device: Any) -> None:
    """At the compiled size and at others, an executable is of the graph as it was compiled."""
    graph = gx.loads(HALF)
    with gx.compile(graph, device=device) as exe:
        graph.output(late="y")
        graph.dims["N"] = 2
        graph.nodes["half"].attrs["slice"] = {1: [0, 1, 1]}  # type: ignore[index]
        del graph.inputs["w"]
        for m, n in [(4, 6), (3, 8)]:
            given = arrays(m, n, rows=n // 2)
            found = exe.run(**given)
            assert list(found) == ["out"]
            wanted = expected(given["x"][:, ::2], given["w"])
            np.testing.assert_allclose(found["out"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", ["deleted", "replaced", "of another folder"])
def test_later_changes_of_weights_files_do_not_count(
    device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    graph = gx.Graph("weighted", dims={"M": 4})
    graph.weight("w", "w.npy")
    np.save(tmp_path / "w.npy", np.full((6, 2), 3, np.float32))
    graph.output(out=graph.gemm(graph.input("x", ("M", 6)), "w"))
    monkeypatch.chdir(tmp_path)
    with gx.compile(graph, device=device) as exe:
        if change == "deleted":
            (tmp_path / "w.npy").unlink()
        elif change == "replaced":
            np.save(tmp_path / "w.npy", np.zeros((6, 5), np.float32))
        else:
            (tmp_path / "elsewhere").mkdir()
            monkeypatch.chdir(tmp_path / "elsewhere")
        for m in (4, 5):
            x = np.ones((m, 6), np.float32)
            assert np.array_equal(exe.run(x=x)["out"], np.full((m, 2), 18))
