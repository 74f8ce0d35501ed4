"""The CPU device against PyTorch, ONNX Runtime and plain NumPy, side by side on the same cores.

    pip install torch onnx onnxruntime          # any CPU build of torch
    python benchmarks/cpu.py

Every way is checked against float64 before its time counts. Times are medians; what to look at
are the ratios.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime
import torch
from measure import side_by_side, table

import graphexec as gx
from graphexec.devices.cpu import CpuDevice

REPEAT = 30


def attention_graph(shape: tuple[int, ...], dtype: str) -> gx.Graph:
    g = gx.Graph("attention")
    q, k, v = (g.input(name, shape, dtype) for name in "qkv")
    scores = g.gemm(q, k, trans_b=True, alpha=shape[-1] ** -0.5, name="scores")
    g.output(out=g.gemm(g.softmax(scores, name="probs"), v, name="ctx"))
    return g


def numpy_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    s = np.matmul(q, k.swapaxes(-1, -2)) * q.dtype.type(q.shape[-1] ** -0.5)
    e = np.exp(s - s.max(-1, keepdims=True))
    return np.matmul(e / e.sum(-1, keepdims=True), v)


def torch_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    s = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return torch.matmul(torch.softmax(s, -1), v)


def torch_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def onnx_attention(shape: tuple[int, ...]) -> onnxruntime.InferenceSession:
    """MatMul, Softmax, MatMul, as a model exported from PyTorch has them."""
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    rank = len(shape)
    nodes = [
        node("Transpose", ["k"], ["kt"], perm=[*range(rank - 2), rank - 1, rank - 2]),
        node("MatMul", ["q", "kt"], ["product"]),
        node("Mul", ["product", "scale"], ["scores"]),
        node("Softmax", ["scores"], ["probs"], axis=-1),
        node("MatMul", ["probs", "v"], ["out"]),
    ]
    kind = onnx.TensorProto.FLOAT
    scale = onnx.helper.make_tensor("scale", kind, [], [shape[-1] ** -0.5])
    graph = onnx.helper.make_graph(
        nodes, "attention", [info(name, kind, shape) for name in "qkv"],
        [info("out", kind, shape)], [scale],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CpuDevice().cores
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def check(name: str, found: np.ndarray, exact: np.ndarray, tolerance: float) -> None:
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    if not error <= tolerance:
        sys.exit(f"{name} is wrong: relative error {error:.1e}")


def attention_row(shape: tuple[int, ...]) -> list[str]:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32) for name in "qkv"}
    tensors = [torch.from_numpy(a) for a in arrays.values()]
    exact = numpy_attention(*(a.astype(np.float64) for a in arrays.values()))
    graph, session = attention_graph(shape, "f32"), onnx_attention(shape)
    with (
        gx.compile(graph, device="cpu") as exe,
        gx.compile(graph, device="cpu", resident=True) as resident,
        gx.compile(graph, device="cpu", no_rewrite=["fuse-attention"]) as unfused,
    ):
        ways = {
            "graphexec": lambda: exe.run(**arrays)["out"],
            "unfused": lambda: unfused.run(**arrays)["out"],
            "torch": lambda: torch_attention(*tensors).numpy(),
            "sdpa": lambda: torch_sdpa(*tensors).numpy(),
            "onnx": lambda: session.run(None, arrays)[0],
            "numpy": lambda: numpy_attention(*arrays.values()),
        }
        for name, way in ways.items():
            check(name, way(), exact, 1e-5)
        check("resident", resident.run(**arrays)["out"], exact, 1e-5)
        # Without copying inputs in and outputs out, as the others are timed.
        times = side_by_side({**ways, "resident": resident.replay}, REPEAT)
        stats = exe.plan.stats
    assert stats is not None
    ours, alone = times["graphexec"].median, times["resident"].median
    others = ("unfused", "torch", "sdpa", "onnx", "numpy")
    return [
        f"attention f32 {shape}",
        f"{ours * 1e3:.1f} ms",
        f"{alone * 1e3:.1f} ms",
        *(f"{times[name].median / alone:.2f}×" for name in others),
        f"{stats.arena_bytes / 2**20:.1f} MiB",
        f"{stats.arena_lower_bound / 2**20:.1f} MiB",
        f"{stats.naive_bytes / 2**20:.1f} MiB",
    ]


def half_gemm_row(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n)).astype(np.float16) for _ in range(2))
    g = gx.Graph("gemm")
    g.output(y=g.gemm(g.input("a", (n, n), "f16"), g.input("b", (n, n), "f16")))
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    with gx.compile(g, device="cpu") as exe:
        ways = {
            "graphexec": lambda: exe.run(a=a, b=b)["y"],
            "numpy": lambda: np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(
                np.float16
            ),
        }
        for name, way in ways.items():
            check(name, way().astype(np.float64), exact, 1e-3)
        times = side_by_side(ways, REPEAT)
    ours = times["graphexec"].median
    return [
        f"gemm f16 {n}³", f"{ours * 1e3:.1f} ms", "", "", "", "", "",
        f"{times['numpy'].median / ours:.2f}×",
        "", "", "",
    ]  # fmt: skip


class BiasFirst(CpuDevice):
    """A device whose products add no bias: it is put into the result, and the product added."""

    def capabilities(self, graph: gx.Graph | None = None) -> frozenset[str]:
        return frozenset(c for c in super().capabilities(graph) if not c.startswith("gemm-bias"))


def bias_row(m: int, n: int, k: int, dtype: str) -> list[str]:
    rng = np.random.default_rng(0)
    shapes = {"x": (m, k), "w": (k, n), "bias": (n,)}
    kind = gx.DType(dtype).numpy()
    arrays = {name: rng.standard_normal(shape).astype(kind) for name, shape in shapes.items()}
    g = gx.Graph("layer")
    for name, shape in shapes.items():
        g.input(name, shape, dtype)
    g.output(y=g.gemm("x", "w", bias="bias"))
    x, w, bias = (a.astype(np.float64) for a in arrays.values())
    with gx.compile(g, device="cpu") as exe, gx.compile(g, device=BiasFirst()) as first:
        ways = {
            "graphexec": lambda: exe.run(**arrays)["y"],
            "first": lambda: first.run(**arrays)["y"],
        }
        for name, way in ways.items():
            check(name, way().astype(np.float64), x @ w + bias, 1e-3 if dtype == "f16" else 1e-5)
        times = side_by_side(ways, REPEAT)
    ours = times["graphexec"].median
    return [f"gemm {dtype} {m}×{n}×{k} + bias", f"{ours * 1e3:.1f} ms",
            f"{times['first'].median / ours:.2f}×"]  # fmt: skip


LAYERS = ((64, 256, 256), (512, 512, 512), (1024, 1024, 64), (2048, 2048, 128))


def layered(nodes: int) -> gx.Graph:
    """A random layered DAG of GEMMs, 20 wide."""
    rng = np.random.default_rng(0)
    g = gx.Graph("layered")
    previous = [g.input("x", (16, 16))]
    while len(g.nodes) < nodes:
        layer = []
        for _ in range(min(20, nodes - len(g.nodes))):
            a, b = rng.choice(previous, 2)
            layer.append(g.gemm(str(a), str(b), name=f"n{len(g.nodes)}"))
        previous = layer
    g.output(*previous)
    return g


def planning_rows() -> list[list[str]]:
    text = layered(1000).to_yaml()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        gx.make_plan(gx.loads(text))
        seconds.append(time.perf_counter() - start)
    rows = [["plan and prove a 1,000-node graph, from YAML", f"{min(seconds):.2f} s", "0.3 s"]]
    for what, command, bound in (
        ("import graphexec", [sys.executable, "-c", "import graphexec"], "0.15 s"),
        ("graphexec --help", [sys.executable, "-m", "graphexec", "--help"], "0.3 s"),
    ):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        rows.append([what, f"{min(seconds):.2f} s", bound])
    return rows


def main() -> None:
    torch.set_num_threads(CpuDevice().cores)
    print(f"{CpuDevice().describe()}; {datetime.date.today()}; NumPy {np.__version__}, "
          f"PyTorch {torch.__version__}\n")  # fmt: skip
    header = ["work", "graphexec, whole run", "in place", "unfused takes", "PyTorch eager takes",
              "SDPA takes", "ONNX Runtime takes", "NumPy takes", "arena", "lower bound",
              "all tensors"]  # fmt: skip
    rows = [attention_row((1, 8, s, 64)) for s in (256, 512, 1024)]
    rows += [half_gemm_row(n) for n in (256, 512, 1024, 2048)]
    print(table([header, *rows]))
    print()
    rows = [bias_row(*layer, dtype) for dtype in ("f32", "f16") for layer in LAYERS]
    print(table([["layer", "graphexec, whole run", "bias put into the result first"], *rows]))
    print()
    print(table([["what", "time", "bound"], *planning_rows()]))


if __name__ == "__main__":
    main()
