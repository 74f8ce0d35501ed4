"""The syntax of DOT: nodes, edges, strings and HTML-like labels of any text."""

from __future__ import annotations

from graphexec.base.printable import printable
from graphexec.views.table import fit

SOFT = "#555555"
"""The grey of small print."""

_LONGEST = 32  # characters of a name on a node
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\\": "&#92;&#8288;"}


def label(name: str, below: str) -> str:
    """An HTML-like label: the name, and a smaller line under it."""
    small = f'<font point-size="10">{html(below)}</font>'
    return f"<<b>{html(fit(printable(name), _LONGEST))}</b><br/>{small}>"


def node(id: str, label: str, given: dict[str, str]) -> str:
    """A node statement; `label` is a string or HTML-like label already in DOT's syntax."""
    return f"  {id} [label={label}, {attributes(given)}];"


def edge(source: str, target: str, given: dict[str, str]) -> str:
    """An edge statement."""
    text = attributes(given)
    return f"  {source} -> {target}{f' [{text}]' if text else ''};"


def attributes(given: dict[str, str]) -> str:
    """The attributes of a statement, without brackets."""
    return ", ".join(f"{key}={quoted(value)}" for key, value in given.items())


def quoted(text: str) -> str:
    """A DOT string; backslashes are doubled because labels read \\N and its kin."""
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def html(text: str) -> str:
    """Text inside an HTML-like label; a joiner keeps \\N and its kin from being expanded."""
    # An element without text is a syntax error to Graphviz.
    return "".join(_ENTITIES.get(c, c) for c in printable(text)) or "&#160;"
