"""graphexec run: plan a graph, prove the plan, run it, show and save the outputs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphexec.base.tensor import Array
from graphexec.cli import ranks
from graphexec.cli.completion import GraphFile
from graphexec.cli.files import STANDARD
from graphexec.cli.numbers import find_nonfinite, statistics
from graphexec.cli.options import (
    Loader,
    check_access_option,
    chosen_device,
    device_option,
    inputs_option,
    json_option,
    loader_options,
    markers_option,
    mode_option,
    seed_option,
    timeout_option,
)
from graphexec.cli.planning import note_costs, planner_options
from graphexec.cli.progress import Progress
from graphexec.cli.report import duration, listed, note, number, print_json, table

if TYPE_CHECKING:
    from graphexec.base.atomic_file import Writer
    from graphexec.base.tensor import TensorType
    from graphexec.planning.options import Options
    from graphexec.runtime.executable import Executable
    from graphexec.runtime.hip.options import Mode

    Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Prepared:
    """A loaded plan and its inputs; `drawn` are the names of inputs without a given array."""

    exe: Executable
    inputs: Arrays
    drawn: list[str]
    seconds: float


@contextmanager
def prepared(
    loader: Loader, file: str, specs: tuple[str, ...], device: str, options: Options, seed: int,
    progress: Progress, mode: Mode | None = None, markers: bool = False,
    check_access: bool = False,
) -> Iterator[Prepared]:  # fmt: skip
    """Load, plan, prove, open the device, and read the inputs; say which were drawn."""
    from graphexec.api import compile
    from graphexec.formats.arrays import read_inputs

    with progress.step(f"loading {file}"):
        graph = loader.load(file)
    ranks.check_mesh(options, graph)
    start = time.perf_counter()
    with progress.step(f"planning {graph.name}"):
        chosen = chosen_device(device, mode, options.timeout, markers, check_access)
        exe = compile(graph, device=chosen, options=options)
    seconds = time.perf_counter() - start
    note_costs(exe.plan)
    with exe:
        with progress.step("reading inputs"):
            inputs, drawn = read_inputs(specs, exe.inputs, seed)
        _say_what_is_drawn(drawn, exe.inputs, seed)
        yield Prepared(exe, inputs, drawn, seconds)


def _say_what_is_drawn(drawn: Sequence[str], inputs: Mapping[str, TensorType], seed: int) -> None:
    floats = [name for name in drawn if inputs[name].dtype.is_float]
    others = [name for name in drawn if not inputs[name].dtype.is_float]
    for names, source in ((floats, "a normal distribution"), (others, "0 and 1")):
        if names:
            which = f"input {listed(names)}" if len(names) == 1 else f"inputs {listed(names)}"
            note(f"{which} drawn from {source} with seed {seed}")


@click.command()
@click.argument("file", type=GraphFile())
@ranks.ranked
@inputs_option
@loader_options
@click.option("-o", "--output", "target", metavar="OUT", type=click.Path(path_type=Path),
              help="Save the outputs: an .npz file, or a folder for one .npy each; - is the .npz "
                   "on standard output and nothing else there.")  # fmt: skip
@device_option
@planner_options
@mode_option
@timeout_option
@ranks.mesh_option
@seed_option
@click.option("--steps", metavar="N", type=click.IntRange(min=1),
              help="Run N times with the same inputs, and give the outputs stacked on a new first "
                   "axis.")  # fmt: skip
@click.option("--load-state", "begin", metavar="FILE", type=click.Path(path_type=Path),
              help="Begin with the states in FILE, which --save-state wrote.")  # fmt: skip
@click.option("--save-state", "end", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the states after the last step to FILE, an .npz file.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Do everything but run.")
@click.option("--check-finite", is_flag=True,
              help="Fail on NaN or infinities; name the first node that has any.")  # fmt: skip
@click.option(
    "--trace", "trace", metavar="TRACE", type=click.Path(path_type=Path),
    help="Measure a run and write it as .json, for ui.perfetto.dev and plan --trace.",
)  # fmt: skip
@markers_option
@check_access_option
@json_option
def run(
    file: str, specs: tuple[str, ...], loader: Loader, target: Path | None, device: str,
    options: Options, mode: Mode | None, seed: int,
    steps: int | None, begin: Path | None, end: Path | None, dry_run: bool,
    check_finite: bool, trace: Path | None, markers: bool, check_access: bool, as_json: bool,
) -> int:  # fmt: skip
    """Run the graph in FILE and show its outputs.

    The plan is proved free of races first. Outputs are saved whole or not at all; those of dtype
    bf16 are saved as float32, which holds them exactly (-i takes them back).

    \b
    --json prints one object:
      graph, device, mode, dims, streams, launches, waits, arena_bytes
      inputs:  [{name, dtype, shape, source}]   source: "given" or "drawn"
      outputs: [{name, dtype, shape, min, max, mean, std, nonfinite}]
      seconds: {prepare, run}                   run: null with --dry-run
      saved:   path or null
    Statistics that are NaN or infinite are null.
    """
    from graphexec.base.atomic_file import check_file, write_files
    from graphexec.formats.arrays import check_writable, npz_bytes, write_outputs

    progress = Progress()
    piped = str(target) == STANDARD
    if piped and (as_json or sys.stdout.isatty()):
        raise click.UsageError("-o - writes an .npz file to standard output: neither with --json "
                               "nor to a terminal.")  # fmt: skip
    if target is not None and not piped and ranks.first():
        check_writable(target)
    for path in (trace, end):
        if path is not None and ranks.first():
            check_file(path)
    with prepared(
        loader, file, specs, device, options, seed, progress, mode, markers, check_access
    ) as ready:
        if begin is not None:
            ready.exe.load_state(begin)
        if dry_run:
            _show(ready, {}, None, None, as_json)
            return 0
        start = time.perf_counter()
        with progress.step(f"running on {ready.exe.device_name}"):
            outputs = _stepped(ready, steps)
        seconds = time.perf_counter() - start
        if end is not None:
            ready.exe.save_state(end)
        traces: dict[Path, Writer] = {}
        if trace is not None:
            with progress.step("measuring"):
                traces[trace] = _trace(ready, trace, file)
        if not ranks.first():
            pass
        elif target is not None and not piped:
            with progress.step(f"writing {target}"):
                write_outputs(target, outputs, traces)
        else:
            write_files(traces)
        if piped:
            click.echo(npz_bytes(outputs), nl=False)
        else:
            _show(ready, outputs, seconds, target, as_json)
        return find_nonfinite(ready.exe, ready.inputs, outputs) if check_finite else 0


def _stepped(ready: Prepared, steps: int | None) -> Arrays:
    """The outputs of a run, or of so many, stacked."""
    import numpy as np

    if steps is None:
        return ready.exe.run(**ready.inputs)
    found = [ready.exe.run(**ready.inputs) for _ in range(steps)]
    return {name: np.stack([outputs[name] for outputs in found]) for name in found[0]}


def _trace(ready: Prepared, target: Path, file: str) -> Writer:
    """Measure a run of its own, as measuring slows down what it measures; what writes it."""
    from graphexec.base.atomic_file import text_writer
    from graphexec.tools.measure import measure
    from graphexec.views.chrome import to_json

    with ready.exe.state.unchanged():
        _, trace = measure(ready.exe, ready.inputs)
    plain = duration((trace.uninstrumented or 0) / 1e6)
    note(f"{target}: measured {duration(trace.total / 1e6)}, {plain} when not measured")
    return text_writer(to_json(ready.exe.plan, trace, file, ready.exe.bound.prediction))


# Showing --------------------------------------------------------------------------------


def _show(
    ready: Prepared, outputs: Arrays, seconds: float | None, saved: Path | None, as_json: bool
) -> None:
    plan = ready.exe.plan
    launches = sum(1 for i in plan.instructions if type(i).__name__ == "Launch")
    stats = {name: statistics(array) for name, array in outputs.items()}
    if as_json:
        inputs = [
            {**_described(name, type), "source": "drawn" if name in ready.drawn else "given"}
            for name, type in ready.exe.inputs.items()
        ]
        found = _types_of(ready, outputs).items()
        print_json({
            "graph": plan.graph, "device": ready.exe.device_name,
            "mode": ready.exe.session.mode, "dims": dict(plan.dims),
            "streams": len(plan.streams), "launches": launches,
            "waits": plan.stats.waits if plan.stats else None,
            "arena_bytes": plan.stats.arena_bytes if plan.stats else None,
            "inputs": inputs,
            "outputs": [{**_described(n, t), **stats.get(n, {})} for n, t in found],
            "seconds": {"prepare": ready.seconds, "run": seconds},
            "saved": str(saved) if saved else None,
        })  # fmt: skip
        return
    click.echo(_summary(ready, launches, seconds is None))
    click.echo(f"\n{_types_table('input', ready)}" if seconds is None else "")
    types = _types_of(ready, outputs)
    click.echo(_outputs_table(types, stats) if stats else _types_table("output", ready))
    if seconds is not None:
        ending = f", saved to {saved}" if saved else ""
        click.echo(f"\nprepared in {duration(ready.seconds)}, ran in {duration(seconds)}{ending}")


def _types_of(ready: Prepared, outputs: Arrays) -> dict[str, TensorType]:
    """The types of the outputs; of those of several steps, with the axis of these."""
    return {
        name: replace(type, shape=outputs[name].shape) if name in outputs else type
        for name, type in ready.exe.outputs.items()
    }


def _described(name: str, type: TensorType) -> dict[str, object]:
    return {"name": name, "dtype": type.dtype.value, "shape": list(type.shape)}


def _summary(ready: Prepared, launches: int, dry: bool) -> str:
    from graphexec.views.table import count, size

    plan = ready.exe.plan
    verb = "would run" if dry else "ran"
    facts = [f"{count(launches, 'launch')} on {count(len(plan.streams), 'stream')}"]
    if plan.stats is not None:
        facts += [count(plan.stats.waits, "wait"), f"arena {size(plan.stats.arena_bytes)}"]
    mode = ready.exe.session.mode
    how = f" in {mode} mode" if mode else ""
    where = f"{ready.exe.device_name}{how} ({ready.exe.device.describe()})"
    return f"{plan.graph} {verb} on {where}\n{', '.join(facts)}, proved free of races"


def _types_table(what: str, ready: Prepared) -> str:
    from graphexec.views.table import shape

    types = ready.exe.inputs if what == "input" else ready.exe.outputs
    rows = [
        (name, str(t.dtype), shape(t.shape), "drawn" if name in ready.drawn else "given")
        for name, t in types.items()
    ]
    if what == "input":
        return table((what, "dtype", "shape", "source"), rows, "<<<<") + "\n"
    return table((what, "dtype", "shape"), [row[:3] for row in rows], "<<<")


def _outputs_table(
    types: Mapping[str, TensorType], stats: Mapping[str, Mapping[str, float]]
) -> str:
    from graphexec.views.table import shape

    figures = ["min", "max", "mean", "std"]
    if any(s["nonfinite"] for s in stats.values()):
        figures.append("nonfinite")
    rows = [
        (name, str(t.dtype), shape(t.shape), *(number(stats[name][f]) for f in figures))
        for name, t in types.items()
    ]
    return table(("output", "dtype", "shape", *figures), rows, "<<<" + ">" * len(figures))
