"""GEMM on the CPU: NumPy's BLAS in f32 or f64, split over batches or rows.

Half-precision operands are widened to f32 once a run into memory that is kept for the next.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from graphexec.devices.cpu_cores import Cores

Array = np.ndarray[Any, Any]
_SERIAL_FLOPS = 1 << 20  # less is done before another thread has woken up


def prepare_gemm(
    a: Array, b: Array, out: Array, alpha: float, beta: float, cores: Cores
) -> Callable[[], None]:
    """A function that computes out = alpha · a @ b + beta · out.

    a is (..., M, K), b (..., K, N), out (..., M, N) with equal batch axes, broadcast ones having
    stride 0. Sums are kept in f32, in f64 for f64.
    """
    wide = np.dtype(np.float64 if out.dtype == np.float64 or a.dtype == np.float64 else np.float32)
    a, b = _without_broadcast(a), _without_broadcast(b)
    factor = wide.type(alpha)
    # alpha goes to the smaller operand, not to the usually larger product.
    scale_a = alpha != 1.0 and a.size <= b.size
    scale_b = alpha != 1.0 and not scale_a
    left = _Operand(a, wide, factor if scale_a else None)
    right = _Operand(b, wide, factor if scale_b else None)
    direct = out.dtype == wide and beta == 0.0
    product = out if direct else np.empty(out.shape, wide)
    flops = 2 * out.size * a.shape[-1]

    def compute() -> None:
        serial = flops < _SERIAL_FLOPS
        x, y = left.ready(cores, serial), right.ready(cores, serial)
        _multiply(x, y, product, cores, serial)
        if not direct:
            _finish(product, out, wide.type(beta), cores, serial)

    return compute


class _Operand:
    """An operand as the BLAS takes it: of the wide dtype, scaled."""

    def __init__(self, array: Array, wide: np.dtype[Any], factor: Any) -> None:
        self.array, self.factor = array, factor
        # Order "K" keeps the axes in memory as they are, so that reading and writing are in step.
        needed = factor is not None or array.dtype != wide
        self.copy = np.empty_like(array, dtype=wide, order="K", subok=False) if needed else None

    def ready(self, cores: Cores, serial: bool) -> Array:
        if self.copy is None:
            return self.array
        (source, target), factor = _rows(self.array, self.copy), self.factor

        def body(low: int, high: int) -> None:
            target[low:high] = source[low:high]
            if factor is not None:
                target[low:high] *= factor

        _over(len(target), body, cores, serial)
        return self.copy


def _multiply(a: Array, b: Array, out: Array, cores: Cores, serial: bool) -> None:
    batches = prod(out.shape[:-2])
    if out.ndim > 2 and out.shape[0] >= cores.count:

        def slabs(low: int, high: int) -> None:
            np.matmul(_slab(a, out.ndim, low, high), _slab(b, out.ndim, low, high),
                      out=out[low:high])  # fmt: skip

        _over(out.shape[0], slabs, cores, serial)
    elif batches >= 2 * cores.count and out.ndim > 3:
        for i in range(out.shape[0]):
            _multiply(_item(a, out.ndim, i), _item(b, out.ndim, i), out[i], cores, serial)
    else:

        def rows(low: int, high: int) -> None:
            np.matmul(a[..., low:high, :], b, out=out[..., low:high, :])

        if serial:
            rows(0, out.shape[-2])
        else:
            cores.parallel(out.shape[-2], rows, parts=cores.count)


def _finish(product: Array, out: Array, beta: Any, cores: Cores, serial: bool) -> None:
    source, target = _rows(product, out)

    def body(low: int, high: int) -> None:
        if beta:
            source[low:high] += beta * target[low:high].astype(source.dtype)
        target[low:high] = source[low:high]

    _over(len(target), body, cores, serial)


def _over(n: int, body: Callable[[int, int], None], cores: Cores, serial: bool) -> None:
    if serial or n == 1:
        body(0, n)
    else:
        cores.parallel(n, body)


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
    index = tuple(
        slice(0, 1) if stride == 0 else slice(None) for stride in array.strides[: array.ndim - 2]
    )
    return array[index]


def _slab(array: Array, rank: int, low: int, high: int) -> Array:
    """Entries low to high of the first of `rank` axes, all of them where it is broadcast."""
    return array if array.ndim < rank or array.shape[0] == 1 else array[low:high]


def _item(array: Array, rank: int, index: int) -> Array:
    item: Array = array[0 if array.shape[0] == 1 else index]
    return item
