"""Files on the command line: standard input and output by "-", and plan files."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphexec.ir.plan import Plan


STANDARD = "-"
"""Standard input where a graph or plan is read, standard output where something is written."""


@cache
def standard_input() -> str:
    """The text of standard input, which can be read once. GraphError if it is none."""
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.base.errors import GraphError
    from graphexec.base.reading import read_stream

    try:
        return read_stream(sys.stdin.buffer).decode("utf-8-sig")
    except (OSError, ValueError) as exc:
        raise GraphError([Diagnostic(f"cannot read standard input: {exc}")]) from exc


def is_plan_file(path: str) -> bool:
    """Whether a path names a plan, by its ending; other paths name graphs. Standard input is a plan
    if it looks like one."""
    if path == STANDARD:
        text = standard_input()
        return text.lstrip().startswith("{") and '"plan_version"' in text
    return Path(path).suffix.lower() == ".json"


def read_plan(path: str) -> Plan:
    """The plan in a file; GraphError when it cannot be read or is none."""
    from graphexec.base.reading import read_text
    from graphexec.ir.plan import Plan

    if path == STANDARD:
        return Plan.from_json(standard_input(), "<stdin>")
    return Plan.from_json(read_text(path), path)
