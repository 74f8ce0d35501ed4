"""graphexec tune: measure a graph's commands and plans, for its later plans."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from graphexec.cli.completion import GraphFile
from graphexec.cli.options import (
    Finite,
    Loader,
    chosen_device,
    device_option,
    json_option,
    loader_options,
)
from graphexec.cli.planning import options_of, rewrite_options, streams_option
from graphexec.cli.progress import Progress
from graphexec.cli.report import failure, note, print_json, table
from graphexec.cli.verbosity import level

if TYPE_CHECKING:
    from pathlib import Path

    from graphexec.ir.graph import Graph
    from graphexec.machine.costs import Measured
    from graphexec.planning.options import Options
    from graphexec.planning.profile import Profile
    from graphexec.planning.profile_cache import Kept
    from graphexec.runtime.device import Device

    Report = Callable[[str, int, int], None]


@click.command()
@click.argument("file", type=GraphFile())
@loader_options
@device_option
@click.option("--budget", metavar="SECONDS", type=Finite(min=0), default=60.0,
              show_default=True, help="Seconds to measure; longest commands first.")  # fmt: skip
@options_of(streams_option, *rewrite_options)
@click.option("--show", is_flag=True, help="Measure nothing; print what is kept.")
@json_option
def tune(
    file: str, loader: Loader, device: str, options: Options, budget: float, show: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Measure the graph in FILE on the device, and keep the times for its next plans.

    Each distinct command is timed, GEMMs also with hipBLASLt's algorithms. Then the best
    plans by prediction are run. The result is a file that plan, run, compare, bench, explain and
    compile use from then on, unless --no-profile is given. It is valid for this graph with these
    dims, this device and these versions, and replaces the one before.

    \b
    --json prints one object:
      path, complete, failed: [text]
      profile: what the file holds (docs/planner.md)
    """
    progress = Progress()
    with progress.step(f"loading {file}"):
        graph = loader.load(file)
    chosen = chosen_device(device, None, None)
    if show:
        return _show_kept(graph, chosen, as_json)
    from graphexec.tools.tuning.tune import tune as measure

    with _bar() as report:
        tuned = measure(
            graph,
            chosen,
            streams=options.streams,
            seconds=budget,
            report=report,
            rewrite=options.rewrite,
            no_rewrite=options.no_rewrite,
        )
    for what in tuned.failed:
        note(f"could not be measured: {what}")
    if tuned.path is None:
        failure(f"nothing was measured in {budget:g} s; allow more with --budget")
        return 1
    if not tuned.complete:
        measured, of = len(tuned.profile.commands), tuned.commands
        note(f"not everything was measured: {measured} of {of} commands in {budget:g} s")
    _print(tuned.profile, tuned.path, as_json, tuned.complete, tuned.failed)
    return 0


def _show_kept(graph: Graph, device: Device, as_json: bool) -> int:
    kept = _kept(graph, device)
    if kept is None:
        failure(f"nothing was measured of '{graph.name}' here: graphexec tune does")
        return 1
    _print(kept.profile, kept.path, as_json)
    return 0


def _print(
    profile: Profile, path: Path, as_json: bool, complete: bool = True, failed: Sequence[str] = ()
) -> None:
    if as_json:
        print_json({"path": str(path), "complete": complete, "failed": list(failed),
                    "profile": json.loads(profile.to_json())})  # fmt: skip
        return
    click.echo(_described(profile))
    note(f"kept in {path}")


def _kept(graph: Graph, device: Device) -> Kept | None:
    from graphexec.graph.infer import infer
    from graphexec.planning.profile_cache import find

    return find(infer(graph), device.machine)


@contextmanager
def _bar() -> Iterator[Report]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or level() < 0:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("")
        yield lambda what, done, total: bars.update(
            task, description=escape(what), completed=done, total=total
        )


# Showing --------------------------------------------------------------------------------------


def _described(profile: Profile) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in profile.versions.items())
    lines = [f"{profile.graph} on {profile.device}", versions, ""]
    if profile.constants:
        said = ", ".join(f"{name} {time:g} µs" for name, time in profile.constants.items())
        lines += [said, ""]
    rows = [
        (key, f"{m.us:.4g}", "" if m.share is None else f"{m.share:.0%}", _choice(key, m))
        for key, m in sorted(profile.commands.items(), key=lambda item: (-item[1].us, item[0]))
    ]
    lines.append(table(("command", "µs", "fills", "computed by"), rows, "<>><", limit=72))
    for key, schedule in sorted(profile.schedules.items()):
        tried = sorted(schedule.tried.items(), key=lambda item: (item[1], item[0]))
        plans = [(n, f"{us:.4g}", "taken" if n == schedule.best else "") for n, us in tried]
        lines += ["", table((f"plan, {key}", "µs", ""), plans, "<><")]
    return "\n".join(lines)


def _choice(key: str, measured: Measured) -> str:
    """The fastest alternative, and its speed relative to the default."""
    from graphexec.machine.costs import GEMM

    if not measured.choice:
        return "" if not measured.tried else f"default, best of {len(measured.tried)}"
    name = f"hipBLASLt {measured.choice - 1}" if key.startswith(GEMM) else str(measured.choice)
    if not measured.us or "0" not in measured.tried:
        return name
    times = measured.tried["0"] / measured.us
    return f"{name}, {times:.2f} × as fast, best of {len(measured.tried)}"
