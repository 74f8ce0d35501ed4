"""Which blocks, warps and stages the Triton kernel of attention is compiled with.

Apart from the kernel, so that a plan whose kernels are cached is loaded without Triton.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphexec.command import Gpu, TritonLaunch
from graphexec.ops.strides import power_of_two


@dataclass(frozen=True)
class Sizes:
    """M queries, N keys, head size D, value size, `batch` entries over `rank` batch axes."""

    batch: int
    rank: int
    queries: int
    keys: int
    head: int
    value: int
    causal: bool
    has_mask: bool
    scale: float


# fmt: off
# (block of queries, block of keys, warps, stages) by family of architectures, padded head size
# and whether causal; the family "" serves what has no rows of its own.
CONFIGURATIONS: dict[str, dict[tuple[int, bool], tuple[int, int, int, int]]] = {
    "sm_9": {
        (16, False): (128, 128, 4, 3), (16, True): (128, 128, 4, 3),
        (32, False): (128, 128, 4, 3), (32, True): (128, 128, 4, 3),
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


def configure(sizes: Sizes, gpu: Gpu) -> TritonLaunch:
    """How the kernel `attention` is compiled for a problem on a GPU, and its grid."""
    head, value = (max(16, power_of_two(d)) for d in (sizes.head, sizes.value))
    family = next(f for f in CONFIGURATIONS if gpu.architecture.startswith(f))
    block_m, block_n, warps, stages = CONFIGURATIONS[family][max(head, value), sizes.causal]
    if sizes.has_mask:  # its blocks need room too
        block_n, stages = max(16, block_n // 2), min(stages, 2)
    # Few queries, as in decoding, need no more rows than a matrix instruction has.
    block_m = min(block_m, max(16, power_of_two(sizes.queries)))
    block_n = min(block_n, max(16, power_of_two(sizes.keys)))
    constants = {
        "HEAD": sizes.head, "VALUE": sizes.value, "BLOCK_HEAD": head, "BLOCK_VALUE": value,
        "BLOCK_M": block_m, "BLOCK_N": block_n, "RANK": sizes.rank,
        "CAUSAL": sizes.causal, "HAS_MASK": sizes.has_mask,
        # A running maximum may then be scaled after it was taken.
        "SCALE_LAST": sizes.scale > 0 and not sizes.has_mask,
        # Rows that see no key at all may exist.
        "BLIND_ROWS": sizes.has_mask or (sizes.causal and sizes.queries > sizes.keys),
        "EVEN_M": sizes.queries % block_m == 0, "EVEN_N": sizes.keys % block_n == 0,
    }  # fmt: skip
    if not sizes.has_mask:
        constants |= {"mask": None, "mask_batch": None, "mask_m": None, "mask_n": None}
    grid = (-(-sizes.queries // block_m) * sizes.batch, 1, 1)
    return TritonLaunch(constants, {"num_warps": warps, "num_stages": stages}, grid)


__all__ = ["CONFIGURATIONS", "Sizes", "configure"]
