"""Partitions along heaviest paths.

As in MIGraphX (src/schedule.cpp of ROCm/AMDMIGraphX: partitions grow along the heaviest
operand, and get streams by weight), which is linear clustering: Kim and Browne, "A general approach
to mapping of parallel computation upon multiprocessor architectures", ICPP 1988. Here with times
from the cost model in place of fixed weights.
"""

from __future__ import annotations

from graphexec.machine.simulate import Tasks, upward_ranks
from graphexec.planning.scheduling.assignment import Assignment, by_rank, folded


def candidate(tasks: Tasks, streams: int) -> Assignment:
    """Repeatedly, the heaviest path through the remaining commands becomes a partition."""
    ranks, taken = upward_ranks(tasks), [False] * len(tasks)
    chains = []
    for first in by_rank(tasks):
        if taken[first]:
            continue
        chain, command = [], first
        while command >= 0:
            chain.append(command)
            taken[command] = True
            left = (s for s in tasks.successors[command] if not taken[s])
            command = max(left, key=lambda s: (ranks[s], -s), default=-1)
        chains.append(chain)
    return folded(tasks, chains, streams)
