"""GEMM on the CPU: NumPy's BLAS in f32 or f64, split over a batch axis or over rows.

Products with weights are those of a kernel in C instead (packed_gemm.py).

Each part widens its piece of the operands, multiplies, and narrows its piece of the result, while
these are in cache. An operand that every part needs is widened first. The wide copies are reused
by the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphexec.base.casts import cast_into
from graphexec.base.tensor import Array
from graphexec.runtime.cpu.cores import Cores
from graphexec.runtime.cpu.packed_gemm import Kernel, PackedProduct, kernel_for

Once = Callable[[Callable[[], Array]], Array]
"""Gives what the function returns, which is called the first time only."""

# Smaller products are done before another thread wakes up.
_SERIAL_FLOPS = 1 << 25
_SERIAL_PACKED = 1 << 23
_SERIAL_ELEMENTS = 1 << 17


def prepare_gemm(
    a: Array, b: Array, out: Array, alpha: float, beta: float, cores: Cores,
    c: Array | None = None, bias: Array | None = None, relu: bool = False,
    once: Once | None = None,
) -> Callable[[], None]:  # fmt: skip
    """A function that computes out = alpha · (a @ b) + beta · c + bias; c is out unless given. With
    `relu`, what is negative becomes 0.

    a is (..., M, K), b (..., K, N), c and out (..., M, N), bias (..., N) with equal batch axes,
    broadcast ones having stride 0. c is out, byte for byte, or lies apart from it. Sums are kept in
    f32, in f64 for f64, and multiplied by alpha there. With alpha = 0, a and b are not read. `once`
    is given if b are weights: it keeps what is made of them.
    """
    kernel = None if once is None or not alpha else kernel_for(a, out, bias)
    wide = np.dtype(np.float64 if np.float64 in (a.dtype, out.dtype) else np.float32)
    flops = 2 * out.size * a.shape[-1]
    row = None if bias is None else bias[..., None, :]
    c = out if c is None else c
    a, b = _without_broadcast(a), _without_broadcast(b)
    rows = out.ndim - 2
    axis = next((i for i in range(rows) if out.shape[i] >= cores.split), rows)
    left = _Operand(a, wide, kernel is None and a.shape[axis] == out.shape[axis])
    in_place = out.dtype == wide and not (beta and np.may_share_memory(c, out))
    product = out if in_place else np.empty(out.shape, wide)
    addend = None if row is None else _Operand(_without_broadcast(row), wide, split=False)
    factor = wide.type(alpha)

    def finish(part: tuple[slice, ...]) -> None:
        if beta:
            product[part] += wide.type(beta) * c[part].astype(wide, copy=False)
        if relu:
            np.maximum(product[part], 0, out=product[part])
        if product is not out:
            cast_into(out[part], product[part])

    if kernel is not None and once is not None:
        packed = once(lambda: kernel.pack(b))
        done = product is out and not (beta or relu)
        return _packed(
            kernel, packed, left, product, alpha, addend, None if done else finish, cores
        )
    right = _Operand(b, wide, axis < rows and b.shape[axis] == out.shape[axis])

    def body(low: int, high: int) -> None:
        part = (slice(None),) * axis + (slice(low, high),)
        if alpha:
            np.matmul(left.part(part), right.part(part), out=product[part])
            if alpha != 1.0:
                product[part] *= factor
        else:
            product[part] = 0
        if addend is not None:
            product[part] += np.broadcast_to(addend.part(part), out.shape)[part]
        finish(part)

    def compute() -> None:
        if alpha:
            left.prepare(cores)
            right.prepare(cores)
        if addend is not None:
            addend.prepare(cores)
        if flops < _SERIAL_FLOPS:
            body(0, out.shape[axis])
        else:
            # Splitting rows makes the BLAS pack b once a part, so no more parts than cores.
            cores.parallel(out.shape[axis], body, cores.split if axis == rows else None)

    return compute


def _packed(
    kernel: Kernel, packed: Array, left: _Operand, product: Array, alpha: float,
    addend: _Operand | None, finish: Callable[[tuple[Any, ...]], None] | None, cores: Cores,
) -> Callable[[], None]:  # fmt: skip
    """The same with packed weights: a part is finished while it is in cache."""
    bias = None if addend is None else addend.whole[..., 0, :]
    work = PackedProduct(kernel, left.whole, packed, product, alpha, bias)
    serial = 2 * product.size * left.array.shape[-1] < _SERIAL_PACKED
    parts = [] if finish is None else work.parts(cores.split)

    def finished(low: int, high: int) -> None:
        for part in parts[low:high]:
            work.compute(part)
            if finish is not None:
                finish((..., *part))

    def compute() -> None:
        left.prepare(cores)
        if addend is not None:
            addend.prepare(cores)
        take = work.shared(cores.split)
        body = finished if parts else lambda low, high: take()
        count = len(parts) or cores.split
        if serial:
            body(0, count)
        else:
            cores.parallel(count, body, count)

    return compute


def in_turn(products: Sequence[Callable[[], None]], flops: int, cores: Cores) -> Callable[[], None]:
    """A function that computes independent products of `flops` operations in all. Idle cores share
    the work if it is large enough."""

    def body(low: int, high: int) -> None:
        for product in products[low:high]:
            product()

    def compute() -> None:
        if flops < _SERIAL_FLOPS:
            body(0, len(products))
        else:
            cores.parallel(len(products), body)

    return compute


class _Operand:
    """An operand as the BLAS takes it: of the wide dtype.

    `split`: a part of the result needs only the same part of it.
    """

    def __init__(self, array: Array, wide: np.dtype[Any], split: bool) -> None:
        self.array, self.split = array, split
        # Order "K" keeps the axes in memory as they are, so that reading and writing are in step.
        needed = array.dtype != wide
        self.copy = np.empty_like(array, dtype=wide, order="K", subok=False) if needed else None

    def prepare(self, cores: Cores) -> None:
        """Widen an operand that all parts share."""
        if self.copy is None or self.split:
            return
        source, target = _rows(self.array, self.copy)

        def body(low: int, high: int) -> None:
            target[low:high] = source[low:high]

        if target.size < _SERIAL_ELEMENTS:
            body(0, len(target))
        else:
            cores.parallel(len(target), body)

    @property
    def whole(self) -> Array:
        """The operand, if all parts share it."""
        return self.array if self.copy is None else self.copy

    def part(self, part: tuple[slice, ...]) -> Array:
        """The operand for a part of the result."""
        if not self.split:
            return self.whole
        if self.copy is None:
            return self.array[part]
        self.copy[part] = self.array[part]
        return self.copy[part]


def _rows(first: Array, second: Array) -> tuple[Array, Array]:
    """Two arrays of one shape and order of axes with their axes in the order of memory, leading
    ones merged where both are dense: something to split."""
    order = np.argsort([-s for s in first.strides], kind="stable")
    first, second = first.transpose(order), second.transpose(order)
    if first.flags.c_contiguous and second.flags.c_contiguous:
        return first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])
    return first, second


def _without_broadcast(array: Array) -> Array:
    """Batch axes of stride 0 with one entry only, which matmul repeats."""
    return array[
        tuple(slice(0, 1) if s == 0 else slice(None) for s in array.strides[: array.ndim - 2])
    ]
