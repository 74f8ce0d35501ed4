"""selftest: a few seconds of checks that graphexec works on the device at hand.

Numbers are compared with float64. Results that must not depend on timing are computed repeatedly
and must have the same bits. The report can be pasted into an issue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from graphexec.api import compile
from graphexec.base.atomic_file import scratch_folder
from graphexec.base.errors import GraphexecError
from graphexec.base.tensor import Array
from graphexec.formats.arrays import read_inputs
from graphexec.ir.graph import Graph
from graphexec.machine.costs import GPU
from graphexec.runtime.device import Device
from graphexec.runtime.executable import Executable
from graphexec.runtime.hip.device import HipDevice, HipSession
from graphexec.tools.compare import compare_executable
from graphexec.tools.examples import EXAMPLES
from graphexec.tools.judge import Row

Test = Callable[[Device], str]

DTYPES = ("f16", "bf16", "f32", "f64")
REPEATS = 20


@dataclass(frozen=True)
class Check:
    """One check: `detail` has the numbers, or what went wrong."""

    name: str
    ok: bool
    detail: str
    seconds: float


class Wrong(Exception):
    """A check failed; the message gives the reason."""


def selftest(device: Device) -> Iterator[Check]:
    """Run every check on `device`, each reported as soon as it is done.

    A device that a failed check leaves unusable is reported once; the other checks are not made.
    """
    pending = checks()
    while pending:
        name, test = next(iter(pending.items()))
        del pending[name]
        start = time.perf_counter()
        lost = ""
        try:
            ok, detail = True, test(device)
        except Wrong as exc:
            ok, detail = False, str(exc)
        except GraphexecError as exc:
            ok, detail = False, str(exc)
            lost = _why_lost(device)
        yield Check(name, ok, detail, time.perf_counter() - start)
        if lost:
            text = f"lost in check '{name}': {lost}; {len(pending)} checks were not made"
            yield Check("the device", False, text, 0.0)
            return


def _why_lost(device: Device) -> str:
    """Why a device cannot even copy any more; empty if it can."""
    graph = Graph("probe")
    graph.output(y=graph.copy(graph.input("x", (4,), "f32")))
    try:
        with compile(graph, device=device, use_profile=False) as exe:
            exe.run(x=np.zeros(4, np.float32))
    except GraphexecError as exc:
        return str(exc)
    return ""


def checks() -> dict[str, Test]:
    """Every check by name."""
    ops = {"gemm": _gemms, "softmax": _softmaxes, "copy": _copies, "attention": _attentions}
    found: dict[str, Test] = {
        f"{op} {dtype}": partial(_compared, build(dtype))
        for op, build in ops.items()
        for dtype in DTYPES
    }
    found |= {
        f"many attentions {t}": partial(_compared, _many_attentions(t)) for t in ("f16", "bf16")
    }
    found |= {f"graph {build.__name__}": partial(_compared, build()) for build in EXAMPLES}
    found |= {
        "weights from a file": _weights,
        "two streams, no race": _race,
        "capture and replay": _replay,
        "requests in flight": _requests,
        "other sizes": _sizes,
    }
    return found


# Numbers --------------------------------------------------------------------------------------


def _gemms(dtype: str) -> Graph:
    g = Graph(f"gemm_{dtype}")
    a, b = g.input("a", (2, 3, 17, 24), dtype), g.input("b", (3, 24, 33), dtype)
    c, bias = g.input("c", (2, 3, 17, 33), dtype), g.input("bias", (33,), dtype)
    x, w = g.input("x", (2, 1, 33, 24), dtype), g.input("w", (24, 32), dtype)
    rest, shift = g.input("rest", (2, 3, 17, 32), dtype), g.input("shift", (32,), dtype)
    g.output(
        plain=g.gemm(a, b, name="plain"),
        turned=g.gemm(x, a, trans_b=True, alpha=0.5, name="turned"),
        added=g.gemm(a, b, c=c, beta=-1.5, name="added"),
        biased=g.gemm(a, b, bias=bias, name="biased"),
        layer=g.gemm(a, w, bias=shift, name="layer"),
        residual=g.gemm(a, w, c=rest, beta=0.5, bias=shift, name="residual"),
    )
    return g


def _softmaxes(dtype: str) -> Graph:
    g = Graph(f"softmax_{dtype}")
    x, mask = g.input("x", (3, 40, 70), dtype), g.input("mask", (40, 70), dtype)
    long = g.input("long", (2, 5000), dtype)
    g.output(
        last=g.softmax(x, name="last"),
        first=g.softmax(x, axis=0, name="first"),
        causal=g.softmax(x, causal=True, scale=0.25, name="causal"),
        masked=g.softmax(x, mask=mask, name="masked"),
        rows=g.softmax(long, name="rows"),
    )
    return g


def _copies(dtype: str) -> Graph:
    g = Graph(f"copy_{dtype}")
    x = g.input("x", (6, 20, 14), dtype)
    g.output(
        same=g.copy(x, name="same"),
        turned=g.copy(x, permute=[2, 0, 1], name="turned"),
        part=g.copy(x, slice={1: [1, None, 3]}, name="part"),
        **{to: g.copy(x, dtype=to, name=f"to_{to}") for to in DTYPES if to != dtype},
    )
    return g


def _attentions(dtype: str) -> Graph:
    g = Graph(f"attention_{dtype}")
    q, k, v = (
        g.input(name, (2, 4, n, 64), dtype) for name, n in (("q", 150), ("k", 203), ("v", 203))
    )
    mask, few = g.input("mask", (150, 203), "f32"), g.input("few", (2, 1, 203, 40), dtype)
    narrow = g.attention(q, k, few, name="narrow")
    one, past = g.input("one", (2, 2, 4, 1, 64), dtype), g.input("past", (2, 2, 1, 1500, 64), dtype)
    g.output(
        plain=g.attention(q, k, v, name="plain"),
        causal=g.attention(q, k, v, causal=True, name="causal"),
        masked=g.attention(q, k, v, mask=mask, scale=0.5, name="masked"),
        rows=g.copy(narrow, permute=[0, 2, 1, 3], reshape=[2, 150, -1], name="rows"),
        early=g.attention(k, q, q, causal=True, name="early"),
        decoded=g.attention(one, past, past, causal=True, name="decoded"),
    )
    return g


def _many_attentions(dtype: str) -> Graph:
    """Enough blocks of queries to fill a GPU: other kernels may be used then."""
    g = Graph(f"many_attentions_{dtype}")
    q, k = (g.input(name, (10, 16, n, 64), dtype) for name, n in (("q", 130), ("k", 150)))
    wide, few = g.input("wide", (10, 16, 130, 128), dtype), g.input("few", (10, 1, 150, 128), dtype)
    g.output(
        plain=g.attention(q, k, k, name="plain"),
        causal=g.attention(q, k, k, causal=True, name="causal"),
        grouped=g.attention(wide, few, few, causal=True, name="grouped"),
    )
    return g


def _compared(graph: Graph, device: Device) -> str:
    """Run, and compare every node and output with float64."""
    with compile(graph, device=device) as exe:
        found = compare_executable(exe, _drawn(exe))
    rows = (*found.outputs, *found.nodes)
    bad = [_row(row) for row in rows if not row.ok]
    if bad:
        raise Wrong("out of tolerance: " + ", ".join(bad))
    worst = max(rows, key=lambda row: row.relative / row.tolerance)
    return f"{len(rows)} comparisons, worst {_row(worst)}"


def _row(row: Row) -> str:
    found, worst = f"'{row.name}' {row.relative:.2g} of {row.tolerance:.2g}", row.worst
    if worst.ok:
        return found
    off = abs(worst.found - worst.expected)
    return f"{found}, its element {list(worst.index)} by {off:.2g} of {worst.bound:.2g}"


def _weights(device: Device) -> str:
    with scratch_folder() as folder:
        w = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
        np.savez(folder / "weights.npz", w=w)
        g = Graph("weights", folder=folder)
        x = g.input("x", (32, 32))
        g.output(y=g.gemm(x, g.weight("w", "weights.npz", "w"), name="y"))
        return _compared(g, device)


# Time -----------------------------------------------------------------------------------------


def _branches() -> Graph:
    """Two chains of unequal length that meet, so that a missing wait changes the result. Two
    streams pay by the costs of a GPU, but not on a CPU."""
    g = Graph("branches")
    x, w = g.input("x", (192, 192)), g.input("w", (192, 192))
    long = x
    for step in range(6):
        long = g.gemm(long, w, alpha=192**-0.5, name=f"long_{step}")
    short = g.softmax(x, axis=0, name="short")
    g.output(out=g.gemm(long, short, name="out"), again=g.copy(short, permute=[1, 0], name="again"))
    return g


def _race(device: Device) -> str:
    with compile(_branches(), device=device, streams=2, costs=GPU) as exe:
        if len(exe.plan.streams) != 2:
            raise Wrong(f"the plan has {len(exe.plan.streams)} streams, not 2")
        inputs = _drawn(exe)
        found = compare_executable(exe, inputs)
        if not found.ok:
            raise Wrong(f"out of tolerance, first node '{found.first_bad}'")
        _same_bits(exe, inputs, "two runs differ")
    return f"{REPEATS} runs on 2 streams, the same bits"


def _replay(device: Device) -> str:
    if not isinstance(device, HipDevice):
        return "does not apply: this device has no graphs"
    results = {}
    for mode in ("stream", "graph"):
        with compile(_branches(), device=replace(device, mode=mode), streams=2, costs=GPU) as exe:
            session = exe.session
            if isinstance(session, HipSession) and session.mode != mode:
                raise Wrong(f"no graph: {session.fallback}")
            results[mode] = _same_bits(exe, _drawn(exe), f"two runs in {mode} mode differ")
    if results["stream"] != results["graph"]:
        raise Wrong("a replay gives other numbers than the calls it was captured from")
    return f"{REPEATS} replays, the same bits as call by call"


def _requests(device: Device) -> str:
    with compile(_branches(), device=device, streams=2, costs=GPU) as exe:
        requests = [_drawn(exe, seed) for seed in range(4)]
        expected = [_bits(exe.run(**inputs)) for inputs in requests]
        for depth in (2, 3):
            found = [_bits(outputs) for outputs in exe.map(requests * 3, in_flight=depth)]
            if found != expected * 3:
                raise Wrong(f"{depth} requests in flight give other numbers than one")
    return "12 requests, 2 and 3 in flight, the same bits"


def _sizes(device: Device) -> str:
    g = Graph("sizes", dims={"N": 16})
    g.output(out=g.softmax(g.input("x", ("N", "N")), name="out"))
    with compile(g, device=device) as exe:
        for n in (16, 5, 48):
            x = np.random.default_rng(n).standard_normal((n, n)).astype(np.float32)
            e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
            error = np.abs(exe.run(x=x)["out"] - e / e.sum(axis=-1, keepdims=True)).max()
            if not error < 1e-5:
                raise Wrong(f"N={n} is off by {error:.2g}")
    return "3 sizes of one graph"


def _same_bits(exe: Executable, inputs: Mapping[str, Array], complaint: str) -> dict[str, bytes]:
    first = _bits(exe.run(**inputs))
    for _ in range(REPEATS - 1):
        if _bits(exe.run(**inputs)) != first:
            raise Wrong(complaint)
    return first


def _bits(outputs: Mapping[str, Array]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in outputs.items()}


def _drawn(exe: Executable, seed: int = 0) -> dict[str, Array]:
    return read_inputs((), exe.inputs, seed)[0]
