"""What adds beta · c + bias to a GEMM: put into the result before the product is added, or added to
the product, in f32, where the result is of half precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphexec.base.casts import cast_into
from graphexec.base.tensor import DType, View
from graphexec.ir.op import Call
from graphexec.ir.program import Command, Compute, Kernel, Parallel
from graphexec.ops.launch import accumulated, integers, launch
from graphexec.ops.strides import axes, collapse, index_type, pieces

SOURCE = Path(__file__).with_name("gemm.hip")
THREADS = 256


def affine(
    call: Call, c: View, bias: View, beta: float, out: View, product: View | None = None
) -> Command:
    """out = beta · c + bias, plus a `product` of the type that sums are kept in; both are dense."""
    reads = [c.broadcast_to(out.shape), bias.broadcast_to(out.shape)]
    reads += [] if product is None else [product]
    # Where c is as large as the result, a thread reads the elements that it writes.
    recipe = _Affine(beta, out.dtype.accumulator)
    return call.kernel("affine", recipe, reads, [out], inplace=[(0, 0)])


@dataclass(frozen=True)
class _Affine:
    """The recipe of out = beta · c + bias; it reads c and bias, both broadcast, and perhaps a
    product, which is added."""

    beta: float
    wide: DType

    def __call__(self, reads: Sequence[View], writes: Sequence[View]) -> Kernel:
        factors = (self.beta, *(1.0 for _ in reads[1:]))
        return replace(_kernel(reads, self.beta, writes[0], self._compute), factors=factors)

    def _compute(self, arrays: list[np.ndarray[Any, Any]], parallel: Parallel) -> None:
        c, out, bias, *product = arrays
        wide = self.wide.numpy()
        total = c.astype(wide) * self.beta + bias.astype(wide)
        cast_into(out, total + product[0] if product else total)


def _kernel(reads: Sequence[View], beta: float, out: View, compute: Compute) -> Kernel:
    """out = beta · c + bias, or + product; out and the product are dense, the others broadcast."""
    c, bias, *product = reads
    shape, (c_strides, bias_strides) = collapse(out.shape, c.strides, bias.strides)
    vector = pieces(out, shape[-1:])
    vectors = out.elements // vector
    whole, strides = collapse(
        (*shape[:-1], shape[-1] // vector),
        *((*s[:-1], s[-1] * vector) for s in (c_strides, bias_strides)),
    )
    defines = {
        "C_TYPE": c.dtype.value,
        "BIAS_TYPE": bias.dtype.value,
        "DST_TYPE": out.dtype.value,
        "THREADS": THREADS,
        "VECTOR": vector,
        "C_VECTOR": _piece(c, c_strides, vector),
        "BIAS_VECTOR": _piece(bias, bias_strides, vector),
        "RANK": len(whole),
        "INDEX": index_type(vectors),
        "PRODUCT": int(bool(product)),
    }
    steps = (c_strides[-1], bias_strides[-1])
    args = (
        c, out, bias, *product, accumulated(beta, out.dtype), *integers(vectors, *steps),
        *axes(whole, *strides),
    )  # fmt: skip
    blocks = -(-prod(whole) // THREADS)
    kernel: Kernel = launch(SOURCE, "affine", args, blocks, THREADS, defines, compute)
    return kernel


def _piece(view: View, strides: tuple[int, ...], vector: int) -> int:
    return min(vector, pieces(view, strides[:-1])) if strides[-1] == 1 else 1
