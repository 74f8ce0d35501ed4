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
from graphexec.tools.selftest_graphs import DTYPES, GRAPHS, many_attentions

Test = Callable[[Device], str]

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
    found: dict[str, Test] = {
        f"{op} {dtype}": partial(_compared, build(dtype))
        for op, build in GRAPHS.items()
        for dtype in DTYPES
    }
    found |= {
        f"many attentions {t}": partial(_compared, many_attentions(t)) for t in ("f16", "bf16")
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


def _compared(graph: Graph, device: Device) -> str:
    """Run, and compare every node and output with float64."""
    with compile(graph, device=device) as exe:
        found = compare_executable(exe, _drawn(exe))
    rows = (*found.outputs, *found.nodes)
    bad = [_row(row) for row in rows if not row.ok]
    if bad:
        raise Wrong("out of tolerance: " + ", ".join(bad))
    worst = max(rows, key=lambda row: row.relative / row.tolerance if row.tolerance else 0.0)
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
