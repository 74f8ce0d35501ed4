"""The choice of a copy kernel for a source and a dense target of the same shape.

Threads go along the target (copy.hip), unless the source's nearest elements lie along another
axis than the target's: then tiles are turned in shared memory (transpose.hip).
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from graphexec.base.tensor import View, contiguous_strides
from graphexec.ir.program import Compute, Kernel
from graphexec.ops.kit.launch import Argument, element_type, integers, launch
from graphexec.ops.kit.strides import (
    VECTOR_BYTES,
    axes,
    collapse,
    index_type,
    pieces,
    power_of_two,
)

COPY = Path(__file__).with_name("copy.hip")
TRANSPOSE = Path(__file__).with_name("transpose.hip")

THREADS = 256
UNDER_WAY = 4  # loads a thread has under way,
MANY_VECTORS = 1 << 19  # ... if there are enough for every thread of a large GPU
TILE_BYTES = 8192  # of shared memory, in the target's type
SMALLEST_TILE = 512  # elements; smaller tiles stay in the cache anyway
HELD_BYTES = 64  # of the source's elements that a thread turns into one vector, at most
TILE_SIDE = {
    1: 64,
    2: 64,
    4: 32,
    8: 32,
}  # elements along the source's neighbours, by the target's size


def choose(source: View, target: View, compute: Compute) -> Kernel:
    """The kernel that copies `source` to `target`."""
    shape, (strides,) = collapse(source.shape, source.strides)
    turned = _turned(target, shape, strides)
    if turned is not None:
        return _transpose(source, target, shape, strides, *turned, compute)
    return _copy(source, target, shape, strides, compute)


def others(source: View, target: View, compute: Compute) -> list[Kernel]:
    """Kernels for the same copy with other blocks, to be measured; none where tiles are turned."""
    shape, (strides,) = collapse(source.shape, source.strides)
    if _turned(target, shape, strides) is not None:
        return []
    chosen = _copy(source, target, shape, strides, compute)
    made = [
        _copy(source, target, shape, strides, compute, threads, per_thread)
        for threads in (128, 256, 512)
        for per_thread in (1, UNDER_WAY)
    ]
    return [kernel for kernel in made if kernel.defines != chosen.defines]


def _turned(
    target: View, shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, tuple[int, int]] | None:
    """The axis of the source's nearest elements and the tile to turn, where turning pays."""
    nearest = min(
        (i for i in range(len(shape)) if strides[i]), key=lambda i: abs(strides[i]), default=-1
    )
    if strides[-1] and abs(strides[nearest]) < abs(strides[-1]):
        tile = _tile(shape[nearest], shape[-1], target.dtype.itemsize)
        if prod(tile) >= SMALLEST_TILE:
            return nearest, tile
    return None


def _copy(
    source: View, target: View, shape: tuple[int, ...], strides: tuple[int, ...], compute: Compute,
    threads: int = THREADS, per_thread: int = 0,
) -> Kernel:  # fmt: skip
    # The last vector of a target with one axis may be cut short.
    line = shape[-1:] if len(shape) > 1 else ()
    vector, piece = min(pieces(target, line), HELD_BYTES // source.dtype.itemsize), 1
    if strides[-1] == 1:
        vector = min(vector, VECTOR_BYTES // source.dtype.itemsize)
        piece = min(vector, pieces(source, strides[:-1]))
    whole = (*shape[:-1], -(-shape[-1] // vector))
    vectors = prod(whole)
    whole, (whole_strides,) = collapse(whole, (*strides[:-1], strides[-1] * vector))
    per_thread = per_thread or (UNDER_WAY if vectors >= MANY_VECTORS else 1)
    defines: dict[str, str | int] = {
        "SRC_TYPE": element_type(source.dtype),
        "DST_TYPE": element_type(target.dtype),
        "THREADS": threads,
        "VECTOR": vector,
        "SRC_VECTOR": piece,
        "PER_THREAD": per_thread,
        "RANK": len(whole),
        "INDEX": index_type(vectors),
    }
    args: tuple[Argument, ...] = (
        source,
        target,
        *integers(source.elements, strides[-1]),
        *axes(whole, whole_strides),
    )
    blocks = -(-vectors // (threads * per_thread))
    return launch(COPY, "strided_copy", args, blocks, threads, defines, compute)


def _transpose(
    source: View, target: View, shape: tuple[int, ...], strides: tuple[int, ...], near: int,
    tile: tuple[int, int], compute: Compute,
) -> Kernel:  # fmt: skip
    t_extent, l_extent = shape[near], shape[-1]
    target_strides = contiguous_strides(shape)
    batches = [i for i in range(len(shape) - 1) if i != near]
    batch_shape, batch_strides = collapse(
        tuple(shape[i] for i in batches),
        tuple(strides[i] for i in batches),
        tuple(target_strides[i] for i in batches),
    )
    load, store = 1, pieces(target, (l_extent,))
    if strides[near] == 1:
        load = pieces(source, (t_extent, *(s for i, s in enumerate(strides) if i != near)))
    tile_t, tile_l = tile
    threads = min(THREADS, tile_t * tile_l // max(load, store))
    tiles = prod(batch_shape) * -(-t_extent // tile_t) * -(-l_extent // tile_l)
    defines: dict[str, str | int] = {
        "SRC_TYPE": element_type(source.dtype),
        "DST_TYPE": element_type(target.dtype),
        "THREADS": threads,
        "TILE_T": tile_t,
        "TILE_L": tile_l,
        "SRC_VECTOR": load,
        "DST_VECTOR": store,
        "RANK": len(batch_shape),
        "INDEX": index_type(tiles),
    }
    steps = (strides[near], strides[-1], target_strides[near])
    args: tuple[Argument, ...] = (
        source, target, *integers(tiles, t_extent, l_extent, *steps),
        *axes(batch_shape, *batch_strides),
    )  # fmt: skip
    return launch(TRANSPOSE, "transposed_copy", args, tiles, threads, defines, compute)


def _tile(t_extent: int, l_extent: int, itemsize: int) -> tuple[int, int]:
    """(extent along t, extent along l), powers of two; long where the other axis is short."""
    elements = TILE_BYTES // itemsize
    tile_t = min(TILE_SIDE[itemsize], power_of_two(t_extent))
    tile_l = min(elements // tile_t, power_of_two(l_extent))
    return min(elements // tile_l, power_of_two(t_extent)), tile_l
