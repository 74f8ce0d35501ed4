"""How long a command takes, and how much of the device it fills: a model, or measured times.

The model is a roofline: work = max(flops ÷ rate, bytes ÷ bandwidth) microseconds of the whole
device. A command too small to fill the device takes at least one `wave` and fills work ÷ wave of
it, so that several of them run side by side in the same time.

A profile (graphexec.profile) replaces the time by what was measured for a command's signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphexec.command import Command, GemmBatch, Kernel, Memcpy, TritonKernel
from graphexec.simulate import COMPUTE, TO_DEVICE, TO_HOST, Tasks, successors_of
from graphexec.tensor import View

_LEAST_SHARE = 1 / 256
_ENGINES = {".h2d": TO_DEVICE, ".d2h": TO_HOST}


@dataclass(frozen=True)
class CostModel:
    """Rates of a device. Times are in microseconds, rates in operations or bytes a microsecond.

    `launch` is the time of an empty command on an idle stream, `wait` what waiting for another
    stream adds, `wave` the time of the shortest useful command. `profile` maps signatures to
    measured times of commands running alone, without the launch.
    """

    flops: float
    bytes: float
    link_bytes: float
    launch: float
    wait: float
    wave: float = 0.0
    name: str = "model"
    profile: Mapping[str, float] = field(default_factory=dict)

    def work(self, command: Command) -> float:
        """The command's work in microseconds of its whole engine, by the model."""
        rate = self.bytes if engine_of(command) == COMPUTE else self.link_bytes
        return max(command.cost.flops / self.flops, command.cost.bytes / rate)

    def alone(self, command: Command) -> tuple[float, float]:
        """Microseconds of the command running alone (without its launch), and its share of the
        engine."""
        work = self.work(command)
        if self.profile:
            measured = self.profile.get(signature(command))
            if measured is None and command.nodes:
                member = self.profile.get(_signature(command, len(command.nodes)))
                measured = None if member is None else max(member, work)
            if measured is not None:
                share = 1.0 if engine_of(command) != COMPUTE else work / max(measured, 1e-9)
                return measured, min(1.0, max(_LEAST_SHARE, share))
        if engine_of(command) != COMPUTE:
            return work, 1.0
        if work == 0.0:
            return 0.0, _LEAST_SHARE
        time = max(work, self.wave)
        return time, max(_LEAST_SHARE, work / time)

    def microseconds(self, command: Command) -> float:
        """The time of one command running alone, launch included."""
        return self.launch + self.alone(command)[0]


CPU = CostModel(100e3, 10e3, 10e3, launch=15.0, wait=60.0, wave=10.0, name="cpu model")
"""A couple of cores with NumPy."""

GPU = CostModel(200e6, 3e6, 50e3, launch=1.0, wait=1.5, wave=2.5, name="gpu model")
"""A data-centre GPU that replays captured graphs of f16 GEMMs of moderate size."""


def model_of(device: str) -> CostModel:
    """The model for a device of this name when nothing was measured."""
    return CPU if device == "cpu" else GPU


def engine_of(command: Command) -> int:
    """Which engine does the work: transfers between host and device have their own."""
    if isinstance(command.work, Memcpy):
        return _ENGINES.get(command.node[-4:], COMPUTE)
    return COMPUTE


def tasks_of(
    commands: Sequence[Command], predecessors: tuple[tuple[int, ...], ...], model: CostModel
) -> Tasks:
    """The commands as the simulator sees them."""
    known: dict[object, tuple[float, float]] = {}
    time, share, engine = [], [], []
    for command in commands:
        of = engine_of(command)
        key = (of, command.cost.flops, command.cost.bytes) if not model.profile else id(command)
        found = known.get(key)
        if found is None:
            found = known[key] = model.alone(command)
        time.append(found[0])
        share.append(found[1])
        engine.append(of)
    return Tasks(
        time, share, engine, model.launch, model.wait, predecessors, successors_of(predecessors)
    )


def signature(command: Command) -> str:
    """What two commands must have in common to take equally long: kind, entry point, and the
    types, shapes and strides of what they read and write. That of a batch has how many they are,
    and which of their operands are one and the same."""
    if not command.nodes:
        return _signature(command)
    count, reads = len(command.nodes), command.reads
    each = len(reads) // count
    shared = [str(n) for n in range(each) if len(set(reads[n::each])) == 1]
    how = f" (operands shared: {', '.join(shared)})" if shared else ""
    anywhere = " by pointers" if isinstance(command.work, GemmBatch) else ""
    return f"{count} ×{anywhere} {_signature(command, count)}{how}"


def _signature(command: Command, members: int = 1) -> str:
    """The signature of one of the members of a command."""
    entry = f" {command.work.entry}" if isinstance(command.work, Kernel | TritonKernel) else ""
    direction = {TO_DEVICE: " h2d", TO_HOST: " d2h"}.get(engine_of(command), "")
    reads, writes = command.reads, command.writes
    reads, writes = reads[: len(reads) // members], writes[: len(writes) // members]
    sizes = f"{' '.join(map(_view, reads))} -> {' '.join(map(_view, writes))}"
    return f"{command.label}{entry}{direction}: {sizes}"


def _view(view: View) -> str:
    shape = f"{view.dtype}[{','.join(map(str, view.shape))}]"
    return shape if view.is_dense else f"{shape}/{','.join(map(str, view.strides))}"


__all__ = ["CPU", "GPU", "CostModel", "engine_of", "model_of", "signature", "tasks_of"]
