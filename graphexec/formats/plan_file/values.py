"""Readers: a JSON value to Python data, or to a mistake with its path.

A reader takes a value and its Place. It raises Wrong for a value that it refuses. A reader of a
list or an object reads all members, so that the mistakes of each are noted, and raises Wrong
without a message if one of them was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeAlias

from graphexec.base.diagnostics import Diagnostic, Source, did_you_mean
from graphexec.base.errors import GraphError
from graphexec.base.file_kinds import kind_of_keys
from graphexec.formats.plan_file.json_text import NotInt64, show

_MISTAKES_SHOWN = 20


class Wrong(Exception):
    """A value is refused: the message and a help. Without a message it is noted already."""

    def __init__(self, message: str = "", help: str = "") -> None:
        super().__init__(message)
        self.message, self.help = message, help


class Mistakes:
    """The mistakes found in a document so far."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: list[Diagnostic] = []

    def add(self, path: tuple[str | int, ...], wrong: Wrong) -> None:
        """Note a mistake, unless it has no message."""
        if wrong.message:
            where = show_path(path)
            text = f"{where}: {wrong.message}" if where else wrong.message
            self._found.append(Diagnostic(text, source=self._source, help=wrong.help))

    def raise_if_any(self) -> None:
        """Raise GraphError with the mistakes, in the order in which they were noted."""
        shown = self._found[:_MISTAKES_SHOWN]
        more = len(self._found) - len(shown)
        if more:
            shown.append(Diagnostic(f"{more} more mistakes are not shown", source=self._source))
        if shown:
            raise GraphError(shown)


class Place:
    """A place in the document, and the list of its mistakes.

    The path is built only on demand: most values are right.
    """

    __slots__ = ("_key", "_parent", "mistakes")

    def __init__(
        self, mistakes: Mistakes, parent: Place | None = None, key: str | int = ""
    ) -> None:
        self.mistakes, self._parent, self._key = mistakes, parent, key

    @property
    def path(self) -> tuple[str | int, ...]:
        """The keys and indices that lead here from the root."""
        keys: list[str | int] = []
        place = self
        while place._parent is not None:
            keys.append(place._key)
            place = place._parent
        return tuple(reversed(keys))

    def read(self, reader: Reader, value: Any, key: str | int) -> Any:
        """The member `key` as `reader` reads it, or None if it was refused and noted."""
        place = Place(self.mistakes, self, key)
        try:
            return reader(value, place)
        except Wrong as wrong:
            self.mistakes.add(place.path, wrong)
            return None


Reader: TypeAlias = Callable[[Any, Place], Any]


@dataclass(frozen=True)
class Optional:
    """A key that may be left out, or be null; both mean `default`."""

    reader: Reader
    default: Any = None


def integer(value: Any, place: Place, least: int = 0) -> int:
    """An integer of 64 bits, at least `least`; true and false are refused."""
    if isinstance(value, NotInt64):
        raise Wrong(f"{show(value)} is not an integer of 64 bits")
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong(f"expected an integer, found {show(value)}")
    if value < least:
        raise Wrong(f"expected an integer of at least {least}, found {value}")
    return value


def boolean(value: Any, place: Place) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise Wrong(f"expected true or false, found {show(value)}")
    return value


MAX_MICROSECONDS = 1e12
"""Eleven days: the longest time that files may state, so that sums of times stay finite."""


def microseconds(value: Any, place: Place) -> float:
    """A time in microseconds: a number from 0 to MAX_MICROSECONDS."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise Wrong(f"expected a number of microseconds, found {show(value)}")
    if value < 0:
        raise Wrong(f"a time cannot be negative, found {show(value)}")
    if value > MAX_MICROSECONDS:
        raise Wrong(f"a time is at most {MAX_MICROSECONDS:g} microseconds, found {show(value)}")
    return float(value)


def extent(value: Any, place: Place) -> int:
    """An extent of a shape: at least 1."""
    return integer(value, place, least=1)


def text(value: Any, place: Place) -> str:
    """A string without control characters: it reaches terminals and other programs."""
    if not isinstance(value, str):
        raise Wrong(f"expected a string, found {show(value)}")
    if not value.isprintable():
        raise Wrong(f"{show(value)} holds a character that cannot be printed")
    return value


def name(value: Any, place: Place) -> str:
    """A string that is not empty."""
    if value == "":
        raise Wrong("the name is empty")
    return text(value, place)


def one_of(*choices: str) -> Reader:
    """A reader of one of these strings."""

    def read(value: Any, place: Place) -> str:
        if isinstance(value, str) and value in choices:
            return value
        help = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise Wrong(f"expected one of {', '.join(choices)}; found {show(value)}", help)

    return read


def list_of(reader: Reader) -> Reader:
    """A reader of lists, to tuples."""

    def read(value: Any, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Wrong(f"expected a list, found {show(value)}")
        items = tuple([place.read(reader, item, index) for index, item in enumerate(value)])
        if None in items:
            raise Wrong
        return items

    return read


def mapping_of(reader: Reader) -> Reader:
    """A reader of objects with any names as keys."""

    def read(value: Any, place: Place) -> dict[str, Any]:
        members = _members(value)
        read_keys = [place.read(name, key, key) for key in members]
        found = {key: place.read(reader, member, key) for key, member in members.items()}
        if None in read_keys or None in found.values():
            raise Wrong
        return found

    return read


def fields(table: Mapping[str, Reader | Optional]) -> Reader:
    """A reader of objects with these keys; other keys are ignored."""

    def read(value: Any, place: Place) -> dict[str, Any]:
        members = _members(value)
        found: dict[str, Any] = {}
        sound = True
        for key, entry in table.items():
            if isinstance(entry, Optional) and members.get(key) is None:
                found[key] = entry.default
                continue
            if key in members:
                reader = entry.reader if isinstance(entry, Optional) else entry
                found[key] = place.read(reader, members[key], key)
            else:
                place.mistakes.add(place.path, _missing(key, members, table))
            sound = sound and found.get(key) is not None
        if not sound:
            raise Wrong
        return found

    return read


def refuse_other_kinds(value: Any, key: str, expected: str) -> None:
    """Raise Wrong for a document without `key` that is of another known kind."""
    kind = kind_of_keys(value, key) if isinstance(value, dict) else None
    if kind is not None:
        raise Wrong(kind.instead_of(expected), kind.use)


def _missing(key: str, members: dict[str, Any], table: Mapping[str, object]) -> Wrong:
    unknown = (k for k in members if k not in table and did_you_mean(k, [key]))
    close = next(unknown, None)
    help = "" if close is None else f"{show(close)} is no key here; did you mean '{key}'?"
    return Wrong(f"the key '{key}' is missing", help)


def _members(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong(f"expected an object, found {show(value)}")
    return value


def show_path(path: tuple[str | int, ...]) -> str:
    """A path as in `instructions[3].stream`."""
    shown = ""
    for key in path:
        if isinstance(key, int):
            shown += f"[{key}]"
        elif key.isidentifier():
            shown += f".{key}" if shown else key
        else:
            shown += f"[{show(key)}]"
    return shown
