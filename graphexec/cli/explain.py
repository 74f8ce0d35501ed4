"""graphexec explain: why the plan is as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from graphexec.cli.options import Loader, device_option, loader_options
from graphexec.cli.planning import plan_for, planner_options
from graphexec.cli.progress import Progress

if TYPE_CHECKING:
    from graphexec.planning.options import Options


@click.command()
@click.argument("file")
@click.argument("node", required=False)
@loader_options
@device_option
@planner_options
def explain(
    file: str, node: str | None, loader: Loader, device: str, options: Options
) -> None:  # fmt: skip
    """Say why the plan of the graph in FILE is as it is.

    Without NODE: what the rewrites did, what bounds the time, what a further stream would bring,
    why each wait is there, and how small the arena could be. With NODE, a node, tensor or
    output: what the rewrites did to it and what not, which command does its work now if it is
    gone, why that is on its stream, what it waits for and why, who shares its bytes and why that
    is safe.
    """
    from graphexec.tools.explain import explain as in_words

    progress = Progress()
    graph = loader.load(file)
    with progress.step(f"planning {file}"):
        compiled = plan_for(graph, device, options)
        more = None
        if node is None:
            streams = len(compiled.plan.streams) + 1
            more = plan_for(graph, device, replace(options, streams=streams, verify=False))
    click.echo(in_words(compiled, node, more))
