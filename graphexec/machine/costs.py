"""The time of a command and the share of the device it fills: modelled or measured.

The model is a roofline: work = max(flops ÷ rate, bytes ÷ bandwidth) microseconds of the whole
device. A command too small to fill the device takes at least one `wave` and fills work ÷ wave of
it, so that several of them run concurrently in the same time.

A profile (graphexec.planning.profile) replaces the time, and the share if it was measured, by the
measurement for the command's signature, and the constants by those of the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphexec.base.tensor import View
from graphexec.ir.program import (
    Command,
    Cost,
    Direction,
    Gemm,
    GemmBatch,
    Kernel,
    Memcpy,
    Program,
    TritonKernel,
)
from graphexec.machine.simulate import COMPUTE, TO_DEVICE, TO_HOST, Tasks, successors_of

_LEAST_SHARE = 1 / 256
_ENGINES: Mapping[Direction, int] = {"h2d": TO_DEVICE, "d2h": TO_HOST}

GEMM = "gemm: "
"""The prefix of the signatures of GEMMs."""

CONSTANTS = ("start", "launch", "wait", "fork")
"""The fields of a CostModel that a profile may hold."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a command: microseconds alone without the launch, the share of the device
    that it fills beside equal commands, and the fastest alternative.

    `choice` 0 is the default (hipBLAS, the kernel that the op picks), others are alternatives;
    `tried` are the microseconds of each that was measured, by number.
    """

    us: float
    share: float | None = None
    choice: int = 0
    tried: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CostModel:
    """Rates of a device. Times are in microseconds, rates in operations or bytes a microsecond.

    `start` is the time from the launch of a plan to its first command, `launch` the time of an
    empty command on an idle stream, `wait` the time that waiting for another stream adds, `fork`
    the time that each further stream adds to the start, `wave` the time of the shortest useful
    command. `profile` has the measurements by signature.

    Of a device of several `cores`: computing of less than `split` µs of the device runs on one of
    them, more is split over all, which adds `wake` for waking their threads. `beside` is what every
    command takes longer while several streams run, because they take turns in the interpreter.
    `gain` is the part of the time that a further stream must save to be used.
    """

    flops: float
    bytes: float
    link_bytes: float
    launch: float
    wait: float
    wave: float = 0.0
    start: float = 0.0
    fork: float = 0.0
    cores: int = 1
    split: float = 0.0
    wake: float = 0.0
    beside: float = 0.0
    gain: float = 0.0
    name: str = "model"
    profile: Mapping[str, Measured] = field(default_factory=dict)

    def work(self, cost: Cost, engine: int) -> float:
        """Microseconds of the whole engine, by the model."""
        rate = self.bytes if engine == COMPUTE else self.link_bytes
        return max(cost.flops / self.flops, cost.bytes / rate)

    def modelled(self, cost: Cost, engine: int) -> tuple[float, float]:
        """As `alone`, of anything that costs this much on an engine, by the model."""
        work = self.work(cost, engine)
        if engine != COMPUTE:
            return work, 1.0
        if work == 0.0:
            return 0.0, _LEAST_SHARE
        if self.cores > 1 and cost.flops / self.flops == work:  # moving bytes fills the memory bus
            if work < self.split:
                return work * self.cores, 1 / self.cores
            return work + self.wake, work / (work + self.wake)
        time = max(work, self.wave)
        return time, max(_LEAST_SHARE, work / time)

    def alone(self, command: Command) -> tuple[float, float]:
        """Microseconds of the command running alone (without its launch), and its share of the
        engine."""
        engine = engine_of(command)
        if self.profile:
            work = self.work(command.cost, engine)
            found = self.profile.get(signature(command))
            if found is None and command.batch > 1:
                member = self.profile.get(_signature(command, command.batch))
                found = None if member is None else Measured(max(member.us, work))
            if found is not None:
                share = found.share or work / max(found.us, 1e-9)
                share = 1.0 if engine != COMPUTE else share
                return found.us, min(1.0, max(_LEAST_SHARE, share))
        return self.modelled(command.cost, engine)

    def microseconds(self, command: Command) -> float:
        """The time of one command running alone, launch included."""
        return self.launch + self.alone(command)[0]


CPU = CostModel(
    190e3, 20e3, 20e3, launch=10.0, wait=60.0, start=70.0, fork=20.0, cores=2, split=2**25 / 190e3,
    wake=80.0, beside=25.0, gain=0.1, name="cpu model",
)  # fmt: skip
"""Two cores with NumPy, measured by benchmarks/cpu_streams.py: the same on every machine, so that
plans are. `wait` is the time to wake a thread, `start` that to wake a worker and then the host.
`split` is where matrix products are split (graphexec.runtime.cpu.gemm)."""

GPU = CostModel(200e6, 3e6, 50e3, launch=1.0, wait=1.5, wave=2.5, start=5.0, name="gpu model")
"""A data-centre GPU that replays captured graphs of f16 GEMMs of moderate size. `start` is one
graph launch, `launch` the time between two nodes, `wait` the time of an edge between branches."""


def model_of(device: str) -> CostModel:
    """The model for a device of this name without measurements."""
    return CPU if device == "cpu" else GPU


def engine_of(command: Command) -> int:
    """The engine of a command."""
    work = command.work
    return engine_of_copy(work.direction) if isinstance(work, Memcpy) else COMPUTE


def engine_of_copy(direction: Direction) -> int:
    """The engine of a copy: each direction between host and device has its own."""
    return _ENGINES.get(direction, COMPUTE)


def tasks_of(program: Program, model: CostModel, streams: int = 1) -> Tasks:
    """The commands of a program as the simulator sees them, on one stream or several."""
    beside = model.beside if streams > 1 else 0.0
    known: dict[object, tuple[float, float]] = {}
    time, share, engine = [], [], []
    for command in program.commands:
        of = engine_of(command)
        key = (of, command.cost.flops, command.cost.bytes) if not model.profile else id(command)
        found = known.get(key)
        if found is None:
            found = known[key] = model.alone(command)
        time.append(found[0] + beside)
        share.append(found[1])
        engine.append(of)
    return Tasks(
        time,
        share,
        engine,
        model.launch,
        model.wait,
        program.predecessors,
        successors_of(program.predecessors),
        model.fork,
    )


def signature(command: Command) -> str:
    """Equal for commands that take equally long: kind, entry point, and the types, shapes and
    strides of operands and results. The signature of a batch also has the number of members and
    the shared operands; for a single GEMM, the strides show these."""
    if isinstance(command.work, Gemm):
        return gemm_signature(command.work)
    if command.batch == 1:
        return _signature(command)
    count, reads = command.batch, command.reads
    each = len(reads) // count
    shared = [str(n) for n in range(each) if len(set(reads[n::each])) == 1]
    how = f" (operands shared: {', '.join(shared)})" if shared else ""
    anywhere = " by pointers" if isinstance(command.work, GemmBatch) else ""
    return f"{count} ×{anywhere} {_signature(command, count)}{how}"


def _signature(command: Command, members: int = 1) -> str:
    """The signature of one of the members of a command."""
    name = command.label
    if isinstance(command.work, Kernel | TritonKernel):
        name += f" {command.work.entry}"
    elif isinstance(command.work, Memcpy):
        link = engine_of(command) != COMPUTE
        name = f"memcpy {command.work.direction}" if link else "memcpy"
    reads, writes = command.reads, command.writes
    reads, writes = reads[: len(reads) // members], writes[: len(writes) // members]
    sizes = f"{' '.join(map(_view, reads))} -> {' '.join(map(_view, writes))}"
    return f"{name}: {sizes}"


def gemm_signature(work: Gemm) -> str:
    """The signature of a GEMM: its operands (with the result if it is an addend), the bias last.
    The bias has one axis less than the result."""
    then = f" {work.activation}" if work.activation else ""
    return f"{GEMM}{' '.join(map(_view, work.reads))} -> {_view(work.out)}{then}"


def _view(view: View) -> str:
    shape = f"{view.dtype}[{','.join(map(str, view.shape))}]"
    return shape if view.is_dense else f"{shape}/{','.join(map(str, view.strides))}"
