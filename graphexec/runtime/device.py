"""Devices load a plan and run it, again and again.

A Device is a chosen device with its options. A Session holds the memory, streams and events of one
loaded plan; it enqueues the instructions of the plan and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from graphexec.base.tensor import Array
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import HostWait, Launch, Record, Wait
from graphexec.ir.program import Work
from graphexec.machine.support import Hardware
from graphexec.runtime.run_log import LOGGER, logged_steps

if TYPE_CHECKING:
    from graphexec.base.tensor import Array, View
    from graphexec.ir.program import Gemm
    from graphexec.machine.hardware import Machine
    from graphexec.runtime.device_array import DeviceArray
    from graphexec.runtime.ranks.group import Group
    from graphexec.runtime.trace import RunTimes


Step = Callable[[], object]


@dataclass(frozen=True)
class DeviceInfo:
    """A kind of device on this machine: whether it is usable, what it is, and if not, why."""

    name: str
    usable: bool
    detail: str
    reasons: tuple[str, ...] = ()


class FallbackWarning(UserWarning):
    """The CPU or plain commands are used instead of what was asked for or is usual: `device="auto"`
    found no usable GPU and took the CPU, or a kernel does not compile and plain commands do its
    work."""


class Tap(Protocol):
    """Called after each launch of a run with its node and the bytes (uint8) of the last range it
    wrote, for a launch of several nodes with each of them and its result; the bytes are only valid
    during the call. Calls may come from several threads."""

    def __call__(self, node: str, written: Array) -> None:
        """Look at what `node` wrote."""
        ...


class Session(Protocol):
    """One loaded plan. Not to be used by two threads at once; the Executable sees to it.

    `timed`, `time_command` and `time_run` raise DeviceUnavailable on a device that cannot tell.
    """

    @property
    def mode(self) -> str | None:
        """The way of issuing a run: "graph" or "stream"; None on a device without the choice."""
        ...

    @property
    def device_memory(self) -> bool:
        """Whether the device has memory of its own: then the session takes arrays that lie there,
        and copies from pinned arrays where they lie."""
        ...

    def array(self, view: View, owner: object) -> DeviceArray:
        """Where an input or output lies in the device's memory, which `owner` keeps alive. Raises
        NotTaken if the device has none of its own."""
        ...

    def host_array(self, view: View) -> Array:
        """An input or output in place, on a device without memory of its own."""
        ...

    def holds(self, array: DeviceArray) -> bool:
        """Whether an array shares bytes with inputs or outputs in the session's device memory."""
        ...

    def accept(self, value: object) -> DeviceArray:
        """`value`, an array in device memory, in the form that `take` needs. Raises NotTaken."""
        ...

    def timed(self) -> RunTimes:
        """Run once more on what the input buffers hold, and measure every launch and wait.

        Streams run side by side as usual. It waits for the run; `get` returns its outputs.
        Measuring may slow a run down, so compare its end with that of runs that are not
        measured."""
        ...

    def time_command(self, instruction: int, repeats: int = 20) -> float:
        """Seconds that one launch, by its number in the plan, takes alone on the device: the
        median of `repeats` measurements, after warming up.

        Computes on what lies in memory, so run the plan once before; afterwards outputs are
        undefined until the next run. Not while a run is in flight."""
        ...

    def time_run(self) -> float:
        """Run once more on what the input buffers hold, nothing measured inside: seconds from its
        issue to the end of its last command."""
        ...

    def put(self, buffer: str, array: Array, lent: bool = False) -> None:
        """Give an input buffer its bytes (uint8) before the next `issue`; `array` may be reused
        at once, one of `pinned_empty` or one that is `lent` when the run is done."""
        ...

    def take(self, arrays: Mapping[str, DeviceArray]) -> None:
        """As `put` for several buffers at once, from accepted arrays in device memory, ordered
        after the streams that wrote them. Arrays may lie in these or other buffers of the session:
        all are read before one is overwritten. They are kept until the run is done."""
        ...

    def apart(self, buffer: str, array: Array) -> Array:
        """`array`, which is given for an input buffer, or a copy if it lies in another buffer of
        the session in the host's memory."""
        ...

    def fetch(self, buffer: str) -> None:
        """After `issue`: have the bytes of an output buffer brought to where `get` finds them."""
        ...

    def get(self, buffer: str) -> Array:
        """The bytes (uint8) of an output buffer, fetched before `wait`; the caller's own."""
        ...

    @property
    def state_buffers(self) -> Sequence[str]:
        """The buffers that keep their bytes from run to run, the fault word's too."""
        ...

    def read_state(self, buffer: str) -> Array:
        """A copy of the bytes (uint8) of such a buffer, while nothing runs."""
        ...

    def write_state(self, buffer: str, content: Array | None) -> None:
        """Replace the bytes of such a buffer, while nothing runs; None is zeros."""
        ...

    def issue(self, tap: Tap | None = None, times: int = 1) -> None:
        """Enqueue `times` runs, each behind the one before, and return. With `tap`, one run, and
        what every launch writes is shown."""
        ...

    def done(self) -> bool:
        """Whether the last `issue` is done."""
        ...

    def wait(self, timeout: float | None = None) -> None:
        """Block until the run is done and the host may read the outputs.

        Raises ExecutionError when a command failed, the session staying usable, and TimedOut
        after `timeout` seconds."""
        ...

    def abandon(self) -> None:
        """Nobody will wait for the last `issue`, nor ask for its outputs. It is finished all the
        same. Called by finalizers, so by any thread at any time."""
        ...

    def close(self) -> None:
        """Wait for what is running, then free everything. A second call does nothing."""
        ...


