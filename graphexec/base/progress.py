"""How far long work has come, for whoever shows it.

Code that does long work says so with `tracked`; that costs next to nothing unless somebody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

Listener = Callable[[str, int, int], None]
"""Called with what is being done, how many parts of it are, and of how many."""
_listener: Listener | None = None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` about all work of this process meanwhile."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def tracked(what: str, parts: Iterable[T], total: int) -> Iterator[T]:
    """The parts as they are; each counts as done when the next one is asked for."""
    done = -1
    for done, part in enumerate(parts):
        if _listener is not None:
            _listener(what, done, total)
        yield part
    if _listener is not None:
        _listener(what, done + 1, total)


__all__ = ["Listener", "listening", "tracked"]
