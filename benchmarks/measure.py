"""Measuring several ways to do one thing side by side, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_PAUSE = 0.2  # seconds
_TURN = 6  # timed calls


@dataclass(frozen=True)
class Times:
    """Seconds of each repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


def side_by_side(
    ways: Mapping[str, Callable[[], object]], repeat: int, warmup: int = 3
) -> dict[str, Times]:
    """Time each of `ways` `repeat` times or a few more, in turns so that a slow moment hits all.

    A turn is a pause, an untimed call and some timed ones. The threads of NumPy's OpenBLAS spin
    for 2²⁸ cycles, more than 0.1 s, after a call. Without the pause, one way would occupy the
    cores of the next.
    """
    for _ in range(warmup):
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(-(-repeat // _TURN)):
        for name, way in ways.items():
            time.sleep(_PAUSE)
            way()
            for _ in range(_TURN):
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def table(rows: list[list[str]]) -> str:
    """Rows (the first one the header) as a Markdown table."""
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
