"""Foreign text as people may see it: names and messages from files, paths, plans and ops.

Whatever is shown passes through here: messages, logs, tables, titles of pictures. A terminal
interprets control characters, and bidirectional ones change the order in which a line is read; both
are escaped. A line break in a name would forge a line, so `printable` gives one line.
"""

from __future__ import annotations

import re

_MOST = 4000  # characters of one message


def printable(text: str, most: int = _MOST) -> str:
    """`text` as one line of at most `most` characters: control, bidirectional and other invisible
    characters are escaped as in Python's string literals, a longer text loses its middle."""
    shown = escaped(text) if len(text) <= most else _shortened(text, most)
    return shown if len(shown) <= most else _shortened(shown, most)


def escaped(text: str) -> str:
    """`text` with what is not printable escaped, of any length: for the values of attributes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def printable_lines(text: str) -> str:
    """The same of each line of a text that has several, such as a compiler's log; tabs stay."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def json_escaped(text: str) -> str:
    """JSON text whose strings hold no character that a terminal interprets."""
    return "\n".join(_JSON.sub(_json_escape, line) for line in text.split("\n"))


def _shortened(text: str, most: int) -> str:
    half = most // 2
    return f"{escaped(text[:half])}…{escaped(text[-half + 1 :])}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


_JSON = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]|[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f]")


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
