"""graphexec: a declarative compute-graph executor for GPUs.

    import graphexec as gx

    graph = gx.load("graphs/attention.yaml", dims={"S": 256})
    with gx.compile(graph, device="cpu", streams=4) as exe:
        out = exe.run(q=q, k=k, v=v)["out"]

Names are imported on first use, so `import graphexec` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphexec.base.version import __version__ as __version__

_HOME = {
    "AccessError": "base.errors",
    "Comparison": "tools.compare",
    "CaptureWarning": "runtime.hip.replay",
    "CpuDevice": "runtime.cpu.device",
    "DataError": "base.errors",
    "DeviceUnavailable": "base.errors",
    "DType": "base.tensor",
    "Executable": "runtime.executable",
    "ExecutionError": "base.errors",
    "FallbackWarning": "runtime.device",
    "Block": "ir.graph",
    "Graph": "ir.graph",
    "GraphError": "base.errors",
    "GraphexecError": "base.errors",
    "HazardError": "proof",
    "HipDevice": "runtime.hip.device",
    "InputError": "base.errors",
    "InternalError": "base.errors",
    "Op": "ir.op",
    "Options": "planning.options",
    "OutOfMemory": "base.errors",
    "RankFailed": "base.errors",
    "Plan": "ir.plan",
    "CacheWarning": "base.cache",
    "SessionClosed": "base.errors",
    "TimedOut": "base.errors",
    "compare": "tools.compare",
    "compile": "api",
    "find_hazards": "proof",
    "known_ops": "ir.registry",
    "load": "frontend.load",
    "load_ops": "ir.registry",
    "loads": "frontend.load",
    "make_plan": "api",
    "pinned_empty": "runtime.pinned",
    "prove": "proof",
    "tune": "tools.tuning.tune",
}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from graphexec.api import compile, make_plan
    from graphexec.base.cache import CacheWarning
    from graphexec.base.errors import (
        AccessError,
        DataError,
        DeviceUnavailable,
        ExecutionError,
        GraphError,
        GraphexecError,
        InputError,
        InternalError,
        OutOfMemory,
        RankFailed,
        SessionClosed,
        TimedOut,
    )
    from graphexec.base.tensor import DType
    from graphexec.frontend.load import load, loads
    from graphexec.ir.graph import Block, Graph
    from graphexec.ir.op import Op
    from graphexec.ir.plan import Plan
    from graphexec.ir.registry import known_ops, load_ops
    from graphexec.planning.options import Options
    from graphexec.proof import HazardError, find_hazards, prove
    from graphexec.runtime.cpu.device import CpuDevice
    from graphexec.runtime.device import FallbackWarning
    from graphexec.runtime.executable import Executable
    from graphexec.runtime.hip.device import HipDevice
    from graphexec.runtime.hip.replay import CaptureWarning
    from graphexec.runtime.pinned import pinned_empty
    from graphexec.tools.compare import Comparison, compare
    from graphexec.tools.tuning.tune import tune


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphexec' has no attribute '{name}'")
    value = getattr(import_module(f"graphexec.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
