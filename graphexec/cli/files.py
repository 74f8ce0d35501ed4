"""Plan files on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphexec.ir.plan import Plan

_MAX_BYTES = 512 << 20


def is_plan_file(path: str) -> bool:
    """Whether a path names a plan, by its ending; other paths name graphs."""
    return Path(path).suffix.lower() == ".json"


def read_plan(path: str) -> Plan:
    """The plan in a file; GraphError if the file is unreadable or no plan."""
    from graphexec.ir.plan import Plan

    return Plan.from_json(read_text(path), path)


def read_text(path: str) -> str:
    """The text of a file; GraphError when it cannot be read, is not UTF-8 or is very large."""
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.base.errors import GraphError

    try:
        with open(path, "rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise GraphError([Diagnostic(f"cannot read '{path}': {reason}")]) from exc
    except ValueError as exc:
        raise GraphError([Diagnostic(f"'{path}' is not UTF-8 text: {exc}")]) from exc
    if len(raw) > _MAX_BYTES:
        raise GraphError([Diagnostic(f"'{path}' is larger than {_MAX_BYTES >> 20} MiB")])
    return text
