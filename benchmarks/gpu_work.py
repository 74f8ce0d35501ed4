"""Work on tensors that stay on the device: copies, branches, GEMMs, biases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from gpu_ways import Row, Tensors, captured, compared, eager, jitted, ours, random

import graphexec as gx
from graphexec.ir.program import Gemm, Work
from graphexec.machine.support import Support, no

TYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
COPIES: dict[str, tuple[str, tuple[int, ...], dict[str, object]]] = {
    "permute (8192, 16384) by (1, 0)": ("f16", (8192, 16384), {"permute": [1, 0]}),
    "permute (16, 2048, 32, 128) by (0, 2, 1, 3)": (
        "f16", (16, 2048, 32, 128), {"permute": [0, 2, 1, 3]}
    ),
    "permute (512, 512, 512) by (2, 1, 0)": ("f16", (512, 512, 512), {"permute": [2, 1, 0]}),
    "cast f16 to f32": ("f16", (64 << 20,), {"dtype": "f32"}),
    "cast f32 to f16": ("f32", (64 << 20,), {"dtype": "f16"}),
    "cast f16 to bf16": ("f16", (128 << 20,), {"dtype": "bf16"}),
}  # fmt: skip


def copied(x: torch.Tensor, attrs: dict[str, object]) -> torch.Tensor:
    if "permute" in attrs:
        return x.permute(attrs["permute"]).contiguous()
    return x.to(TYPES[str(attrs["dtype"])])


def copy_rows() -> Iterator[Row]:
    for name, (dtype, shape, attrs) in COPIES.items():
        x = random(*shape, dtype=TYPES[dtype])
        g = gx.Graph("copy")
        g.output(out=g.copy(g.input("x", shape, dtype), **attrs))
        exact = copied(x, attrs)
        ways = {"graphexec": ours(g, {"x": x}),
                "PyTorch": captured(lambda x=x, a=attrs: copied(x, a))}  # fmt: skip
        yield compared(name, ways, exact.double(), "≥ 0.8 of the copy", 0,
                       x.nbytes + exact.nbytes)  # fmt: skip


def branch_graph(chains: int, depth: int, n: int) -> gx.Graph:
    g = gx.Graph("branches")
    a = [g.input(f"a{c}", (n, n), "f16") for c in range(chains)]
    b = [g.input(f"b{c}", (n, n), "f16") for c in range(chains)]
    for c in range(chains):
        x = a[c]
        for d in range(depth):
            x = g.gemm(x, b[c], name=f"c{c}_{d}")
        g.output(**{f"y{c}": x})
    return g


def chain(a: object, b: object, depth: int) -> object:
    """a · b · b · …, for tensors of either library."""
    for _ in range(depth):
        a = a @ b
    return a


def on_streams(many: int, a: Tensors, b: Tensors, depth: int) -> Callable[[], list[torch.Tensor]]:
    """The chains dealt out to streams by hand."""
    side = [torch.cuda.Stream() for _ in range(many)]

    def run() -> list[torch.Tensor]:
        here, results = torch.cuda.current_stream(), []
        for stream in side:
            stream.wait_stream(here)
        for c, name in enumerate(a):
            with torch.cuda.stream(side[c % many]):
                results.append(chain(a[name], b[f"b{c}"], depth))
        for stream in side:
            here.wait_stream(stream)
        return results

    return run


def branch_rows() -> Iterator[Row]:
    for chains, depth, n in ((8, 8, 256), (32, 4, 256), (8, 8, 512)):
        a = {f"a{c}": random(n, n) for c in range(chains)}
        b = {f"b{c}": random(n, n) * n**-0.5 for c in range(chains)}
        graph, inputs = branch_graph(chains, depth, n), {**a, **b}
        stacked = torch.stack(list(a.values())), torch.stack(list(b.values()))
        exact = chain(a["a0"].double(), b["b0"].double(), depth)

        def apart(*both: object, chains: int = chains, depth: int = depth) -> object:
            return [chain(both[c], both[chains + c], depth) for c in range(chains)]

        compiled = torch.compile(apart)
        ways = {
            "graphexec": ours(graph, inputs, "y0", streams=8),
            "graphexec, not batched": ours(graph, inputs, "y0", streams=8, no_rewrite=["batch"]),
            "graphexec, one stream": ours(graph, inputs, "y0", streams=1, no_rewrite=["batch"]),
            "PyTorch, 8 streams by hand": captured(on_streams(8, a, b, depth)),
            "PyTorch, bmm by hand": captured(lambda s=stacked, d=depth: [chain(*s, d)[0]]),
            "torch.compile": eager(lambda f=compiled, i=inputs: f(*i.values())),
            "JAX": jitted(apart, *a.values(), *b.values()),
        }
        yield compared(
            f"{chains} chains of {depth} GEMMs f16 {n}³", ways, exact,
            "≥ 3× streams by hand, ≥ 0.9× bmm by hand",
            2 * chains * depth * n**3, 2 * 3 * chains * n**2,
        )  # fmt: skip


def gemm_rows() -> Iterator[Row]:
    for dtype in TYPES:
        for n in (512, 1024, 2048, 4096, 8192):
            a, b = (random(n, n, dtype=TYPES[dtype]) for _ in range(2))
            g = gx.Graph("gemm")
            g.output(out=g.gemm(g.input("a", a.shape, dtype), g.input("b", b.shape, dtype)))
            ways = {
                "graphexec": ours(g, {"a": a, "b": b}, tuned=True),
                "torch.matmul": captured(lambda a=a, b=b: torch.matmul(a, b)),
            }
            rate = "f32" if dtype == "f32" else "f16"
            row = compared(f"gemm {dtype} {n}³", ways, a.double() @ b.double(), "≥ 1.0×",
                           2 * n**3, 3 * a.nbytes, rate)  # fmt: skip
            row.notes["TFLOP/s"] = 2 * n**3 / row.ours / 1e6
            yield row


class BiasFirst(gx.HipDevice):
    """A device whose products add no bias: it is put into the result, c with it, and the product
    added."""

    def support(self, work: Work) -> Support:
        if isinstance(work, Gemm) and work.bias is not None:
            return no("to compare with")
        return super().support(work)


LAYERS = ((128, 512, 512), (512, 2048, 512), (2048, 4096, 1024), (8192, 4096, 4096))


def bias_rows() -> Iterator[Row]:
    """Layers: tokens, features of the result, features; with a bias, and with a c as well."""
    for dtype in TYPES:
        for layer in LAYERS:
            yield bias_row(dtype, *layer, residual=False)
            yield bias_row(dtype, *layer, residual=True)


def bias_row(dtype: str, m: int, n: int, k: int, residual: bool) -> Row:
    """One layer; a residual is a c that is added, and needed afterwards."""
    shapes = {"x": (m, k), "w": (k, n), "bias": (n,)} | ({"c": (m, n)} if residual else {})
    tensors = {name: random(*shape, dtype=TYPES[dtype]) for name, shape in shapes.items()}
    x, w, bias, c = (tensors.get(name) for name in ("x", "w", "bias", "c"))
    g = gx.Graph("layer")
    for name, shape in shapes.items():
        g.input(name, shape, dtype)
    g.output(out=g.gemm("x", "w", c="c" if residual else None, bias="bias"))
    ways = {
        "graphexec": ours(g, tensors),
        "bias first": ours(g, tensors, device=BiasFirst()),
    }
    exact = x.double() @ w.double() + bias.double()
    if c is None:
        ways["torch.addmm"] = captured(lambda: torch.addmm(bias, x, w))
    else:
        ways["torch.addmm, add"] = captured(lambda: torch.addmm(bias, x, w).add_(c))
        exact += c.double()
    nbytes = sum(tensor.nbytes for tensor in tensors.values()) + m * n * x.element_size()
    rate = "f32" if dtype == "f32" else "f16"
    what = f"gemm {dtype} {m}×{n}×{k} + bias" + (" + c" if residual else "")
    return compared(what, ways, exact, "≥ 1.0×", 2 * m * n * k, nbytes, rate)
