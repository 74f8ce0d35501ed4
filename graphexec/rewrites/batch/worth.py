"""Whether a batch pays.

On a GPU launches follow one another even on many streams: eight streams of f16 GEMMs of 256³ took
2 µs a GEMM on an H200, as long as the launch, with most of the device idle. So commands apart take
all their launches and all their work, and as one a single launch and the same work; only a command
too small to fill the device has something to gain, and one that fills it nothing worth waiting for
the slowest member.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.command import Command
from graphexec.costs import CostModel

_GAIN = 0.9  # of the time apart; what is nearer to it may be an error of the model


def faster_as_one(members: Sequence[Command], one: Command, costs: CostModel) -> bool:
    """Whether the batch `one` takes clearly less time than its members."""
    alone = [costs.alone(member) for member in members]
    work = sum(time * share for time, share in alone)
    longest = max(time for time, _ in alone)
    apart = costs.launch * len(members) + max(work, longest)
    together = costs.launch + max(work, longest, costs.alone(one)[0])
    return together <= _GAIN * apart


__all__ = ["faster_as_one"]
