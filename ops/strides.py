"""Strided windows as kernel arguments: fewest axes, padded to a fixed rank."""

from __future__ import annotations

from graphexec.command import Scalar

MAX_RANK = 8
"""Most axes of a tensor; kernels take this many extents and strides."""


def collapse(
    shape: tuple[int, ...], *strides: tuple[int, ...]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Merge neighbouring axes that every set of strides walks as one; drop axes of extent 1.

    Returns the shape and each set of strides with at least one axis left.
    """
    axes: list[tuple[int, list[int]]] = []
    for index, extent in enumerate(shape):
        if extent == 1:
            continue
        step = [s[index] for s in strides]
        if axes and all(outer == extent * s for outer, s in zip(axes[-1][1], step, strict=True)):
            axes[-1] = (axes[-1][0] * extent, step)
        else:
            axes.append((extent, step))
    if not axes:
        return (1,), [(0,) for _ in strides]
    merged = tuple(extent for extent, _ in axes)
    return merged, [tuple(step[i] for _, step in axes) for i in range(len(strides))]


def padded(values: tuple[int, ...], fill: int) -> tuple[Scalar, ...]:
    """`values` as MAX_RANK kernel arguments, `fill` in front."""
    return tuple(Scalar("i64", v) for v in (fill,) * (MAX_RANK - len(values)) + values)
