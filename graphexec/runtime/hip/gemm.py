"""A Gemm command as one BLAS call: row-major views as column-major operands.

Row-major C = A·B is column-major Cᵀ = Bᵀ·Aᵀ, so the operands swap. graphexec.machine.blas_layout
decides between one strided batch and arrays of pointers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from graphexec.base.errors import InternalError
from graphexec.base.tensor import View
from graphexec.ir.program import Gemm
from graphexec.machine.blas_layout import batches, fold_rows, matrix_layout
from graphexec.runtime.hip.blas import BlasGemm


@dataclass(frozen=True)
class GemmCall:
    """A BLAS call: `a` and `b` are the BLAS's operands (swapped), offsets count bytes.

    The result is `c`, or a `d` beside it, which only hipBLASLt writes. `offsets` is None for a
    strided call; else, for a, b and c, the byte offset of each matrix. `matrices` are these offsets
    for every call. The `bias` is a vector of gemm.m elements, for the next product of a strided
    batch one `stride_bias` elements further.
    """

    gemm: BlasGemm
    a: View
    b: View
    c: View
    offsets: tuple[Sequence[int], Sequence[int], Sequence[int]] | None = None
    d: View | None = None
    bias: View | None = None
    stride_bias: int = 0
    activation: str = ""

    @property
    def views(self) -> tuple[View, View, View]:
        """a, b and c."""
        return self.a, self.b, self.c

    @property
    def matrices(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """For a, b and c the byte offset of each matrix of the batch from the first of its view."""
        if self.offsets is not None:
            return self.offsets
        g = self.gemm
        sizes = (view.dtype.itemsize for view in self.views)
        a, b, c = (
            [size * stride * i for i in range(g.batch)]
            for size, stride in zip(sizes, (g.stride_a, g.stride_b, g.stride_c), strict=True)
        )
        return a, b, c


def gemm_call(command: Gemm) -> GemmCall:
    """The BLAS call that computes `command`."""
    work = fold_rows(command)
    a, b, out = work.a, work.b, work.out
    shape, strides = batches(work)
    single = len(shape) <= 1
    if not single and (work.c is not None or work.bias is not None):
        raise InternalError("a gemm with a bias, or with a c of its own, is one strided batch")
    step_b, step_a, step_out, step_c, step_bias = (s[0] if len(s) == 1 else 0 for s in strides)
    trans_b, ld_b = _layout(b)
    trans_a, ld_a = _layout(a)
    ld_out = _row_major(out)
    gemm = BlasGemm(
        dtype=command.a.dtype.value, out_dtype=out.dtype.value,
        m=out.shape[-1], n=out.shape[-2], k=a.shape[-1],
        lda=ld_b, ldb=ld_a, ldc=ld_out, trans_a=trans_b, trans_b=trans_a,
        alpha=command.alpha, beta=command.beta, batch=prod(shape),
        stride_a=step_b, stride_b=step_a, stride_c=step_out,
    )  # fmt: skip
    if work.c is not None:
        gemm = replace(gemm, ldc=_row_major(work.c), stride_c=step_c, ldd=ld_out, stride_d=step_out)
        return GemmCall(gemm, b, a, work.c, d=out, bias=work.bias, stride_bias=step_bias)
    if single:
        return GemmCall(
            gemm, b, a, out, bias=work.bias, stride_bias=step_bias, activation=work.activation
        )
    offsets = tuple(
        [v.dtype.itemsize * sum(i * s for i, s in zip(index, steps, strict=True))
         for index in product(*map(range, shape))]
        for v, steps in zip((b, a, out), strides[:3], strict=True)
    )  # fmt: skip
    return GemmCall(gemm, b, a, out, (offsets[0], offsets[1], offsets[2]))


def _row_major(view: View) -> int:
    """The leading dimension of the result, or of c, in elements."""
    transposed, leading = _layout(view)
    if transposed:
        raise InternalError("the result of a gemm is row-major")
    return leading


def _layout(view: View) -> tuple[bool, int]:
    """Whether a matrix is stored transposed, and its leading dimension in elements."""
    found = matrix_layout(view)
    if found is None:
        raise InternalError(f"no BLAS layout for strides {view.strides}")
    return found
