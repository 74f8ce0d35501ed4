"""The CPU device against PyTorch, ONNX Runtime and plain NumPy, side by side on the same cores.

    pip install torch onnx onnxruntime          # any CPU build of torch
    python benchmarks/cpu.py

Every way is checked against float64 before its time counts. Times are medians. The ratios are of
whole runs: PyTorch and ONNX Runtime read their inputs in place, graphexec copies them into the
memory of the plan.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from dataclasses import dataclass
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from measure import side_by_side, table

import graphexec as gx
from graphexec.ir.program import Gemm, Work
from graphexec.machine.support import Support, no
from graphexec.ops.attention import compiled
from graphexec.runtime.cpu.device import CpuDevice

REPEAT = 30


@dataclass(frozen=True)
class Attention:
    """One problem: q is (1, groups, heads / groups, S, D), k and v have one head a group."""

    length: int
    heads: int = 8
    head: int = 64
    groups: int = 8
    causal: bool = False

    @property
    def scale(self) -> float:
        return self.head**-0.5

    def __str__(self) -> str:
        shape = f"attention f32 (1, {self.heads}, {self.length}, {self.head})"
        shared = f", {self.groups} heads of k and v" if self.groups < self.heads else ""
        return shape + shared + (", causal" if self.causal else "")

    def arrays(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        q = (1, self.groups, self.heads // self.groups, self.length, self.head)
        shapes = {"q": q, "k": (*q[:2], 1, *q[3:]), "v": (*q[:2], 1, *q[3:])}
        return {n: rng.standard_normal(shape, np.float32) for n, shape in shapes.items()}

    def mask(self) -> np.ndarray:
        """The mask that hides later keys, for causal attention written with plain operations."""
        return np.where(np.tri(self.length), 0, -np.inf).astype(np.float32)

    def graph(self) -> gx.Graph:
        g = gx.Graph("attention")
        q, k, v = (g.input(n, a.shape, "f32") for n, a in self.arrays().items())
        scores = g.gemm(q, k, trans_b=True, alpha=self.scale, name="scores")
        probs = g.softmax(scores, causal=self.causal, name="probs")
        g.output(out=g.gemm(probs, v, name="ctx"))
        return g

    def numpy(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        s = np.matmul(q, k.swapaxes(-1, -2)) * q.dtype.type(self.scale)
        if self.causal:
            s += self.mask()
        e = np.exp(s - s.max(-1, keepdims=True))
        return np.matmul(e / e.sum(-1, keepdims=True), v)

    def eager(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        s = torch.matmul(q, k.transpose(-1, -2)) * self.scale
        if self.causal:
            s = s + torch.from_numpy(self.mask())
        return torch.matmul(torch.softmax(s, -1), v)

    def sdpa(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            found = torch.nn.functional.scaled_dot_product_attention(
                *(x.flatten(1, 2) for x in (q, k, v)), is_causal=self.causal,
                enable_gqa=self.groups < self.heads,
            )  # fmt: skip
            return found.reshape(q.shape)

    def onnx(self) -> onnxruntime.InferenceSession:
        """MatMul, Softmax, MatMul, as a model exported from PyTorch has them."""
        node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
        shapes = {n: a.shape for n, a in self.arrays().items()}
        kind, constants = onnx.TensorProto.FLOAT, [onnx.numpy_helper.from_array(
            np.float32(self.scale), "scale")]  # fmt: skip
        nodes = [
            node("Transpose", ["k"], ["kt"], perm=[0, 1, 2, 4, 3]),
            node("MatMul", ["q", "kt"], ["product"]),
            node("Mul", ["product", "scale"], ["scores"]),
            node("Softmax", ["scores"], ["probs"], axis=-1),
            node("MatMul", ["probs", "v"], ["out"]),
        ]
        if self.causal:
            constants.append(onnx.numpy_helper.from_array(self.mask(), "mask"))
            nodes[2].output[0] = "all"
            nodes.insert(3, node("Add", ["all", "mask"], ["scores"]))
        inputs = [info(n, kind, shape) for n, shape in shapes.items()]
        outputs = [info("out", kind, shapes["q"])]
        graph = onnx.helper.make_graph(nodes, "attention", inputs, outputs, constants)
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


def numpy_alone(graph: gx.Graph) -> gx.Executable:
    """Without the kernel in C; this is decided when the graph is compiled."""
    with mock.patch.object(compiled, "native_kernel", return_value=None):
        return gx.compile(graph, device="cpu")


def attention_row(problem: Attention) -> list[str]:
    arrays = problem.arrays()
    tensors = [torch.from_numpy(a) for a in arrays.values()]
    exact = problem.numpy(*(a.astype(np.float64) for a in arrays.values()))
    graph, session = problem.graph(), problem.onnx()
    with (
        gx.compile(graph, device="cpu") as exe,
        gx.compile(graph, device="cpu", resident=True) as resident,
        numpy_alone(graph) as without,
        gx.compile(graph, device="cpu", no_rewrite=["fuse-attention"]) as unfused,
    ):
        ways = {
            "graphexec": lambda: exe.run(**arrays)["out"],
            "without": lambda: without.run(**arrays)["out"],
            "unfused": lambda: unfused.run(**arrays)["out"],
            "torch": lambda: problem.eager(*tensors).numpy(),
            "sdpa": lambda: problem.sdpa(*tensors).numpy(),
            "onnx": lambda: session.run(None, arrays)[0],
            "numpy": lambda: problem.numpy(*arrays.values()),
        }
        for name, way in ways.items():
            check(name, way(), exact, 1e-5)
        check("resident", resident.run(**arrays)["out"], exact, 1e-5)
        # Without copying inputs and outputs, like the others.
        times = side_by_side({**ways, "resident": resident.replay}, REPEAT)
        stats = exe.plan.stats
    assert stats is not None
    ours = times["graphexec"].median
    others = ("without", "unfused", "torch", "sdpa", "onnx", "numpy")
    return [
        str(problem),
        f"{ours * 1e3:.1f} ms",
        f"{times['resident'].median * 1e3:.1f} ms",
        *(f"{times[name].median / ours:.2f}×" for name in others),
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
        f"gemm f16 {n}³", f"{ours * 1e3:.1f} ms", "", "", "", "", "", "",
        f"{times['numpy'].median / ours:.2f}×",
        "", "", "",
    ]  # fmt: skip


class BiasFirst(CpuDevice):
    """A device whose products add no bias: beta · c + bias is written into the result first, and
    the product is added."""

    def support(self, work: Work) -> Support:
        if isinstance(work, Gemm) and work.bias is not None:
            return no("to compare with")
        return super().support(work)


def bias_row(m: int, n: int, k: int, dtype: str, residual: bool) -> list[str]:
    """A layer with a bias; with a `residual`, a c is added as well."""
    rng = np.random.default_rng(0)
    shapes = {"x": (m, k), "w": (k, n), "bias": (n,)} | ({"c": (m, n)} if residual else {})
    kind = gx.DType(dtype).numpy()
    arrays = {name: rng.standard_normal(shape).astype(kind) for name, shape in shapes.items()}
    g = gx.Graph("layer")
    for name, shape in shapes.items():
        g.input(name, shape, dtype)
    g.output(y=g.gemm("x", "w", c="c" if residual else None, bias="bias"))
    x, w, *added = (a.astype(np.float64) for a in arrays.values())
    exact = x @ w + sum(added)
    with gx.compile(g, device="cpu") as exe, gx.compile(g, device=BiasFirst()) as first:
        ways = {
            "graphexec": lambda: exe.run(**arrays)["y"],
            "first": lambda: first.run(**arrays)["y"],
        }
        for name, way in ways.items():
            check(name, way().astype(np.float64), exact, 1e-3 if dtype == "f16" else 1e-5)
        times = side_by_side(ways, REPEAT)
    ours = times["graphexec"].median
    what = f"gemm {dtype} {m}×{n}×{k} + bias" + (" + c" if residual else "")
    return [what, f"{ours * 1e3:.1f} ms", f"{times['first'].median / ours:.2f}×"]


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
    header = ["work", "graphexec, whole run", "in place", "without a C compiler takes",
              "unfused takes", "PyTorch eager takes", "SDPA takes", "ONNX Runtime takes",
              "NumPy takes", "arena", "lower bound", "all tensors"]  # fmt: skip
    problems = [Attention(256), Attention(512), Attention(1024), Attention(1024, causal=True),
                Attention(1024, groups=2)]  # fmt: skip
    rows = [attention_row(problem) for problem in problems]
    rows += [half_gemm_row(n) for n in (256, 512, 1024, 2048)]
    print(table([header, *rows]))
    print()
    rows = [bias_row(*layer, dtype, residual) for residual in (False, True)
            for dtype in ("f32", "f16") for layer in LAYERS]  # fmt: skip
    print(table([["layer", "graphexec, whole run", "bias put into the result first"], *rows]))
    print()
    print(table([["what", "time", "bound"], *planning_rows()]))


if __name__ == "__main__":
    main()
