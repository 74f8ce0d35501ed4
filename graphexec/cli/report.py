"""Output of commands: notes and warnings on standard error, JSON and tables on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import click

from graphexec.base.printable import json_escaped, printable
from graphexec.cli.verbosity import level

if TYPE_CHECKING:
    from graphexec.base.diagnostics import Diagnostic


_UNITS = ((1, "s"), (1e3, "ms"), (1e6, "µs"))


def warn(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics on standard error."""
    for diagnostic in diagnostics:
        if diagnostic.severity == "error" or level() >= 0:
            click.echo(diagnostic.render() + "\n", err=True)


def note(text: str) -> None:
    """Print a note on standard error."""
    if level() >= 0:
        click.echo(f"note: {printable(text)}", err=True)


def failure(text: str) -> None:
    """Print an error on standard error."""
    click.echo(f"error: {printable(text)}", err=True)


def print_json(document: object) -> None:
    """Print a document; NaN and infinities, which JSON does not have, become null."""
    text = json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(json_escaped(text))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def show_diagnostic(diagnostic: Diagnostic) -> dict[str, object]:
    """A diagnostic for JSON: severity, message, path, line, column, label, notes, help."""
    mark, source = diagnostic.mark, diagnostic.source
    return {
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "path": source.path if source else None,
        "line": mark.line if mark else None,
        "column": mark.column if mark else None,
        "label": diagnostic.label,
        "notes": list(diagnostic.notes),
        "help": diagnostic.help,
    }


def screen() -> int | None:
    """Columns of the terminal that standard output is; None if it is none."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str, limit: int = 32) -> str:
    """graphexec.views.table.table as it fits the terminal."""
    from graphexec.views.table import table as as_text

    return as_text(head, rows, align, limit, screen())


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a sentence: "q, k and v", "a, b and 10 more"."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def duration(seconds: float) -> str:
    """A time for people: "3.21 ms"."""
    if seconds >= 1000:
        return f"{seconds:.0f} s"
    factor, unit = next((f, u) for f, u in _UNITS if seconds * f >= 1 or u == "µs")
    return f"{seconds * factor:.3g} {unit}"


def number(value: float) -> str:
    """A figure of a table."""
    return f"{value:.4g}"
