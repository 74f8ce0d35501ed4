"""The HIP kernel of a body with reductions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphexec.base.tensor import View
from graphexec.ir.body import Body
from graphexec.ir.program import Compute, Kernel


def rows(body: Body, reads: Sequence[View], writes: Sequence[View], compute: Compute) -> Kernel:
    """The kernel over operands of one shape; results of reductions have extent 1 along the last
    axis."""
    return Kernel(Path("generated"), "generated", (*reads, *writes), (1, 1, 1), (1, 1, 1), compute)
