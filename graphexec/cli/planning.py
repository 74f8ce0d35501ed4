"""Options of planning."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from graphexec.cli.report import note
from graphexec.cli.verbosity import level

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.ir.plan import Plan

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
        found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", str(value).strip())
        unit = _UNITS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            self.fail(f"'{value}': expected bytes such as 1048576, 512MiB or 1.5GB.", param, ctx)
        return int(Fraction(found[1]) * unit)


_UNITS = {"": 1, "b": 1} | {
    prefix + ending: base**power
    for power, prefix in enumerate("kmgt", 1)
    for ending, base in (("", 1024), ("ib", 1024), ("b", 1000))
}

streams_option = click.option(
    "--streams", metavar="N|auto", type=_Streams(), default=4, show_default=True,
    help="Use at most N streams; auto takes as many as pay.",
)  # fmt: skip

stream_counts_option = click.option(
    "--streams", "counts", metavar="N|auto,...", type=_StreamCounts(), default="4",
    show_default=True, help="Stream counts to compare, such as 1,2,4; auto takes as many as pay.",
)  # fmt: skip


@dataclass(frozen=True)
class Rewrites:
    """The rewrites switched on and off: the options --rewrite and --no-rewrite."""

    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """The arguments of make_plan and compile."""
        return {"rewrite": self.on, "no_rewrite": self.off}


def rewrite_options(command: Command) -> Command:
    """Add --rewrite and --no-rewrite; the command gets them as `rewrites`."""

    @click.option("--rewrite", "on", metavar="NAME", multiple=True,
                  help="Switch a rewrite on that is off by default. Repeatable. "
                  "`graphexec ops --rewrites` lists them.")  # fmt: skip
    @click.option("--no-rewrite", "off", metavar="NAME|all", multiple=True,
                  help="Switch a rewrite off, or all of them. Repeatable.")  # fmt: skip
    @wraps(command)
    def with_rewrites(
        *args: Any, on: tuple[str, ...], off: tuple[str, ...], **others: Any
    ) -> Any:  # fmt: skip
        return command(*args, rewrites=Rewrites(on, off), **others)

    return with_rewrites  # type: ignore[return-value]


@dataclass(frozen=True)
class Planner:
    """The options of planning: --streams, --costs, --no-profile, --memory-limit and those of
    Rewrites."""

    costs: Path | None
    memory_limit: int | None
    rewrites: Rewrites = Rewrites()
    use_profile: bool = True
    streams: Streams = 4

    def settings(self) -> dict[str, Any]:
        """The arguments that make_plan and compile share."""
        own = {"streams": self.streams, "costs": self.costs, "memory_limit": self.memory_limit}
        return own | self.rewrites.settings()

    def to_compile(self) -> dict[str, Any]:
        """The arguments of compile."""
        return self.settings() | {"use_profile": self.use_profile}

    def to_plan(self, device: str, graph: Graph) -> dict[str, Any]:
        """The arguments of plan_graph for a graph and a device, which need not be usable here."""
        from graphexec.base.errors import DeviceUnavailable
        from graphexec.runtime.device import find_device

        settings = self.settings() | planned_device(device, graph)
        if self.use_profile and self.costs is None:
            with suppress(DeviceUnavailable):
                settings["machine"] = find_device(settings["device"]).machine
        return settings


def planner_options(command: Command) -> Command:
    """Add the options of Planner; the command gets them as `planner`."""

    @streams_option
    @planner_options_but_streams
    @wraps(command)
    def with_streams(*args: Any, streams: Streams, planner: Planner, **others: Any) -> Any:
        return command(*args, planner=replace(planner, streams=streams), **others)

    return with_streams  # type: ignore[return-value]


def planner_options_but_streams(command: Command) -> Command:
    """Like `planner_options`, for a command that makes plans for several numbers of streams."""

    @click.option("--costs", metavar="PROFILE", type=click.Path(path_type=Path),
                  help="Plan with the measured times in a file (docs/planner.md).")  # fmt: skip
    @click.option("--no-profile", is_flag=True, help="Plan with the device's model, not a profile.")
    @click.option("--memory-limit", metavar="BYTES", type=_Bytes(),
                  help="The most arena and weights may take: 512MiB, 2GB. Costs time.")  # fmt: skip
    @rewrite_options
    @wraps(command)
    def with_planner(
        *args: Any, costs: Path | None, no_profile: bool, memory_limit: int | None,
        rewrites: Rewrites, **others: Any,
    ) -> Any:  # fmt: skip
        if costs is not None and no_profile:
            raise click.UsageError("--costs and --no-profile exclude each other.")
        planner = Planner(costs, memory_limit, rewrites, not no_profile)
        return command(*args, planner=planner, **others)

    return with_planner  # type: ignore[return-value]


def planned_device(name: str, graph: Graph) -> dict[str, Any]:
    """The device to plan for where nothing runs, as arguments of plan_graph for `graph`; "auto"
    warns of nothing."""
    from graphexec.runtime.device import available

    usable = any(d.usable and d.name == "hip" for d in available()) if name != "cpu" else False
    if name == "auto":
        name = "hip" if usable else "cpu"
    if name == "hip" and usable:
        from graphexec.runtime.hip.device import HipDevice

        return {"device": name, "capabilities": HipDevice().capabilities(graph)}
    return {"device": name}


def note_costs(plan: Plan) -> None:
    """Report the costs of the plan, if they are a profile or with -v."""
    if plan.stats is not None and (level() > 0 or plan.stats.costs.startswith("profile")):
        note(f"planned with the {plan.stats.costs}")
