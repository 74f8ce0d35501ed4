"""Plan files on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphexec.ir.plan import Plan


def is_plan_file(path: str) -> bool:
    """Whether a path names a plan, by its ending; other paths name graphs."""
    return Path(path).suffix.lower() == ".json"


def read_plan(path: str) -> Plan:
    """The plan in a file; GraphError when it cannot be read or is none."""
    from graphexec.base.reading import read_text
    from graphexec.ir.plan import Plan

    return Plan.from_json(read_text(path), path)
