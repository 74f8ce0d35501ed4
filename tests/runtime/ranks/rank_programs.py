"""What ranks run in the tests: `python rank_programs.py NAME` prints what the test looks at."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

import graphexec as gx
from graphexec.base.errors import RankFailed
from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.names import port_buffer
from graphexec.ir.plan import Launch, Plan
from graphexec.ir.program import Collective, Kernel, Memcpy
from graphexec.ir.ranks import Communicator, Ranks
from graphexec.planning.pipeline import plan_graph
from graphexec.runtime.cpu.device import CpuDevice
from graphexec.runtime.device import Device, Session
from graphexec.runtime.hip.bindings import load
from graphexec.runtime.hip.meetings import HipMeetings
from graphexec.runtime.hip.resources import Resources
from graphexec.runtime.ranks.agree import agree
from graphexec.runtime.ranks.collectives import Communication
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.identity import find
from graphexec.runtime.ranks.meetings import Meetings
from graphexec.runtime.ranks.transport import open_transport


def group() -> Group:
    me = find()
    assert me is not None
    return Group(me)


def say(*words: object) -> None:
    """In one write: lines of several ranks must not mix."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


# Meetings of arrays -----------------------------------------------------------------------------


def kinds() -> None:
    """Every kind of collective, every type, sizes small and large, against NumPy."""
    us = group()
    n, me, transport = us.ranks, us.rank, open_transport(us)
    world = Communication(transport, range(n))
    for dtype in DType:
        for size in (1, 7, 3000):
            all_src = [_drawn(dtype, size * n, seed=r) for r in range(n)]
            src = all_src[me]
            for reduction in ("sum", "prod", "min", "max"):
                if dtype is DType.BOOL and reduction in ("sum", "prod"):
                    continue
                want = _reduced(all_src, reduction)
                out = np.empty_like(src)
                world.all_reduce(src, out, reduction)
                _same(out, want)
                here = src.copy()
                world.all_reduce(here, here, reduction)
                _same(here, want)
                part = np.empty(size, src.dtype)
                world.reduce_scatter(src, part, reduction)
                _same(part, want[me * size : (me + 1) * size])
            whole = np.empty((n, size * n), src.dtype)
            world.all_gather(src, whole)
            _same(whole, np.stack(all_src))
            out = np.empty_like(src)
            world.all_to_all(src, out)
            _same(out, np.concatenate([a[me * size : (me + 1) * size] for a in all_src]))
    us.leave()
    say("fine", me)


def halves_of_the_ranks() -> None:
    """Four ranks meet in twos."""
    us = group()
    transport = open_transport(us)
    pair = us.rank // 2 * 2
    two = Communication(transport, (pair, pair + 1))
    out = np.empty(5, np.int32)
    two.all_reduce(np.full(5, us.rank, np.int32), out, "sum")
    _same(out, np.full(5, 2 * pair + 1, np.int32))
    us.leave()
    say("fine", us.rank)


def ring() -> None:
    """Every rank sends much to the next one and receives from the one before, in one group; a
    send at a time would wait for ever."""
    us = group()
    n, me = us.ranks, us.rank
    meetings = Meetings(_ring(us), us)
    size = 3_000_000
    src, dst = np.full(size, me, np.int32), np.empty(size, np.int32)
    arrays = {"src": src, "dst": dst}
    for number, launch in _ring(us).plan.launches.items():
        work = _ring(us).work[number]
        meetings.prepare(launch, work, lambda view: arrays[view.storage])()
    _same(dst, np.full(size, (me - 1) % n, np.int32))
    us.leave()
    say("fine", me)


def _ring(us: Group) -> BoundPlan:
    n, me = us.ranks, us.rank
    src, dst = (View.dense(name, TensorType((3_000_000,), DType.I32)) for name in ("src", "dst"))
    send = Collective("send", "tp0", src, None, peer=(me + 1) % n, group=0)
    recv = Collective("recv", "tp0", None, dst, peer=(me - 1) % n, group=0)
    ranks = Ranks(me, n, {"tp": n}, (Communicator("tp0", tuple(range(n))),))
    launches = tuple(Launch(0, name, name, (), ()) for name in ("send", "recv"))
    plan = Plan("ring", "cpu", {}, (), (), (), launches, ranks=ranks)
    return BoundPlan(plan, {0: send, 1: recv}, {})


def meeting() -> None:
    """What a rank is told that does not find the others."""
    try:
        group()
    except gx.GraphexecError as exc:
        say(f"{type(exc).__name__}: {exc}")


