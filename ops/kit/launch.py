"""Launches of HIP kernels and their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphexec.base.tensor import DType, View
from graphexec.ir.program import Compute, Kernel, Scalar

Argument = View | Scalar

GRID_LIMIT = 2**32 - 1  # threads along one axis of a grid, on AMD


def launch(
    source: Path,
    entry: str,
    args: tuple[Argument, ...],
    blocks: int,
    threads: int,
    defines: Mapping[str, str | int],
    compute: Compute,
    text: str = "",
    options: tuple[str, ...] = (),
) -> Kernel:
    """A launch of at most `blocks` blocks of `threads` threads: the kernel loops over the rest."""
    return Kernel(
        source=source,
        entry=entry,
        args=args,
        grid=(min(blocks, GRID_LIMIT // threads), 1, 1),
        block=(threads, 1, 1),
        compute=compute,
        defines=tuple((name, str(value)) for name, value in defines.items()),
        text=text,
        options=options,
    )


def element_type(dtype: DType) -> str:
    """The type of an element in device.h."""
    return "bool8" if dtype is DType.BOOL else dtype.value


def integers(*values: int) -> tuple[Scalar, ...]:
    """Kernel arguments of type i64."""
    return tuple(Scalar("i64", value) for value in values)


def accumulated(value: float, dtype: DType) -> Scalar:
    """A factor in the type that values of `dtype` are computed in."""
    return Scalar("f64" if dtype.accumulator is DType.F64 else "f32", float(value))
