"""The HIP device: GPUs through hip-python.

Works on whatever platform `hip_bindings.load` finds: AMD, CUDA behind HIP's functions, or the
emulator of the tests. session.py runs a loaded plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphexec.base.errors import DeviceUnavailable
from graphexec.base.tensor import Array
from graphexec.base.version import __version__
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.program import Gemm, Kernel, TritonKernel, Work
from graphexec.machine.hardware import Machine
from graphexec.machine.support import UNKNOWN, YES, Facts, Support, no
from graphexec.runtime.device import DeviceInfo, Session
from graphexec.runtime.hip import kernel_cache, products
from graphexec.runtime.hip import triton as hip_triton
from graphexec.runtime.hip.bindings import Bindings, HipError, load
from graphexec.runtime.hip.options import HipOptions, Mode
from graphexec.runtime.hip.replay import CaptureWarning
from graphexec.runtime.hip.session import HipSession
from graphexec.runtime.ranks.group import Group

TRITON_PLATFORMS = ("HIP on AMD", "HIP over CUDA")
"""Platforms whose GPUs run code compiled by Triton."""


@dataclass(frozen=True)
class HipDevice(HipOptions):
    """Runs plans on a GPU through hip-python.

    `mode` "graph" captures the plan once and replays it; "stream" issues it call by call. Loading
    a plan runs it once; if that takes more than `timeout` seconds, TimedOut is raised. With
    `markers`, profilers show what is issued for which node (markers.py). `algorithms` has
    GEMMs computed by hipBLASLt: the place in its list by signature
    (graphexec.machine.costs.gemm_signature), as a profile has it. With `check_access`, plans are
    issued call by call, every command by itself, and AccessError is raised if it touches bytes that
    it does not declare. With `reproducible`, the calls of the BLAS do not depend on where the arena
    has an operand.
    """

    name: str = "hip"

    def describe(self) -> str:
        """Name, architecture and memory; DeviceUnavailable without a GPU."""
        bindings = self._bindings()
        p = bindings.properties(self.index)
        gib = p.total_memory / 2**30
        return f"{p.name} ({p.architecture}, {gib:.0f} GiB), {bindings.platform.name}"

    def support(self, work: Work) -> Support:
        """hipBLASLt is asked whether it adds a bias, Triton to compile its kernels. Whether a HIP
        kernel compiles shows when the plan is loaded."""
        match work:
            case Gemm():
                return products.support(self._bindings(), self.index, work)
            case TritonKernel():
                return self._support_of_triton(work)
            case Kernel():
                return UNKNOWN
        return YES

    def facts(self) -> Facts:
        """A program for each multiprocessor fills it."""
        return Facts(programs=self._bindings().properties(self.index).multiprocessors)

    def _support_of_triton(self, work: TritonKernel) -> Support:
        hip = self._bindings()
        why = "" if hip.platform.name in TRITON_PLATFORMS else f"{hip.platform.name} runs no Triton"
        why = why or hip_triton.why_not()
        return no(why) if why else kernel_cache.support(hip, self.index, work)

    def machine(self) -> Machine:
        """Architecture and name, and the versions of the compilers and BLAS libraries."""
        hip = self._bindings()
        p, platform = hip.properties(self.index), hip.platform
        versions = {
            "graphexec": __version__,
            "platform": platform.name,
            "runtime": platform.runtime_version,
            "hip-python": platform.hip_python_version,
            "hiprtc": ".".join(map(str, hip.kernels.version())),
            "hipblaslt": hip.lt.version() if hip.lt is not None else "none",
            "triton": "none" if hip_triton.why_not() else hip_triton.version(),
        }
        return Machine(f"{p.architecture} {p.name}", versions)

    def tuned(self, algorithms: Mapping[str, int]) -> HipDevice:
        """The same device, `algorithms` for the GEMMs that have one."""
        return replace(self, algorithms=algorithms)

    def reproducing(self) -> HipDevice:
        """The same device, with batches always by arrays of pointers where they need them in some
        arena."""
        return replace(self, reproducible=True)

    def with_ranks(self, group: Group) -> HipDevice:
        """The GPU of this rank: on each machine, ranks take one each in their order."""
        if self._bindings().rccl is None:
            raise DeviceUnavailable(
                "ranks on GPUs need the bindings to RCCL: pip install 'graphexec[rccl]'"
            )
        index = group.local % self._bindings().platform.devices
        return replace(self, group=group, index=index)

    def count_algorithms(self, work: Gemm, most: int) -> int:
        """The number of hipBLASLt's algorithms for a GEMM, at most `most`."""
        hip = self._bindings()
        hip.set_device(self.index)
        return products.count_algorithms(hip, work, most)

    def open(
        self, bound: BoundPlan, weights: Mapping[str, Array], sibling: Session | None = None,
        states: Session | None = None,
    ) -> HipSession:  # fmt: skip
        """Load a plan; OutOfMemory if the device has too little memory."""
        assert sibling is None or isinstance(sibling, HipSession)
        assert states is None or isinstance(states, HipSession)
        return HipSession(bound, weights, self, self._bindings(), sibling, states)

    def _bindings(self) -> Bindings:
        bindings = load()
        if self.index >= bindings.platform.devices:
            count = bindings.platform.devices
            raise DeviceUnavailable(f"there is no HIP device {self.index}; found {count}")
        return bindings


def info() -> DeviceInfo:
    """The HIP device of this machine, or the reason why it is not usable."""
    try:
        return DeviceInfo("hip", True, HipDevice().describe())
    except (DeviceUnavailable, HipError) as exc:
        return DeviceInfo("hip", False, "GPU through hip-python", (str(exc),))


__all__ = ["CaptureWarning", "HipDevice", "HipSession", "Mode", "info"]
