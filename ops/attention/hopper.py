"""Requirements and launches of the kernel of flash_hopper.py."""

from __future__ import annotations

from math import ceil, prod
from pathlib import Path

from graphexec.base.tensor import View
from graphexec.ir.program import Argument, Gpu, Scalar, TritonLaunch
from graphexec.ops.attention.problem import Problem, is_positive
from graphexec.ops.kit.strides import collapse

SOURCE = Path(__file__).with_name("flash_hopper.py")
HEADS = (64, 128)
BLOCK_M, BLOCK_N = 128, 128  # queries and keys of a tile, as in the kernel
_ALIGNMENT = 16  # bytes; of addresses and strides, for the tensor memory accelerator
_RANK = 3  # batch axes at most: descriptors have five
_CACHE = 40 << 20  # bytes of keys and values that stay in the second-level cache, of 50 MB
_EVEN = 1.1  # the longest a program may take of the average; reading keys again costs about as much


def fits(problem: Problem, gpu: Gpu) -> bool:
    """Whether the kernel computes the problem: Hopper, head sizes of HEADS, no mask, no
    lengths, no query without a key, at most _RANK batch axes, aligned addresses and strides."""
    p = problem
    extents, _ = _batch(p)
    return (
        gpu.architecture == "sm_90"
        and p.mask is None
        and p.limits is None
        and p.q.shape[-1] == p.v.shape[-1] in HEADS
        and is_positive(p.scale)  # the maximum may be scaled afterwards
        and not (p.causal and p.q.shape[-2] > p.k.shape[-2])
        and len(extents) <= _RANK
        and p.out.strides[-1] == 1
        and all(map(_loads_in_blocks, (p.q, p.k, p.v)))
    )


def fills(problem: Problem, gpu: Gpu) -> bool:
    """Whether there is a tile for every multiprocessor, and queries for whole ones."""
    return problem.q.shape[-2] >= BLOCK_M and problem.tiles(BLOCK_M) >= gpu.multiprocessors


def launch(problem: Problem, gpu: Gpu) -> TritonLaunch:
    """One program a multiprocessor, which walks tiles."""
    p = problem
    extents, batches = _batch(p)
    more = _RANK - len(extents)
    padded = [(*(0,) * more, *strides) for strides in batches]
    keys, head = p.k.shape[-2], p.k.shape[-1]
    args: list[Argument] = [p.q, p.k, p.v, p.out, Scalar("f32", p.scale), Scalar("f32", p.headroom)]
    args += [Scalar("i32", n) for n in (p.q.shape[-2], keys, *(1,) * more, *extents)]
    for view, batch in zip((p.q, p.k, p.v, p.out), padded, strict=True):
        args += [Scalar("i64", stride) for stride in (*batch, view.strides[-2])]
    grid = (min(p.tiles(BLOCK_M), gpu.multiprocessors), 1, 1)
    hides = p.causal or keys % BLOCK_N != 0
    constants: dict[str, int | str] = {"HEAD": head, "ORDER": _order(p, gpu), "HIDES": hides}
    return TritonLaunch(SOURCE, tuple(args), constants, {"num_warps": 4}, grid)


def _order(problem: Problem, gpu: Gpu) -> str:
    """The order in which programs walk tiles (see flash_hopper._tile)."""
    if not problem.causal:
        return ""
    cached = 2 * prod(problem.k.shape) * problem.k.dtype.itemsize <= _CACHE
    turns = _pairs(problem) / gpu.multiprocessors
    return "causal" if cached or ceil(turns) > _EVEN * turns else "causal pairs"


def _pairs(problem: Problem) -> int:
    """The number of pairs of tiles; a block in the middle is a pair by itself."""
    shape = problem.q.shape
    return prod(shape[:-2]) * ceil(shape[-2] / (2 * BLOCK_M))


def _batch(problem: Problem) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The batch axes, merged where they can be, and the strides of q, k, v and out along them."""
    views = (problem.q, problem.k, problem.v, problem.out)
    strides = (view.strides[:-2] for view in views)
    merged: tuple[tuple[int, ...], list[tuple[int, ...]]] = collapse(views[0].shape[:-2], *strides)
    return merged


def _loads_in_blocks(view: View) -> bool:
    aligned = (view.offset, *view.strides[:-1])
    size = view.dtype.itemsize
    return view.strides[-1] == 1 and all(n * size % _ALIGNMENT == 0 for n in aligned)
