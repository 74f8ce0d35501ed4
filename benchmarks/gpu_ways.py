"""Ways of doing one piece of work on a GPU, each with a stream of its own, and their times."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.runtime.executable import Executable
from graphexec.tools.tuning.tune import tune

TURNS = 15
TUNING = 20.0  # seconds a graph at most
TURN_MS = 4.0  # of device time, about
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 8e-3, torch.float32: 2e-3}
Tensors = Mapping[str, torch.Tensor]


@dataclass
class Way:
    """One way of doing a piece of work: `enqueue` puts one run on `stream`, which is PyTorch's
    current stream meanwhile, `repeat` several; `result` is what it computed; `close` frees it."""

    enqueue: Callable[[], object]
    stream: torch.cuda.Stream
    result: Callable[[], torch.Tensor]
    close: Callable[[], None] = lambda: None
    many: Callable[[int], object] | None = None

    def repeat(self, count: int) -> None:
        """Enqueue `count` runs."""
        if self.many is not None:
            self.many(count)
            return
        for _ in range(count):
            self.enqueue()


@dataclass
class HostTimed(Way):
    """A way whose stream is its library's own: timed by the host, many runs at once."""

    wait: Callable[[], object] = lambda: None


@dataclass
class Row:
    """The result of a piece of work: microseconds a run by way; further numbers; the target."""

    work: str
    times: dict[str, float]
    target: str = ""
    notes: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)

    @property
    def ours(self) -> float:
        return self.times["graphexec"]

    def line(self) -> list[str]:
        """The cells of a table."""
        notes = [f"{v:.3g} {n}" for n, v in self.notes.items()]
        return [self.work, f"{self.ours:.1f}", _ratios(self.times), _ratios(self.whole),
                ", ".join(notes), self.target]  # fmt: skip


def _ratios(times: Mapping[str, float]) -> str:
    ours = times.get("graphexec", 0.0)
    return ", ".join(f"{n} {t / ours:.2f}×" for n, t in times.items() if n != "graphexec")


# Ways ---------------------------------------------------------------------------------------


def ours(
    graph: gx.Graph, inputs: Tensors, output: str = "out", streams: int = 4, tuned: bool = False,
    device: gx.HipDevice | None = None, **options: object,
) -> Way:  # fmt: skip
    """An executable whose inputs and outputs stay on the device; tuned before, or by the model."""
    device = device or gx.HipDevice()
    profile = tune(graph, device, streams=streams, seconds=TUNING).profile if tuned else None
    options |= {"use_profile": False, "costs": profile}
    exe = gx.compile(graph, device=device, streams=streams, resident=True, **options)
    for name, tensor in inputs.items():
        on_device(exe, name).copy_(tensor)
    torch.cuda.synchronize()
    if exe.session.mode != "graph":
        sys.exit(f"not captured: {exe.session.fallback}")
    out = on_device(exe, output)
    stream = torch.cuda.ExternalStream(int(exe.session.origin))
    session = exe.session
    return Way(session.issue, stream, lambda: out, exe.close, lambda n: session.issue(times=n))


def on_device(exe: Executable, name: str) -> torch.Tensor:
    """An input or output of an executable, in place. The interface has no bf16."""
    array = exe.device_array(name)
    if array.type.dtype is not DType.BF16:
        return torch.as_tensor(array, device="cuda")
    as_f16 = replace(array, type=replace(array.type, dtype=DType.F16))
    return torch.as_tensor(as_f16, device="cuda").view(torch.bfloat16)


