"""States on the CPU and on the emulator: what is kept from run to run, against NumPy."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hip_lab import MODES, Lab, calls

import graphexec as gx
from graphexec.ops.kit import Call, Command, In, Kernel, Operand, Out
from graphexec.runtime.hip.device import HipDevice, HipSession, Mode

Array = np.ndarray[Any, Any]

CACHE = """
version: 1
dims: {S: 1, C: 4}
inputs: {x: {shape: [2, S, 3], dtype: f32}}
state:
  n: {shape: [], dtype: i32, next: n + S}
  k: {shape: [2, C, 3], dtype: f32, init: -1, next: k1}
  v: {shape: [2, C, 3], dtype: f32, next: v1}
nodes:
  k1: {op: append, into: k, x: x, at: n, axis: 1}
  twice: x * 2
  v1: {op: append, into: v, x: twice, at: n, axis: 1}
  y: v1 - k1
outputs: {y: y, n: n}
"""
FILTER = """
version: 1
inputs: {x: {shape: [4], dtype: f32}}
state:
  h: {shape: [4], dtype: f32, init: 0.5, next: y}
  a: {shape: [2], dtype: i64, init: 3, next: b}
  b: {shape: [2], dtype: i64, next: a}
  first: {shape: [4], dtype: f32, next: h}
  last: {shape: [4], dtype: f32, next: x}