class Device(Hardware, Protocol):
    """A way to run plans. It answers what planning asks: the same throughout the process."""

    @property
    def name(self) -> str:
        """What plans call it: "cpu" or "hip"."""
        ...

    @property
    def group(self) -> Group | None:
        """The ranks with which it runs plans together."""
        ...

    def describe(self) -> str:
        """A description for people: model, cores or memory."""
        ...

    def machine(self) -> Machine:
        """The machine that times measured on this device are valid for."""
        ...

    def tuned(self, algorithms: Mapping[str, int]) -> Device:
        """This device with the algorithms of a profile for GEMMs, by signature."""
        ...

    def reproducing(self) -> Device:
        """This device with the same bits however commands are scheduled and placed."""
        ...

    def with_ranks(self, group: Group) -> Device:
        """This device, or the one for this rank, as it runs plans together with other ranks."""
        ...

    def count_algorithms(self, work: Gemm, most: int) -> int:
        """The number of algorithms for a GEMM besides the default, at most `most`."""
        ...

    def open(
        self, bound: BoundPlan, weights: Mapping[str, Array], sibling: Session | None = None,
        states: Session | None = None,
    ) -> Session:  # fmt: skip
        """Load a plan: take memory, make streams, upload `weights` (by storage name). Raises
        ExecutionError where something of it cannot be loaded.

        A `sibling` is a session of the same plan on this device that lives longer; its weights
        are shared. So are the states of `states`, a session of a plan with the same ones."""
        ...


class Backend(Protocol):
    """The part of a session that prepares a step for each kind of instruction."""

    def launch(self, instruction: Launch, work: Work) -> Step: ...  # noqa: D102
    def record(self, instruction: Record) -> Step: ...  # noqa: D102
    def wait_event(self, instruction: Wait) -> Step: ...  # noqa: D102
    def host_wait(self, instruction: HostWait) -> Step: ...  # noqa: D102


def prepare(bound: BoundPlan, backend: Backend) -> list[Step]:
    """One step an instruction, in issue order."""
    steps: list[Step] = []
    for number, instruction in enumerate(bound.plan.instructions):
        match instruction:
            case Launch():
                steps.append(backend.launch(instruction, bound.work[number]))
            case Record():
                steps.append(backend.record(instruction))
            case Wait():
                steps.append(backend.wait_event(instruction))
            case HostWait():
                steps.append(backend.host_wait(instruction))
    if LOGGER.isEnabledFor(logging.DEBUG):
        return logged_steps(bound.plan, steps)
    return steps
