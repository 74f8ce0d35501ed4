"""Blocks: the boxes of a picture, each one launch or, in a large plan, several of a stream.

Consecutive launches of a stream are merged until the wanted number of blocks is reached. Where the
commands of a stream repeat, whole repetitions are merged; first of all those of a graph's blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphexec.base.printable import printable
from graphexec.ir.plan import Launch, Plan
from graphexec.views.repetitions import repetition, stretches
from graphexec.views.table import count

MOST = 150
"""The most boxes that a picture has unless another number is given."""
_LONGEST_PERIOD = 64


@dataclass(frozen=True)
class Block:
    """Launches (numbers in issue order) of one stream that are drawn as one."""

    stream: int
    members: tuple[int, ...]
    name: str
    commands: str

    @property
    def numbers(self) -> str:
        """The members, for `data-l`."""
        return " ".join(map(str, self.members))


def blocks(plan: Plan, most: int) -> list[Block]:
    """At most `most` blocks that hold every launch, by first member; at least one a stream."""
    launches = [*plan.launches.values()]
    lanes: dict[int, list[int]] = {}
    for number, launch in enumerate(launches):
        lanes.setdefault(launch.stream, []).append(number)
    # A stream's last block may be short: it costs each stream but one a block.
    room = len(launches) if len(launches) <= most else max(most - len(lanes) + 1, 1)
    size = max(-(-len(launches) // max(room, 1)), 1)
    found = [
        _block(stream, launches, members)
        for stream, lane in lanes.items()
        for members in _cut(lane, launches, size)
    ]
    return sorted(found, key=lambda b: b.members[0])


def period(words: Sequence[str]) -> int:
    """The period of a sequence (if at least nine tenths of it repeat), or 0."""
    for length in range(1, min(_LONGEST_PERIOD, len(words) // 2) + 1):
        same = sum(a == b for a, b in zip(words, words[length:], strict=False))
        if same >= 0.9 * (len(words) - length):
            return length
    return 0


def summary(words: Sequence[str]) -> str:
    """Several commands in a few words: "4 × (gemm, softmax)", or how many of each."""
    every = period(words)
    if 0 < every <= 4:
        times = len(words) // every
        once = ", ".join(words[:every])
        return f"{times} × ({once})" if every > 1 else f"{len(words)} × {once}"
    counts = Counter(words).most_common()
    return ", ".join(f"{times} × {word}" for word, times in counts[:4])


def _cut(
    lane: Sequence[int], launches: Sequence[Launch], size: int
) -> Iterator[Sequence[int]]:  # fmt: skip
    """The launches of a stream in stretches of `size` or more: whole repetitions of blocks, or of
    what repeats."""
    names = [launches[n].node for n in lane]
    if size > 1 and any(map(repetition, names)):
        lengths = list(stretches(names, size))
    else:
        step = _whole(size, [launches[n].command for n in lane])
        lengths = [step] * -(-len(lane) // step)
    start = 0
    for length in lengths:
        yield lane[start : start + length]
        start += length


def _whole(size: int, commands: Sequence[str]) -> int:
    """`size`, rounded up to whole repetitions of a stream's commands."""
    every = period(commands) if size > 1 else 1
    return -(-size // every) * every if every else size


def _block(stream: int, launches: Sequence[Launch], members: Sequence[int]) -> Block:
    first, last = launches[members[0]], launches[members[-1]]
    if len(members) == 1:
        return Block(stream, tuple(members), printable(first.title), printable(first.command))
    words = summary([printable(launches[n].command) for n in members])
    commands = f"{count(len(members), 'launch')}: {words}"
    return Block(stream, tuple(members), printable(f"{first.node} … {last.node}"), commands)
