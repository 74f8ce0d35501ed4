"""The HIP device against PyTorch on the same GPU, side by side in one process.

    python benchmarks/gpu.py [--only WORD] [--json FILE]

Needs PyTorch with the GPU's platform (CUDA here, where graphexec runs as HIP over CUDA; ROCm on an
AMD GPU). Inputs and outputs stay on the device unless a row says otherwise. Every way is checked
against float64 before its time counts. Times are medians over turns, the ways taking turns; a turn
issues many runs back to back and is timed by device events on the way's own stream. What to look
at are the ratios: how long the other way takes, divided by graphexec's time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from measure import table

import graphexec as gx
from graphexec.devices.hip import HipDevice
from graphexec.executable import Executable
from graphexec.tensor import DType

TURNS = 15
TURN_MS = 4.0  # of device time, about
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 8e-3, torch.float32: 2e-3}
Tensors = Mapping[str, torch.Tensor]


@dataclass
class Way:
    """One way of doing a piece of work: `enqueue` puts one run on `stream`, which is PyTorch's
    current stream meanwhile; `result` is what it computed; `close` frees it."""

    enqueue: Callable[[], object]
    stream: torch.cuda.Stream
    result: Callable[[], torch.Tensor]
    close: Callable[[], None] = lambda: None


@dataclass
class Row:
    """What a piece of work took: microseconds a run by way, and what the fraction says."""

    work: str
    times: dict[str, float]
    target: str = ""
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def ours(self) -> float:
        return self.times["graphexec"]

    def line(self) -> list[str]:
        others = [f"{n} {t:.1f} ({t / self.ours:.2f}×)" for n, t in self.times.items()
                  if n != "graphexec"]  # fmt: skip
        notes = [f"{n} {v:.3g}" for n, v in self.notes.items()]
        return [self.work, f"{self.ours:.1f}", ", ".join(others), ", ".join(notes), self.target]


# Ways -----------------------------------------------------------------------------------------


def ours(
    graph: gx.Graph, inputs: Tensors, output: str = "out", streams: int = 4, **options: object
) -> Way:
    exe = gx.compile(graph, device=HipDevice(), streams=streams, resident=True, **options)
    for name, tensor in inputs.items():
        on_device(exe, name).copy_(tensor)
    torch.cuda.synchronize()
    if exe.session.mode != "graph":
        sys.exit(f"not captured: {exe.session.fallback}")
    out = on_device(exe, output)
    stream = torch.cuda.ExternalStream(int(exe.session.origin))
    return Way(exe.session.issue, stream, lambda: out, exe.close)


def on_device(exe: Executable, name: str) -> torch.Tensor:
    """An input or output of an executable where it lies. The interface has no bf16."""
    array = exe.device_array(name)
    if array.type.dtype is not DType.BF16:
        return torch.as_tensor(array, device="cuda")
    as_f16 = replace(array, type=replace(array.type, dtype=DType.F16))
    return torch.as_tensor(as_f16, device="cuda").view(torch.bfloat16)


def captured(function: Callable[[], torch.Tensor]) -> Way:
    """A PyTorch function as a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            function()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            out = function()

    return Way(graph.replay, stream, lambda: out, graph.reset)


def eager(function: Callable[[], torch.Tensor]) -> Way:
    """A PyTorch function, call by call."""
    stream, kept = torch.cuda.Stream(), []

    @torch.no_grad()
    def enqueue() -> None:
        kept[:] = [function()]

    return Way(enqueue, stream, lambda: kept[0])


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
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.stream(way.stream):
        for _ in range(2):
            way.enqueue()
        start.record(way.stream)
        for _ in range(count):
            way.enqueue()
        end.record(way.stream)
    end.synchronize()
    return start.elapsed_time(end)


