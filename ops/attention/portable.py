"""Launches of the kernel of flash.py: arguments, blocks, warps and stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphexec.base.tensor import DType, View
from graphexec.ir.program import Argument, Gpu, NoKernel, Scalar, TritonLaunch
from graphexec.ops.attention.problem import Limits, Problem, is_positive
from graphexec.ops.kit.strides import collapse, power_of_two

SOURCE = Path(__file__).with_name("flash.py")
_INT32 = 2**31

# fmt: off
# (block of queries, block of keys, warps, stages) by family of architectures, padded head size
# and whether causal; the family "" is for architectures without rows of their own.
CONFIGURATIONS: dict[str, dict[tuple[int, bool], tuple[int, int, int, int]]] = {
    "sm_9": {
        (16, False): (128, 128, 4, 3), (16, True): (128, 128, 4, 3),
        (32, False): (64, 128, 4, 3), (32, True): (128, 128, 4, 3),
        (64, False): (64, 128, 4, 3), (64, True): (64, 64, 4, 3),
        (128, False): (128, 64, 8, 3), (128, True): (64, 64, 4, 3),
        (256, False): (128, 64, 8, 2), (256, True): (128, 64, 8, 2),
    },
    "gfx9": {
        (16, False): (128, 64, 4, 1), (16, True): (128, 64, 4, 1),
        (32, False): (128, 64, 4, 1), (32, True): (128, 64, 4, 1),
        (64, False): (128, 64, 4, 1), (64, True): (128, 64, 4, 1),
        (128, False): (128, 64, 4, 1), (128, True): (128, 64, 4, 1),
        (256, False): (64, 32, 4, 1), (256, True): (64, 32, 4, 1),
    },
    "": {
        (16, False): (64, 64, 4, 2), (16, True): (64, 64, 4, 2),
        (32, False): (64, 64, 4, 2), (32, True): (64, 64, 4, 2),
        (64, False): (64, 64, 4, 2), (64, True): (64, 64, 4, 2),
        (128, False): (64, 32, 4, 2), (128, True): (64, 32, 4, 2),
        (256, False): (32, 16, 4, 1), (256, True): (32, 16, 4, 1),
    },
}
# fmt: on

# Smaller blocks for problems with a mask of queries and keys, whose blocks need room too, and for
# problems with fewer tiles than multiprocessors, to occupy more of these.
SMALLER = {"sm_9": {(128, False): (64, 128, 4, 3)}}

# Alternatives for `tune`: blocks of queries and of keys, warps, stages.
OTHERS = {
    "sm_9": ((128, 64, 8, 3), (128, 128, 8, 2), (64, 128, 4, 3), (64, 64, 4, 3), (32, 64, 4, 3)),
    "gfx9": ((128, 32, 4, 1), (64, 64, 4, 1), (256, 64, 8, 1), (128, 128, 8, 1), (32, 64, 2, 1)),
    "": ((128, 64, 8, 2), (64, 32, 4, 2), (64, 64, 4, 3), (32, 64, 4, 2), (32, 32, 2, 2)),
}
ALTERNATIVES = 5
"""The number of alternatives of each family."""


def launch(
    problem: Problem, gpu: Gpu, alternative: int | None = None, parts: int = 1, step: int = 0
) -> TritonLaunch:
    """The kernel of flash.py for a problem on a GPU, by the table or by an alternative. With
    several parts of the keys, their results are `step` elements apart. Raises NoKernel for other
    types than f16 and bf16."""
    p = problem
    if p.q.dtype not in (DType.F16, DType.BF16):
        raise NoKernel(f"there is a kernel for f16 and bf16, not for {p.q.dtype}")
    extents, batches = collapse(p.q.shape[:-2], *(view.strides[:-2] for view in p.views()))
    views = [
        (view, (wide(batch), _step(view, -2), _step(view, -1)))
        for view, batch in zip(p.views(), batches, strict=True)
    ]
    queries, keys = p.q.shape[-2], p.k.shape[-2]
    args: list[Argument] = [view for view, _ in views[:4]]
    args += [Scalar("f32", p.scale), Scalar("f32", p.headroom)]
    args += [Scalar("i32", queries), Scalar("i32", keys)]
    args.append(tuple(Scalar("i32", extent) for extent in extents))
    for _, strides in views[:4]:
        args += strides
    if parts > 1:
        args.append(Scalar("i64", step))
    has_mask = p.mask is not None
    for view, strides in views[4 : 4 + has_mask]:
        args += [view, *strides]
    for view, (batch, *_) in views[4 + has_mask :]:
        args += [view, batch]

    block_m, block_n, warps, stages = _blocks(p, gpu, alternative)
    head, value = map(_padded, (p.q.shape[-1], p.v.shape[-1]))
    constants: dict[str, int | None] = {
        "HEAD": p.q.shape[-1], "VALUE": p.v.shape[-1], "BLOCK_HEAD": head, "BLOCK_VALUE": value,
        "BLOCK_M": block_m, "BLOCK_N": block_n, "RANK": len(extents),
        "CAUSAL": p.causal, "HAS_MASK": has_mask, "ONE_MASK": p.has_one_mask,
        # With a positive scale, the running maximum may be scaled afterwards.
        "SCALE_LAST": is_positive(p.scale) and not has_mask,
        # Some rows may see no key.
        "BLIND_ROWS": has_mask or parts > 1 or (p.causal and queries > keys) or bool(p.limits),
        "EVEN_M": queries % block_m == 0, "EVEN_N": keys % block_n == 0 and not p.limits,
        "PARTS": parts, **_limits(p.limits),
    }  # fmt: skip
    if parts == 1:
        constants["out_part"] = None
    if not has_mask:
        constants |= {"mask": None, "mask_batch": None, "mask_m": None, "mask_n": None}
    grid = (p.tiles(block_m) * parts, 1, 1)
    options = {"num_warps": warps, "num_stages": stages}
    return TritonLaunch(SOURCE, tuple(args), constants, options, grid)


def _limits(limits: Limits | None) -> dict[str, int | None]:
    """The constants of limits, and None for the arguments that there are not."""
    names = limits.names if limits else ()
    has_length, has_start = "length" in names or "at" in names, "start" in names
    constants: dict[str, int | None] = {
        "LIMITED": limits is not None, "ONE_PLACE": limits is not None and limits.queries == 1,
        "HAS_LENGTH": has_length, "IS_AT": "at" in names, "HAS_START": has_start,
        "FOLLOWS": limits is not None and limits.causal,
        "WINDOW": limits.window or 0 if limits else 0,
    }  # fmt: skip
    if not has_length:
        constants |= {"length": None, "length_batch": None}
    if not has_start:
        constants |= {"start": None, "start_batch": None}
    return constants


def _blocks(problem: Problem, gpu: Gpu, alternative: int | None) -> tuple[int, int, int, int]:
    p = problem
    family = next(f for f in CONFIGURATIONS if gpu.architecture.startswith(f))
    size = max(map(_padded, (p.q.shape[-1], p.v.shape[-1])))
    found = CONFIGURATIONS[family][size, p.causal]
    smaller = SMALLER.get(family, {}).get((size, p.causal))
    if smaller and (_needs_room(p) or p.tiles(smaller[0]) <= gpu.multiprocessors):
        found = smaller
    if alternative is not None:
        found = OTHERS[family][alternative]
    block_m, block_n, warps, stages = found
    if _needs_room(p):
        block_n, stages = max(16, block_n // 2), min(stages, 2)
    # Few queries, as in decoding, need only the rows of one matrix instruction.
    block_m = min(block_m, max(16, power_of_two(p.q.shape[-2])))
    block_n = min(block_n, max(16, power_of_two(p.k.shape[-2])))
    return block_m, block_n, warps, stages


def _needs_room(problem: Problem) -> bool:
    """Whether a block of the mask takes as much room as one of the scores."""
    return problem.mask is not None and not problem.has_one_mask


def _padded(size: int) -> int:
    return max(16, power_of_two(size))


def wide(strides: Sequence[int]) -> tuple[Scalar, ...]:
    """Strides as arguments of a kernel."""
    return tuple(Scalar("i64", stride) for stride in strides)


def _step(view: View, axis: int) -> Scalar:
    """The stride along an axis: wide where an offset along it may be."""
    stride = view.strides[axis]
    return Scalar("i32" if abs(stride) * view.shape[axis] < _INT32 else "i64", stride)
