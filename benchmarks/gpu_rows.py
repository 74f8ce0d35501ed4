"""Maps and kernels along rows on the device, against a copy of the bytes they must move."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from gpu_ways import Row, Way, captured, compared, eager, ours, random
from torch.nn.functional import gelu, layer_norm, rms_norm, silu

import graphexec as gx
from graphexec.ir.tensor_name import Tensor as Name

Function = Callable[..., object]
EPS = 1e-5


@dataclass(frozen=True)
class Rows:
    """One problem: a builder of the graph, whose first output is `out`; the same in PyTorch, for
    any dtype; the shapes of the inputs by name; the number of elements written."""

    name: str
    build: Callable[..., dict[str, Name]]
    function: Function
    shapes: dict[str, tuple[int, ...]]
    written: int

    def graph(self) -> gx.Graph:
        g = gx.Graph("rows")
        given = [g.input(name, shape, "f16") for name, shape in self.shapes.items()]
        g.output(**self.build(g, *given))
        return g

    def moved(self) -> int:
        """Bytes of f16 that are read and written."""
        return 2 * (self.written + sum(torch.Size(s).numel() for s in self.shapes.values()))


N = 4096
FULL, LINE = (N, N), (N,)


def residual_rms(x: torch.Tensor, r: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
    added = x + r
    return [rms_norm(added, LINE, w, EPS), added]


def built_residual_rms(g: gx.Graph, x: Name, r: Name, w: Name) -> dict[str, Name]:
    added = g.map("x + r", x=x, r=r, name="added")
    return {"out": g.norm(added, kind="rms", weight=w, eps=EPS), "sum": added}


def softmax_of(rows: int, length: int) -> Rows:
    return Rows(
        f"softmax {rows}×{length}", lambda g, x: {"out": g.softmax(x)},
        lambda x: torch.softmax(x, -1), {"x": (rows, length)}, rows * length,
    )  # fmt: skip


PROBLEMS = (
    Rows("add", lambda g, a, b: {"out": g.map("a + b", a=a, b=b)},
         lambda a, b: a + b, {"a": FULL, "b": FULL}, N * N),
    Rows("silu · mul", lambda g, a, b: {"out": g.map("silu(a) * b", a=a, b=b)},
         lambda a, b: silu(a) * b, {"a": FULL, "b": FULL}, N * N),
    Rows("residual + RMS norm", built_residual_rms, residual_rms,
         {"x": FULL, "r": FULL, "w": LINE}, 2 * N * N),
    Rows("layer norm",
         lambda g, x, w, b: {"out": g.norm(x, kind="layer", weight=w, bias=b, eps=EPS)},
         lambda x, w, b: layer_norm(x, LINE, w, b, EPS), {"x": FULL, "w": LINE, "b": LINE}, N * N),
    Rows("bias + gelu", lambda g, x, b: {"out": g.map("gelu(x + b)", x=x, b=b)},
         lambda x, b: gelu(x + b), {"x": FULL, "b": LINE}, N * N),
    Rows("sum along rows", lambda g, x: {"out": g.reduce(x, kind="sum", axis=-1)},
         lambda x: x.sum(-1), {"x": FULL}, N),
)  # fmt: skip
SOFTMAXES = tuple(softmax_of(*shape) for shape in ((16384, 4096), (8192, 16384), (65536, 512)))


def copy_of(nbytes: int) -> Way:
    """A copy that reads half of `nbytes` and writes the other half."""
    source = torch.zeros(nbytes // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return eager(lambda: target.copy_(source))


def row_rows(problems: Iterable[Rows] = PROBLEMS) -> Iterator[Row]:
    """Each problem in f16, by PyTorch, by torch.compile, and beside a copy of the same bytes."""
    for problem in problems:
        tensors = {name: random(*shape) for name, shape in problem.shapes.items()}
        inputs = tuple(tensors.values())
        torch.compiler.reset()
        compiled = torch.compile(problem.function, mode="max-autotune-no-cudagraphs")
        exact = problem.function(*(t.double() for t in inputs))
        ways = {
            "graphexec": ours(problem.graph(), tensors),
            "PyTorch": captured(lambda f=problem.function, i=inputs: f(*i)),
            "torch.compile": captured(lambda f=compiled, i=inputs: f(*i)),
        }
        yield compared(
            f"{problem.name} f16", ways, exact[0] if isinstance(exact, list) else exact,
            "≥ 0.92 of the copy, ≥ 1.0× torch.compile", 0, problem.moved(),
            beside={"copy of the bytes": copy_of(problem.moved())},
        )  # fmt: skip


def softmax_rows() -> Iterator[Row]:
    yield from row_rows(SOFTMAXES)