def whole_times(ways: Mapping[str, Way], turns: int = 200) -> dict[str, float]:
    """Median microseconds from before one run is issued until the host knows it is done."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            with torch.cuda.stream(way.stream):
                start = time.perf_counter()
                way.enqueue()
                while not way.stream.query():
                    pass
                found[name].append(time.perf_counter() - start)
    return {name: 1e6 * statistics.median(times) for name, times in found.items()}


def check(name: str, way: Way, exact: torch.Tensor) -> None:
    """The result of a way against float64; the output is poisoned before."""
    with torch.cuda.stream(way.stream):
        way.enqueue()
        way.result().fill_(float("nan"))
        way.enqueue()
    way.stream.synchronize()
    found = way.result()
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


def compared(work: str, ways: dict[str, Way], exact: torch.Tensor, target: str = "") -> Row:
    with closing(ways):
        for name, way in ways.items():
            check(f"{work}, {name}", way, exact)
        row = Row(work, device_times(ways), target)
        row.notes |= {f"whole {n}": t for n, t in whole_times(ways).items()}
    return row


def random(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float32, device="cuda").to(dtype)


# Work -----------------------------------------------------------------------------------------


def attention_graph(shape: tuple[int, ...], causal: bool) -> gx.Graph:
    g = gx.Graph("attention")
    q, k, v = (g.input(name, shape, "f16") for name in "qkv")
    scores = g.gemm(q, k, trans_b=True, alpha=shape[-1] ** -0.5, name="scores")
    g.output(out=g.gemm(g.softmax(scores, causal=causal, name="probs"), v, name="ctx"))
    return g


def attention_exact(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
) -> torch.Tensor:
    exact = []
    for one in zip(*(t.flatten(0, 1) for t in (q, k, v)), strict=True):
        q64, k64, v64 = (t.double() for t in one)
        s = q64 @ k64.mT * q.shape[-1] ** -0.5
        if causal:
            s += torch.full_like(s, float("-inf")).triu(1)
        exact.append(torch.softmax(s, -1) @ v64)
    return torch.stack(exact).unflatten(0, q.shape[:2])


def three_kernels(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The best that PyTorch does in three kernels: the scale is the first product's alpha."""
    q3, k3, v3 = (t.flatten(0, 1) for t in (q, k, v))
    scale = q.shape[-1] ** -0.5
    nothing = torch.empty((), dtype=q.dtype, device=q.device)
    scores = torch.baddbmm(nothing, q3, k3.mT, beta=0, alpha=scale)
    return torch.bmm(torch.softmax(scores, -1), v3).unflatten(0, q.shape[:2])


def attention_rows() -> Iterator[Row]:
    for shape in ((1, 8, 128, 64), (1, 8, 512, 64), (1, 32, 1024, 128)):
        inputs = {name: random(*shape) for name in "qkv"}
        exact = attention_exact(*inputs.values(), causal=False)
        ways = {
            "graphexec": ours(attention_graph(shape, False), inputs),
            "PyTorch three kernels, captured": captured(lambda i=inputs: three_kernels(**i)),
        }
        yield compared(f"attention f16 {shape}", ways, exact, "≥ 1.0× three kernels")


