"""The HIP kernel of a body with reductions, which go along the last axis: a row."""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.base.tensor import View
from graphexec.ir.body import Body
from graphexec.ir.program import Compute, Kernel
from graphexec.ops.kit.generate import row_source
from graphexec.ops.kit.generate.hip import OPTION
from graphexec.ops.kit.generate.row_blocks import Rows
from graphexec.ops.kit.launch import Argument, integers, launch
from graphexec.ops.kit.strides import axes


def rows(body: Body, reads: Sequence[View], writes: Sequence[View], compute: Compute) -> Kernel:
    """The kernel over operands of one shape; results of reductions have extent 1 along the last
    axis."""
    chosen = Rows(body, tuple(reads), tuple(writes))
    args: tuple[Argument, ...] = (
        *chosen.views, *integers(chosen.rows, *chosen.steps),
        *axes(chosen.extents, *chosen.places),
    )  # fmt: skip
    block = chosen.block
    blocks = -(-chosen.rows // block.rows)
    return launch(
        row_source.PATH, "rows", args, blocks, block.threads, {}, compute,
        text=row_source.text(chosen), options=(OPTION,),
    )  # fmt: skip
