"""Bytes → text → YAML events, with every error turned into a located message.

Guarantees: the text is UTF-8 without control characters and without the line breaks that only
YAML 1.1 knows, so that the lines of YAML 1.2, of PyYAML and of str.splitlines() are the same; at
most MAX_BYTES of it; all failures are GraphErrors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from graphexec.base.diagnostics import Diagnostic, Mark, Source
from graphexec.base.errors import GraphError
from graphexec.base.file_kinds import kind_of_bytes

MAX_BYTES = 16 * 2**20  # of a file
MAX_DEPTH = 100
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"

_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_UTF8_MARK = b"\xef\xbb\xbf"
_REFUSED = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_OLD_BREAKS = "\x85\u2028\u2029"
"""Line breaks of YAML 1.1, which PyYAML follows; YAML 1.2 has them as ordinary characters. PyYAML
would end a comment at one of them and read the rest of the line as content."""


_OPERAND_FIRST = "; an expression has an operand before it"
BEGINS_OTHERWISE = {
    "-": "'- ' begins an item of a list in YAML; write '-x', or put the expression in quotes",
    ">": "'>' begins a block of text in YAML" + _OPERAND_FIRST,
    "*": "'*' begins an alias in YAML" + _OPERAND_FIRST,
    "%": "'%' begins a directive in YAML" + _OPERAND_FIRST,
    "@": "'@' begins no value in YAML" + _OPERAND_FIRST,
}
"""Operators that mean something else to YAML where a value begins."""


def _trap(source: Source, mark: Mark) -> str:
    line = source.line(mark.line) or ""
    character, before = line[mark.column - 1 : mark.column], line[: mark.column - 1].rstrip()
    return BEGINS_OTHERWISE.get(character, "") if before.endswith(":") else ""


def fatal(source: Source, message: str, mark: Mark | None = None, **more: Any) -> GraphError:
    """The error that ends the reading."""
    return GraphError([Diagnostic(message, source=source, mark=mark, **more)])


def mark_of(position: Any, length: int = 1) -> Mark:
    """PyYAML's position as a place."""
    return Mark(position.line + 1, position.column + 1, max(1, length))


def decode(data: bytes, path: str) -> Source:
    """The text of a file; a byte order mark of UTF-8 is dropped. GraphError if it is not UTF-8, or
    begins like a file of another kind."""
    kind = kind_of_bytes(data)
    if kind is not None:
        raise fatal(Source(path, ""), kind.instead_of("a graph"), help=kind.use)
    if len(data) > MAX_BYTES:
        raise fatal(Source(path, ""), f"the file is larger than {MAX_BYTES:,} bytes")
    for start, name in _BYTE_ORDER_MARKS:
        if data.startswith(start):
            raise fatal(Source(path, ""), f"the file is {name}, not UTF-8", help="save it as UTF-8")
    if 0 in data[:4] and len(data) > 1:
        message = "the file looks like UTF-16 or UTF-32, or is no text at all"
        raise fatal(Source(path, ""), message, help="save it as UTF-8")
    body = data.removeprefix(_UTF8_MARK)
    try:
        return Source(path, body.decode("utf-8"))
    except UnicodeDecodeError as exc:
        source = Source(path, body.decode("utf-8", "replace"))
        offset = exc.start + len(data) - len(body)
        raise fatal(
            source, f"the file is not UTF-8: byte 0x{body[exc.start]:02x} at offset {offset}",
            _mark_at(source.text, len(body[: exc.start].decode("utf-8"))), help="save it as UTF-8",
        ) from exc  # fmt: skip


def events(source: Source) -> Iterator[Any]:
    """PyYAML's events of the text; GraphError for what is not YAML."""
    import yaml

    _check_characters(source)
    make_parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # What yaml.parse() does, without its Python code for each event.
        yield from iter(make_parser(source.text).get_event, None)
    except yaml.MarkedYAMLError as exc:
        raise _syntax_error(source, exc) from exc
    except (yaml.YAMLError, ValueError, OverflowError) as exc:
        # In the pure Python scanner, chr() raises for escapes past U+10FFFF.
        raise fatal(source, f"not valid YAML: {exc}") from exc


def _check_characters(source: Source) -> None:
    if len(source.text) > MAX_BYTES:
        raise fatal(Source(source.path, ""), f"the text is longer than {MAX_BYTES:,} characters")
    odd = _REFUSED.search(source.text)
    if odd is None:
        return
    place, code = _mark_at(source.text, odd.start()), f"U+{ord(odd[0]):04X}"
    if odd[0] in _OLD_BREAKS:
        message = f"the character {code} is a line break in YAML 1.1 and none in YAML 1.2"
        escape = f"\\u{ord(odd[0]):04X}"
        raise fatal(source, message, place, help=f"remove it, or write {escape} in double quotes")
    raise fatal(source, f"the character {code} is not allowed in YAML", place)


def _mark_at(text: str, index: int) -> Mark:
    lines = (text[:index] + ".").splitlines()
    return Mark(len(lines), len(lines[-1]))


def _syntax_error(source: Source, exc: Any) -> GraphError:
    position = exc.problem_mark or exc.context_mark
    if "nesting depth" in (exc.problem or ""):  # LibYAML looks ahead, and has a limit of its own
        return fatal(source, TOO_DEEP, position and mark_of(position))
    if position is None:
        return fatal(source, f"not valid YAML: {exc.problem or exc.context}")
    mark = mark_of(position)
    line = source.line(mark.line) or ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent or line[mark.column - 1 : mark.column] == "\t":
        mark = Mark(mark.line, line.index("\t") + 1)
        return fatal(
            source, "a tab is used for indentation", mark, label="this is a tab",
            help="indent with spaces",
        )  # fmt: skip
    trap = _trap(source, mark)
    if trap:
        return fatal(source, f"not valid YAML: {exc.problem}", mark, help=trap)
    notes = []
    if exc.context and exc.context_mark:
        start = mark_of(exc.context_mark)
        trap = _trap(source, start)
        if trap:
            return fatal(source, f"not valid YAML: {exc.problem}", start, help=trap)
        notes.append(f"{exc.context} that begins at {source.path}:{start.line}:{start.column}")
    return fatal(source, f"not valid YAML: {exc.problem}", mark, notes=tuple(notes))
