"""Which strided matrices a BLAS call takes as they lie, and which batches are one strided batch.

A matrix needs neighbours in one direction and a leading dimension in the other. Batch axes that all
three operands walk at a constant stride are one batch (stride 0 repeats an operand); a batch axis
that b does not have is part of the rows of a where these lie side by side, so grouped-query heads
become one tall product. What strides cannot express takes arrays of pointers.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.tensor import TensorType, View, merge_axes


def matrix_layout(view: View) -> tuple[bool, int] | None:
    """Whether the last two axes are stored transposed, and their leading dimension in elements;
    None where the matrix has no neighbours in either direction."""
    (rows, columns), (row_step, column_step) = view.shape[-2:], view.strides[-2:]
    # The stride of an axis of extent 1 is never walked, so it may be anything.
    if (column_step == 1 or columns == 1) and (rows == 1 or row_step >= columns):
        return False, columns if rows == 1 else row_step
    if (row_step == 1 or rows == 1) and (columns == 1 or column_step >= rows):
        return True, rows if columns == 1 else column_step
    return None


def fold_rows(
    a: View, b: View, out: View, bias: View | None = None
) -> tuple[View, View, View, View | None]:
    """Make the innermost batch axes that b and the bias lack part of the rows of a and out."""
    while len(out.shape) > 2:
        rows = out.shape[-2]
        if out.shape[-3] != 1 and (
            b.strides[-3] != 0
            or (bias is not None and bias.strides[-2] != 0)
            or any(v.strides[-3] != rows * v.strides[-2] for v in (a, out))
        ):
            break
        a, out = _merge_rows(a), _merge_rows(out)
        b = _without_axis(b, -3)
        bias = None if bias is None else _without_axis(bias, -2)
    return a, b, out, bias


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


def is_one_batch(a: View, b: View, out: View, bias: View | None = None) -> bool:
    """Whether the product is one matrix or one strided batch: no arrays of pointers are needed."""
    a, b, out, bias = fold_rows(a, b, out, bias)
    walked = [v.strides[:-2] for v in (b, a, out)]
    walked += [] if bias is None else [bias.strides[:-1]]
    shape, _ = merge_axes(out.shape[:-2], *walked)
    return len(shape) <= 1


def is_product(a: View, b: View, out: View) -> bool:
    """Whether a BLAS computes out = a @ b where these lie; out has to be row-major."""
    a, b, out, _ = fold_rows(a, b, out)
    layouts = [matrix_layout(view) for view in (a, b, out)]
    return None not in layouts and layouts[2] is not None and not layouts[2][0]


def alignment(view: View) -> int:
    """The largest power of two, at most 16, of bytes that all neighbours' beginnings are multiples
    of: a BLAS loads at most so many at once."""
    places = [s for s, e in zip(view.strides, view.shape, strict=True) if e > 1 and s > 1]
    found = 16
    while any(place * view.dtype.itemsize % found for place in (view.offset, *places)):
        found //= 2
    return found


def is_well_aligned(view: View) -> bool:
    """Whether the rows of a window start at places as round as those of a dense tensor."""
    dense = View.dense(view.storage, TensorType(view.shape, view.dtype))
    return alignment(view) >= alignment(dense)


__all__ = [
    "alignment",
    "fold_rows",
    "is_one_batch",
    "is_product",
    "is_well_aligned",
    "matrix_layout",
]
