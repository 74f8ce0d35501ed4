"""The HIP device: GPUs through hip-python.

Works on whatever platform `hip_bindings.load` finds: AMD, CUDA behind HIP's functions, or the
emulator of the tests. session.py runs a loaded plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphexec.base.errors import DeviceUnavailable
from graphexec.base.version import __version__
from graphexec.graph.rewriting import CAPABILITIES
from graphexec.ir.graph import Graph
from graphexec.ir.plan import Plan
from graphexec.ir.program import Gemm
from graphexec.machine.epilogue import has_biases
from graphexec.runtime.device import DeviceInfo, Machine, Session
from graphexec.runtime.hip import triton as hip_triton
from graphexec.runtime.hip.bindings import Bindings, HipError, load
from graphexec.runtime.hip.options import HipOptions, Mode
from graphexec.runtime.hip.products import biased, count_algorithms
from graphexec.runtime.hip.replay import CaptureWarning
from graphexec.runtime.hip.session import HipSession

Array = np.ndarray[Any, Any]
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
    it does not declare.
    """

    name: str = "hip"

    def describe(self) -> str:
        """Name, architecture and memory; DeviceUnavailable without a GPU."""
        bindings = self._bindings()
        p = bindings.properties(self.index)
        gib = p.total_memory / 2**30
        return f"{p.name} ({p.architecture}, {gib:.0f} GiB), {bindings.platform.name}"

    def capabilities(self, graph: Graph | None = None) -> frozenset[str]:
        """With Triton, a real GPU computes attention in half precision as one command or, the keys
        in parts, as two; hipBLASLt adds the biases of GEMMs of some types. Asking it loads it, so
        that is left out for a graph that has none."""
        hip = self._bindings()
        known = CAPABILITIES["hip"]
        if graph is None or has_biases(graph):
            known |= biased(hip, self.index)
        if hip.platform.name not in TRITON_PLATFORMS or hip_triton.why_not():
            return known
        programs = hip.properties(self.index).multiprocessors
        return known | hip_triton.CAPABILITIES | {f"attention-in-parts:{programs}"}

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

    def count_algorithms(self, work: Gemm, most: int) -> int:
        """The number of hipBLASLt's algorithms for a GEMM, at most `most`."""
        hip = self._bindings()
        hip.set_device(self.index)
        return count_algorithms(hip, work, most)

    def open(
        self, plan: Plan, weights: Mapping[str, Array], sibling: Session | None = None
    ) -> HipSession:
        """Load a plan; OutOfMemory if the device has too little memory."""
        assert sibling is None or isinstance(sibling, HipSession)
        return HipSession(plan, weights, self, self._bindings(), sibling)

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
