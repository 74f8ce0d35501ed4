"""MiniLM-L6 from its YAML against PyTorch, torch.compile and ONNX Runtime, side by side.

    python benchmarks/minilm.py [--graph graphs/minilm.yaml] [--weights FILE.safetensors]

On a GPU: f16, against PyTorch and torch.compile (max-autotune), each in a graph of the device. On
the CPU: f32, against PyTorch eager and ONNX Runtime. Every way must have a cosine to float64 of at
least 0.9999 (f16) or 0.99999 (f32) before its time counts. Without --weights they are random, of a
fixed seed. Compile times are of new processes, first with empty caches, then with filled ones.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from measure import side_by_side, table
from minilm_torch import MiniLM, model, onnx_bytes, tokens, weights_from
from safetensors.torch import save_file

import graphexec as gx

GPU_SHAPES = ((1, 128), (32, 128), (1, 32))
CPU_SHAPES = ((1, 128), (8, 128))
LEAST = {torch.float16: 0.9999, torch.float32: 0.99999}
NAMES = {torch.float16: "f16", torch.float32: "f32"}
REPEAT = 60
Weights = Mapping[str, torch.Tensor]


def loaded(graph: Path, weights: Weights, shape: tuple[int, int], folder: Path) -> gx.Graph:
    """The graph of the YAML with these weights beside it."""
    save_file(dict(weights), folder / "minilm.safetensors")
    shutil.copy(graph, folder / "minilm.yaml")
    return gx.load(folder / "minilm.yaml", dims={"B": shape[0], "S": shape[1]})


def cosine(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The least of the sentences."""
    return torch.cosine_similarity(found.double(), exact, dim=-1).min().item()


def check(name: str, found: torch.Tensor, exact: torch.Tensor) -> float:
    least = cosine(found, exact)
    if not least >= LEAST[found.dtype]:
        sys.exit(f"{name} is wrong: cosine {least:.6f}")
    return least


def launches(graph: gx.Graph, device: gx.HipDevice | gx.CpuDevice) -> int:
    return len(gx.make_plan(graph, device=device, use_profile=False).launches)


# On a GPU -------------------------------------------------------------------------------------


def gpu_line(
    shape: tuple[int, int], graph: Path, weights: Weights, folder: Path, tuned: bool
) -> list[str]:
    from gpu_ways import captured, closing, device_times, ours, poisoned, whole_times

    rounded = {name: tensor.half() for name, tensor in weights.items()}
    given = tokens(*shape, "cuda")
    exact = model(rounded, torch.float64, "cuda")(*given)
    plain = model(rounded, torch.float16, "cuda")
    torch.compiler.reset()
    compiled = torch.compile(plain, mode="max-autotune-no-cudagraphs", dynamic=False)
    g = loaded(graph, rounded, shape, folder)
    inputs = dict(zip(("ids", "mask"), given, strict=True))
    ways = {
        "graphexec": ours(g, inputs, "embedding"),
        **({"graphexec, tuned": ours(g, inputs, "embedding", tuned=True)} if tuned else {}),
        "PyTorch": captured(lambda: plain(*given)),
        "torch.compile": captured(lambda: compiled(*given)),
    }
    with closing(ways):
        cosines = {name: check(name, poisoned(way), exact) for name, way in ways.items()}
        times, whole = device_times(ways), whole_times(ways)
    return line(f"f16 {shape}", launches(g, gx.HipDevice()), times, whole, cosines, "µs")


# On the CPU -----------------------------------------------------------------------------------


