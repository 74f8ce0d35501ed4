"""Strided matrices that a BLAS takes without a copy, and batches that are one strided batch.

A matrix needs unit stride along one axis and a leading dimension along the other. Batch axes with a
constant stride in all three operands are one batch (stride 0 repeats an operand). A batch axis that
b does not have is merged into the rows of a where these are adjacent, so grouped-query heads become
one tall product. Other batches need arrays of pointers.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.base.tensor import DType, TensorType, View, merge_axes
from graphexec.ir.program import ALIGNMENT, Gemm

RESULTS = {
    DType.F16: (DType.F16, DType.F32),
    DType.BF16: (DType.BF16, DType.F32),
    DType.F32: (DType.F32,),
    DType.F64: (DType.F64,),
}
"""The types of the result that a BLAS writes, by the type of the matrices."""


def matrix_layout(view: View) -> tuple[bool, int] | None:
    """Whether the last two axes are stored transposed, and their leading dimension in elements;
    None if neither axis has unit stride."""
    (rows, columns), (row_step, column_step) = view.shape[-2:], view.strides[-2:]
    # The stride of an axis of extent 1 is never used, so it may have any value.
    if (column_step == 1 or columns == 1) and (rows == 1 or row_step >= columns):
        return False, columns if rows == 1 else row_step
    if (row_step == 1 or rows == 1) and (columns == 1 or column_step >= rows):
        return True, rows if columns == 1 else column_step
    return None


def fold_rows(work: Gemm) -> Gemm:
    """Merge the innermost batch axes that b and the bias lack into the rows of a, c and out."""
    while len(work.out.shape) > 2:
        a, b, c, bias, out = work.a, work.b, work.c, work.bias, work.out
        rows = out.shape[-2]
        if out.shape[-3] != 1 and (
            b.strides[-3] != 0
            or (bias is not None and bias.strides[-2] != 0)
            or any(v.strides[-3] != rows * v.strides[-2] for v in (a, c, out) if v is not None)
        ):
            break
        work = replace(
            work, a=_merge_rows(a), b=_without_axis(b, -3), out=_merge_rows(out),
            c=None if c is None else _merge_rows(c),
            bias=None if bias is None else _without_axis(bias, -2),
        )  # fmt: skip
    return work


def _merge_rows(view: View) -> View:
    batch, rows, columns = view.shape[-3:]
    return replace(
        view,
        shape=(*view.shape[:-3], batch * rows, columns),
        strides=(*view.strides[:-3], *view.strides[-2:]),
    )


def _without_axis(view: View, axis: int) -> View:
    """The view with the first index of an axis only."""
    axis %= len(view.shape)
    shape, strides = view.shape, view.strides
    return replace(view, shape=shape[:axis] + shape[axis + 1 :],
                   strides=strides[:axis] + strides[axis + 1 :])  # fmt: skip


def batches(work: Gemm) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The batch axes of a product as few as can be, and the strides along them of b, a, out, c and
    bias, 0 for what there is not."""
    none = (0,) * (len(work.out.shape) - 2)
    return merge_axes(
        work.out.shape[:-2],
        *(v.strides[:-2] for v in (work.b, work.a, work.out)),
        none if work.c is None else work.c.strides[:-2],
        none if work.bias is None else work.bias.strides[:-1],
    )


def is_one_batch(work: Gemm) -> bool:
    """Whether the product is one matrix or one strided batch: no arrays of pointers are needed."""
    return len(batches(fold_rows(work))[0]) <= 1


def goes_back(view: View) -> bool:
    """Whether an axis is walked from its last element to its first."""
    return any(stride < 0 for stride in view.strides)


def is_product(a: View, b: View, out: View) -> bool:
    """Whether a BLAS computes out = a @ b on these views; out must be row-major, and no axis may be
    walked backwards."""
    if any(map(goes_back, (a, b, out))):
        return False
    work = fold_rows(Gemm(a, b, out))
    layouts = [matrix_layout(view) for view in (work.a, work.b, work.out)]
    return None not in layouts and layouts[2] is not None and not layouts[2][0]


def alignment(view: View) -> int:
    """The largest power of two, at most 16, that divides the byte offset of every row: a BLAS
    loads at most 16 bytes at once."""
    places = [s for s, e in zip(view.strides, view.shape, strict=True) if e > 1 and abs(s) > 1]
    found = 16
    while any(place * view.dtype.itemsize % found for place in (view.offset, *places)):
        found //= 2
    return found


def is_well_aligned(view: View) -> bool:
    """Whether the rows of a window are aligned as well as those of a dense tensor."""
    dense = View.dense(view.storage, TensorType(view.shape, view.dtype))
    return alignment(view) >= alignment(dense)


def why_no_epilogue(work: Gemm) -> str:
    """Why a BLAS cannot add the bias, and c if there is one, as it writes the result; "" if the
    layouts allow it, or if there is no bias.

    It adds a packed vector to every row of a row-major result, each product of a strided batch the
    same one or one at a stride, and with it a row-major beta · c. Everything must begin at a
    multiple of ALIGNMENT bytes, which hipBLASLt takes for granted when it chooses an algorithm.
    Storages do, so the offsets of the views tell.
    """
    bias, c = work.bias, work.c
    if bias is None:
        return ""
    if bias.strides[-1] != 1 and bias.shape[-1] != 1:
        return "the elements of the bias are no neighbours"
    views = {"a": work.a, "b": work.b, "the result": work.out, "the bias": bias}
    if c is not None:
        views["c"] = c
    for name in ("the bias", "c"):
        if name in views and views[name].dtype is not work.out.dtype:
            return f"{name} is {views[name].dtype} and the product {work.out.dtype}"
    if c is not None and not _is_row_major(work, c):
        return "the rows of c are not packed, as those of the result are"
    back = [n for n, v in views.items() if goes_back(v)]
    if back:
        return f"{back[0]} is read backwards"
    odd = [n for n, v in views.items() if v.offset * v.dtype.itemsize % ALIGNMENT]
    if odd:
        return f"{odd[0]} does not begin at a multiple of {ALIGNMENT} bytes"
    return "" if is_one_batch(work) else "its batch is not at one stride"


def _is_row_major(work: Gemm, c: View) -> bool:
    folded = fold_rows(work).c
    layout = matrix_layout(c if folded is None else folded)
    return layout is not None and not layout[0]
