"""Kernels for products of at most 8 rows, which take as long as reading the other matrix once.

few_rows.hip is for b whose elements are neighbours along K, as in `x @ T(w)`, few_rows_turned.hip
for one whose elements are neighbours along N. Both add beta · c and the bias to sums in f32, so a
product is one command whatever is added to it, and so is one with the map that follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from graphexec.base.tensor import DType, View
from graphexec.ir.body import Body
from graphexec.ir.program import Kernel
from graphexec.machine.blas_layout import goes_back
from graphexec.ops.gemm.few_rows_launch import MOST_ROWS, End, Problem, blocks, kernel
from graphexec.ops.gemm.few_rows_on_cpu import FewRowsOnCpu

DTYPES = (DType.F16, DType.BF16, DType.F32)
MOST_PARTS = 2


@dataclass(frozen=True)
class FewRows:
    """The kernel over a (…, M, K), b (…, K, N), the addends, what the body reads beside the
    product, and the result, all with the batch axes of the result. They broadcast by strides."""

    end: End

    def __call__(self, a: View, b: View, *others: View) -> Kernel:
        """The kernel that is chosen without measurements."""
        problem = Problem.of(self.end, a, b, *others)
        made = kernel(problem, next(blocks(problem)), FewRowsOnCpu(self.end))
        return replace(made, epilogue=self if self.end.body is None else None)

    def variants(self, a: View, b: View, *others: View) -> Sequence[Kernel]:
        """The same with other blocks."""
        problem, compute = Problem.of(self.end, a, b, *others), FewRowsOnCpu(self.end)
        chosen, *more = dict.fromkeys(blocks(problem))
        return [kernel(problem, block, compute) for block in more if block != chosen]

    def with_body(self, body: Body, parts: Sequence[int | None], b: View) -> FewRows | str:
        """The kernel that goes on to compute a body of each element, or the reason why not.

        Operand n of the body is the product `parts[n]` columns further, in f32, or where that is
        None, a tensor of its own: these follow the addends.
        """
        windows = len({part for part in parts if part is not None})
        if body.reduces or body.indexes or len(body.results) > 1:
            return "it is no map with one result"
        if windows > MOST_PARTS:
            return "it reads too many columns of the product"
        if windows > 1 and b.strides[-2] != 1:
            return "the elements of the matrix are no neighbours along K"
        wide = [
            replace(step, dtype=DType.F32)
            if step.function == "load" and parts[int(step.value or 0)] is not None else step
            for step in body.steps
        ]  # fmt: skip
        unrounded = replace(body, steps=tuple(wide))
        return replace(self, end=replace(self.end, body=unrounded, parts=tuple(parts)))


def why_no_kernel(a: View, b: View, out: View) -> str:
    """Why there is no kernel for a product, "" if there is one."""
    shared = prod(e for e, step in zip(out.shape[:-2], b.strides[:-2], strict=True) if not step)
    if shared * out.shape[-2] > MOST_ROWS:  # of one matrix
        return f"it has more than {MOST_ROWS} rows"
    if a.dtype not in DTYPES or out.dtype is DType.F64:
        return f"there are kernels for {', '.join(map(str, DTYPES))}"
    if any(map(goes_back, (a, b, out))):
        return "an operand is read backwards"
    if 1 not in b.strides[-2:]:
        return "the elements of b are no neighbours"
    if out.shape[-1] != 1 and out.strides[-1] != 1:
        return "the elements of the result are no neighbours"
    if a.shape[-1] != 1 and a.strides[-1] != 1:
        return "the elements of the rows of a are no neighbours"
    return ""
