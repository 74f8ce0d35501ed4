"""Diagnostics: a mistake, its place, and its message in the style of rustc.

error: unknown op 'softmx'
  --> attention.yaml:12:17
   |
12 |   probs:  {op: softmx, x: scores, axis: -1}
   |                ^^^^^^ expected one of: copy, gemm, softmax
   = help: did you mean 'softmax'?
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

from graphexec.base.printable import printable

_SHOWN_COLUMNS = 160  # a longer source line is shown as a window around the mistake


@dataclass(frozen=True)
class Source:
    """A text a diagnostic can point into; `path` is the path that the user gave."""

    path: str
    text: str

    def line(self, number: int) -> str | None:
        """Line `number` (from 1) without its end, or None when there is no such line."""
        lines = self.text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else None

    def comment(self, number: int) -> str:
        """What the comment at the end of line `number` says; "" without one."""
        return (self.line(number) or "").partition(" # ")[2].strip()


class Mark(NamedTuple):
    """A place in a Source: line and column count from 1, length in characters."""

    line: int
    column: int
    length: int = 1


@dataclass(frozen=True)
class Diagnostic:
    """One mistake (or warning), in plain words.

    `message` says what is wrong; `label` is printed under the place (what was expected or
    found there); `notes` add facts; `help` suggests what to write instead.
    """

    message: str
    severity: Literal["error", "warning"] = "error"
    source: Source | None = None
    mark: Mark | None = None
    label: str = ""
    notes: tuple[str, ...] = ()
    help: str = ""

    def render(self) -> str:
        """The diagnostic as text without colours, without a final newline; what it quotes is
        printable."""
        label = printable(self.label)
        lines = [f"{self.severity}: {printable(self.message)}"]
        if self.source is not None:
            lines += _location(self.source, self.mark, label)
        elif label:
            lines.append(f"   = note: {label}")
        lines += [f"   = note: {printable(note)}" for note in self.notes]
        if self.help:
            lines.append(f"   = help: {printable(self.help)}")
        return "\n".join(lines)


def _location(source: Source, mark: Mark | None, label: str) -> list[str]:
    path = printable(source.path)
    if mark is None:
        return [f"  --> {path}"] + ([f"   = note: {label}"] if label else [])
    header = f"  --> {path}:{mark.line}:{mark.column}"
    text = source.line(mark.line)
    if text is None:
        return [header]
    # A window keeps a minified file readable; control characters would garble a terminal.
    start = max(0, mark.column - 1 - _SHOWN_COLUMNS // 2) if len(text) > _SHOWN_COLUMNS else 0
    shown = "".join(c if c.isprintable() else " " for c in text[start : start + _SHOWN_COLUMNS])
    gutter = " " * len(str(mark.line))
    room = max(1, len(shown) - (mark.column - 1 - start))
    carets = "^" * max(1, min(mark.length, room))
    pointer = " " * (mark.column - 1 - start) + carets + (f" {label}" if label else "")
    return [header, f"{gutter} |", f"{mark.line} | {shown}", f"{gutter} | {pointer}".rstrip()]


def place_within(source: Source | None, scalar: Mark, text: str, start: int, length: int) -> Mark:
    """Where the characters of `text` from `start` on stand in the file, if `scalar` is the place of
    the text in it: plain, in quotes, or over several lines. If they are not found, `scalar`."""
    quotes = scalar.length - len(text)
    if quotes == 0 or quotes == 2:  # written as it is, without or with quotes
        return Mark(scalar.line, scalar.column + quotes // 2 + start, length)
    before = sum(not c.isspace() for c in text[:start])
    at = _visible(source.text, scalar) if source is not None else []
    skipped = next((n for n in range(8) if _follows(at[n:], text)), None)
    if skipped is None or len(at) <= skipped + before:
        return scalar
    return Mark(*at[skipped + before][1:], length)


def _visible(text: str, scalar: Mark) -> list[tuple[str, int, int]]:
    """The characters of a scalar without blanks, each with its line and column."""
    lines, left, found = text.splitlines()[scalar.line - 1 :], scalar.length, []
    for number, line in enumerate(lines, scalar.line):
        first = scalar.column if number == scalar.line else 1
        part = line[first - 1 : first - 1 + left]
        found += [(c, number, first + i) for i, c in enumerate(part) if not c.isspace()]
        left -= len(part) + 1
        if left <= 0:
            break
    return found


def _follows(visible: list[tuple[str, int, int]], text: str) -> bool:
    wanted = "".join(text.split())
    return "".join(c for c, *_ in visible[: len(wanted)]) == wanted


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A suggestion such as "did you mean 'softmax'?", or "" when nothing is close."""
    close = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def unknown(what: str, name: str, known: Iterable[str]) -> Diagnostic:
    """There is no `what` called `name`: the closest known name, or all of them."""
    names = list(known)
    help = did_you_mean(name, names) or f"known are {', '.join(names)}"
    return Diagnostic(f"there is no {what} '{name}'", help=help)
