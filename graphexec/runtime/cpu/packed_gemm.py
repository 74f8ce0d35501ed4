"""Products with weights on the CPU, by a kernel in C (product.c) that the system's compiler makes.

Weights never change, so they are packed once, when a plan is loaded: widened to f32, in panels as
the kernel reads them. A BLAS packs them in every call. What an element of the result is depends
neither on the number of rows nor on how the work is split.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from itertools import product as pairs
from pathlib import Path

import numpy as np

from graphexec.base.host_compiler import NATIVE, HostCompilerError, load_library
from graphexec.base.tensor import Array

LOGGER = logging.getLogger("graphexec.gemm")
SOURCE = Path(__file__).parent / "product.c"
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fvisibility=hidden")
_FEWEST_FLOPS = 1 << 20  # below, calling costs as much as what is gained
_BLOCK_BYTES = 1 << 19  # of rows of a, which stay in the L2 cache while panels pass
_PARTS_A_CORE = 4
_UNITS_A_CORE = 12
_word = ctypes.c_ssize_t


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b", "out", "bias")),
        *((name, _word) for name in ("columns", "depth", "a_row", "out_row")),
        ("alpha", ctypes.c_float),
    )


class Kernel:
    """The functions of the compiled library. AttributeError if it lacks one."""

    def __init__(self, code: ctypes.CDLL) -> None:
        self.product = code.product
        self.product.argtypes = (ctypes.POINTER(_Product), *(_word,) * 4)
        self.product.restype = None
        self.shared = code.product_shared
        self.shared.argtypes = (ctypes.POINTER(_Product), _word, _word, ctypes.POINTER(_word))
        self.shared.restype = None
        code.product_panel.restype = _word
        self.panel: int = code.product_panel()

    def pack(self, b: Array) -> Array:
        """Panels (..., panels, K, columns of a panel) of matrices (..., K, N), filled with 0."""
        *batch, depth, columns = b.shape
        panels = -(-columns // self.panel)
        packed = np.zeros((*batch, panels, depth, self.panel), np.float32)
        for number in range(panels):
            some = b[..., number * self.panel : (number + 1) * self.panel]
            packed[..., number, :, : some.shape[-1]] = some
        return packed


_asked = threading.Lock()


def kernel_for(a: Array, out: Array, bias: Array | None) -> Kernel | None:
    """The kernel, if it is the way to compute `out` from `a`, weights and a bias; None if it is
    not, or cannot be compiled."""
    if np.float64 in (a.dtype, out.dtype) or 2 * out.size * a.shape[-1] < _FEWEST_FLOPS:
        return None
    if any(x is not None and x.strides[-1] != x.itemsize for x in (a, out, bias)):
        return None
    with _asked:
        return _make()


@cache
def _make() -> Kernel | None:
    try:
        return load_library(SOURCE, (*FLAGS, NATIVE), Kernel)
    except HostCompilerError as error:
        LOGGER.debug("products with weights are computed by NumPy: %s", error)
        return None


Part = tuple[slice, slice]


class PackedProduct:
    """out = alpha · (a @ b) + bias in f32, b packed; of matrices with equal batch axes."""

    def __init__(
        self, kernel: Kernel, a: Array, packed: Array, out: Array, alpha: float, bias: Array | None
    ) -> None:
        self._kernel, self._kept = kernel, (a, packed, out, bias)
        batch, columns, depth = out.shape[:-2], out.shape[-1], a.shape[-1]
        packed = np.broadcast_to(packed, (*batch, *packed.shape[-3:]))
        a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
        sizes = columns, depth, a.strides[-2] // a.itemsize, out.strides[-2] // out.itemsize
        self._products = []
        for entry in np.ndindex(batch):
            some = None if bias is None else np.broadcast_to(bias, (*batch, columns))[entry]
            addresses = a[entry].ctypes.data, packed[entry].ctypes.data, out[entry].ctypes.data
            told = None if some is None else some.ctypes.data
            self._products.append(_Product(*addresses, told, *sizes, alpha))

    @property
    def _blocks(self) -> int:
        """Of rows of a which stay in a cache while panels pass."""
        return int(-(-4 * self._kept[0].shape[-1] * self._kept[2].shape[-2] // _BLOCK_BYTES))

    def parts(self, cores: int) -> list[Part]:
        """Rows and columns of the parts: enough for all cores, of rows that stay in a cache."""
        rows, columns = self._kept[2].shape[-2:]
        panel, blocks = self._kernel.panel, self._blocks
        panels, block = -(-columns // panel), -(-rows // blocks)
        groups = min(panels, -(-_PARTS_A_CORE * cores // blocks))
        bounds = [panel * (panels * i // groups) for i in range(groups + 1)]
        bounds[-1] = columns
        across = [slice(*pair) for pair in pairwise(bounds)]
        down = [slice(low, min(rows, low + block)) for low in range(0, rows, block)]
        return [*pairs(down, across)]

    def shared(self, cores: int) -> Callable[[], None]:
        """A function that computes all with every other thread that calls it, each taking what is
        next: a thread that comes late takes less."""
        rows, panels = self._kept[2].shape[-2], -(-self._kept[2].shape[-1] // self._kernel.panel)
        blocks = max(self._blocks, -(-_UNITS_A_CORE * cores // panels))
        block = -(-rows // blocks)
        counters = [_word(0) for _ in self._products]

        def take() -> None:
            for one, counter in zip(self._products, counters, strict=True):
                self._kernel.shared(ctypes.byref(one), rows, block, ctypes.byref(counter))

        return take

    def compute(self, part: Part) -> None:
        """A part of the result, in all batch entries."""
        rows, columns = part
        panels = columns.start // self._kernel.panel, -(-columns.stop // self._kernel.panel)
        for one in self._products:
            self._kernel.product(ctypes.byref(one), rows.start, rows.stop, *panels)
