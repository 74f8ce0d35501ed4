"""graphexec compare: check the plan's results against float64 and name the first wrong node."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from graphexec.cli.completion import GraphFile
from graphexec.cli.options import (
    Finite,
    Loader,
    check_access_option,
    device_option,
    inputs_option,
    json_option,
    loader_options,
    mode_option,
    seed_option,
    timeout_option,
)
from graphexec.cli.planning import planner_options
from graphexec.cli.progress import Progress
from graphexec.cli.report import number, print_json, table
from graphexec.cli.run import prepared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphexec.graph.not_computed import NotComputed
    from graphexec.planning.options import Options
    from graphexec.runtime.hip.options import Mode
    from graphexec.tools.compare import Comparison
    from graphexec.tools.judge import Row


@click.command(short_help="Compare a run with a float64 evaluation.")
@click.argument("file", type=GraphFile())
@inputs_option
@loader_options
@device_option
@planner_options
@mode_option
@timeout_option
@seed_option
@click.option("--tolerance", type=Finite(min=0), metavar="X",
              help="Relative error to tolerate (default: by dtype and depth).")  # fmt: skip
@check_access_option
@json_option
def compare(
    file: str, specs: tuple[str, ...], loader: Loader, device: str, options: Options,
    mode: Mode | None, seed: int, tolerance: float | None,
    check_access: bool, as_json: bool,
) -> int:  # fmt: skip
    """Run the graph in FILE and compare it with an unplanned evaluation in float64.

    Outputs are compared end to end; each node by itself, on the operands it had in this run.
    Relative errors are in the Frobenius norm; tolerances include what underflow explains. Elements
    are judged too: the worst is the one with the largest error for its bound, which follows from
    the op and the magnitudes of what is added up. Nodes that no command computes are named below
    the table. Exit code 1 if an output, a node or an element is out of tolerance.

    \b
    --json prints one object:
      graph, device, ok, first_bad              first_bad: name of a node or null
      outputs, nodes: [{name, op, dtype, max_abs, relative, tolerance, ok,
                        worst: {index, found, expected, bound}}]
      not_computed: [{name, op, how, by}]       by: names; how: "part of" these
                                                nodes, "view" of these tensors,
                                                "repeats" one, "left out" (by: [])
    Errors that are NaN or infinite are null.
    """
    from graphexec.tools.compare import compare_executable

    progress = Progress()
    with prepared(
        loader, file, specs, device, options, seed, progress, mode, check_access=check_access
    ) as ready:
        with progress.step(f"comparing {ready.exe.plan.graph}"):
            found = compare_executable(ready.exe, ready.inputs, tolerance)
        if as_json:
            print_json(_document(found, ready.exe.plan.graph, ready.exe.device_name))
        else:
            _print(found, ready.exe.plan.graph, ready.exe.device_name)
    return 0 if found.ok else 1


def _print(found: Comparison, graph: str, device: str) -> None:
    click.echo(f"{graph} on {device}, against float64\n")
    click.echo(_table("output", found.outputs))
    if found.nodes:
        click.echo(f"\n{_table('node', found.nodes)}")
    if found.not_computed:
        click.echo("\nnot compared, as no command computes them:")
        for line in _absent(found.not_computed):
            click.echo(f"  {line}")
    for row in (*found.outputs, *found.nodes):
        if not row.worst.ok:
            click.echo(f"\n{_element(row)}")
    if found.ok:
        click.echo("\nall within tolerance")
    elif found.first_bad is not None:
        click.echo(f"\nout of tolerance; the first node that is: '{found.first_bad}'")
    else:
        click.echo("\nout of tolerance, though no node is by itself")


def _element(row: Row) -> str:
    worst = row.worst
    at = f"element {list(worst.index)} of '{row.name}'" if worst.index else f"'{row.name}'"
    return (
        f"{at} is {number(worst.found)}, but should be {number(worst.expected)}, "
        f"give or take {number(worst.bound)}"
    )


def _table(what: str, rows: tuple[Row, ...]) -> str:
    cells = [
        (r.name, r.op, r.dtype, number(r.max_abs), number(r.relative), number(r.tolerance),
         str(list(r.worst.index)), "ok" if r.ok else "OUT")
        for r in rows
    ]  # fmt: skip
    head = (what, "op", "dtype", "max abs", "relative", "tolerance", "worst at", "")
    return table(head, cells, "<<<>>><<")


def _absent(nodes: tuple[NotComputed, ...]) -> Iterator[str]:
    """A line for all nodes with the same reason."""
    fates: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for node in nodes:
        fates.setdefault((node.how, node.by), []).append(node.name)
    for (how, by), names in fates.items():
        what = {
            "part of": "computed as part of", "view": "read in place from", "repeats": "equal to",
            "left out": "left out, for no output needs this",
        }[how]  # fmt: skip
        yield f"{', '.join(names)}: {what} {', '.join(by)}".rstrip()


def _document(found: Comparison, graph: str, device: str) -> dict[str, object]:
    def rows(some: tuple[Row, ...]) -> list[dict[str, object]]:
        return [{**asdict(row), "ok": row.ok} for row in some]

    return {
        "graph": graph, "device": device, "ok": found.ok, "first_bad": found.first_bad,
        "outputs": rows(found.outputs), "nodes": rows(found.nodes),
        "not_computed": [asdict(node) for node in found.not_computed],
    }  # fmt: skip
