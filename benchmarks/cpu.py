"""The CPU device against PyTorch and plain NumPy, side by side on the same cores.

    pip install torch          # any CPU build
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


def check(name: str, found: np.ndarray, exact: np.ndarray, tolerance: float) -> None:
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    if not error <= tolerance:
        sys.exit(f"{name} is wrong: relative error {error:.1e}")


def attention_row(shape: tuple[int, ...]) -> list[str]:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32) for name in "qkv"}
    tensors = [torch.from_numpy(a) for a in arrays.values()]
    exact = numpy_attention(*(a.astype(np.float64) for a in arrays.values()))
    with gx.compile(attention_graph(shape, "f32"), device="cpu") as exe:
        ways = {
            "graphexec": lambda: exe.run(**arrays)["out"],
            "torch": lambda: torch_attention(*tensors).numpy(),
            "numpy": lambda: numpy_attention(*arrays.values()),
        }
        for name, way in ways.items():
            check(name, way(), exact, 1e-5)
        times = side_by_side(ways, REPEAT)
        stats = exe.plan.stats
    assert stats is not None
    ours = times["graphexec"].median
    return [
        f"attention f32 {shape}",
        f"{ours * 1e3:.1f} ms",
        f"{times['torch'].median / ours:.2f}×",
        f"{times['numpy'].median / ours:.2f}×",
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
        f"gemm f16 {n}³", f"{ours * 1e3:.1f} ms", "", f"{times['numpy'].median / ours:.2f}×",
        "", "", "",
    ]  # fmt: skip


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
    header = ["work", "graphexec", "PyTorch eager takes", "NumPy takes", "arena", "lower bound",
              "all tensors"]  # fmt: skip
    rows = [attention_row((1, 8, s, 64)) for s in (256, 512, 1024)]
    rows += [half_gemm_row(n) for n in (256, 512, 1024, 2048)]
    print(table([header, *rows]))
    print()
    print(table([["what", "time", "bound"], *planning_rows()]))


if __name__ == "__main__":
    main()
