"""Cells and columns of text: sizes, shapes and untrusted names as printable text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unicodedata import combining, east_asian_width

from graphexec.base.printable import printable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def width(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, columns: int) -> str:
    """`text` in at most `columns` columns; a longer text loses its middle."""
    if width(text) <= columns:
        return text
    if columns < 1:
        return ""
    head, tail = _take(text, columns // 2), _take(text[::-1], (columns - 1) // 2)[::-1]
    return f"{head}…{tail}"


def _take(text: str, columns: int) -> str:
    taken = ""
    for char in text:
        columns -= width(char)
        if columns < 0:
            break
        taken += char
    return taken


def pad(text: str, columns: int, align: str = "<") -> str:
    """`text` filled with blanks to `columns`, at its left ("<") or right (">") edge."""
    blanks = " " * (columns - width(text))
    return text + blanks if align == "<" else blanks + text


def size(count: int) -> str:
    """A number of bytes for people: "512 B", "1.5 MiB"."""
    if count < 1024:
        return f"{count} B"
    power = next(p for p in range(1, len(_UNITS)) if count < 1023.95 * 1024**p or p == 6)
    return f"{count / 1024**power:.1f} {_UNITS[power]}".replace(".0 ", " ")


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 wait", "2 waits"; a noun in -ch takes -es."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('ch') else 's'}"


def shape(extents: Sequence[int]) -> str:
    """A shape as the YAML writes it."""
    return f"[{', '.join(map(str, extents))}]"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], align: str, limit: int = 32,
    columns: int | None = None,
) -> str:  # fmt: skip
    """Rows under a head; `align` has one of < and > a column, no cell is wider than `limit`.

    What is wider than `columns` is a paragraph a row: its first cell, then a line for each other
    cell behind its head. Without a final newline.
    """
    cells = [list(head), *([fit(printable(c), limit) for c in row] for row in rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(head))]
    if columns is not None and sum(widths) + 2 * (len(head) - 1) > columns:
        return "\n".join(line for row in cells[1:] for line in _paragraph(head, row, columns))
    lines = [
        "  ".join(pad(c, w, a) for c, w, a in zip(row, widths, align, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("─" * w for w in widths))
    return "\n".join(lines)


def _paragraph(head: Sequence[str], row: Sequence[str], columns: int) -> list[str]:
    before = max(map(width, head[1:]), default=0) + 4
    lines = _broken(row[0], columns)
    for name, cell in zip(head[1:], row[1:], strict=True):
        if cell:
            first, *others = _broken(cell, max(8, columns - before))
            lines.append(f"  {pad(name, before - 4)}  {first}")
            lines += [" " * before + other for other in others]
    return lines


def _broken(text: str, columns: int) -> list[str]:
    """`text` in lines of at most `columns` columns, broken at blanks where there are any."""
    lines: list[str] = []
    while width(text) > columns:
        taken = _take(text, columns) or text[0]
        end = taken.rfind(" ") if text[len(taken)] != " " else len(taken)
        end = end if end > 0 else len(taken)
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*lines, text]
