"""Requests through the whole of graphexec: over the link, through Python, from a cold start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gpu_ways import TOLERANCE, Row, random
from torch.profiler import ProfilerActivity, profile

import graphexec as gx


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
    """Seconds for all requests in PyTorch, written by hand: slots of device memory, a
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


def beside(profiled: profile) -> float:
    """The part of the time of copies to the host in which one to the device was under way too, by
    the device's timestamps."""
    spans: dict[str, list[tuple[float, float]]] = {"HtoD": [], "DtoH": []}
    for event in profiled.events():
        for kind in spans:
            if kind in event.name:
                spans[kind].append((event.time_range.start, event.time_range.end))
    both = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
               for a in spans["HtoD"] for b in spans["DtoH"])  # fmt: skip
    return both / sum(end - start for start, end in spans["DtoH"])


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
    with gx.compile(g, device=gx.HipDevice(), streams=1) as exe:
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
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in exe.map(requests, in_flight):
                pass
            torch.cuda.synchronize()
    medians = {name: 1e6 * statistics.median(t) / count for name, t in times.items()}
    row = Row(f"exe.map, {in_flight} in flight: x (65536, 256) f16 up, GEMM, down", medians,
              "≥ 0.9 of the two-way link; ≥ 1.0× PyTorch")  # fmt: skip
    rate = 2 * slots[0].nbytes / row.ours / 1e3
    row.notes |= {"GB/s here": rate, "of the two-way link": rate / both_ways,
                  "GB/s one way": one_way, "GB/s both ways": both_ways,
                  "of the downloads' time beside an upload": beside(profiled)}  # fmt: skip
    yield row


def host_rows() -> Iterator[Row]:
    """The host time of a run with a tiny graph."""
    g = gx.Graph("tiny")
    x = g.input("x", (16, 16), "f16")
    g.output(out=g.gemm(g.softmax(x), x))
    array = random(16, 16).cpu().numpy()
    with gx.compile(g, device=gx.HipDevice(), streams=1) as exe:
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
start = time.perf_counter()
graph = gx.load("{path}")
with gx.compile(graph, device=gx.HipDevice()) as exe:
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