def onnx_session(module: MiniLM, given: tuple[torch.Tensor, ...]) -> Callable[[], torch.Tensor]:
    """The exported model in ONNX Runtime with all its optimizations, on all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = gx.CpuDevice().cores
    session = onnxruntime.InferenceSession(
        onnx_bytes(module, *given), options, providers=["CPUExecutionProvider"]
    )
    arrays = {name: t.numpy() for name, t in zip(("ids", "mask"), given, strict=True)}
    return lambda: torch.from_numpy(session.run(None, arrays)[0])


def cpu_line(
    shape: tuple[int, int], graph: Path, weights: Weights, folder: Path, tuned: bool = False
) -> list[str]:
    given = tokens(*shape, "cpu")
    exact = model(weights, torch.float64, "cpu")(*given)
    plain = model(weights, torch.float32, "cpu")
    arrays = {name: t.numpy() for name, t in zip(("ids", "mask"), given, strict=True)}
    g = loaded(graph, weights, shape, folder)
    with gx.compile(g, device="cpu", use_profile=False) as exe, torch.no_grad():
        ways = {
            "graphexec": lambda: torch.from_numpy(exe.run(**arrays)["embedding"]),
            "PyTorch": lambda: plain(*given),
            "ONNX Runtime": onnx_session(plain, given),
        }
        cosines = {name: check(name, way(), exact) for name, way in ways.items()}
        measured = side_by_side(ways, REPEAT)
        count = len(exe.plan.launches)
    median = {name: 1e3 * times.median for name, times in measured.items()}
    best = {name: 1e3 * times.best for name, times in measured.items()}
    return line(f"f32 {shape}", count, median, best, cosines, "ms")


# Both -----------------------------------------------------------------------------------------


def line(
    work: str, count: int, times: Mapping[str, float], more: Mapping[str, float],
    cosines: Mapping[str, float], unit: str,
) -> list[str]:  # fmt: skip
    """The cells of a table: `more` are whole runs on a GPU, and the best times on a CPU."""
    cells = [f"{n} {t:.4g} {unit} ({t / times['graphexec']:.2f}×)" for n, t in times.items()]
    beside = [f"{n} {t:.4g}" for n, t in more.items()]
    accuracy = ", ".join(f"{n} {1 - c:.1e}" for n, c in cosines.items())
    return [f"MiniLM {work}", str(count), ", ".join(cells), ", ".join(beside), accuracy]


def compile_seconds(way: str, graph: Path, weights: Weights, folder: Path) -> float:
    """Seconds to compile for the first shape, in this process, until a first run is done."""
    gpu = torch.cuda.is_available()
    dtype, device = (torch.float16, "cuda") if gpu else (torch.float32, "cpu")
    shape = (GPU_SHAPES if gpu else CPU_SHAPES)[0]
    rounded = {name: tensor.to(dtype) for name, tensor in weights.items()}
    given, plain = tokens(*shape, device), model(rounded, dtype, device)
    where = gx.HipDevice() if gpu else gx.CpuDevice()
    where.describe()  # what is made once for a machine is not of this model
    g = loaded(graph, rounded, shape, folder)
    arrays = {name: t.cpu().numpy() for name, t in zip(("ids", "mask"), given, strict=True)}
    start = time.perf_counter()
    if way == "graphexec":
        with gx.compile(g, device=where, use_profile=False) as exe:
            exe.run(**arrays)
            return time.perf_counter() - start
    with torch.no_grad():
        torch.compile(plain, mode="max-autotune-no-cudagraphs", dynamic=False)(*given).cpu()
    return time.perf_counter() - start


def compile_lines(arguments: list[str]) -> Iterator[list[str]]:
    for way in ("graphexec", "torch.compile"):
        with tempfile.TemporaryDirectory() as caches:
            places = {"XDG_CACHE_HOME": caches, "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
                      "TRITON_CACHE_DIR": f"{caches}/triton"}  # fmt: skip
            command = [sys.executable, __file__, *arguments, "--only-compile", way]
            cold, warm = (
                subprocess.run(
                    command, env=os.environ | places, stdout=subprocess.PIPE, text=True, check=True
                ).stdout.split()[-1]
                for _ in range(2)
            )
        yield [f"{way}, compile", f"{float(cold):.2f} s", f"{float(warm):.2f} s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    beside = Path(__file__).resolve().parent.parent / "graphs" / "minilm.yaml"
    parser.add_argument("--graph", type=Path, default=beside)
    parser.add_argument("--weights", type=Path, help="a .safetensors file")
    parser.add_argument("--cpu", action="store_true", help="on the CPU although there is a GPU")
    parser.add_argument("--tuned", action="store_true", help="also after tuning, on a GPU")
    parser.add_argument("--no-compile-times", action="store_true")
    parser.add_argument(
        "--only-compile", choices=("graphexec", "torch.compile"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    weights = weights_from(args.weights)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GRAPHEXEC_PROFILES"] = name  # profiles of this process only
        if args.only_compile:
            print(compile_seconds(args.only_compile, args.graph, weights, folder))
            return
        gpu = torch.cuda.is_available() and not args.cpu
        device = gx.HipDevice() if gpu else gx.CpuDevice()
        torch.set_num_threads(gx.CpuDevice().cores)
        print(f"{device.describe()}; {datetime.date.today()}; PyTorch {torch.__version__}; "
              f"weights: {args.weights or 'random'}\n")  # fmt: skip
        shapes, measured = (GPU_SHAPES, gpu_line) if gpu else (CPU_SHAPES, cpu_line)
        with torch.no_grad():
            rows = []
            for shape in shapes:
                rows.append(measured(shape, args.graph, weights, folder, args.tuned))
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    header = ["work", "launches", "median", "whole run" if gpu else "best", "1 − cosine"]
    print(table([header, *rows]) + "\n")
    if args.no_compile_times:
        return
    print(table([["what", "cold", "warm"], *compile_lines(sys.argv[1:])]))


if __name__ == "__main__":
    main()