nodes: {y: x + 0.5 * h}
outputs: {y: y, old: h}
"""
DEVICES = ["cpu", *(f"hip-{mode}" for mode in MODES)]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab.open()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, lab: Lab) -> Any:
    lab.reset()
    if request.param == "cpu":
        return gx.CpuDevice(delays=1, poison=True)
    mode: Mode = "graph" if request.param.endswith("graph") else "stream"
    return HipDevice(mode=mode)


def rows(*values: float) -> Array:
    """Rows of x that are all of one value each."""
    return np.broadcast_to(np.array(values, np.float32)[None, :, None], (2, len(values), 3)).copy()


def test_states_follow_their_next_values(device: Any) -> None:
    x = np.arange(4, dtype=np.float32)
    h, a, b, first = np.full(4, 0.5, np.float32), 3, 0, np.zeros(4, np.float32)
    with gx.compile(gx.loads(FILTER), device=device, streams=2) as exe:
        for _ in range(5):
            found = exe.run(x=x)
            assert np.array_equal(found["old"], h)
            first, h, (a, b) = h, x + np.float32(0.5) * h, (b, a)
            assert np.array_equal(found["y"], h)
            assert {n: exe.state[n].tolist() for n in exe.state} == {
                "h": h.tolist(), "a": [a, a], "b": [b, b], "first": first.tolist(),
                "last": x.tolist(),
            }  # fmt: skip


def test_replay_is_as_many_steps(device: Any) -> None:
    x = np.arange(4, dtype=np.float32)
    with gx.compile(gx.loads(FILTER), device=device) as exe:
        exe.run(x=x)
        exe.replay(4)
        replayed = dict(exe.state)
        exe.reset()
        for _ in range(5):
            exe.run(x=x)
        for name in exe.state:
            assert np.array_equal(exe.state[name], replayed[name])


def test_rows_that_do_not_fit_leave_the_last_good_step(device: Any) -> None:
    with gx.compile(gx.loads(CACHE), device=device, streams=2) as exe:
        for n in range(3):
            exe.run(x=rows(n))
        with pytest.raises(gx.ExecutionError, match=r"'k1'.*step 2 of 5") as caught:
            exe.replay(5)
        assert caught.value.node == "k1"
        k = rows(0, 1, 2, 2)
        for _ in range(2):
            assert exe.state["n"] == 4
            assert np.array_equal(exe.state["k"], k)
            assert np.array_equal(exe.state["v"], 2 * k)
            with pytest.raises(gx.ExecutionError, match="'k1'"):
                exe.run(x=rows(9))
        exe.state["n"] = np.array(-1, np.int32)
        with pytest.raises(gx.ExecutionError, match="'k1'"):
            exe.run(x=rows(9))
        assert np.array_equal(exe.state["k"], k)
        exe.state["n"] = np.array(2, np.int32)
        assert np.array_equal(exe.run(x=rows(9))["y"], rows(0, 1, 9, 2))


def test_sizes_share_states(device: Any) -> None:
    with gx.compile(gx.loads(CACHE), device=device) as exe:
        assert exe.run(x=rows(7, 8))["n"] == 0
        found = exe.run(x=rows(9))
        assert found["n"] == 2
        k = np.where(np.arange(4)[:, None] < 3, rows(7, 8, 9, 0), -1).astype(np.float32)
        assert np.array_equal(exe.state["k"], k)
        assert exe.run(x=rows(1))["n"] == 3  # the same plan again
        exe.reset()
        exe.run(x=rows(5, 6))
        exe.replay()  # with the plan of the last run
        assert np.array_equal(exe.state["k"], rows(5, 6, 5, 6))
        with pytest.raises(gx.DataError, match=re.escape("found float32[4]")):
            exe.state["k"] = np.zeros(4, np.float32)


def test_a_run_cannot_change_the_dims_of_a_state() -> None:
    graph = gx.loads(CACHE.replace("shape: [2, S, 3]", "shape: [2, C, 3]").replace("n + S", "n"))
    with (
        gx.compile(graph, device="cpu") as exe,
        pytest.raises(gx.DataError, match="the inputs imply C=3, but state 'k' has C=4"),
    ):
        exe.run(x=rows(1, 2, 3))


def test_requests_follow_one_another(device: Any) -> None:
    with gx.compile(gx.loads(CACHE), device=device) as exe:
        handles = [exe.submit(x=rows(n)) for n in range(3)]
        assert [int(handle.result()["n"]) for handle in handles] == [0, 1, 2]
        exe.submit(x=rows(3))  # nobody asks for it
        assert np.array_equal(exe.state["k"], rows(0, 1, 2, 3))
        exe.reset()
        found = exe.map([{"x": rows(n, n)} for n in range(2)])
        assert [int(outputs["n"]) for outputs in found] == [0, 2]


def test_states_are_saved_and_loaded(device: Any, tmp_path: Path) -> None:
    path = tmp_path / "states.npz"
    with gx.compile(gx.loads(CACHE), device=device) as exe:
        exe.run(x=rows(1, 2))
        exe.save_state(path)
        exe.run(x=rows(3))
        kept = dict(exe.state)
        other = gx.loads(CACHE.replace("x * 2", "x * 3"))
        with (
            gx.compile(other, device="cpu") as another,
            pytest.raises(gx.DataError, match="another graph"),
        ):
            another.load_state(path)
        (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-40])
        with pytest.raises(gx.DataError, match="not a sound"):
            exe.load_state(tmp_path / "cut.npz")
        np.savez(tmp_path / "none.npz", k=np.zeros(3))
        with pytest.raises(gx.DataError, match="no file of states"):
            exe.load_state(tmp_path / "none.npz")
        for name, value in kept.items():
            assert np.array_equal(exe.state[name], value)
        exe.load_state(path)
        assert exe.run(x=rows(4))["n"] == 2
        assert np.array_equal(exe.state["k"][:, :3], rows(1, 2, 4))


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f64", "i8", "bool"])
def test_files_keep_every_bit(dtype: str, tmp_path: Path) -> None:
    graph = gx.Graph()
    x = graph.input("x", (3,), dtype)
    graph.state("s.0", (3,), dtype, init=1, next=x)
    graph.output(y="s.0")
    kind = gx.DType(dtype).numpy()
    with gx.compile(graph, device="cpu") as exe:
        assert exe.run(x=np.array([0, 1, 1], kind))["y"].tolist() == [1, 1, 1]
        exe.save_state(tmp_path / "s.npz")
        exe.reset()
        exe.load_state(tmp_path / "s.npz")
        assert exe.state["s.0"].dtype == kind
        assert exe.state["s.0"].tolist() == [0, 1, 1]


def test_a_failure_loses_the_states(device: Any) -> None:
    with gx.compile(gx.loads(CACHE), device=device) as exe:
        exe.run(x=rows(1))
        with pytest.raises(ZeroDivisionError), exe.state.at_stake():
            raise ZeroDivisionError("a command failed")
        for use in (lambda: exe.run(x=rows(1)), exe.replay, lambda: exe.state["k"]):
            with pytest.raises(gx.ExecutionError, match=r"lost since.*a command failed"):
                use()
        for name, type in exe.state.types.items():
            with pytest.raises(gx.ExecutionError, match="lost"):
                exe.run(x=rows(1))
            exe.state[name] = np.zeros(type.shape, type.dtype.numpy())
        assert exe.run(x=rows(1))["n"] == 0


def test_weights_can_be_those_of_another(device: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.full((4,), 2, np.float32))
    text = FILTER.replace("nodes:", "weights: {w: {file: w.npy}}\nnodes:").replace(
        "0.5 * h", "w * h"
    )
    graph = gx.loads(text, folder=tmp_path)
    x = np.ones(4, np.float32)
    first = gx.compile(graph, device=device)
    second = gx.compile(graph, device=device, weights_from=first)
    (tmp_path / "w.npy").unlink()
    with second:
        first.run(x=x)
        assert second.state["h"].tolist() == [0.5] * 4  # a state of its own
        with pytest.raises(gx.DataError, match="the graph is another one"):
            gx.compile(gx.loads(FILTER), device=device, weights_from=first)
        one, other = first.session, second.session
        if isinstance(one, HipSession) and isinstance(other, HipSession):
            assert one._memory.address("weights") == other._memory.address("weights")
        first.close()
        assert second.run(x=x)["y"].tolist() == [2.0] * 4


def test_measuring_is_no_step(device: Any) -> None:
    with gx.compile(gx.loads(CACHE), device=device) as exe:
        exe.run(x=rows(1))
        before = dict(exe.state)
        exe.session.timed()
        exe.session.time_run()
        for number in exe.plan.launches:
            exe.session.time_command(number, repeats=2)
        for name, value in before.items():
            assert np.array_equal(exe.state[name], value)


def test_a_state_may_begin_with_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", a=np.arange(4, dtype=np.float32))
    text = FILTER.replace("init: 0.5", "init: {file: s.npz, key: a}")
    with gx.compile(gx.loads(text, folder=tmp_path), device="cpu") as exe:
        (tmp_path / "s.npz").unlink()
        assert exe.run(x=np.zeros(4, np.float32))["old"].tolist() == [0, 1, 2, 3]
        exe.reset()
        assert exe.state["h"].tolist() == [0, 1, 2, 3]


def test_rows_without_a_state(device: Any) -> None:
    graph = gx.Graph()
    into, x = graph.input("into", (4, 2)), graph.input("x", (2, 2))
    at = graph.input("at", (), "i32")
    graph.output(y=graph.append(into, x, at))
    whole, part = np.zeros((4, 2), np.float32), np.ones((2, 2), np.float32)
    with gx.compile(graph, device=device) as exe:
        for place in (0, 3, 2, -1, 1):
            if 0 <= place <= 2:
                want = whole.copy()
                want[place : place + 2] = 1
                found = exe.run(into=whole, x=part, at=np.array(place, np.int32))["y"]
                assert np.array_equal(found, want)
            else:
                with pytest.raises(gx.ExecutionError, match="'append'"):
                    exe.run(into=whole, x=part, at=np.array(place, np.int32))


def test_many_steps_by_replay_and_by_run(device: Any) -> None:
    graph = gx.loads("version: 1\nstate: {n: {shape: [], dtype: i64, init: 1, next: next}}\n"
                     "nodes: {next: (n * 6364136223846793005 + 1442695040888963407)}\n"
                     "outputs: {n: n}")  # fmt: skip
    steps = 500 if isinstance(device, gx.CpuDevice) else 150
    with gx.compile(graph, device=device) as exe:
        exe.run()
        exe.replay(steps - 1)
        replayed = int(exe.state["n"])
        exe.reset()
        value = 1
        for _ in range(steps):
            assert int(exe.run()["n"]) == value
            value = (value * 6364136223846793005 + 1442695040888963407 + 2**63) % 2**64 - 2**63
        assert replayed == int(exe.state["n"]) == value


class Fragile(gx.Op):
    """Fails when it is told to."""

    name = "fragile"
    doc = "x, or a failure."
    operands = (Operand("x"),)
    fails = False

    def lower(self, call: Call) -> list[Command]:
        x = call.operands["x"]

        def compute(arrays: list[Array], parallel: object) -> None:
            if Fragile.fails:
                raise ZeroDivisionError("this op fails")
            arrays[1][...] = arrays[0]

        kernel = Kernel(Path(__file__), "fragile", (x, call.out), (1, 1, 1), (1, 1, 1), compute)
        return [call.command("fragile", kernel, In(x), Out(call.out))]


def test_an_op_that_fails_in_a_step_loses_the_states() -> None:
    graph = gx.Graph(ops={**gx.known_ops(), "fragile": Fragile()})
    s = graph.state("s", (4,), init=1)
    y = graph.fragile(graph.map("s + 1", s=s))
    graph.set_next(s, y)
    graph.output(y=y)
    with gx.compile(graph, device="cpu") as exe:
        exe.run()
        Fragile.fails = True
        try:
            with pytest.raises(gx.ExecutionError, match="this op fails"):
                exe.replay(3)
        finally:
            Fragile.fails = False
        with pytest.raises(gx.ExecutionError, match=r"lost since.*this op fails"):
            exe.run()
        exe.reset()
        assert exe.run()["y"].tolist() == [2] * 4


def test_threads_take_turns(device: Any) -> None:
    graph = gx.loads(
        "version: 1\ndims: {S: 1}\ninputs: {x: {shape: [S], dtype: f32}}\n"
        "state: {n: {shape: [], dtype: i32, next: n + S}}\noutputs: {n: n, x: x}"
    )
    with gx.compile(graph, device=device) as exe, ThreadPoolExecutor(4) as pool:

        def step(size: int) -> tuple[int, int]:
            return int(exe.run(x=np.zeros(size, np.float32))["n"]), size

        found = sorted(pool.map(step, [1 + i % 3 for i in range(60)]))
        for (before, size), (after, _) in pairwise(found):
            assert after == before + size
        assert exe.state["n"] == 120


def test_whichever_call_fails_in_a_step(lab: Lab) -> None:
    """The states are as before the step, or lost and said so; after a reset all is well."""
    lab.reset()
    emulator = lab.emulator
    if emulator is None:
        pytest.skip("calls fail on the emulator alone")
    with gx.compile(gx.loads(CACHE), device=HipDevice(mode="stream"), streams=2) as exe:
        emulator.trace()
        exe.run(x=rows(1))
        made = [call.name for call in calls(emulator)]
        told = 0
        for name in dict.fromkeys(made):
            for number in {1, (made.count(name) + 1) // 2, made.count(name)}:
                exe.reset()
                exe.run(x=rows(1))
                before = dict(exe.state)
                emulator.fail(f"{name}:{number}=719")
                try:
                    exe.run(x=rows(2))
                except gx.ExecutionError as exc:
                    emulator.fail("")
                    told += 1
                    if "lost" in _told_of(exe):
                        assert name in _told_of(exe)
                        exe.reset()
                        before = {}
                    said = str(exc)
                    assert name in said
                else:
                    emulator.fail("")
                    before = {}
                for state, value in before.items():
                    assert np.array_equal(exe.state[state], value)
                exe.reset()
                assert exe.run(x=rows(3))["n"] == 0
        assert told >= 8


def _told_of(exe: gx.Executable) -> str:
    """What asking for a state is answered; "" if it has a value."""
    try:
        exe.state["n"]
    except gx.ExecutionError as exc:
        return str(exc)
    return ""
