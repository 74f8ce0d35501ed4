"""graphexec bench: the time of runs, and whether it grew."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

from graphexec.cli import ranks
from graphexec.cli.completion import GraphFile
from graphexec.cli.options import (
    Finite,
    Loader,
    chosen_device,
    device_option,
    inputs_option,
    json_option,
    loader_options,
    markers_option,
    seed_option,
    timeout_option,
)
from graphexec.cli.planning import (
    Streams,
    note_costs,
    planner_options_but_streams,
    stream_counts_option,
)
from graphexec.cli.progress import Progress
from graphexec.cli.report import failure, note, print_json, table

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.planning.options import Options
    from graphexec.runtime.device import Device
    from graphexec.tools.bench import Result

_VERSION = 1
_LONGEST = 1e9  # milliseconds, of a baseline


def _modes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str | None, ...]:
    if value is None:
        return (None,)
    parts = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    if not set(parts) <= {"stream", "graph"}:
        raise click.BadParameter(f"'{value}': expected stream, graph or stream,graph.")
    return parts


@click.command()
@click.argument("file", type=GraphFile())
@ranks.ranked
@inputs_option
@loader_options
@device_option
@seed_option
@click.option("-n", "--runs", metavar="N", type=click.IntRange(1, 1_000_000), default=100,
              show_default=True, help="How many runs to measure.")  # fmt: skip
@click.option("--warmup", metavar="N", type=click.IntRange(0, 1_000_000), default=10,
              show_default=True, help="How many runs to make before.")  # fmt: skip
@stream_counts_option
@planner_options_but_streams
@click.option("--modes", metavar="MODE,...", callback=_modes,
              help="On a GPU: stream, graph, or both. Default: the device's.")  # fmt: skip
@timeout_option
@ranks.mesh_option
@click.option("--detailed", is_flag=True, help="Also the time of every launch and the waiting.")
@click.option("--baseline", metavar="OLD", type=click.Path(dir_okay=False),
              help="Compare with what --json printed before; exit 1 when slower.")  # fmt: skip
@click.option("--threshold", metavar="PERCENT", type=Finite(min=0), default=10.0,
              show_default=True, help="So much slower than the baseline is accepted.")  # fmt: skip
@markers_option
@json_option
def bench(
    file: str, specs: tuple[str, ...], loader: Loader, device: str, seed: int, runs: int,
    warmup: int, counts: tuple[Streams, ...], options: Options, modes: tuple[str | None, ...],
    detailed: bool, baseline: str | None, threshold: float, markers: bool, as_json: bool,
) -> int:  # fmt: skip
    """Measure runs of the graph in FILE.

    "whole" is from NumPy to NumPy, "device" from issuing the plan to its end, "resident" the same
    without transfers. Times are in milliseconds.

    \b
    --json prints one object:
      bench_version, graph, device, dims, runs
      results: [{mode, asked, streams, whole, device, resident, requests_per_second,
                 commands: [{node, command, stream, median}],
                 waiting: {stream: ms} or null, measured: ms or null}]
      whole, device, resident: {min, median, p90, p99}; resident may be null
      asked: a number of streams or "auto", as in --streams
    """
    old = None if baseline is None else _read_baseline(baseline)
    progress = Progress()
    with progress.step(f"loading {file}"):
        graph = loader.load(file)
    ranks.check_mesh(options, graph)
    results, name = [], device
    for mode in modes:
        chosen = chosen_device(device, cast(Any, mode), options.timeout, markers)
        name = chosen.name
        for streams in counts:
            with progress.step(f"{runs} runs on {chosen.name}, {_way(mode, streams)}"):
                asked = replace(options, streams=streams)
                results.append(_measure(graph, chosen, asked, specs, seed, runs, warmup, detailed))
    document = {"bench_version": _VERSION, "graph": graph.name, "device": name,
                "dims": dict(graph.dims), "runs": runs,
                "results": [r.to_dict() for r in results]}  # fmt: skip
    if as_json:
        print_json(document)
    else:
        _show(graph.name, name, runs, results)
    return 0 if old is None else _compare(old, document, threshold)


def _measure(
    graph: Graph, device: Device, options: Options, specs: tuple[str, ...], seed: int, runs: int,
    warmup: int, detailed: bool,
) -> Result:  # fmt: skip
    from graphexec.api import compile
    from graphexec.formats.arrays import read_inputs
    from graphexec.tools.bench import bench

    with ExitStack() as opened:
        exe = opened.enter_context(compile(graph, device=device, options=options))
        note_costs(exe.plan)
        still = opened.enter_context(compile(graph, device=device, options=options, resident=True))
        inputs, _ = read_inputs(specs, exe.inputs, seed)
        return bench(exe, still, inputs, runs, warmup, detailed, options.streams)


def _way(mode: str | None, asked: Streams) -> str:
    """A configuration: "graph mode, 4 streams", "as many streams as pay"."""
    streams = "as many streams as pay" if asked == "auto" else f"{asked} streams"
    return f"{mode} mode, {streams}" if mode else streams


# Showing --------------------------------------------------------------------------------


def _show(graph: str, device: str, runs: int, results: list[Result]) -> None:
    from graphexec.views.table import count

    rows = []
    for r in results:
        for part in ("whole", "device", "resident"):
            figures = getattr(r, part)
            if figures is not None:
                times = (figures.min, figures.median, figures.p90, figures.p99)
                rate = f"{r.requests_per_second:.1f}" if part == "whole" else ""
                rows.append((r.name, part, *(f"{t:.3f}" for t in times), rate))
    head = ("run with", "part", "min ms", "median", "p90", "p99", "requests/s")
    click.echo(f"{graph} on {device}, {count(runs, 'run')} each\n")
    click.echo(table(head, rows, "<<>>>>>"))
    for r in results:
        _show_details(r)


def _show_details(r: Result) -> None:
    if not r.commands and r.waiting is None:
        return
    total = sum(c.median for c in r.commands)
    rows = [
        (c.node, c.command, f"s{c.stream}", f"{c.median:.3f}", f"{c.median / total:.1%}")
        for c in sorted(r.commands, key=lambda c: -c.median)
    ]
    click.echo(f"\n{r.name}: every launch, the most expensive first\n")
    click.echo(table(("node", "command", "on", "median ms", "share"), rows, "<<<>>"))
    if r.measured is not None:
        click.echo(f"\nmeasured in runs of their own: {r.measured:.3f} ms a run, "
                   f"{r.device.median:.3f} when not measured")  # fmt: skip
    waiting = ", ".join(f"s{s} {ms:.3f}" for s, ms in (r.waiting or {}).items())
    click.echo(f"waiting for other streams, ms a run: {waiting}")


# Comparing ------------------------------------------------------------------------------


def _read_baseline(path: str) -> dict[str, Any]:
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.base.errors import DataError
    from graphexec.base.reading import read_text

    try:
        document = json.loads(read_text(path))
        if document["bench_version"] != _VERSION:
            raise ValueError
        for result in document["results"]:
            hash((result["mode"], result["asked"]))  # they are keys of a dict
            median = result["whole"]["median"]
            if isinstance(median, bool) or not isinstance(median, int | float):
                raise TypeError
            if not 0 < median <= _LONGEST:
                raise ValueError
        document["graph"], document["device"], document["dims"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        message = f"'{path}' is not what graphexec bench --json prints"
        raise DataError([Diagnostic(message)]) from exc
    return cast("dict[str, Any]", document)


def _compare(old: dict[str, Any], new: dict[str, Any], threshold: float) -> int:
    """Report the change of each configuration; 1 if one is slower by more than `threshold` %."""
    for key in ("graph", "device", "dims"):
        if old[key] != new[key]:
            note(f"the baseline is of another {key}: {old[key]}, now {new[key]}")
    before = {(r["mode"], r["asked"]): r for r in old["results"]}
    slower, compared = False, 0
    for r in new["results"]:
        past = before.get((r["mode"], r["asked"]))
        if past is None:
            note(f"the baseline has no run with {_way(r['mode'], r['asked'])}")
            continue
        compared += 1
        now, then = r["whole"]["median"], past["whole"]["median"]
        change = 100 * (now / then - 1) if then > 0 else 0.0
        verdict = "slower" if change > threshold else "as fast" if change > -threshold else "faster"
        slower |= change > threshold
        click.echo(
            f"{_way(r['mode'], r['asked'])}: {then:.3f} ms before, {now:.3f} ms now "
            f"({change:+.1f} %): {verdict}", err=True,
        )  # fmt: skip
    if not compared:
        failure("the baseline has nothing to compare with")
    return 1 if slower or not compared else 0
