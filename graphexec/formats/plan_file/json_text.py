"""Text to JSON values; marks what Python's parser accepts and JSON does not.

Guarantees: any text gives a value or a GraphError with line and column. A key written twice, a
number outside int64, NaN and the infinities are marked, so that the readers can refuse them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from graphexec.base.diagnostics import Diagnostic, Mark, Source
from graphexec.base.errors import GraphError
from graphexec.base.tensor import INT64_MAX

_LONGEST_INT64 = len(str(-INT64_MAX))


class NotInt64:
    """A number outside int64, NaN or an infinity, as it was written."""

    def __init__(self, written: str) -> None:
        self.written = written


class Repeated(dict[str, Any]):
    """A JSON object in which some keys were written more than once; the last value counts."""

    repeated: tuple[str, ...] = ()


def parse(source: Source) -> Any:
    """The JSON value of the source. Raises GraphError when it is not JSON."""
    try:
        return json.loads(
            source.text.removeprefix("\ufeff"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=NotInt64,
        )
    except json.JSONDecodeError as error:
        mark = Mark(error.lineno, error.colno)
        _refuse(Diagnostic("this is not JSON", source=source, mark=mark, label=error.msg), error)
    except RecursionError as error:
        _refuse(Diagnostic("the JSON is nested too deeply for a plan", source=source), error)


def repeated_keys(document: Any) -> Iterator[tuple[str | int, ...]]:
    """The path of every key that is written more than once in its object."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, Repeated):
            yield from ((*path, key) for key in value.repeated)
        children = value.items() if isinstance(value, dict) else enumerate(value)
        pending += [((*path, k), v) for k, v in children if isinstance(v, dict | list)]


def show(value: Any) -> str:
    """A JSON value as messages show it."""
    match value:
        case NotInt64():
            text = value.written
        case dict():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case _:
            text = json.dumps(value)  # escapes control characters
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text)} characters)"


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) == len(members):
        return made
    marked = Repeated(made)
    times = Counter(key for key, _ in members)
    marked.repeated = tuple(key for key, count in times.items() if count > 1)
    return marked


def _integer(written: str) -> int | NotInt64:
    # Length first: Python takes quadratic time for long numbers, and refuses very long ones.
    if len(written) > _LONGEST_INT64 or abs(number := int(written)) > INT64_MAX:
        return NotInt64(written)
    return number


def _refuse(diagnostic: Diagnostic, cause: Exception) -> NoReturn:
    raise GraphError([diagnostic]) from cause
