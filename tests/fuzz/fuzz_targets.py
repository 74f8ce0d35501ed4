"""What a file may hold, read and used as the command line does: the targets of the fuzzers.

A target takes the bytes of a file. It ends in order, or with an exception of graphexec that is the
user's mistake; anything else is a fault. `judge` says which.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import graphexec as gx
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.base.tensor import DType, TensorType
from graphexec.cli.bench import _compare, _read_baseline
from graphexec.cli.drawing import Drawing, write
from graphexec.cli.tune import _described
from graphexec.formats.arrays import read_inputs
from graphexec.formats.plan_file import loads as read_plan
from graphexec.frontend.load import load
from graphexec.frontend.weight_paths import WeightError
from graphexec.frontend.weights import WeightFiles
from graphexec.ir.typed import TypedWeight
from graphexec.planning import profile
from graphexec.proof import find_hazards, lint
from graphexec.runtime.trace import Span, Trace
from graphexec.views.chrome import from_json, to_json

GRAPHS = Path(__file__).parents[2] / "graphs"
SHAPE = (2, 3)
_BIG = 1 << 30  # elements: more is refused for its shape, not read

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A kind of file: examples that are right, and what reads and uses one."""

    seeds: Callable[[], list[bytes]]
    use: Parse


def judge(target: Target, data: bytes) -> str:
    """Empty if the target ends as it may, else the traceback of what it raised."""
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(
            io.StringIO()
        ):  # fmt: skip
            warnings.simplefilter("error")
            for category in (gx.CacheWarning, gx.FallbackWarning):
                warnings.simplefilter("ignore", category)
            target.use(data)
    except (InputError, WeightError) as exc:
        shown = Diagnostic(str(exc)).render() if isinstance(exc, WeightError) else str(exc)
        return _unprintable(shown)
    except Exception:
        return traceback.format_exc()
    return ""


def _unprintable(message: str) -> str:
    odd = {c for c in message if not c.isprintable() and c != "\n"}
    return f"the message holds {sorted(odd)}: {message!r}" if odd else ""


# YAML and plans -------------------------------------------------------------------------------


def _yaml_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted(GRAPHS.glob("*.yaml"))]


def _use_yaml(data: bytes) -> None:
    path = _file("graph.yaml", data)
    graph = load(path, weight_root=GRAPHS)
    plan = gx.make_plan(graph, streams=2)
    str(plan)


@cache
def _plans() -> list[gx.Plan]:
    names = ("diamond", "attention", "parallel_branches")
    return [gx.make_plan(gx.load(GRAPHS / f"{name}.yaml"), streams=3) for name in names]


def _use_plan(data: bytes) -> None:
    plan = read_plan(data.decode("utf-8-sig", "replace"))
    hazards = find_hazards(plan)
    if not hazards:
        lint(plan)
    drawing = Drawing(plan, hazards=hazards)
    for view, format in (
        ("plan", "text"), ("plan", "svg"), ("plan", "dot"), ("plan", "mermaid"), ("plan", "html"),
        ("graph", "text"), ("memory", "text"), ("memory", "svg"),
    ):  # fmt: skip
        write(view, format, drawing)  # type: ignore[arg-type]
    assert read_plan(plan.to_json()) == plan


# Arrays ---------------------------------------------------------------------------------------


