"""Tasks for the simulator and the schedulers, by hand and at random."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from graphexec.machine.simulate import Tasks, successors_of


def made(
    time: Sequence[float], predecessors: Sequence[tuple[int, ...]],
    share: float | Sequence[float] = 1.0, engine: Sequence[int] | None = None,
    launch: float = 0.0, event: float = 0.0,
) -> Tasks:  # fmt: skip
    shares = [share] * len(time) if isinstance(share, int | float) else share
    return Tasks(
        list(time), shares, engine or [0] * len(time), launch, event, predecessors,
        successors_of(predecessors),
    )  # fmt: skip


def random_tasks(seed: int, count: int, streams: int) -> tuple[Tasks, list[int]]:
    """A random DAG with random costs, and a stream for each command."""
    random = Random(seed)
    degree = random.choice((0, 1, 2, 4))
    predecessors = [
        tuple(sorted(random.sample(range(i), min(i, random.randint(0, degree)))))
        for i in range(count)
    ]
    time = [random.choice((0.0, 1.0, 2.0, random.uniform(0, 20))) for _ in range(count)]
    share = [random.choice((0.05, 0.3, 0.5, 1.0)) for _ in range(count)]
    engine = [random.choice((0, 0, 0, 1, 2)) for _ in range(count)]
    share = [1.0 if e else s for e, s in zip(engine, share, strict=True)]
    launch, event = random.choice((0.0, 1.0)), random.choice((0.0, 1.5))
    tasks = made(time, predecessors, share, engine, launch, event)
    return tasks, [random.randrange(streams) for _ in range(count)]
