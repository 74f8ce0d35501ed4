"""Products of few rows with maps: graphs of one command, for the emulator and AMD's compiler."""

from __future__ import annotations

from dataclasses import dataclass

import graphexec as gx
from graphexec.ir.program import Kernel, Program
from graphexec.planning.pipeline import plan_graph

F = 300  # columns of the result


@dataclass(frozen=True)
class Fused:
    """x (m, 256) times w, `expression` of the product p, of its halves g and u, of r (m, F) and of
    a row b (F,); `own` operands of the gemm are its c and bias."""

    expression: str
    m: int = 1
    dtype: str = "f16"
    turned: bool = False
    own: str = ""
    out: str | None = None

    @property
    def halves(self) -> bool:
        return "g" in self.names

    @property
    def names(self) -> set[str]:
        return {name for name in ("p", "g", "u", "r", "b") if name in self.expression.split()}

    def graph(self) -> gx.Graph:
        g = gx.Graph("fused")
        n = 2 * F if self.halves else F
        shapes = {"x": (self.m, 256), "w": (256, n) if self.turned else (n, 256)}
        shapes |= {"r": (self.m, F)} if "r" in self.names else {}
        shapes |= {"b": (F,)} if "b" in self.names else {}
        shapes |= {k: s for k, s in {"c": (self.m, n), "bias": (n,)}.items() if k in self.own}
        for name, shape in shapes.items():
            g.input(name, shape, self.dtype)
        added = {name: name for name in self.own.split()}
        g.gemm("x", "w", trans_b=not self.turned, alpha=0.5, **added, name="p")
        if self.halves:
            for name, at in (("g", 0), ("u", F)):
                g.copy("p", slice={1: [at, at + F, 1]}, name=name)
        g.output(out=g.map(self.expression, dtype=self.out, name="y"))
        return g

    def program(self, device: str) -> Program:
        """On one stream; inputs and the result lie on the device."""
        return plan_graph(self.graph(), device=device, streams=1, resident=True).program

    @property
    def kernel(self) -> Kernel:
        """That of the only command."""
        (found,) = self.program("hip").commands
        assert isinstance(found.work, Kernel)
        return found.work

    def __str__(self) -> str:
        return f"{self.expression} {self.dtype} {self.m} {self.own} {self.turned or ''}".strip()


FUSED = (
    Fused("silu( p ) + r"),
    Fused("silu( g ) * u"),
    Fused("silu( g ) * u + r * b", m=3, dtype="bf16"),
    Fused("p * b + r", m=2, turned=True),
    Fused("p + r", m=8, dtype="f32", own="bias", out="f16"),
    Fused("gelu( g ) * u - b", m=4, own="c bias"),
    Fused("p > 0.25", m=2, dtype="f32"),
    Fused("where( p < r , p , 1.0 )", m=1, dtype="f32", turned=True, own="c"),
)


def few_rows_kernels() -> dict[str, Kernel]:
    """Their kernels."""
    return {f"few rows {case}": case.kernel for case in FUSED}
