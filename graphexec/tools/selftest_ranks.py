"""selftest on several ranks: their collectives of every type, and what failed on which of them.

The collectives are those of the CPU: by MPI, or by sockets.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.runtime.ranks.collectives import Communication
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.transport import open_transport
from graphexec.tools.selftest import Check

_SIZE = 6000  # elements a rank


def checks_of_ranks(group: Group, failed: Sequence[str]) -> list[Check]:
    """`failed` are the checks that failed on this rank. All ranks call this."""
    start = time.perf_counter()
    wrong = [dtype for dtype in DType if dtype is not DType.BOOL and not _is_right(group, dtype)]
    detail = ", ".join(wrong) or f"{group.ranks} ranks, exactly as NumPy, {len(DType) - 1} types"
    everyone = group.gather([list(failed), detail if wrong else ""])
    seconds = time.perf_counter() - start
    bad = [f"{text} on rank {rank}" for rank, (_, text) in enumerate(everyone) if text]
    found = [Check("collectives of ranks", not bad, "; ".join(bad) or detail, seconds)]
    for rank, (names, _) in enumerate(everyone):
        if names and rank > 0:
            found.append(Check(f"rank {rank}", False, f"failed: {', '.join(names)}", 0.0))
    return found


def _is_right(group: Group, dtype: DType) -> bool:
    """Sums and gathers of small integers, which are exact in every type."""
    ranks = range(group.ranks)
    arrays = [_drawn(dtype, rank, group.ranks) for rank in ranks]
    mine, total = arrays[group.rank], np.sum(np.stack(arrays).astype(np.float64), axis=0)
    out, whole = np.empty_like(mine), np.empty((group.ranks, mine.size), mine.dtype)
    with closing(open_transport(group)) as transport:
        world = Communication(transport, ranks)
        world.all_reduce(mine, out, "sum")
        world.all_gather(mine, whole)
    same = np.array_equal(out.astype(np.float64), total)
    return same and np.array_equal(whole.view(np.uint8), np.stack(arrays).view(np.uint8))


def _drawn(dtype: DType, seed: int, ranks: int) -> Array:
    most = max(2, 100 // ranks)
    return np.random.default_rng(seed).integers(0, most, _SIZE).astype(dtype.numpy())
