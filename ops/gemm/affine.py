"""The kernel that puts beta · c + bias into a GEMM's result before the product is added."""

from __future__ import annotations

from math import prod
from pathlib import Path

from graphexec.command import Kernel
from graphexec.ops.launch import Compute, accumulated, integers, launch
from graphexec.ops.strides import axes, collapse, index_type, pieces
from graphexec.tensor import View

SOURCE = Path(__file__).with_name("gemm.hip")
THREADS = 256


def affine(c: View, bias: View, beta: float, out: View, compute: Compute) -> Kernel:
    """out = beta · c + bias; out is dense, c and bias are broadcast to its shape."""
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
    }
    steps = (c_strides[-1], bias_strides[-1])
    args = (
        c, out, bias, accumulated(beta, out.dtype), *integers(vectors, *steps),
        *axes(whole, *strides),
    )  # fmt: skip
    blocks = -(-prod(whole) // THREADS)
    kernel: Kernel = launch(SOURCE, "affine", args, blocks, THREADS, defines, compute)
    return kernel


def _piece(view: View, strides: tuple[int, ...], vector: int) -> int:
    return min(vector, pieces(view, strides[:-1])) if strides[-1] == 1 else 1