def captured(function: Callable[[], Any]) -> Way:
    """A PyTorch function as a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            function()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            out = function()

    return Way(graph.replay, stream, lambda: first(out), graph.reset)


def eager(function: Callable[[], Any]) -> Way:
    """A PyTorch function, call by call."""
    stream = torch.cuda.Stream()
    kept: list[Any] = []

    @torch.no_grad()
    def enqueue() -> None:
        kept[:] = [function()]

    return Way(enqueue, stream, lambda: first(kept[0]))


def jitted(function: Callable[..., object], *inputs: torch.Tensor) -> Way:
    """A function of JAX, compiled."""
    import jax

    arrays = [jax.dlpack.from_dlpack(t.contiguous()) for t in inputs]
    compiled = jax.jit(function)
    kept = [compiled(*arrays)]

    def enqueue() -> None:
        kept[0] = compiled(*arrays)

    def result() -> torch.Tensor:
        wait()
        return torch.from_dlpack(first(kept[0]))

    def wait() -> None:
        jax.block_until_ready(kept[0])

    return HostTimed(enqueue, torch.cuda.current_stream(), result, wait=wait)


def first(results: Any) -> Any:
    """The result that is checked, of a function that returns one or a list of them."""
    return results[0] if isinstance(results, list) else results


# Measuring ------------------------------------------------------------------------------------


def device_times(ways: Mapping[str, Way], turns: int = TURNS) -> dict[str, float]:
    """Median microseconds a run of each way takes on the device, runs issued back to back."""
    counts = {}
    for name, way in ways.items():
        once = _turn(way, 10) / 10
        counts[name] = max(5, min(500, int(TURN_MS / once)))
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            found[name].append(_turn(way, counts[name]) / counts[name])
    return {name: 1e3 * statistics.median(times) for name, times in found.items()}


def _turn(way: Way, count: int) -> float:
    """Milliseconds of `count` runs."""
    if isinstance(way, HostTimed):
        way.enqueue()
        way.wait()
        begin = time.perf_counter()
        for _ in range(count):
            way.enqueue()
        way.wait()
        return 1e3 * (time.perf_counter() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.stream(way.stream):
        for _ in range(2):
            way.enqueue()
        start.record(way.stream)
        way.repeat(count)
        end.record(way.stream)
    end.synchronize()
    return start.elapsed_time(end)


def whole_times(ways: Mapping[str, Way], turns: int = 100) -> dict[str, float]:
    """Median microseconds from before one run is issued until the host knows it is done. Each way
    runs twice untimed before its turn, so that none pays for what the one before left behind."""
    found: dict[str, list[float]] = {name: [] for name in ways}

    def run(way: Way) -> None:
        way.enqueue()
        if isinstance(way, HostTimed):
            way.wait()
        while not way.stream.query():
            pass

    for _ in range(turns):
        for name, way in ways.items():
            with torch.cuda.stream(way.stream):
                run(way)
                run(way)
                start = time.perf_counter()
                run(way)
                found[name].append(time.perf_counter() - start)
    return {name: 1e6 * statistics.median(times) for name, times in found.items()}


def poisoned(way: Way) -> torch.Tensor:
    """The result of a second run, whose output held NaN before."""
    with torch.cuda.stream(way.stream):
        way.enqueue()
        if not isinstance(way, HostTimed):  # JAX's arrays are not written to
            way.result().fill_(float("nan"))
        way.enqueue()
    way.stream.synchronize()
    return way.result()


def check(name: str, way: Way, exact: torch.Tensor) -> None:
    """The result of a way against float64."""
    found = poisoned(way)
    error = ((found.double() - exact).norm() / exact.norm()).item()
    if not error <= TOLERANCE[found.dtype]:
        sys.exit(f"{name} is wrong: relative error {error:.1e}")


@contextmanager
def closing(ways: Mapping[str, Way]) -> Iterator[None]:
    try:
        yield
    finally:
        torch.cuda.synchronize()
        for way in ways.values():
            way.close()
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Ceilings:
    """The measured rates of this device: GB/s of a copy (bytes read and written), and TFLOP/s of
    products of large f16 and f32 matrices."""

    copy: float
    f16: float
    f32: float

    def least(self, flops: float, nbytes: float, dtype: str = "f16") -> float:
        """The least time of this work, in microseconds."""
        return max(flops / getattr(self, dtype) / 1e6, nbytes / self.copy / 1e3)


@cache
def ceilings() -> Ceilings:
    """The best of the runtime's copy and of a kernel, of 256 MB and of 1 GiB; 8192³ products."""
    best = 0.0
    for size in (256 << 20, 1 << 30):
        a = torch.empty(size // 4, dtype=torch.float32, device="cuda").normal_()
        b = torch.empty_like(a)
        ways = {"copy": eager(lambda a=a, b=b: b.copy_(a)),
                "kernel": eager(lambda a=a, b=b: torch.neg(a, out=b))}  # fmt: skip
        best = max(best, 2 * a.nbytes / min(device_times(ways).values()) / 1e3)
    rates = {}
    for dtype in (torch.float16, torch.float32):
        a = random(8192, 8192, dtype=dtype)
        times = device_times({"": eager(lambda a=a: torch.matmul(a, a))}, turns=5)
        rates[dtype] = 2 * 8192**3 / times[""] / 1e6
    return Ceilings(best, rates[torch.float16], rates[torch.float32])


def compared(
    work: str, ways: dict[str, Way], exact: torch.Tensor, target: str,
    flops: float, nbytes: float, dtype: str = "f16", beside: Mapping[str, Way] | None = None,
) -> Row:  # fmt: skip
    """Check all ways, then measure them. `flops` and `nbytes` are the least the work can take. The
    ways `beside` do other work to compare with and are not checked."""
    with closing(ways), closing(beside or {}):
        for name, way in ways.items():
            check(f"{work}, {name}", way, exact)
        row = Row(work, device_times({**ways, **(beside or {})}), target)
        row.whole = whole_times(ways)
    row.notes["of the roofline"] = ceilings().least(flops, nbytes, dtype) / row.ours
    return row


def random(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float32, device="cuda").to(dtype)
