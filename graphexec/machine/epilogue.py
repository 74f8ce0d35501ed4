"""Which GEMMs a BLAS gives their bias as it writes the result, in its epilogue.

hipBLASLt adds a packed vector to every row of a row-major result (to every column, as it counts),
each product of a strided batch the same one or one at a stride. With it, it adds beta · c, a matrix
that lies elsewhere or where the result goes; some libraries round before the bias is added then, so
that is left to results whose type sums are kept in. The result is written once, where putting what
is added into it first takes a launch of its own and writes and reads the result once more.

A device says by its capabilities for which types it does that (graphexec.graph.rewriting), and may
turn out not to for a single product (graphexec.machine.capabilities).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from graphexec.base.tensor import DType
from graphexec.ir.graph import Graph
from graphexec.ir.program import ALIGNMENT, Gemm
from graphexec.machine.blas_layout import fold_rows, is_one_batch, matrix_layout
from graphexec.machine.capabilities import lacks
from graphexec.machine.costs import GEMM, gemm_signature

RESULTS = {
    DType.F16: (DType.F16, DType.F32),
    DType.BF16: (DType.BF16, DType.F32),
    DType.F32: (DType.F32,),
    DType.F64: (DType.F64,),
}
"""The types of the result that a BLAS writes, by the type of the matrices."""


def pairs() -> Iterator[tuple[DType, DType]]:
    """Types of matrices, each with every type of the result."""
    return ((dtype, out) for dtype, results in RESULTS.items() for out in results)


def capability(dtype: DType, out: DType) -> str:
    """What a device is capable of that adds a bias to products of these types."""
    return f"gemm-bias:{dtype}" if out is dtype else f"gemm-bias:{dtype}:{out}"


def batch_capability(dtype: DType, out: DType) -> str:
    """... a bias of its own to each product of a strided batch."""
    return capability(dtype, out).replace("gemm-bias", "gemm-bias-batch")


def c_capability(dtype: DType, out: DType) -> str:
    """... and beta · c with it, rounding once."""
    return capability(dtype, out).replace("gemm-bias", "gemm-bias-c")


BIASES = (capability, batch_capability, c_capability)
"""What there is to be capable of, for a pair of types."""


def has_biases(graph: Graph) -> bool:
    """Whether a node of the graph adds one."""
    return any("bias" in node.operands for node in graph.nodes.values())


def needed(work: Gemm) -> frozenset[str]:
    """The listed capabilities that a GEMM needs for its bias."""
    if work.bias is None:
        return frozenset()
    types = work.a.dtype, work.out.dtype
    own = any(step for step, e in zip(work.bias.strides[:-1], work.bias.shape[:-1], strict=True)
              if e > 1)  # fmt: skip
    found = {capability(*types)} | ({batch_capability(*types)} if own else set())
    return frozenset(found | ({c_capability(*types)} if work.c is not None else set()))


def product_capability(work: Gemm) -> str:
    """The capability to add the bias of products like this one."""
    return f"gemm-bias of {gemm_signature(work).removeprefix(GEMM)}"


def takes_bias(work: Gemm) -> bool:
    """Whether the bias, and c if there is one, lie as hipBLASLt wants them, and the product is one
    strided batch.

    Everything must begin at a multiple of ALIGNMENT bytes: hipBLASLt's choice of an algorithm takes
    that for granted. Storages do, so the offsets of the views tell.
    """
    bias, c = work.bias, work.c
    if bias is None or bias.dtype is not work.out.dtype:
        return False
    if bias.strides[-1] != 1 and bias.shape[-1] != 1:
        return False
    views = [work.a, work.b, work.out, bias]
    if c is not None:
        if c.dtype is not work.out.dtype or not _is_row_major(work):
            return False
        views.append(c)
    return all(v.offset * v.dtype.itemsize % ALIGNMENT == 0 for v in views) and is_one_batch(work)


def _is_row_major(work: Gemm) -> bool:
    """Whether the rows of c are packed, as those of the result are."""
    c = fold_rows(work).c
    layout = None if c is None else matrix_layout(c)
    return layout is not None and not layout[0]


def adds_bias(work: Gemm, capabilities: Collection[str]) -> bool:
    """Whether a device with these capabilities adds the bias of a product as it writes the result,
    as far as is known when a plan is made."""
    able = needed(work) <= set(capabilities) and takes_bias(work)
    return able and not lacks(capabilities, product_capability(work))


__all__ = [
    "BIASES", "RESULTS", "adds_bias", "batch_capability", "c_capability", "capability",
    "has_biases", "needed", "pairs", "product_capability", "takes_bias",
]  # fmt: skip