def halves() -> None:
    us = group()
    us.gather(0)
    us.leave()
    say("fine", us.rank)


def _drawn(dtype: DType, size: int, seed: int) -> np.ndarray:
    """Small integers, of which every sum and product of four is exact in every type."""
    drawn = np.random.default_rng(seed).integers(0, 2 if dtype is DType.BOOL else 4, size)
    return drawn.astype(dtype.numpy())


def _reduced(arrays: list[np.ndarray], reduction: str) -> np.ndarray:
    wide = np.stack(arrays).astype(np.int64)
    found = getattr(wide, reduction)(axis=0)
    return found.astype(np.uint8 if arrays[0].dtype == np.uint8 else arrays[0].dtype)


def _same(found: np.ndarray, want: np.ndarray) -> None:
    assert found.dtype == want.dtype, (found.dtype, want.dtype)
    np.testing.assert_array_equal(found.astype(np.float64), want.astype(np.float64))


# Plans ------------------------------------------------------------------------------------------

K = 60  # which 2, 3 and 4 divide


def bound(
    us: Group, kind: str = "all_reduce", rows: int = 8, node: str = "sum", device: str = "cpu"
) -> BoundPlan:
    """y = (x @ w summed over the ranks) + 1, w being this rank's rows. A copy is made the
    collective, for want of a planner that inserts it."""
    part = K // us.ranks
    g = gx.Graph("product")
    x, w = g.input("x", (rows, part), "f32"), g.input("w", (part, 16), "f32")
    total = g.copy(g.gemm(x, w, name="product"), name=node)
    g.output(y=g.map("total + 1", total=total, name="y"))
    found = plan_graph(
        g, device=device, options=gx.Options(no_rewrite=("all",), use_profile=False)
    ).bound
    number = next(n for n, i in found.plan.launches.items() if i.node == node)
    copy = found.work[number]
    assert isinstance(copy, Memcpy)
    meeting = Collective(kind, "tp0", copy.src, copy.dst, "sum")
    us_all = (Communicator("tp0", tuple(range(us.ranks))),)
    ranks = Ranks(us.rank, us.ranks, {"tp": us.ranks}, us_all)
    return replace(
        found, work={**found.work, number: meeting}, plan=replace(found.plan, ranks=ranks)
    )


def device_of(us: Group, name: str) -> Device:
    if name == "cpu":
        return CpuDevice(group=us)
    from graphexec.runtime.hip.device import HipDevice

    return HipDevice(mode=os.environ.get("RANK_MODE", "graph")).with_ranks(us)


