"""Plans as JSON text: the documented format, docs/plan-format.md.

Guarantees: `loads(dumps(plan), path) == plan` for every plan whose names are printable; what a
device executes (`Launch.work`) is not part of a plan file. `loads` returns a plan or raises
GraphError with up to 20 mistakes, each with its path in the document; it never fails otherwise,
whatever the text.
It checks structure only: types, ranges of numbers, names used twice. Whether events, buffers and
streams that are referred to exist, and whether the plan is safe, is for `graphexec.verify`.
Keys that are not known are ignored, so that other programs can add their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NoReturn, TypeAlias, get_args

from graphexec.command import Role
from graphexec.diagnostics import Diagnostic, Mark, Source, did_you_mean
from graphexec.errors import GraphError
from graphexec.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stats,
    Stream,
    Wait,
    WaitRole,
)
from graphexec.tensor import INT64_MAX, DType, Space

VERSION = 1
_MISTAKES_SHOWN = 20

Path: TypeAlias = tuple[str | int, ...]


# --- writing -----------------------------------------------------------------------------------


def dumps(plan: Plan) -> str:
    """The plan as JSON text, one stream, buffer, tensor and instruction a line."""
    members: list[tuple[str, str]] = [
        ("plan_version", _line(VERSION)),
        ("graph", _line(plan.graph)),
        ("device", _line(plan.device)),
        ("dims", _line(dict(plan.dims))),
        ("streams", _lines(_without_none(asdict(s)) for s in plan.streams)),
        ("buffers", _lines(asdict(b) for b in plan.buffers)),
        ("tensors", _lines(asdict(t) | {"dtype": t.dtype.value} for t in plan.tensors)),
        ("instructions", _lines(map(_instruction_members, plan.instructions))),
    ]
    if plan.stats is not None:
        members.append(("stats", _line(asdict(plan.stats))))
    body = ",\n".join(f'"{key}": {value}' for key, value in members)
    return f"{{{body}}}\n"


def _instruction_members(i: Instruction) -> dict[str, Any]:
    match i:
        case Launch():
            return _launch_members(i)
        case Record():
            return {"kind": "record", "stream": i.stream, "event": i.event}
        case Wait():
            return {"kind": "wait", "stream": i.stream, "event": i.event, "role": i.role}
        case HostWait():
            return {"kind": "host_wait", "event": i.event}


def _launch_members(launch: Launch) -> dict[str, Any]:
    members: dict[str, Any] = {
        "kind": "launch",
        "stream": launch.stream,
        "node": launch.node,
        "command": launch.command,
        "blas_handle": launch.blas_handle,
        "reads": [(r.buffer, r.low, r.high) for r in launch.reads],
        "writes": [(r.buffer, r.low, r.high) for r in launch.writes],
        "after": launch.after or None,
    }
    return _without_none(members)


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _lines(items: Iterable[object]) -> str:
    lines = ",\n".join(f" {_line(item)}" for item in items)
    return f"[\n{lines}]" if lines else "[]"


# --- reading -----------------------------------------------------------------------------------


def loads(text: str, path: str = "<plan>") -> Plan:
    """The plan in a JSON text; `path` is what error messages call it. Raises GraphError."""
    source = Source(path, text)
    document = _parse(source)
    mistakes = _Mistakes(source)
    _find_repeated_keys(document, mistakes)
    plan = _plan(document, mistakes)
    mistakes.raise_if_any()
    assert plan is not None
    return plan


class _Mistakes:
    """What is wrong so far; `add` returns None, what a reader gives for a value it refuses."""

    def __init__(self, source: Source) -> None:
        self._source, self._found = source, list[Diagnostic]()

    def add(self, path: Path, message: str, help: str = "") -> None:
        where = _show_path(path)
        text = f"{where}: {message}" if where else message
        self._found.append(Diagnostic(text, source=self._source, help=help))

    def raise_if_any(self) -> None:
        if not self._found:
            return
        shown = self._found[:_MISTAKES_SHOWN]
        more = len(self._found) - len(shown)
        if more:
            shown.append(Diagnostic(f"{more} more mistakes are not shown", source=self._source))
        raise GraphError(shown)


Reader: TypeAlias = Callable[[Any, Path, _Mistakes], Any]


class _Repeated(dict[str, Any]):
    """A JSON object in which `keys` were written more than once."""

    def __init__(self, members: Mapping[str, Any], keys: list[str]) -> None:
        super().__init__(members)
        self.keys_repeated = keys


class _Huge:
    """A number that is no int64, or NaN or an infinity, as it was written."""

    def __init__(self, written: str) -> None:
        self.written = written


def _parse(source: Source) -> Any:
    """The JSON value of the text, with what Python would silently accept made visible."""
    text = source.text.removeprefix("\ufeff")
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_parse_int,
            parse_float=float,
            parse_constant=_Huge,
        )
    except json.JSONDecodeError as error:
        mark = Mark(error.lineno, error.colno)
        _refuse(Diagnostic("this is not JSON", source=source, mark=mark, label=error.msg), error)
    except RecursionError as error:
        _refuse(Diagnostic("the JSON is nested too deeply for a plan", source=source), error)


def _refuse(diagnostic: Diagnostic, cause: Exception) -> NoReturn:
    raise GraphError([diagnostic]) from cause


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) == len(members):
        return made
    keys = [key for key, _ in members]
    return _Repeated(made, [key for key in made if keys.count(key) > 1])


def _parse_int(written: str) -> int | _Huge:
    # The length is looked at first: Python takes quadratic time for, or refuses, long numbers.
    if len(written) > 20 or abs(number := int(written)) > INT64_MAX:
        return _Huge(written)
    return number


def _find_repeated_keys(document: Any, mistakes: _Mistakes) -> None:
    pending: list[tuple[Path, Any]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, _Repeated):
            for key in value.keys_repeated:
                mistakes.add((*path, key), "this key is written twice")
        for key, child in _children(value):
            if isinstance(child, dict | list):
                pending.append(((*path, key), child))


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    yield from value.items() if isinstance(value, dict) else ()
    yield from enumerate(value) if isinstance(value, list) else ()


# --- readers: a value, its path and the mistakes so far, to what it means or None ----------------


def _integer(value: Any, path: Path, mistakes: _Mistakes, least: int = 0) -> int | None:
    if isinstance(value, _Huge):
        return mistakes.add(path, f"{_show(value)} is not a number of 64 bits")
    if isinstance(value, bool) or not isinstance(value, int):
        return mistakes.add(path, f"expected an integer, found {_show(value)}")
    if value < least:
        return mistakes.add(path, f"expected an integer of at least {least}, found {value}")
    return value


def _extent(value: Any, path: Path, mistakes: _Mistakes) -> int | None:
    return _integer(value, path, mistakes, least=1)


def _text(value: Any, path: Path, mistakes: _Mistakes) -> str | None:
    if not isinstance(value, str):
        return mistakes.add(path, f"expected a string, found {_show(value)}")
    # Names reach terminals and other programs: no control characters, no half surrogates.
    if not value.isprintable():
        return mistakes.add(path, f"{_show(value)} holds a character that cannot be printed")
    return value


def _name(value: Any, path: Path, mistakes: _Mistakes) -> str | None:
    return mistakes.add(path, "the name is empty") if value == "" else _text(value, path, mistakes)


def _one_of(*choices: str) -> Reader:
    def read(value: Any, path: Path, mistakes: _Mistakes) -> str | None:
        if isinstance(value, str) and value in choices:
            return value
        help = did_you_mean(value, choices) if isinstance(value, str) else ""
        expected = ", ".join(choices)
        return mistakes.add(path, f"expected one of {expected}; found {_show(value)}", help)

    return read


def _list_of(read_item: Reader) -> Reader:
    def read(value: Any, path: Path, mistakes: _Mistakes) -> tuple[Any, ...] | None:
        if not isinstance(value, list):
            return mistakes.add(path, f"expected a list, found {_show(value)}")
        items = [read_item(item, (*path, n), mistakes) for n, item in enumerate(value)]
        return None if None in items else tuple(items)

    return read


def _range(value: Any, path: Path, mistakes: _Mistakes) -> Range | None:
    if not isinstance(value, list) or len(value) != 3:
        expected = "[buffer, first byte, past-last byte]"
        return mistakes.add(path, f"expected {expected}, found {_show(value)}")
    buffer = _name(value[0], (*path, 0), mistakes)
    low = _integer(value[1], (*path, 1), mistakes)
    high = _integer(value[2], (*path, 2), mistakes)
    return None if buffer is None or low is None or high is None else Range(buffer, low, high)


def _dims(value: Any, path: Path, mistakes: _Mistakes) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return mistakes.add(path, f"expected an object, found {_show(value)}")
    for name in value:
        _name(name, (*path, name), mistakes)
    read = {name: _integer(extent, (*path, name), mistakes) for name, extent in value.items()}
    return None if None in read.values() else read  # type: ignore[return-value]


def _optional(read: Reader, default: Any) -> tuple[Reader, Any]:
    """A key that may be left out, or null, both of which mean `default`."""
    return read, default


def _fields(
    value: Any, path: Path, mistakes: _Mistakes, table: Mapping[str, Reader | tuple[Reader, Any]]
) -> dict[str, Any] | None:
    """The members of an object named in the table, read; None if anything is wrong."""
    if not isinstance(value, dict):
        return mistakes.add(path, f"expected an object, found {_show(value)}")
    found: dict[str, Any] = {}
    sound = True
    for key, entry in table.items():
        read, *default = entry if isinstance(entry, tuple) else (entry,)
        if default and value.get(key) is None:
            found[key] = default[0]
        elif key not in value:
            help = did_you_mean(key, [k for k in value if k not in table])
            mistakes.add(path, f"the key '{key}' is missing", help and f"'{key}' for {help[13:]}")
            sound = False
        else:
            found[key] = read(value[key], (*path, key), mistakes)
            sound = sound and found[key] is not None
    return found if sound else None
