"""Bodies, what they should give, and generated kernels of them run on a HIP device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from kernel_harness import Harness

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.body import Body, Value, Writer
from graphexec.ir.program import Command, Kernel
from graphexec.ops.kit.generate import Generated

Array = np.ndarray[Any, Any]

FLOATS = (DType.F16, DType.BF16, DType.F32, DType.F64)
INTEGERS = (DType.I8, DType.U8, DType.I32, DType.I64)
EVERY = (*FLOATS, *INTEGERS, DType.BOOL)


def body_of(types: Sequence[DType], make: Callable[..., Value | tuple[Value, ...]]) -> Body:
    """`make(writer, *loads)` gives the results."""
    writer = Writer()
    made = make(writer, *(writer.load(n, dtype) for n, dtype in enumerate(types)))
    return writer.body(*(made if isinstance(made, tuple) else (made,)))


@dataclass(frozen=True)
class Window:
    """A view and the bytes of its storage."""

    view: View
    nbytes: int


def window(
    name: str, dtype: DType, shape: tuple[int, ...], *, order: tuple[int, ...] | None = None,
    broadcast: Sequence[int] = (), steps: Sequence[int] | None = None, offset: int = 0,
) -> Window:  # fmt: skip
    """A view of this shape whose axes lie in memory in this order, the last one fastest; one
    element stands for all along the axes of `broadcast`, and every `steps`-th along the others is
    taken, backwards if it is negative."""
    rank = len(shape)
    steps = [1] * rank if steps is None else list(steps)
    strides, first, size = [0] * rank, offset, 1
    for axis in reversed(order or tuple(range(rank))):
        if axis in broadcast:
            continue
        strides[axis] = size * steps[axis]
        if steps[axis] < 0:
            first -= (shape[axis] - 1) * strides[axis]
        size *= shape[axis] * abs(steps[axis])
    view = View(name, shape, dtype, tuple(strides), first)
    return Window(view, (size + offset) * dtype.itemsize)


def elements(raw: Array, view: View) -> Array:
    """What lies at a view in the bytes of its storage, as an array on them."""
    dtype = view.dtype.numpy()
    size = dtype.itemsize
    whole = raw[: raw.size // size * size].view(dtype)
    return np.lib.stride_tricks.as_strided(
        whole[view.offset :], view.shape, [step * size for step in view.strides]
    )


class Run:
    """A generated kernel over windows: filled, run, read."""

    def __init__(self, body: Body, reads: Sequence[Window], writes: Sequence[Window]) -> None:
        self.body, self.reads, self.writes = body, tuple(reads), tuple(writes)
        views = [w.view for w in (*reads, *writes)]
        self.kernel: Kernel = Generated(body)(*views)

    def __call__(self, harness: Harness, arrays: Sequence[Array]) -> list[Array]:
        """The results of these operands, each of the shape of its view."""
        given = {}
        for window, array in zip(self.reads, arrays, strict=True):
            raw = np.zeros(window.nbytes, np.uint8)
            elements(raw, window.view)[...] = array
            given[window.view.storage] = raw
        sizes = {w.view.storage: w.nbytes for w in (*self.reads, *self.writes)}
        reads = tuple(w.view for w in self.reads)
        writes = tuple(w.view for w in self.writes)
        command = Command("node", "generated", self.kernel, reads, writes)
        after = harness.run([command], given, sizes)
        for window in self.writes:
            self._check_around(after[window.view.storage], window)
        return [elements(after[w.view.storage], w.view).copy() for w in self.writes]

    def _check_around(self, raw: Array, window: Window) -> None:
        """Bytes between the elements of a result are as before."""
        touched = np.zeros(raw.size, bool)
        size = window.view.dtype.itemsize
        places = np.arange(raw.size // size)
        view = window.view
        taken = np.lib.stride_tricks.as_strided(
            places[view.offset :], view.shape, [s * places.itemsize for s in view.strides]
        )
        touched[: raw.size // size * size].reshape(-1, size)[taken.reshape(-1)] = True
        assert (raw[~touched] == 0xFF).all(), "bytes beside the result were written"


def dense(body: Body, shape: tuple[int, ...], reduced: bool = False) -> Run:
    """A run over dense operands of one shape."""
    reads = [window(f"x{n}", d, shape) for n, d in enumerate(body.operands)]
    out = (*shape[:-1], 1) if reduced else shape
    return Run(body, reads, [window(f"y{n}", d, out) for n, d in enumerate(body.dtypes)])


def draw(type: TensorType, seed: int) -> Array:
    """Random elements; small ones, so that sums and products stay in range."""
    rng = np.random.default_rng(seed)
    if type.dtype is DType.BOOL:
        return rng.integers(0, 2, type.shape).astype(bool)
    if type.dtype.is_integer:
        low = 0 if type.dtype is DType.U8 else -100
        return rng.integers(low, 101, type.shape).astype(type.dtype.numpy())
    return rng.normal(0, 2, type.shape).astype(type.dtype.numpy())


def generated_kernels() -> dict[str, Kernel]:
    """Kernels that together use every function for every dtype, and every kind of access."""
    found = {}
    for dtype in EVERY:
        body = body_of([dtype, dtype], _every_function)
        found[f"generated every function {dtype}"] = dense(body, (1003,)).kernel
        across = [window(f"x{n}", dtype, (40, 72), order=(n, 1 - n)) for n in range(2)]
        out = [window(f"y{n}", d, (40, 72), offset=n) for n, d in enumerate(body.dtypes)]
        found[f"generated windows {dtype}"] = Run(body, across, out).kernel
        rows = body_of([dtype], _every_reduction)
        for length in (24, 1003, 4096, 100_003):
            found[f"generated rows of {length} {dtype}"] = dense(rows, (9, length), True).kernel
        turned = [window("x0", dtype, (3, 40, 500), order=(0, 2, 1))]
        out = [window(f"y{n}", d, (3, 40, 1)) for n, d in enumerate(rows.dtypes)]
        found[f"generated columns {dtype}"] = Run(rows, turned, out).kernel
    return found


def _every_reduction(w: Writer, x: Value) -> tuple[Value, ...]:
    kinds = ("argmin", "argmax", "any", "all")
    if x.dtype is not DType.BOOL:
        kinds = ("sum", "prod", "min", "max", *kinds)
    found = tuple(w.reduce(kind, x) for kind in kinds)
    if x.dtype.is_float:
        power = w.floating("exp", x - found[0])
        return (*found, w.reduce("sum", power))
    return found


def _every_function(w: Writer, a: Value, b: Value) -> tuple[Value, ...]:
    made = [w.cast(a, dtype) for dtype in EVERY]
    made += [w.compare(name, a, b) for name in ("eq", "ne", "lt", "le")]
    if a.dtype is DType.BOOL:
        made += [w.logical("and", a, b), w.logical("or", a, b), w.logical("not", a)]
        return (*made, w.where(a, w.index(-1), 7))
    pairs = ("add", "sub", "mul", "floordiv", "mod", "min", "max")
    made += [w.arithmetic(name, a, b) for name in pairs]
    made += [w.numeric(name, a) for name in ("neg", "abs", "sign", "floor", "ceil", "round")]
    if a.dtype.is_float:
        names = ("exp", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid", "erf", "erfc")
        made += [w.floating(name, a) for name in (*names, "isnan", "isinf")]
        made += [w.divide(a, b), w.power(a, b), w.constant(math.inf, a.dtype)]
    return tuple(made)
