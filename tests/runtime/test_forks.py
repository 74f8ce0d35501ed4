"""A forked child has the executables of its parent, but none of their threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphexec as gx
from graphexec.base.errors import DataError
from graphexec.runtime.cpu.cores import single_threaded_blas
from graphexec.runtime.executable import Executable

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Array = np.ndarray[Any, Any]
X = np.full((4, 4), 2, np.float32)
PATIENCE = 30  # seconds until the child is stopped by its alarm

METHODS: dict[str, Callable[[Executable, gx.Pending], Any]] = {
    "run": lambda exe, pending: exe.run(x=X),
    "run at another size": lambda exe, pending: exe.run(x=X[:2, :2]),
    "submit": lambda exe, pending: exe.submit(x=X),
    "map": lambda exe, pending: exe.map([{"x": X}]),
    "replay": lambda exe, pending: exe.replay(),
    "run_tapped": lambda exe, pending: exe.run_tapped({"x": X}, lambda node, written: None),
    "device_array": lambda exe, pending: exe.device_array("x"),
    "session": lambda exe, pending: exe.session.timed(),
    "close": lambda exe, pending: exe.close(),
    "done": lambda exe, pending: pending.done(),
    "result": lambda exe, pending: pending.result(),
    "result in time": lambda exe, pending: pending.result(1),
}


def graph() -> gx.Graph:
    g = gx.Graph("g", dims={"N": 4})
    x = g.input("x", ("N", "N"))
    g.output(y=g.gemm(x, g.softmax(x, name="s"), name="y"))
    return g


def said_in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a fork of this process, or the exception that it raises."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        try:
            text = work()
        except BaseException as exc:
            text = f"{type(exc).__name__}: {exc}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        text = said.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child hung, or ended with {status}"
    return text


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_so_in_a_fork(method: str) -> None:
    with gx.compile(graph(), device="cpu", streams=2) as exe:
        pending = exe.submit(x=X)
        said = said_in_child(lambda: repr(METHODS[method](exe, pending)))
        assert said.startswith("ExecutionError: the executable belongs to process"), said
        assert f"process {os.getpid()}," in said
        wanted = exe.run(x=X)["y"]
        assert np.array_equal(pending.result()["y"], wanted)


def test_a_lock_that_another_thread_held_keeps_no_fork() -> None:
    with gx.compile(graph(), device="cpu") as exe:
        exe.lock.acquire()
        try:
            assert "belongs to process" in said_in_child(lambda: repr(exe.run(x=X)))
        finally:
            exe.lock.release()


def test_compile_in_a_fork_works() -> None:
    """While a run of the parent holds the BLAS libraries to one thread, too."""
    with gx.compile(graph(), device="cpu", streams=2) as exe:
        wanted = exe.run(x=X)["y"].tolist()

        def work() -> str:
            with gx.compile(graph(), device="cpu", streams=2) as own:
                return repr(own.run(x=X)["y"].tolist())

        assert said_in_child(work) == repr(wanted)
        with single_threaded_blas():
            assert said_in_child(work) == repr(wanted)


def test_a_with_block_is_left_quietly_in_a_fork() -> None:
    with gx.compile(graph(), device="cpu") as exe:

        def work() -> str:
            with exe:
                return "left"

        assert said_in_child(work) == "left"
        exe.run(x=X)


def test_an_executable_is_dropped_in_a_fork() -> None:
    kept = [gx.compile(graph(), device="cpu", streams=2)]

    def work() -> str:
        kept.clear()
        return "dropped"

    assert said_in_child(work) == "dropped"
    kept[0].run(x=X)
    kept[0].close()


_shared: list[Executable] = []


def _run(value: float) -> Array:
    return _shared[0].run(x=np.full((4, 4), value, np.float32))["y"]


def _run_own(value: float) -> Array:
    with gx.compile(graph(), device="cpu") as exe:
        return exe.run(x=np.full((4, 4), value, np.float32))["y"]


def test_a_pool_of_forks() -> None:
    with gx.compile(graph(), device="cpu") as exe:
        _shared[:] = [exe]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            with pytest.raises(gx.ExecutionError, match="belongs to process"):
                pool.map_async(_run, [1.0, 2.0]).get(PATIENCE)
            found = pool.map_async(_run_own, [1.0, 2.0]).get(PATIENCE)
        assert all(np.array_equal(f, _run(v)) for f, v in zip(found, (1.0, 2.0), strict=True))
    _shared.clear()


def test_errors_travel_between_processes() -> None:
    """A pool hangs on an exception that cannot be unpickled."""
    with gx.compile(graph(), device="cpu") as exe, pytest.raises(DataError) as wrong:
        exe.run(x=X.astype(np.float64), z=X)
    again = pickle.loads(pickle.dumps(wrong.value))
    assert (type(again), str(again)) == (DataError, str(wrong.value))
    assert again.diagnostics == wrong.value.diagnostics
    failed = pickle.loads(pickle.dumps(gx.ExecutionError("no", "a node")))
    assert (str(failed), failed.node) == ("node 'a node': no", "a node")
