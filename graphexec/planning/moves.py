"""Copies as if at once, done one after another: the next values of states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from graphexec.base.tensor import TensorType, View


@dataclass(frozen=True, slots=True)
class Move:
    """A copy of dense bytes to a storage of the target's own."""

    target: View
    source: View


def one_by_one(moves: Mapping[str, Move]) -> Iterator[tuple[str, Move, bool]]:
    """The moves in an order in which each reads its source before another overwrites it, by name.

    A circle, as of two states that exchange their values, is broken by a copy of a source to a
    temporary tensor, NAME.old: its target is that, and it is False.
    """
    waiting = dict(moves)
    while waiting:
        free = [name for name in waiting if not _is_read(name, waiting)]
        if not free:
            name, move = next(iter(waiting.items()))
            yield name, move, False
            type = TensorType(move.source.shape, move.source.dtype)
            kept = View.dense(f"{name}.old", type)
            waiting[name] = replace(move, source=kept)
        for name in free:
            yield name, waiting.pop(name), True


def _is_read(name: str, waiting: Mapping[str, Move]) -> bool:
    """Whether a move reads what the move `name` overwrites; its own source must lie elsewhere."""
    storage = waiting[name].target.storage
    return any(move.source.storage == storage for move in waiting.values())
