"""How a Gemm command becomes one BLAS call: row-major views as column-major operands.

Row-major C = A·B is column-major Cᵀ = Bᵀ·Aᵀ, so the operands swap. What is one strided batch, and
what takes arrays of pointers, says graphexec.blas_layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from graphexec.blas_layout import fold_rows, matrix_layout
from graphexec.command import Gemm
from graphexec.devices.hip_blas import BlasGemm
from graphexec.errors import InternalError
from graphexec.tensor import View, merge_axes


@dataclass(frozen=True)
class GemmCall:
    """A BLAS call: `a` and `b` are the BLAS's operands (swapped), offsets count bytes.

    `offsets` is None for a strided call; else, for a, b and c, the byte offset of each matrix.
    `matrices` are these offsets for every call. The `bias` is a vector of gemm.m elements, for
    the next product of a strided batch one `stride_bias` elements further.
    """

    gemm: BlasGemm
    a: View
    b: View
    c: View
    offsets: tuple[Sequence[int], Sequence[int], Sequence[int]] | None = None
    bias: View | None = None
    stride_bias: int = 0

    @property
    def views(self) -> tuple[View, View, View]:
        """a, b and c."""
        return self.a, self.b, self.c

    @property
    def matrices(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """For a, b and c the byte offset of each matrix of the batch from its view's first."""
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
    a, b, out, bias = fold_rows(command.a, command.b, command.out, command.bias)
    m, n = out.shape[-2:]
    k = a.shape[-1]
    trans_b, ld_b = _layout(b)
    trans_a, ld_a = _layout(a)
    trans_out, ld_out = _layout(out)
    if trans_out:
        raise InternalError("the result of a gemm is row-major")
    walked = [v.strides[:-2] for v in (b, a, out)]
    walked += [] if bias is None else [bias.strides[:-1]]
    shape, strides = merge_axes(out.shape[:-2], *walked)
    single = len(shape) <= 1
    batch = shape[0] if len(shape) == 1 else 1
    step_b, step_a, step_out, *step_bias = (s[0] if len(s) == 1 else 0 for s in strides)
    gemm = BlasGemm(
        dtype=command.a.dtype.value, out_dtype=out.dtype.value, m=n, n=m, k=k,
        lda=ld_b, ldb=ld_a, ldc=ld_out, trans_a=trans_b, trans_b=trans_a,
        alpha=command.alpha, beta=command.beta, batch=batch,
        stride_a=step_b, stride_b=step_a, stride_c=step_out,
    )  # fmt: skip
    if single:
        return GemmCall(gemm, b, a, out, bias=bias, stride_bias=sum(step_bias))
    if bias is not None:
        raise InternalError("a gemm with a bias is one strided batch")
    offsets = tuple(
        [v.dtype.itemsize * sum(i * s for i, s in zip(index, steps, strict=True))
         for index in product(*map(range, shape))]
        for v, steps in zip((b, a, out), strides, strict=True)
    )  # fmt: skip
    gemm = replace(gemm, batch=len(offsets[0]))
    return GemmCall(gemm, b, a, out, (offsets[0], offsets[1], offsets[2]))


def _layout(view: View) -> tuple[bool, int]:
    """Whether a matrix is stored transposed, and its leading dimension in elements."""
    found = matrix_layout(view)
    if found is None:
        raise InternalError(f"no BLAS layout for strides {view.strides}")
    return found
