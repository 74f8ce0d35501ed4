"""graphexec plan: show what would run where."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphexec.cli.files import is_plan_file, read_plan
from graphexec.cli.options import Loader, Planner, device_option, loader_options, planner_options
from graphexec.cli.progress import Progress

if TYPE_CHECKING:
    from graphexec.plan import Plan

_ENDINGS = {".txt": "text", ".json": "json", ".dot": "dot", ".gv": "dot"}


@click.command()
@click.argument("file")
@loader_options
@click.option("--format", "format", type=click.Choice(["text", "json", "dot"]),
              help="text is a table, json the plan file, dot a picture for Graphviz. "
              "Default: by OUT's ending, else text.")  # fmt: skip
@click.option("-o", "--output", "target", metavar="OUT", type=click.Path(path_type=Path),
              help="Write to a file instead: .txt, .json, .dot or .gv.")  # fmt: skip
@device_option
@planner_options
def plan(
    file: str,
    loader: Loader,
    format: str | None,
    target: Path | None,
    device: str,
    planner: Planner,
) -> None:
    """Show the plan of the graph in FILE.

    The plan is proved free of races, unless FILE is itself a plan (.json), which is shown as it
    is. The JSON is documented in docs/plan-format.md; `graphexec check` proves it again.
    """
    from graphexec.atomic_file import check_file, write_text

    chosen = format or _format_of(target)
    if target is not None:
        check_file(target)
    progress = Progress()
    with progress.step(f"planning {file}"):
        made = read_plan(file) if is_plan_file(file) else _make(file, loader, device, planner)
    with progress.step("drawing"):
        text = _WRITERS[chosen](made, target is None)
    if target is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        write_text(target, text.rstrip("\n") + "\n")


def _format_of(target: Path | None) -> str:
    if target is None:
        return "text"
    if target.suffix not in _ENDINGS:
        raise click.UsageError(
            f"'{target}' does not say which format to write: "
            f"end it in {', '.join(_ENDINGS)}, or give --format."
        )
    return _ENDINGS[target.suffix]


def _make(file: str, loader: Loader, device: str, planner: Planner) -> Plan:
    from graphexec.devices.base import available
    from graphexec.pipeline import make_plan

    if device == "auto":  # nothing runs, so there is nothing to warn of
        device = "hip" if any(d.usable and d.name == "hip" for d in available()) else "cpu"
    return make_plan(loader.load(file), device=device, **planner.settings())


def _text(plan: Plan, shown: bool) -> str:
    from graphexec.views.text import to_text

    return to_text(plan, color=shown and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


_WRITERS: dict[str, Callable[[Plan, bool], str]] = {
    "text": _text,
    "json": lambda plan, shown: plan.to_json(),
    "dot": lambda plan, shown: plan.to_dot(),
}
