"""The CPU device: the reference, and the default without a GPU.

session.py runs a loaded plan.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from graphexec.base.tensor import Array
from graphexec.base.version import __version__
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.program import Gemm, Work
from graphexec.machine.hardware import Machine
from graphexec.machine.support import Cpu, Facts, Support
from graphexec.runtime.cpu.engine import REPRODUCIBLE_SPLIT, CpuOptions
from graphexec.runtime.cpu.session import CpuSession
from graphexec.runtime.device import DeviceInfo, Session
from graphexec.runtime.ranks.group import Group


def info() -> DeviceInfo:
    """The CPU as a device."""
    return DeviceInfo("cpu", True, CpuDevice().describe())


@dataclass(frozen=True)
class CpuDevice(CpuOptions):
    """Runs plans on host threads.

    `cores` is the number of cores that commands may use (default: those of this process). Their
    work is cut into parts as for `split` cores (default: the same), on which last digits depend.
    For tests: `delays` seeds random pauses before commands, `poison` fills the arena with NaN
    before every run, `check_access` runs every command by itself and raises AccessError if it
    touches bytes that it does not declare. `group` are the ranks with which it runs plans together.
    """

    name: str = "cpu"

    def describe(self) -> str:
        """Model and number of cores."""
        return f"{_model()}, {self.cores} core{'s' if self.cores != 1 else ''}"

    def support(self, work: Work) -> Support:
        """The same on every machine."""
        return Cpu().support(work)

    def facts(self) -> Facts:
        """The same on every machine."""
        return Cpu().facts()

    def machine(self) -> Machine:
        """Model and cores, and the version of NumPy, whose BLAS multiplies."""
        versions = {"graphexec": __version__, "numpy": np.__version__}
        return Machine(self.describe(), versions)

    def tuned(self, algorithms: Mapping[str, int]) -> CpuDevice:
        """The same device: NumPy's BLAS has no list of algorithms."""
        return self

    def reproducing(self) -> CpuDevice:
        """The same device, with commands cut as for so many cores however many there are."""
        return replace(self, split=REPRODUCIBLE_SPLIT)

    def with_ranks(self, group: Group) -> CpuDevice:
        """The same device: ranks on one machine share its cores."""
        return replace(self, group=group)

    def count_algorithms(self, work: Gemm, most: int) -> int:
        """Always 0."""
        return 0

    def open(
        self, bound: BoundPlan, weights: Mapping[str, Array], sibling: Session | None = None,
        states: Session | None = None,
    ) -> CpuSession:  # fmt: skip
        """Load a plan; OutOfMemory if the host has too little memory."""
        assert sibling is None or isinstance(sibling, CpuSession)
        assert states is None or isinstance(states, CpuSession)
        return CpuSession(bound, weights, self, sibling, states)


def _model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