def _npy(array: np.ndarray[Any, Any], version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def _npy_seeds() -> list[bytes]:
    values = np.arange(6).reshape(SHAPE)
    made = [_npy(values.astype(kind)) for kind in ("<f4", "<f2", "<f8", "<u2", ">f4", "i1")]
    made += [_npy(np.asfortranarray(values, "<f4")), _npy(np.float32(3))]  # type: ignore[arg-type]
    return made + [_npy(values.astype("<f4"), (major, 0)) for major in (2, 3)]


def _npz_seeds() -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, array in (("x", np.zeros(SHAPE, "<f4")), ("y", np.ones(SHAPE, "<f8"))):
                archive.writestr(f"{name}.npy", _npy(array))
        made.append(stream.getvalue())
    return made


def _safetensors_seeds() -> list[bytes]:
    made = []
    for dtype, size, shape in (
        ("F32", 4, [2, 3]),
        ("BF16", 2, [6]),
        ("F64", 8, []),
        ("I8", 1, [1]),
    ):
        count = size * int(np.prod(shape))
        tensor = {"dtype": dtype, "shape": shape, "data_offsets": [0, count]}
        header = json.dumps({"w": tensor, "__metadata__": {"format": "np"}}).encode()
        made.append(len(header).to_bytes(8, "little") + header + bytes(count))
    return made


_TYPES = {"x": TensorType(SHAPE, DType.F32), "y": TensorType(SHAPE, DType.F64),
          "b": TensorType(SHAPE, DType.BF16)}  # fmt: skip


def _use_array(ending: str, data: bytes) -> None:
    path = _file(f"w{ending}", data)
    faults: list[Exception] = []
    uses: list[Callable[[], object]] = [partial(_use_weight, path, d) for d in (None, DType.BF16)]
    if ending == ".npy":
        uses += [partial(read_inputs, [f"{name}={path}"], _TYPES) for name in _TYPES]
    elif ending == ".npz":
        uses.append(partial(read_inputs, [str(path)], _TYPES))
    for use in uses:
        try:
            use()
        except (InputError, WeightError) as exc:
            faults.append(exc)
    if faults:
        raise faults[0]


def _use_weight(path: Path, dtype: DType | None) -> None:
    faults = []
    with WeightFiles() as files:
        for key in (None, "w", "x"):
            try:
                found = files.find(path.parent, None, path.name, key, dtype)
                type = TensorType(found.shape, found.dtype)
                if type.elements <= _BIG:
                    files.read(TypedWeight(type, found.path, key))
            except WeightError as exc:
                faults.append(exc)
    if faults:
        raise faults[-1]


# Times ----------------------------------------------------------------------------------------


@cache
def _small() -> gx.Graph:
    return gx.load(GRAPHS / "diamond.yaml")


@cache
def _signatures() -> list[str]:
    from graphexec.machine.costs import signature
    from graphexec.planning.pipeline import plan_graph

    work = plan_graph(_small(), device="cpu", options=gx.Options())
    return sorted({signature(command) for command in work.program.commands})


def _profile_seeds() -> list[bytes]:
    commands = {
        key: {"us": 3.5 + n, "share": 0.5, "choice": n, "tried": {"0": 4.5, "1": 2}} if n % 2
        else 5.0 + n for n, key in enumerate(_signatures())
    }  # fmt: skip
    document = {
        "profile_version": 1, "graph": "diamond", "signature": "00", "device": "cpu",
        "versions": {"numpy": "2"}, "commands": commands,
        "constants": {"start": 1.0, "launch": 0.5, "wait": 2, "fork": 7.25},
        "schedules": {"4 streams": {"best": "one stream", "tried": {"one stream": 30.5}}},
    }  # fmt: skip
    return [json.dumps(document).encode()]


def _use_profile(data: bytes) -> None:
    path = _file("costs.json", data)
    found = profile.load(path)
    _described(found)
    assert profile.loads(found.to_json()) == found
    for streams in (1, 3, "auto"):
        gx.make_plan(_small(), options=gx.Options(costs=path, streams=streams))  # type: ignore[arg-type]


@cache
def _measured() -> tuple[gx.Plan, Trace]:
    plan = _plans()[0]
    launches = [n for n, i in enumerate(plan.instructions) if type(i).__name__ == "Launch"]
    spans = tuple(Span(number, 10.0 * n, 10.0 * n + 7.5) for n, number in enumerate(launches))
    return plan, Trace(plan.graph, "cpu", spans, uninstrumented=70.25)


def _use_trace(data: bytes) -> None:
    plan, _ = _measured()
    trace = from_json(data.decode("utf-8-sig", "replace"), plan, "run.json")
    for format in ("svg", "html"):
        write("plan", format, Drawing(plan, trace=trace))


def _baseline() -> dict[str, Any]:
    times = {"min": 1.0, "median": 1.5, "p90": 2.0, "p99": 2.5}
    result = {"mode": None, "asked": 4, "streams": 3, "whole": times, "device": times,
              "resident": None, "requests_per_second": 700.5, "commands": []}  # fmt: skip
    return {"bench_version": 1, "graph": "diamond", "device": "cpu", "dims": {"S": 8}, "runs": 9,
            "results": [result, {**result, "asked": "auto"}]}  # fmt: skip


def _use_baseline(data: bytes) -> None:
    _compare(_read_baseline(str(_file("old.json", data))), _baseline(), 10.0)


# ----------------------------------------------------------------------------------------------


def _file(name: str, data: bytes) -> Path:
    """A file with these bytes, in a folder of this process."""
    path = _folder(os.getpid()) / name
    path.write_bytes(data)
    return path


@cache
def _folder(process: int) -> Path:
    made = Path(tempfile.mkdtemp(prefix="graphexec-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


TARGETS = {
    "yaml": Target(_yaml_seeds, _use_yaml),
    "plan": Target(lambda: [p.to_json().encode() for p in _plans()], _use_plan),
    "npy": Target(_npy_seeds, partial(_use_array, ".npy")),
    "npz": Target(_npz_seeds, partial(_use_array, ".npz")),
    "safetensors": Target(_safetensors_seeds, partial(_use_array, ".safetensors")),
    "profile": Target(_profile_seeds, _use_profile),
    "trace": Target(lambda: [to_json(*_measured()).encode()], _use_trace),
    "baseline": Target(lambda: [json.dumps(_baseline()).encode()], _use_baseline),
}
