"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graphexec.cli import completion
from graphexec.cli.files import STANDARD, standard_input
from graphexec.cli.report import note, warn

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.ir.op import Op
    from graphexec.runtime.device import Device
    from graphexec.runtime.hip.options import Mode

Command = TypeVar("Command", bound=Callable[..., Any])


class Finite(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


@dataclass(frozen=True)
class Loader:
    """How a command reads graphs: the options -D, --ops, --weights-root and --dtype."""

    dims: dict[str, int]
    op_folders: tuple[Path, ...]
    weights_root: Path | None
    dtype: str | None = None

    def ops(self) -> dict[str, Op]:
        """Built-in and installed ops, and those of the user's folders."""
        from graphexec.ir.registry import load_ops

        return load_ops(self.op_folders)

    def load(self, path: str) -> Graph:
        """The graph in a file, or in standard input for "-"; its warnings go to standard error."""
        graph = self.quietly(path)
        warn(graph.warnings)
        return graph

    def quietly(self, path: str) -> Graph:
        """The same without a word."""
        from graphexec.frontend.load import load, loads

        if path == STANDARD:
            text = standard_input()
            return loads(text, "<stdin>", self.dims, self.ops(), self.weights_root)
        return load(path, self.dims, self.ops(), self.weights_root, self.dtype)


def loader_options(command: Command) -> Command:
    """Add -D, --ops, --weights-root and --dtype; the command gets them as `loader`."""

    @click.option("-D", "dims", metavar="DIM=N", multiple=True, callback=_dims,
                  shell_complete=completion.dims,
                  help="Set a dim of the graph. Repeatable.")  # fmt: skip
    @ops_option
    @click.option("--weights-root", metavar="DIR", type=_FOLDER,
                  help="Allow weights files in DIR (default: the graph's folder).")  # fmt: skip
    @click.option("--dtype", type=click.Choice(["f32", "f16", "bf16"]),
                  help="Weights and states of a GGUF file or a folder of Hugging Face "
                  "(default: f32).")  # fmt: skip
    @wraps(command)
    def with_loader(
        *args: Any, dims: dict[str, int], op_folders: tuple[Path, ...],
        weights_root: Path | None, dtype: str | None, **others: Any,
    ) -> Any:  # fmt: skip
        return command(*args, loader=Loader(dims, op_folders, weights_root, dtype), **others)

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


device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "hip"]), default="auto", show_default=True,
    help="Where to run; auto takes a GPU if one is usable.",
)  # fmt: skip


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

check_access_option = click.option(
    "--check-access", is_flag=True,
    help="Run every command by itself and fail if it touches bytes that its op does not declare. "
    "Slow; for ops of your own.",
)  # fmt: skip


def chosen_device(
    name: str, mode: Mode | None, timeout: float | None, markers: bool = False,
    check_access: bool = False,
) -> Device:  # fmt: skip
    """The device called `name`, with its options. Raises DeviceUnavailable."""
    from dataclasses import replace

    from graphexec.runtime.find import find_device

    device = find_device(name)
    if device.name == "hip":
        from graphexec.runtime.hip.device import HipDevice

        assert isinstance(device, HipDevice)
        return replace(
            device, mode=mode or device.mode, timeout=timeout, markers=markers,
            check_access=check_access,
        )  # fmt: skip
    if mode is not None:
        note(f"--mode is for GPUs; the {device.name} device has no modes")
    if markers:
        note(f"--markers is for GPUs; the {device.name} device has none")
    if check_access:
        from graphexec.runtime.cpu.device import CpuDevice

        assert isinstance(device, CpuDevice)
        return replace(device, check_access=True)
    return device


inputs_option = click.option(
    "-i", "--input", "specs", metavar="SPEC", multiple=True,
    shell_complete=completion.inputs,
    help="NAME=x.npy, all.npz with an array a name, or NAME= one of randn:SEED, "
    "randint:LOW:HIGH:SEED (HIGH exclusive), zeros, ones, full:VALUE and arange. Repeatable. "
    "Inputs not given are drawn: floats from a normal distribution, integers and bools 0 or 1.",
)  # fmt: skip

seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Seed of the inputs not given.",
)  # fmt: skip

json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
