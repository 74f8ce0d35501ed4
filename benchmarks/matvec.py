"""Products of few rows: reading the weights is the work, and the memory's rate the limit.

    python benchmarks/matvec.py                       # on a GPU, with PyTorch
    python benchmarks/matvec.py --device cpu          # PyTorch is measured if it is there

Each shape is a chain of products with weights of their own, of more bytes than the caches hold, in
one plan on one stream. Times are of one product. The ways: the kernel that graphexec chooses, the
one that `tune` chooses (on GPUs), the BLAS library (`no_rewrite: few-rows`), and PyTorch's linear.
Every way is checked against float64 first.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from measure import side_by_side, table

import graphexec as gx

LLAMA = ((3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (128256, 2048))
SMOLLM = ((576, 576), (1536, 576), (576, 1536), (49152, 576))
GPU_BYTES, CPU_BYTES = 1 << 30, 1 << 28  # of the weights of a chain
HEADER = ["M, N, K", "µs", "GB/s of weights", "of reading", "others take"]


@dataclass(frozen=True)
class Shape:
    """`count` products of M rows; the weights are (N, K), or (K, N) where `turned`."""

    m: int
    n: int
    k: int
    dtype: str
    turned: bool
    count: int

    @property
    def weights(self) -> tuple[int, int]:
        return (self.k, self.n) if self.turned else (self.n, self.k)

    @property
    def nbytes(self) -> int:
        return self.n * self.k * gx.DType(self.dtype).itemsize

    def graph(self) -> gx.Graph:
        g = gx.Graph("matvec")
        x = g.input("x", (self.m, self.k), self.dtype)
        for i in range(self.count):
            w = g.input(f"w{i}", self.weights, self.dtype)
            g.output(**{self.output(i): g.gemm(x, w, trans_b=not self.turned, name=f"y{i}")})
        return g

    def output(self, i: int) -> str:
        return "out" if i == self.count - 1 else f"out{i}"

    def __str__(self) -> str:
        return f"{self.dtype} {self.m}, {self.n}, {self.k}{' turned' if self.turned else ''}"

    def line(self, times: dict[str, float], rate: float) -> list[str]:
        """The cells of a row: `times` are µs of a chain, `rate` GB/s."""
        each = {name: t / self.count for name, t in times.items()}
        ours = each["graphexec"]
        found = self.nbytes / ours / 1e3
        others = ", ".join(f"{n} {t:.1f} ({t / ours:.2f}×)" for n, t in each.items())
        return [str(self), f"{ours:.1f}", f"{found:.0f}", f"{found / rate:.2f}", others]


def shapes(args: argparse.Namespace, of: tuple[tuple[int, int], ...], nbytes: int) -> list[Shape]:
    size = gx.DType(args.dtype).itemsize
    return [
        Shape(m, n, k, args.dtype, args.turned, max(1, min(256, nbytes // (n * k * size))))
        for n, k in of
        for m in args.rows
    ]


# On a GPU -------------------------------------------------------------------------------------


def gpu_lines(args: argparse.Namespace) -> Iterator[list[str]]:
    import torch
    from gpu_ways import captured, ceilings, check, closing, device_times, ours, random

    kind = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[args.dtype]
    torch.backends.cuda.matmul.allow_tf32 = False
    rate = ceilings().copy
    print(f"{gx.HipDevice().describe()}; PyTorch {torch.__version__}; copies {rate:.0f} GB/s")
    for shape in shapes(args, LLAMA, GPU_BYTES):
        inputs = {"x": random(shape.m, shape.k, dtype=kind)}
        inputs |= {f"w{i}": random(*shape.weights, dtype=kind) for i in range(shape.count)}
        x, weights = inputs["x"], list(inputs.values())[1:]
        graph, plain = shape.graph(), {"no_rewrite": ["batch"], "streams": 1}
        last = weights[-1].double()
        exact = x.double() @ (last if shape.turned else last.T)
        with torch.no_grad():
            ways = {
                "graphexec": ours(graph, inputs, **plain),
                "library": ours(graph, inputs, streams=1, no_rewrite=["batch", "few-rows"]),
                "PyTorch": captured(
                    lambda x=x, ws=weights, turned=shape.turned: [
                        x @ w if turned else torch.nn.functional.linear(x, w) for w in ws
                    ][::-1]
                ),
            }
            if args.tune:
                ways["tuned"] = ours(graph, inputs, tuned=True, **plain)
        with closing(ways):
            for name, way in ways.items():
                check(f"{shape}, {name}", way, exact)
            yield shape.line(device_times(ways), rate)
        del inputs, x, weights, last, ways


# On the CPU -----------------------------------------------------------------------------------


def cpu_lines(args: argparse.Namespace) -> Iterator[list[str]]:
    rate = read_rate()
    print(f"{os.cpu_count()} cores; reading {rate:.1f} GB/s; NumPy {np.__version__}")
    for shape in shapes(args, SMOLLM, CPU_BYTES):
        rng, kind = np.random.default_rng(0), gx.DType(args.dtype).numpy()
        arrays = {"x": rng.standard_normal((shape.m, shape.k), np.float32).astype(kind)}
        for i in range(shape.count):
            arrays[f"w{i}"] = rng.standard_normal(shape.weights, np.float32).astype(kind)
        last = arrays[f"w{shape.count - 1}"].astype(np.float64)
        exact = arrays["x"].astype(np.float64) @ (last if shape.turned else last.T)
        ways: dict[str, Callable[[], object]] = {}
        opened = []
        for name, off in (("graphexec", ["batch"]), ("library", ["batch", "few-rows"])):
            exe = gx.compile(shape.graph(), device="cpu", resident=True, streams=1, no_rewrite=off)
            opened.append(exe)
            for key, array in arrays.items():
                exe.host_array(key)[...] = array
            exe.replay()
            check_cpu(f"{shape}, {name}", exe.host_array("out"), exact)
            ways[name] = exe.replay
        ways |= torch_ways(shape, arrays, exact)
        times = side_by_side(ways, args.repeat)
        best = {name: 1e6 * (found.best if args.best else found.median)
                for name, found in times.items()}  # fmt: skip
        yield shape.line(best, rate)
        for exe in opened:
            exe.close()


def torch_ways(
    shape: Shape, arrays: dict[str, np.ndarray], exact: np.ndarray
) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    kind = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[shape.dtype]

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(kind)

    x, weights = tensor(arrays["x"]), [tensor(arrays[f"w{i}"]) for i in range(shape.count)]

    @torch.inference_mode()
    def run() -> torch.Tensor:
        for w in weights:
            y = x @ w if shape.turned else torch.nn.functional.linear(x, w)
        return y

    check_cpu(f"{shape}, PyTorch", run().float().numpy(), exact)
    return {"PyTorch": run}


def check_cpu(name: str, found: np.ndarray, exact: np.ndarray) -> None:
    error = np.linalg.norm(found.astype(np.float64) - exact) / np.linalg.norm(exact)
    if not error <= 1e-2:
        sys.exit(f"{name} is wrong: relative error {error:.1e}")


def read_rate() -> float:
    """GB/s at which all cores together read memory: the sum of squares of 256 MiB, each a part."""
    cores = os.cpu_count() or 1
    parts = np.array_split(np.ones(CPU_BYTES // 4, np.float32), cores)

    def once() -> float:
        threads = [threading.Thread(target=np.dot, args=(part, part)) for part in parts]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    return CPU_BYTES / min(once() for _ in range(10)) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--dtype", choices=("f16", "bf16", "f32"), default="f16")
    parser.add_argument("--turned", action="store_true", help="weights are (K, N)")
    parser.add_argument("--tune", action="store_true", help="also with tuned kernels (GPU)")
    parser.add_argument("--repeat", type=int, default=12, help="runs of a chain on the CPU")
    parser.add_argument("--best", action="store_true", help="the least time, not the median (CPU)")
    args = parser.parse_args()
    rows = [HEADER]
    for line in (gpu_lines if args.device == "gpu" else cpu_lines)(args):
        print(" | ".join(line), flush=True)
        rows.append(line)
    print("\n" + table(rows))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHEXEC_PROFILES"] = folder  # profiles of this process only
        main()
