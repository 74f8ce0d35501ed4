"""Options that commands share, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from graphexec.cli.report import note, warn

if TYPE_CHECKING:
    from graphexec.devices.base import Device
    from graphexec.devices.hip import Mode
    from graphexec.graph import Graph
    from graphexec.op import Op

Command = TypeVar("Command", bound=Callable[..., Any])


class Finite(click.FloatRange):
    """A number in a range that is no NaN and not infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


@dataclass(frozen=True)
class Loader:
    """How a command reads graphs: the options -D, --ops and --weights-root."""

    dims: dict[str, int]
    op_folders: tuple[Path, ...]
    weights_root: Path | None

    def ops(self) -> dict[str, Op]:
        """Built-in and installed ops, and those of the user's folders."""
        from graphexec.registry import load_ops

        return load_ops(self.op_folders)

    def load(self, path: str) -> Graph:
        """The graph in a file; what may be wrong with it is said on standard error."""
        from graphexec.stages.load import load

        graph = load(path, dims=self.dims, ops=self.ops(), weight_root=self.weights_root)
        warn(graph.warnings)
        return graph


def loader_options(command: Command) -> Command:
    """Add -D, --ops and --weights-root; the command gets them as `loader`."""

    @click.option("-D", "dims", metavar="DIM=N", multiple=True, callback=_dims,
                  help="Set a dim of the graph. Repeatable.")  # fmt: skip
    @ops_option
    @click.option("--weights-root", metavar="DIR", type=_FOLDER,
                  help="Allow weights files in DIR (default: the graph's folder).")  # fmt: skip
    @wraps(command)
    def with_loader(
        *args: Any, dims: dict[str, int], op_folders: tuple[Path, ...],
        weights_root: Path | None, **others: Any,
    ) -> Any:  # fmt: skip
        return command(*args, loader=Loader(dims, op_folders, weights_root), **others)

    return with_loader  # type: ignore[return-value]


def _dims(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    dims: dict[str, int] = {}
    for value in values:
        name, _, number = (part.strip() for part in value.partition("="))
        if not name or not number.isdecimal() or not number.isascii() or len(number) > 19:
            raise click.BadParameter(f"'{value}': expected DIM=N with an integer N, such as S=256.")
        if int(number) < 1:
            raise click.BadParameter(f"'{value}': a dim is at least 1.")
        if dims.setdefault(name, int(number)) != int(number):
            raise click.BadParameter(f"'{name}' is set to {dims[name]} and to {int(number)}.")
    return dims


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

ops_option = click.option(
    "--ops", "op_folders", metavar="DIR", multiple=True, type=_FOLDER,
    help="Add ops of your own: an op's folder or a folder of them. Runs their Python code. "
    "Repeatable.",
)  # fmt: skip


class _Streams(click.ParamType):  # type: ignore[type-arg]
    """A number of streams, or auto."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        return click.IntRange(min=1).convert(value, param, ctx)


class _Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, with a unit if that is easier to read: 512MiB, 2GiB, 1.5GB."""

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


@dataclass(frozen=True)
class Rewrites:
    """Which rewrites a command switches: the options --rewrite and --no-rewrite."""

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
    """How a command plans: the options --streams, --costs, --no-profile, --memory-limit and those
    of Rewrites."""

    streams: int | Literal["auto"]
    costs: Path | None
    memory_limit: int | None
    rewrites: Rewrites = Rewrites()
    use_profile: bool = True

    def settings(self) -> dict[str, Any]:
        """The arguments that make_plan and compile share."""
        own = {"streams": self.streams, "costs": self.costs, "memory_limit": self.memory_limit}
        return own | self.rewrites.settings()

    def to_compile(self) -> dict[str, Any]:
        """The arguments of compile."""
        return self.settings() | {"use_profile": self.use_profile}

    def to_plan(self, device: str) -> dict[str, Any]:
        """The arguments of plan_graph for a device, which need not be usable here."""
        from graphexec.devices.base import find_device
        from graphexec.errors import DeviceUnavailable

        settings = self.settings() | planned_device(device)
        if self.use_profile and self.costs is None:
            with suppress(DeviceUnavailable):
                settings["machine"] = find_device(settings["device"]).machine
        return settings


def planner_options(command: Command) -> Command:
    """Add the options of Planner; the command gets them as `planner`."""

    @streams_option
    @click.option("--costs", metavar="PROFILE", type=click.Path(path_type=Path),
                  help="Plan with the measured times in a file (docs/planner.md).")  # fmt: skip
    @click.option("--no-profile", is_flag=True, help="Plan with the device's model, not a profile.")
    @click.option("--memory-limit", metavar="BYTES", type=_Bytes(),
                  help="The most arena and weights may take: 512MiB, 2GB. Costs time.")  # fmt: skip
    @rewrite_options
    @wraps(command)
    def with_planner(
        *args: Any, streams: int | Literal["auto"], costs: Path | None, no_profile: bool,
        memory_limit: int | None, rewrites: Rewrites, **others: Any,
    ) -> Any:  # fmt: skip
        if costs is not None and no_profile:
            raise click.UsageError("--costs and --no-profile exclude each other.")
        planner = Planner(streams, costs, memory_limit, rewrites, not no_profile)
        return command(*args, planner=planner, **others)

    return with_planner  # type: ignore[return-value]


device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "hip"]), default="auto", show_default=True,
    help="Where to run; auto takes a GPU if one is usable.",
)  # fmt: skip


def planned_device(name: str) -> dict[str, Any]:
    """The device to plan for where nothing runs, as arguments of plan_graph; "auto" warns of
    nothing."""
    from graphexec.devices.base import available

    usable = any(d.usable and d.name == "hip" for d in available()) if name != "cpu" else False
    if name == "auto":
        name = "hip" if usable else "cpu"
    if name == "hip" and usable:
        from graphexec.devices.hip import HipDevice

        return {"device": name, "capabilities": HipDevice().capabilities()}
    return {"device": name}


mode_option = click.option(
    "--mode", type=click.Choice(["graph", "stream"]),
    help="On a GPU, capture the plan once and replay it (graph, the default), or issue it call by "
    "call (stream).",
)  # fmt: skip

timeout_option = click.option(
    "--timeout", metavar="SECONDS", type=Finite(min=0, min_open=True),
    help="Give up a run that takes longer, and say which nodes are pending.",
)  # fmt: skip


markers_option = click.option(
    "--markers", is_flag=True,
    help="On a GPU, put ROCTX or NVTX ranges around launches, for a profiler to show.",
)  # fmt: skip


def chosen_device(
    name: str, mode: Mode | None, timeout: float | None, markers: bool = False
) -> Device:
    """The device called `name`, with its options. Raises DeviceUnavailable."""
    from dataclasses import replace

    from graphexec.devices.base import find_device

    device = find_device(name)
    if device.name == "hip":
        from graphexec.devices.hip import HipDevice

        assert isinstance(device, HipDevice)
        return replace(device, mode=mode or device.mode, timeout=timeout, markers=markers)
    if mode is not None:
        note(f"--mode is for GPUs; the {device.name} device has no modes")
    if markers:
        note(f"--markers is for GPUs; the {device.name} device has none")
    return device


inputs_option = click.option(
    "-i", "--input", "specs", metavar="SPEC", multiple=True,
    help="NAME=x.npy, NAME=randn:SEED, or all.npz with an array a name. Repeatable. "
    "Inputs not given are drawn from a normal distribution.",
)  # fmt: skip

seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Seed of the inputs not given.",
)  # fmt: skip

json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
