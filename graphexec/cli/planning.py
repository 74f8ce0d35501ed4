"""Options of the command line that say how a graph is planned: those of graphexec.Options."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from graphexec.cli import completion
from graphexec.cli.report import note
from graphexec.cli.verbosity import level

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.ir.plan import Plan
    from graphexec.planning.options import Options
    from graphexec.planning.pipeline import Compiled

Streams = int | Literal["auto"]
Command = TypeVar("Command", bound=Callable[..., Any])

_MOST_COMPARED = 256  # streams: no plan has more


class _Streams(click.ParamType):  # type: ignore[type-arg]
    """A number of streams, or auto."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        return click.IntRange(min=1).convert(value, param, ctx)


class _StreamCounts(click.ParamType):  # type: ignore[type-arg]
    """Several of these, each once, separated by commas."""

    name = "N|auto,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        parts = [part.strip() for part in str(value).split(",")]
        if not all(map(_is_count, parts)):
            expected = f"numbers from 1 to {_MOST_COMPARED} or auto, such as 1,2,auto"
            self.fail(f"'{value}': expected {expected}.", param, ctx)
        return tuple(dict.fromkeys(p if p == "auto" else int(p) for p in parts))


def _is_count(text: str) -> bool:
    digits = text.isascii() and text.isdecimal() and len(text) < 9
    return text == "auto" or (digits and 1 <= int(text) <= _MOST_COMPARED)


class _Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, with an optional unit: 512MiB, 2GiB, 1.5GB."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from graphexec.planning.options import parse_bytes

        try:
            return parse_bytes(str(value))
        except ValueError as exc:
            self.fail(f"'{value}': expected {exc}.", param, ctx)


streams_option = click.option(
    "--streams", metavar="N|auto", type=_Streams(), default=4, show_default=True,
    help="Use at most N streams; auto takes as many as pay.",
)  # fmt: skip

stream_counts_option = click.option(
    "--streams", "counts", metavar="N|auto,...", type=_StreamCounts(), default="4",
    show_default=True, help="Stream counts to compare, such as 1,2,4; auto takes as many as pay.",
)  # fmt: skip

rewrite_options = (
    click.option("--rewrite", metavar="NAME", multiple=True, shell_complete=completion.rewrites,
                 help="Switch a rewrite on that is off by default. Repeatable. "
                 "`graphexec ops --rewrites` lists them."),
    click.option("--no-rewrite", metavar="NAME|all", multiple=True,
                 shell_complete=completion.rewrites,
                 help="Switch a rewrite off, or all of them. Repeatable."),
)  # fmt: skip

cost_options = (
    click.option("--costs", metavar="PROFILE", type=click.Path(path_type=Path),
                 help="Plan with the measured times in a file (docs/planner.md)."),
    click.option("--no-profile", "use_profile", is_flag=True,
                 callback=lambda ctx, param, given: not given,
                 help="Plan with the device's model, not a profile."),
    click.option("--memory-limit", metavar="BYTES", type=_Bytes(),
                 help="The most arena and weights may take: 512MiB, 2GB. Costs time."),
    click.option("--reproducible", is_flag=True,
                 help="The same bits for every number of streams and cores. Costs time."),
)  # fmt: skip


def options_of(*given: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Add options of the command line to a command, which gets them as `options`.

    Collected are all parameters that are called like a field of Options, also others of the
    command, such as --timeout.
    """

    def add(command: Command) -> Command:
        @wraps(command)
        def collecting(*args: Any, **parameters: Any) -> Any:
            from graphexec.planning.options import Options

            names = Options.__dataclass_fields__.keys() & parameters.keys()
            found = {name: parameters.pop(name) for name in names}
            if found.get("costs") is not None and not found["use_profile"]:
                raise click.UsageError("--costs and --no-profile exclude each other.")
            return command(*args, options=Options(**found), **parameters)

        wrapped: Any = collecting
        for option in reversed(given):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return add


planner_options_but_streams = options_of(*cost_options, *rewrite_options)
planner_options = options_of(streams_option, *cost_options, *rewrite_options)


def plan_for(graph: Graph, device: str, options: Options) -> Compiled:
    """Plan for the device of this name, which need not be usable here: then no more is known of it
    than its name. "auto" warns of nothing. With a mesh of several ranks, it is the plan of the
    first, which this process need not be."""
    from graphexec.api import plan_on, ranked
    from graphexec.ir.ranks import Ranks
    from graphexec.planning.pipeline import plan_graph
    from graphexec.runtime.find import available, find_device

    mesh = graph.mesh if options.mesh is None else options.mesh
    ranks = Ranks.of(0, mesh) if prod(mesh.values()) > 1 else None

    usable = device != "cpu" and any(d.usable and d.name == "hip" for d in available())
    if device == "hip" and not usable:
        compiled = plan_graph(graph, device=device, options=options, ranks=ranks)
    else:
        on = find_device("hip" if usable else "cpu")
        compiled = plan_on(graph, on, options, ranks)
    return compiled if ranks is None else ranked(compiled, ranks)


def note_costs(plan: Plan) -> None:
    """Report the costs of the plan, if they are a profile or with -v."""
    if plan.stats is not None and (level() > 0 or plan.stats.costs.startswith("profile")):
        note(f"planned with the {plan.stats.costs}")
