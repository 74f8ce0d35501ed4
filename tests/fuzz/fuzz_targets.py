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
import struct
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
from graphexec.graph.infer import infer
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


# Models ---------------------------------------------------------------------------------------

_E, _F, _V = 8, 12, 16
_LAYER = {"attn_q": (_E, _E), "attn_k": (4, _E), "attn_v": (4, _E), "attn_output": (_E, _E),
          "ffn_gate": (_F, _E), "ffn_up": (_F, _E), "ffn_down": (_E, _F),
          "attn_norm": (_E,), "ffn_norm": (_E,)}  # fmt: skip


def _gguf_seeds() -> list[bytes]:
    """A decoder of one layer, with metadata of every kind."""
    tensors = {"token_embd": (_V, _E), "output_norm": (_E,),
               **{f"blk.0.{name}": shape for name, shape in _LAYER.items()}}  # fmt: skip
    numbers = {"block_count": 1, "context_length": 32, "embedding_length": _E,
               "feed_forward_length": _F, "attention.head_count": 4,
               "attention.head_count_kv": 2}  # fmt: skip
    pairs = [_text("general.architecture") + struct.pack("<I", 8) + _text("llama")]
    pairs += [_text(f"llama.{name}") + struct.pack("<II", 4, n) for name, n in numbers.items()]
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    pairs.append(_text(epsilon) + struct.pack("<If", 6, 1e-5))
    words = _text("tokens") + struct.pack("<IIQ", 9, 8, 3) + _text("a") * 3
    nested = _text("nested") + struct.pack("<IIQIQH", 9, 9, 1, 2, 1, 7)
    pairs += [words, nested, _text("flag") + struct.pack("<I?", 7, True)]
    infos, data = b"", b""
    for name, shape in tensors.items():
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        infos += _text(f"{name}.weight") + sizes + struct.pack("<IQ", 0, len(data))
        data += np.ones(shape, "<f4").tobytes().ljust(-(-4 * int(np.prod(shape)) // 32) * 32, b"\0")
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + infos
    return [head.ljust(-(-len(head) // 32) * 32, b"\0") + data]


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _use_gguf(data: bytes) -> None:
    _use_model(_file("m.gguf", data))


def _use_model(path: Path) -> None:
    """Plan it, and read each of its weights that is not huge."""
    graph = load(path)
    gx.make_plan(graph, streams=2)
    with WeightFiles() as files:
        for weight in infer(graph).weights.values():
            if weight.type.elements <= _BIG:
                files.read(weight)


def _config_seeds() -> list[bytes]:
    common = {"hidden_size": _E, "num_attention_heads": 4, "num_hidden_layers": 1,
              "intermediate_size": _F, "vocab_size": _V, "max_position_embeddings": 32}  # fmt: skip
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
    llama = {"model_type": "llama", "hidden_act": "silu", "num_key_value_heads": 2,
             "rms_norm_eps": 1e-5, "rope_theta": 1e4, "rope_scaling": scaling}  # fmt: skip
    mistral = {**llama, "model_type": "mistral", "sliding_window": 4, "rope_scaling": None}
    bert = {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    return [json.dumps({**common, **own}).encode() for own in (llama, mistral, bert)]


def _use_config(data: bytes) -> None:
    folder = _folder(os.getpid()) / "model"
    if not folder.exists():
        folder.mkdir()
        _write_weights(folder / "model.safetensors")
    (folder / "config.json").write_bytes(data)
    gx.make_plan(load(folder))


def _write_weights(path: Path) -> None:
    from safetensors.numpy import save_file

    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
             "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}  # fmt: skip
    shapes = {f"model.layers.0.{names[name]}.weight": shape for name, shape in _LAYER.items()}
    shapes |= {"model.embed_tokens.weight": (_V, _E), "model.norm.weight": (_E,)}
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)


def _onnx_seeds() -> list[bytes]:
    """Two small models: of arithmetic on shapes, and of a layer with weights in the file."""
    from onnx import TensorProto, helper, numpy_helper

    value, node = helper.make_tensor_value_info, helper.make_node
    x = value("x", TensorProto.FLOAT, ["B", 4])
    w = numpy_helper.from_array(np.ones((4, 6), np.float32), "w")
    layer = [node("MatMul", ["x", "w"], ["h"]), node("Gelu", ["h"], ["g"], approximate="tanh"),
             node("Softmax", ["g"], ["y"], axis=-1)]  # fmt: skip
    ends = numpy_helper.from_array(np.array([-1], np.int64), "ends")
    shapes = [
        node("Shape", ["x"], ["s"]), node("Slice", ["s", "zero", "ends"], ["b"]),
        node("Concat", ["b", "two", "two"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]), node("ReduceSum", ["r", "ends"], ["y"]),
    ]  # fmt: skip
    zero, two = (numpy_helper.from_array(np.array([n], np.int64), name)
                 for n, name in ((0, "zero"), (2, "two")))  # fmt: skip
    y = value("y", TensorProto.FLOAT, None)
    graphs = [helper.make_graph(layer, "layer", [x], [y], [w]),
              helper.make_graph(shapes, "shapes", [x], [y], [ends, zero, two])]  # fmt: skip
    opset = [helper.make_opsetid("", 21)]
    return [
        helper.make_model(graph, opset_imports=opset).SerializeToString() for graph in graphs
    ]  # fmt: skip


def _use_onnx(data: bytes) -> None:
    _use_model(_file("m.onnx", data))


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
    "gguf": Target(_gguf_seeds, _use_gguf),
    "config": Target(_config_seeds, _use_config),
    "onnx": Target(_onnx_seeds, _use_onnx),
    "plan": Target(lambda: [p.to_json().encode() for p in _plans()], _use_plan),
    "npy": Target(_npy_seeds, partial(_use_array, ".npy")),
    "npz": Target(_npz_seeds, partial(_use_array, ".npz")),
    "safetensors": Target(_safetensors_seeds, partial(_use_array, ".safetensors")),
    "profile": Target(_profile_seeds, _use_profile),
    "trace": Target(lambda: [to_json(*_measured()).encode()], _use_trace),
    "baseline": Target(lambda: [json.dumps(_baseline()).encode()], _use_baseline),
}
