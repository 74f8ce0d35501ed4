"""graphexec plan: show a plan."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphexec.cli.completion import GraphFile
from graphexec.cli.drawing import (
    ENDINGS,
    FORMATS,
    Drawing,
    View,
    check_options,
    format_of,
    write,
)
from graphexec.cli.files import STANDARD, is_plan_file, read_plan
from graphexec.cli.options import Loader, device_option, loader_options
from graphexec.cli.planning import plan_for, planner_options
from graphexec.cli.progress import Progress
from graphexec.cli.ranks import mesh_option
from graphexec.cli.report import warn

if TYPE_CHECKING:
    from graphexec.ir.plan import Plan
    from graphexec.planning.options import Options
    from graphexec.proof import Hazard
    from graphexec.runtime.trace import Trace
    from graphexec.views.paint import Color

_SHOWS_TRACES = (("svg", "plan"), ("png", "plan"))


@click.command()
@click.argument("file", type=GraphFile())
@loader_options
@click.option(
    "--format", "format", type=click.Choice(FORMATS),
    help="text is a table, json the plan file. Default: by OUT's ending, else text.",
)  # fmt: skip
@click.option("-o", "--output", "target", metavar="OUT", type=click.Path(path_type=Path),
              help=f"Write to a file instead: {', '.join(ENDINGS)}; or to standard output: -.",
              )  # fmt: skip
@click.option(
    "--view", type=click.Choice(["graph", "plan", "memory"]), default="plan", show_default=True,
    help="What to draw: the graph as written; a lane a stream; or bytes over time.",
)  # fmt: skip
@click.option("--color", type=click.Choice(["stream", "op", "cost"]),
              help="What the colours of a picture of the plan or of memory mean. Default: stream. "
                   "The graph is coloured by op.")  # fmt: skip
@click.option("--max-nodes", "most", metavar="N", type=click.IntRange(min=1),
              help="Draw at most N boxes (default: 150); neighbours are merged.")  # fmt: skip
@click.option(
    "--trace", "trace_file", metavar="TRACE", type=click.Path(dir_okay=False),
    help="Show a run measured with `graphexec run --trace` under the prediction: in the .html "
    "page, or instead of the plan as .svg or .png.",
)  # fmt: skip
@device_option
@planner_options
@mesh_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def plan(
    file: str, loader: Loader, format: str | None, target: Path | None, view: View,
    color: Color | None, most: int | None, trace_file: str | None, device: str, options: Options,
    as_json: bool,
) -> None:  # fmt: skip
    """Show the plan of the graph in FILE.

    The plan is proved free of races. If FILE is itself a plan (.json), it is shown unchanged: a
    warning states the number of hazards, text lists the first, and pictures show them in red. The
    exit code is then 0; `graphexec check FILE` lists all hazards and exits with 1. The JSON is
    documented in docs/plan-format.md.
    """
    from graphexec.base.atomic_file import check_file, write_files

    if str(target) == STANDARD:
        target = None
    if as_json and format not in (None, "json"):
        raise click.UsageError(f"--json and --format {format} exclude each other.")
    chosen = "json" if as_json else format or format_of(target)
    if target is not None:
        check_file(target)
    elif chosen == "png" and sys.stdout.isatty():
        raise click.UsageError("a PNG is not for a terminal; write it to a file with -o.")
    if trace_file is not None and (chosen, view) not in _SHOWS_TRACES and chosen != "html":
        raise click.UsageError("--trace is shown in a page and in pictures of the plan: "
                               "write .html, .svg or .png.")  # fmt: skip
    check_options(view, chosen, color=color, most=most, traced=trace_file is not None)
    progress = Progress()
    with progress.step(f"planning {file}"):
        drawing = _plan(file, loader, device, options, chosen == "json")
    with progress.step("drawing"):
        drawing = replace(
            drawing, color=color or "stream", most=most, to_terminal=target is None
        )  # fmt: skip
        if trace_file is not None:
            drawing = replace(drawing, trace=_trace(trace_file, drawing.plan))
        if drawing.graph is None:
            drawing = replace(drawing, hazards=_races(file, drawing.plan))
        picture = write(view, chosen, drawing)
    if isinstance(picture, str):
        picture = (picture.rstrip("\n") + "\n").encode(errors="replace")
    if target is not None:
        write_files({target: lambda stream: stream.write(picture)})
    else:
        click.echo(picture, nl=False)


def _plan(file: str, loader: Loader, device: str, options: Options, as_file: bool) -> Drawing:
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.base.errors import InputError

    if is_plan_file(file):
        return Drawing(read_plan(file))
    compiled = plan_for(loader.load(file), device, options)
    if as_file and compiled.plan.ranks is not None:
        message = f"'{file}' is for several ranks, whose plans are not written to files yet"
        one = ",".join(f"{axis}=1" for axis in compiled.plan.ranks.mesh)
        raise InputError([Diagnostic(message, help=f"--mesh {one} gives the plan of one")])
    return Drawing(compiled.plan, compiled.graph, notes=compiled.notes,
                   known=compiled.bound.prediction)  # fmt: skip


def _trace(path: str, plan: Plan) -> Trace:
    from graphexec.base.reading import read_text
    from graphexec.views.chrome import from_json

    return from_json(read_text(path), plan, path)


def _races(file: str, plan: Plan) -> list[Hazard]:
    """Warn of stale figures and the hazards of a plan that was read, in every format."""
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.ir.figures import stale
    from graphexec.proof import find_hazards
    from graphexec.views.table import count

    warn(Diagnostic(f"{file}: {text}", severity="warning") for text in stale(plan))
    hazards = find_hazards(plan)
    if hazards:
        text = f"{file}: this plan is refuted: {count(len(hazards), 'hazard')}"
        advice = f"`graphexec check {file}` says each in full"
        warn([Diagnostic(text, severity="warning", help=advice)])
    return hazards
