"""Progress of long work, for listeners that show it.

Long loops are wrapped in `tracked`, which costs almost nothing without a listener.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

Listener = Callable[[str, int, int], None]
"""Called with the name of the work, the number of parts done, and the number of all parts."""
_listener: Listener | None = None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report all work of this process to `listener` within the `with` block."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def tracked(what: str, parts: Iterable[T], total: int) -> Iterator[T]:
    """Yields the parts; a part counts as done when the next one is requested."""
    done = -1
    for done, part in enumerate(parts):
        if _listener is not None:
            _listener(what, done, total)
        yield part
    if _listener is not None:
        _listener(what, done + 1, total)
