"""What adds beta · c + bias to a GEMM: put into the result before the product is added, or added to
the product, in f32, where the result is of half precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphexec.base.casts import cast_into
from graphexec.base.tensor import DType, View
from graphexec.ir.access import In, Out
from graphexec.ir.op import Call
from graphexec.ir.program import Command, Compute, Kernel, Parallel
from graphexec.ops.kit.launch import Argument, accumulated, integers, launch
from graphexec.ops.kit.strides import axes, collapse, index_type, pieces

SOURCE = Path(__file__).with_name("gemm.hip")
THREADS = 256


def affine(
    call: Call, c: View, bias: View, beta: float, out: View, product: View | None = None
) -> Command:
    """out = beta · c + bias, plus a `product` of the type that sums are kept in; both are dense."""
    c, bias = c.broadcast_to(out.shape), bias.broadcast_to(out.shape)
    # Where c is as large as the result, a thread reads the elements that it writes.
    accesses = (In(c, strided=True), Out(out, over=(c,)), In(bias, strided=True))
    more = () if product is None else (In(product),)
    return call.kernel("affine", _Affine(beta, out.dtype.accumulator), *accesses, *more)


@dataclass(frozen=True)
class _Affine:
    """The kernel of out = beta · c + bias, both broadcast, perhaps plus a product."""

    beta: float
    wide: DType

    def __call__(self, c: View, out: View, bias: View, product: View | None = None) -> Kernel:
        factors = (self.beta, 1.0) if product is None else (self.beta, 1.0, 1.0)
        return replace(_kernel(c, out, bias, product, self.beta, self._compute), factors=factors)

    def _compute(self, arrays: list[np.ndarray[Any, Any]], parallel: Parallel) -> None:
        c, out, bias, *product = arrays
        wide = self.wide.numpy()
        total = c.astype(wide) * self.beta + bias.astype(wide)
        cast_into(out, total + product[0] if product else total)


def _kernel(
    c: View, out: View, bias: View, product: View | None, beta: float, compute: Compute
) -> Kernel:
    """out = beta · c + bias, or + product; out and the product are dense, the others broadcast."""
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
        "PRODUCT": int(product is not None),
    }
    steps = (c_strides[-1], bias_strides[-1])
    args: tuple[Argument, ...] = (
        c, out, bias, *(() if product is None else (product,)), accumulated(beta, out.dtype),
        *integers(vectors, *steps), *axes(whole, *strides),
    )  # fmt: skip
    blocks = -(-prod(whole) // THREADS)
    return launch(SOURCE, "affine", args, blocks, THREADS, defines, compute)


def _piece(view: View, strides: tuple[int, ...], vector: int) -> int:
    return min(vector, pieces(view, strides[:-1])) if strides[-1] == 1 else 1
