"""graphexec explain: the reasons for a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from graphexec.cli.completion import GraphFile, nodes
from graphexec.cli.options import Loader, device_option, json_option, loader_options
from graphexec.cli.planning import plan_for, planner_options
from graphexec.cli.progress import Progress
from graphexec.cli.ranks import mesh_option
from graphexec.cli.report import print_json

if TYPE_CHECKING:
    from graphexec.planning.options import Options


@click.command()
@click.argument("file", type=GraphFile())
@click.argument("node", required=False, shell_complete=nodes)
@loader_options
@device_option
@planner_options
@mesh_option
@json_option
def explain(
    file: str, node: str | None, loader: Loader, device: str, options: Options, as_json: bool
) -> None:  # fmt: skip
    """Explain the plan of the graph in FILE.

    Without NODE: the rewrites, the bounds of the time, the gain of a further stream, the reason
    of each wait, and the lower bound of the arena. With NODE (a node, tensor or output): the
    rewrites that did or did not apply, the command that does its work, the reasons of its stream
    and its waits, and the tensors that share its bytes, with the reason why that is safe.

    \b
    --json prints one object; times are in microseconds:
      graph, commands, streams
      rewrites: [{name, text}]
      time:     {predicted, costs, schedule, held_up_by, one_stream, one_more_stream,
                 measured: {schedule: µs},
                 bounds: {best, critical_path, capacity, copies, streams, together, reason}}
      waits:    [{command, for, why}]
      memory:   {arena_bytes, lower_bound, naive_bytes}
    with NODE: graph, node, lines: [text]
    """
    from graphexec.tools.explain import explain as in_words
    from graphexec.tools.explain import explain_as_dict

    progress = Progress()
    graph = loader.load(file)
    with progress.step(f"planning {file}"):
        compiled = plan_for(graph, device, options)
        more = None
        if node is None:
            streams = len(compiled.plan.streams) + 1
            more = plan_for(graph, device, replace(options, streams=streams, verify=False))
    if as_json:
        print_json(explain_as_dict(compiled, node, more))
    else:
        click.echo(in_words(compiled, node, more))