def opened(us: Group, **changes: object) -> tuple[Session, Callable[[], np.ndarray]]:
    """A session of this plan, and a run of it whose result is right."""
    plan = bound(us, **changes)
    session = device_of(us, plan.plan.device).open(plan, {})
    draw = np.random.default_rng(0)
    rows = next(t.shape[0] for t in plan.plan.tensors if t.name == "product")
    x = draw.integers(-3, 4, (rows, K)).astype(np.float32)
    w = draw.integers(-3, 4, (K, 16)).astype(np.float32)
    part = slice(us.rank * (K // us.ranks), (us.rank + 1) * (K // us.ranks))

    def run(timeout: float | None = None) -> np.ndarray:
        session.put(
            port_buffer("x", "input"), np.ascontiguousarray(x[:, part]).reshape(-1).view(np.uint8)
        )
        session.put(
            port_buffer("w", "input"), np.ascontiguousarray(w[part]).reshape(-1).view(np.uint8)
        )
        session.issue()
        session.fetch(port_buffer("y", "output"))
        session.wait(timeout)
        y = session.get(port_buffer("y", "output")).view(np.float32).reshape(rows, 16)
        _same(y, x @ w + 1)
        return y

    return session, run


def plan(device: str = "cpu") -> None:
    """A plan with a collective, several times, and two sessions side by side."""
    us = group()
    session, run = opened(us, device=device)
    other, run_other = opened(us, rows=30, device=device)
    for _ in range(5):
        run()
        run_other()
    session.close()
    other.close()
    us.leave()
    say("fine", us.rank)


# Failing ----------------------------------------------------------------------------------------


def failing(how: str, device: str = "cpu") -> None:
    """The last rank does not come to the second run's collective; each says what it is told."""
    us = group()
    _, run = opened(us, device=device)
    run()
    us.gather("done")  # else who fails may do so while others are in the first run
    if us.rank == us.ranks - 1:
        _ways(us)[how]()
        return
    try:
        run(timeout=2.0 if how == "busy" else None)
    except RankFailed as exc:
        say(f"told {us.rank}: {exc}")
        os._exit(1)
    say("not told", us.rank)


def ready_to_be_cut() -> None:
    """Rank 0 waits in a collective for rank 1, which computes without end; both are told."""
    us = group()
    _, run = opened(us)
    run()
    us.gather("done")
    told = threading.Event()
    us.when_failed(lambda _: told.set())
    say("ready")
    if us.rank == 0:
        with suppress(RankFailed):
            run()
    told.wait()
    assert us.failure is not None
    say(f"told {us.rank}: {us.failure.message}")
    os._exit(1)


def _ways(us: Group) -> dict[str, Callable[[], object]]:
    return {
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "exit": lambda: os._exit(3),
        "leave": us.leave,
        "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        "fail": lambda: us.fail("a reason"),
        "busy": lambda: _until_told(us),
    }


def _until_told(us: Group) -> None:
    """Compute without end, but for the group's word: what the command line does."""
    told = threading.Event()
    us.when_failed(lambda _: told.set())
    told.wait()
    os._exit(7)


def raising() -> None:
    """A command of rank 1 raises an exception; the other one waits for it in the second run."""
    us = group()
    plan = bound(us)
    number = next(n for n, i in plan.plan.launches.items() if i.node == "product")
    if us.rank == 1:
        work = Kernel(Path(), "broken", (), (1, 1, 1), (1, 1, 1), _broken)
        plan = replace(plan, work={**plan.work, number: work})
    session = CpuDevice(group=us).open(plan, {})
    for _ in range(2):
        try:
            session.issue()
            session.wait()
        except gx.ExecutionError as exc:
            say(f"told {us.rank}: {type(exc).__name__}: {exc}")
    us.leave()
    os._exit(1)


def _broken(arrays: list[np.ndarray], parallel: object) -> None:
    raise ValueError("no such number")


def other(what: str) -> None:
    """Rank 1 loads a plan with another collective, or gives other facts."""
    us = group()
    first = us.rank == 0
    try:
        if what == "facts":
            agree(us, {"file": "a" if first else "b", "dims": "S=1", "mesh": "tp=2"})
        elif what == "size":
            opened(us, rows=8 if first else 9)
        elif what == "kind":
            CpuDevice(group=us).open(bound(us, "all_reduce" if first else "all_gather"), {})
    except gx.InputError as exc:
        say(f"told {us.rank}: {exc}")
        us.leave()


# RCCL -------------------------------------------------------------------------------------------


class OnDevice:
    """Arrays in the memory of the GPU, by the names of storages."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.hip = load()
        self.stream = self.hip.create_stream()
        self.arrays = arrays
        self._at = {name: self.hip.malloc(array.nbytes) for name, array in arrays.items()}
        for name in arrays:
            self._copy(name, "h2d")

    def of(self, view: View) -> object:
        return self.hip.pointer(int(self._at[view.storage]) + view.offset * view.dtype.itemsize)

    def fetch(self, name: str) -> np.ndarray:
        self.hip.synchronize_stream(self.stream)
        self._copy(name, "d2h")
        return self.arrays[name]

    def _copy(self, name: str, way: str) -> None:
        host = self.hip.pointer(self.arrays[name].ctypes.data)
        ends = (self._at[name], host) if way == "h2d" else (host, self._at[name])
        self.hip.prepare_copy(*ends, self.arrays[name].nbytes, way, self.stream)()
        self.hip.synchronize_stream(self.stream)


def rccl_kinds() -> None:
    """Every kind of collective and every type, against NumPy."""
    us = group()
    n, me = us.ranks, us.rank
    for dtype in DType:
        size = 5
        all_src = [_drawn(dtype, size * n, seed=r) for r in range(n)]
        part = slice(me * size, (me + 1) * size)
        reductions = ("min", "max") if dtype is DType.BOOL else ("sum", "prod", "min", "max")
        for reduction in reductions:
            want = _reduced(all_src, reduction)
            _same(_rccl(us, "all_reduce", all_src[me], size * n, reduction), want)
            _same(_rccl(us, "reduce_scatter", all_src[me], size, reduction), want[part])
        whole = _rccl(us, "all_gather", all_src[me], size * n * n)
        _same(whole, np.concatenate(all_src))
        parts = _rccl(us, "all_to_all", all_src[me], size * n)
        _same(parts, np.concatenate([a[part] for a in all_src]))
    us.leave()
    say("fine", me)


def _rccl(us: Group, kind: str, src: np.ndarray, size: int, reduction: str = "") -> np.ndarray:
    """What a session's meetings make of an array."""
    memory = OnDevice({"src": src.copy(), "dst": np.empty(size, src.dtype)})
    views = [
        View.dense(name, TensorType(array.shape, DType.of(array.dtype)))
        for name, array in memory.arrays.items()
    ]
    plan = _one(us, Collective(kind, "tp0", views[0], views[1], reduction))
    resources = Resources(memory.hip, 0)
    assert memory.hip.rccl is not None
    meetings = HipMeetings(plan, us, memory.hip.rccl, resources)
    meetings.prepare(plan.plan.launches[0], plan.work[0], memory, memory.stream)()
    found = memory.fetch("dst")
    resources.close()
    return found


def _one(us: Group, *work: Collective) -> BoundPlan:
    ranks = Ranks(us.rank, us.ranks, {"tp": us.ranks},
                  (Communicator("tp0", tuple(range(us.ranks))),))  # fmt: skip
    launches = tuple(Launch(0, one.kind, one.kind, (), ()) for one in work)
    plan = Plan("one", "hip", {}, (), (), (), launches, ranks=ranks)
    return BoundPlan(plan, dict(enumerate(work)), {})


def rccl_wrong(what: str) -> None:
    """RCCL told different things by two ranks, or by one alone: the emulator says what is wrong."""
    us = group()
    memory = OnDevice({"x": np.zeros(8, np.float32)})
    view = View.dense("x", TensorType((8,), DType.F32))
    rccl = memory.hip.rccl
    assert rccl is not None
    ids = us.gather(rccl.unique_id().hex() if us.rank == 0 else None)
    handle = rccl.join(bytes.fromhex(ids[0]), us.rank, us.ranks)
    short = View("x", (4,), DType.F32, (1,))
    mine = {
        "kind": Collective("reduce_scatter", "tp0", view, short, "sum"),
        "count": Collective("all_reduce", "tp0", short, short, "sum"),
        "reduction": Collective("all_reduce", "tp0", view, view, "max"),
        "absent": None,
    }[what] if us.rank else Collective("all_reduce", "tp0", view, view, "sum")  # fmt: skip
    try:
        if mine is not None:
            src, dst = (memory.of(v) for v in (mine.src, mine.dst) if v is not None)
            rccl.prepare(mine, src, dst, -1, handle, memory.stream, "node")()
            memory.fetch("x")
    except gx.ExecutionError as exc:
        say(f"told {us.rank}: {exc}")
    us.gather(0)
    us.leave()


# Executables ------------------------------------------------------------------------------------


def counter() -> gx.Graph:
    g = gx.Graph("counter", dims={"N": 3})
    x = g.input("x", ("N",), "f32")
    n = g.state("n", ("N",), "f32")
    after = g.map("n + x", n=n, x=x, name="after")
    g.set_next(n, after)
    g.output(y=after)
    return g


def states(folder: str) -> None:
    """States are saved by rank 0, loaded on all, reset on all; and lost on all."""
    one = np.ones(3, np.float32)
    me = int(os.environ.get("RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "")))
    with gx.compile(counter(), device="cpu", mesh="tp=2") as exe:
        exe.run(x=one)
        exe.save_state(f"{folder}/states.npz")
        exe.run(x=one)
        exe.load_state(f"{folder}/states.npz")
        _same(exe.state["n"], one)
        exe.reset()
        _same(exe.state["n"], 0 * one)
        # A file that only one of them can read is loaded by none.
        path = f"{folder}/states.npz" if me == 0 else f"{folder}/missing.npz"
        _refused(lambda: exe.load_state(path), gx.DataError if me else gx.ExecutionError)
        _refused(lambda: exe.save_state(f"{folder}/no/states.npz"),
                 gx.ExecutionError if me else gx.DataError)  # fmt: skip
        _same(exe.run(x=one)["y"], one)
        if me == 1:
            exe._group.fail("rank 1: a reason")
        _refused(lambda: _until_failed(exe, one), RankFailed)
        _refused(lambda: exe.state["n"], gx.ExecutionError)
    say("fine", me)
    os._exit(0)


def _until_failed(exe: gx.Executable, one: np.ndarray) -> None:
    while True:
        exe.run(x=one)


def _refused(work: Callable[[], object], kind: type[Exception]) -> None:
    try:
        work()
    except kind:
        return
    raise AssertionError("it was not refused")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