def copy_bandwidth() -> float:
    """GB/s of a large device-to-device copy, bytes read and written: the best of the runtime's own
    copy and of a kernel, of 256 MB and of 1 GiB."""
    best = 0.0
    for size in (256 << 20, 1 << 30):
        a = torch.empty(size // 4, dtype=torch.float32, device="cuda").normal_()
        b = torch.empty_like(a)
        ways = {"copy": eager(lambda a=a, b=b: b.copy_(a)),
                "kernel": eager(lambda a=a, b=b: torch.neg(a, out=b))}  # fmt: skip
        best = max(best, 2 * a.nbytes / min(device_times(ways).values()) / 1e3)
    return best


def softmax_rows() -> Iterator[Row]:
    peak = copy_bandwidth()
    for rows, length in ((16384, 4096), (8192, 16384), (65536, 512)):
        x = random(rows, length)
        g = gx.Graph("softmax")
        g.output(out=g.softmax(g.input("x", x.shape, "f16")))
        ways = {
            "graphexec": ours(g, {"x": x}),
            "PyTorch": captured(lambda x=x: torch.softmax(x, -1)),
        }
        row = compared(f"softmax f16 {rows}×{length}", ways, torch.softmax(x.double(), -1),
                       "≥ 0.85 of the copy")  # fmt: skip
        row.notes["of copy"] = 2 * x.nbytes / row.ours / 1e3 / peak
        yield row


def copy_rows() -> Iterator[Row]:
    peak = copy_bandwidth()
    n = 256 << 20  # bytes
    shapes = {
        "permute (8192, 16384) by (1, 0)": ((8192, 16384), {"permute": [1, 0]}),
        "permute (16, 2048, 32, 128) by (0, 2, 1, 3)": (
            (16, 2048, 32, 128), {"permute": [0, 2, 1, 3]}
        ),
        "permute (512, 512, 512) by (2, 1, 0)": ((512, 512, 512), {"permute": [2, 1, 0]}),
        "cast f16 to f32": ((n // 4,), {"dtype": "f32"}),
        "cast f32 to f16": ((n // 4,), {"dtype": "f16"}),
        "cast f16 to bf16": ((n // 2,), {"dtype": "bf16"}),
    }  # fmt: skip
    for name, (shape, attrs) in shapes.items():
        source = torch.float32 if name.startswith("cast f32") else torch.float16
        target = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}.get(
            str(attrs.get("dtype")), source
        )
        x = random(*shape, dtype=source)
        g = gx.Graph("copy")
        g.output(out=g.copy(g.input("x", shape, "f32" if source is torch.float32 else "f16"),
                            **attrs))  # fmt: skip

        def reference(x: torch.Tensor = x, attrs: dict = attrs, to: torch.dtype = target):
            if "permute" in attrs:
                return x.permute(attrs["permute"]).contiguous()
            return x.to(to)

        ways = {"graphexec": ours(g, {"x": x}), "PyTorch": captured(reference)}
        row = compared(name, ways, reference().double(), "≥ 0.8 of the copy")
        row.notes["of copy"] = (x.nbytes + x.numel() * target.itemsize) / row.ours / 1e3 / peak
        yield row


def branch_graph(chains: int, depth: int, n: int) -> gx.Graph:
    g = gx.Graph("branches")
    a = [g.input(f"a{c}", (n, n), "f16") for c in range(chains)]
    b = [g.input(f"b{c}", (n, n), "f16") for c in range(chains)]
    for c in range(chains):
        x = a[c]
        for d in range(depth):
            x = g.gemm(x, b[c], name=f"c{c}_{d}")
        g.output(**{f"y{c}": x})
    return g


def branch_rows() -> Iterator[Row]:
    for chains, depth, n in ((8, 8, 256), (32, 4, 256), (8, 8, 512)):
        inputs = {f"a{c}": random(n, n) for c in range(chains)}
        inputs |= {f"b{c}": random(n, n) * n**-0.5 for c in range(chains)}
        a = torch.stack([inputs[f"a{c}"] for c in range(chains)])
        b = torch.stack([inputs[f"b{c}"] for c in range(chains)])
        exact = a[0].double()
        for _ in range(depth):
            exact = exact @ b[0].double()

        def on_streams(many: int, inputs: Tensors = inputs, chains=chains, depth=depth):
            side = [torch.cuda.Stream() for _ in range(many)]

            def run() -> torch.Tensor:
                here, results = torch.cuda.current_stream(), []
                for s in side:
                    s.wait_stream(here)
                for c in range(chains):
                    with torch.cuda.stream(side[c % many]):
                        x = inputs[f"a{c}"]
                        for _ in range(depth):
                            x = x @ inputs[f"b{c}"]
                        results.append(x)
                for s in side:
                    here.wait_stream(s)
                return results[0]

            return run

        def batched(a: torch.Tensor = a, b: torch.Tensor = b, depth: int = depth) -> torch.Tensor:
            x = a
            for _ in range(depth):
                x = torch.bmm(x, b)
            return x[0]

        graph = branch_graph(chains, depth, n)
        ways = {
            "graphexec": ours(graph, inputs, "y0", streams=8),
            "one stream": ours(graph, inputs, "y0", streams=1),
            "4 streams": ours(graph, inputs, "y0", streams=4),
            "PyTorch, hand-written 8 streams": captured(on_streams(8)),
            "PyTorch, hand-batched": captured(batched),
        }
        yield compared(f"{chains} chains of {depth} GEMMs f16 {n}³", ways, exact,
                       "≥ 0.95× hand-written streams")  # fmt: skip


def gemm_rows() -> Iterator[Row]:
    for dtype in ("f16", "f32"):
        kind = {"f16": torch.float16, "f32": torch.float32}[dtype]
        for n in (512, 1024, 2048, 4096, 8192):
            a, b = random(n, n, dtype=kind), random(n, n, dtype=kind)
            g = gx.Graph("gemm")
            g.output(out=g.gemm(g.input("a", a.shape, dtype), g.input("b", b.shape, dtype)))
            ways = {
                "graphexec": ours(g, {"a": a, "b": b}),
                "torch.matmul": captured(lambda a=a, b=b: torch.matmul(a, b)),
            }
            row = compared(f"gemm {dtype} {n}³", ways, a.double() @ b.double(), "≥ 1.0×")
            row.notes["TFLOP/s"] = 2 * n**3 / row.ours / 1e6
            yield row


def link_rate(nbytes: int) -> tuple[float, float]:
    """GB/s over the link, one way and both ways at once, between pinned memory and the device."""
    host = [torch.empty(nbytes, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    here = [torch.empty(nbytes, dtype=torch.uint8, device="cuda") for _ in range(2)]
    up, down = torch.cuda.Stream(), torch.cuda.Stream()

    def seconds(both: bool, count: int = 20) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            with torch.cuda.stream(up):
                here[0].copy_(host[0], non_blocking=True)
            if both:
                with torch.cuda.stream(down):
                    host[1].copy_(here[1], non_blocking=True)
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    one, two = (statistics.median(seconds(both) for _ in range(5)) for both in (False, True))
    return nbytes / one / 1e9, 2 * nbytes / two / 1e9


def double_buffered(requests: list[torch.Tensor], outputs: list[torch.Tensor], w: torch.Tensor,
                    in_flight: int) -> float:  # fmt: skip
    """Seconds for all requests in PyTorch, as people write it by hand: slots of device memory, a
    stream each, pinned memory at both ends."""
    streams = [torch.cuda.Stream() for _ in range(in_flight)]
    here = [torch.empty_like(requests[0], device="cuda") for _ in streams]
    results = [torch.empty_like(requests[0], device="cuda") for _ in streams]
    torch.cuda.synchronize()
    start = time.perf_counter()
    for i, request in enumerate(requests):
        slot = i % in_flight
        with torch.cuda.stream(streams[slot]):
            here[slot].copy_(request, non_blocking=True)
            torch.mm(here[slot], w, out=results[slot])
            outputs[i].copy_(results[slot], non_blocking=True)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def map_rows() -> Iterator[Row]:
    rows, columns, count, in_flight = 1 << 16, 256, 48, 3
    one_way, both_ways = link_rate(rows * columns * 2)
    g = gx.Graph("stream")
    x, w = g.input("x", (rows, columns), "f16"), g.input("w", (columns, columns), "f16")
    g.output(out=g.gemm(x, w))
    weights = random(columns, columns) * columns**-0.5
    slots = [gx.pinned_empty((rows, columns), np.float16) for _ in range(in_flight + 1)]
    for slot in slots:
        slot[...] = random(rows, columns).cpu().numpy()
    w_array = gx.pinned_empty((columns, columns), np.float16)
    w_array[...] = weights.cpu().numpy()
    requests = [{"x": slots[i % len(slots)], "w": w_array} for i in range(count)]
    theirs = [torch.from_numpy(slot).pin_memory() for slot in slots]
    back = [torch.empty_like(slot).pin_memory() for slot in theirs]
    with gx.compile(g, device=HipDevice(), streams=1) as exe:
        for request, out in zip(requests[:4], exe.map(requests[:4], in_flight), strict=True):
            exact = torch.from_numpy(request["x"]).cuda().double() @ weights.double()
            error = (torch.from_numpy(out["out"]).cuda().double() - exact).norm() / exact.norm()
            if not error <= TOLERANCE[torch.float16]:
                sys.exit(f"map is wrong: relative error {error:.1e}")
        times: dict[str, list[float]] = {"graphexec": [], "PyTorch, hand-written": []}
        for _ in range(5):
            start = time.perf_counter()
            for _ in exe.map(requests, in_flight):
                pass
            times["graphexec"].append(time.perf_counter() - start)
            order = [i % len(slots) for i in range(count)]
            times["PyTorch, hand-written"].append(double_buffered(
                [theirs[i] for i in order], [back[i] for i in order], weights, in_flight
            ))  # fmt: skip
    medians = {name: 1e6 * statistics.median(t) / count for name, t in times.items()}
    row = Row(f"exe.map, {in_flight} in flight: x (65536, 256) f16 up, GEMM, down", medians,
              "≥ 0.9 of the two-way link; ≥ 1.0× PyTorch")  # fmt: skip
    rate = 2 * slots[0].nbytes / row.ours / 1e3
    row.notes |= {"GB/s": rate, "of the two-way link": rate / both_ways,
                  "link GB/s one way": one_way, "both ways": both_ways}  # fmt: skip
    yield row


def host_rows() -> Iterator[Row]:
    """What Python adds to a run whose graph does next to nothing."""
    g = gx.Graph("tiny")
    x = g.input("x", (16, 16), "f16")
    g.output(out=g.gemm(g.softmax(x), x))
    array = random(16, 16).cpu().numpy()
    with gx.compile(g, device=HipDevice(), streams=1) as exe:
        out = exe.run(x=array)["out"].astype(np.float64)
        exact = np.exp(array.astype(np.float64))
        exact = exact / exact.sum(-1, keepdims=True) @ array.astype(np.float64)
        if not np.linalg.norm(out - exact) <= 2e-3 * np.linalg.norm(exact):
            sys.exit("the tiny graph is wrong")
        session = exe.session
        stream = torch.cuda.ExternalStream(int(session.origin))

        def bare() -> None:
            session.issue()
            while not stream.query():
                pass

        ways = {"graphexec": lambda: exe.run(x=array), "one graph launch, waited for": bare}
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(2000):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                found[name].append(time.perf_counter() - start)
    row = Row("one run of a tiny graph, from NumPy to NumPy",
              {name: 1e6 * statistics.median(t) for name, t in found.items()},
              "host time beyond launch, device and copies ≤ 30 µs")  # fmt: skip
    row.notes["host time, µs"] = row.ours - row.times["one graph launch, waited for"]
    yield row


FIRST_RUN = """
import time
import numpy as np
import graphexec as gx
from graphexec.devices.hip import HipDevice
start = time.perf_counter()
graph = gx.load("{path}")
with gx.compile(graph, device=HipDevice()) as exe:
    arrays = {{n: np.ones(t.shape, t.dtype.numpy()) for n, t in exe.inputs.items()}}
    exe.run(**arrays)
    print(time.perf_counter() - start)
"""


def first_run_rows() -> Iterator[Row]:
    path = Path(__file__).parents[1] / "graphs" / "attention.yaml"
    command = [sys.executable, "-c", FIRST_RUN.format(path=path)]
    seconds = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
               for _ in range(4)]  # fmt: skip
    yield Row("first run of attention.yaml in a new process, kernels cached",
              {"graphexec": 1e6 * statistics.median(seconds[1:])}, "< 1 s")  # fmt: skip


GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "attention": attention_rows,
    "softmax": softmax_rows,
    "copy": copy_rows,
    "branches": branch_rows,
    "gemm": gemm_rows,
    "map": map_rows,
    "host": host_rows,
    "first": first_run_rows,
}


def main() -> None:
    warnings.simplefilter("error")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="groups whose name has this in it")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"{HipDevice().describe()}; {datetime.date.today()}; PyTorch {torch.__version__}\n")
    rows = []
    for name, group in GROUPS.items():
        if args.only in name:
            for row in group():
                rows.append(row)
                print(" | ".join(row.line()), flush=True)
                if args.json:
                    args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print()
    print(table([["work", "graphexec, µs", "others, µs", "more", "target"],
                 *(row.line() for row in rows)]))  # fmt: skip


if __name__ == "__main__":
    main()
