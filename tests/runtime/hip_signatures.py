"""Check the calls in graphexec's HIP modules against the hip-python of this interpreter.

Run as a script, with nothing but hip-python installed. Reads the modules' source, not the modules:
every `self._hip.hipMalloc` and its like must exist in hip-python, and where it is passed to
`_call`, `_step` or their likes, take as many arguments as it is passed. Prints one line a mistake.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEVICES = Path(__file__).resolve().parents[2] / "graphexec" / "runtime" / "hip"

# How the sources spell hip-python's modules, and which module it is.
SPELLINGS = {
    "_hip": "hip",
    "_hiprtc": "hiprtc",
    "rtc": "hiprtc",
    "_hipblas": "hipblas",
    "_lt": "hipblaslt",
    "lt": "hipblaslt",
    "functions": "hipblaslt",
}
CALLERS = {"_call", "_step", "call", "step"}

# Where a wrong order would go unnoticed by a count: what the parameters are called, in order.
ORDERS = {
    "hip.hipMemcpyAsync": "dst src sizeBytes kind stream",
    "hip.hipMemcpy2DAsync": "dst dpitch src spitch width height kind stream",
    "hip.hipMemsetAsync": "dst value sizeBytes stream",
    "hip.hipEventRecord": "event stream",
    "hip.hipStreamWaitEvent": "stream event flags",
    "hip.hipEventElapsedTime": "start stop",
    "hip.hipGraphLaunch": "graphExec stream",
    "hip.hipFuncSetAttribute": "func attr value",
    "hip.hipFuncGetAttribute": "attrib hfunc",
    "hip.hipDeviceGetAttribute": "attr deviceId",
    "hip.hipModuleLaunchKernel": "f gridDimX gridDimY gridDimZ blockDimX blockDimY blockDimZ"
    " sharedMemBytes stream kernelParams extra",
    "hip.hipModuleOccupancyMaxActiveBlocksPerMultiprocessor": "f blockSize dynSharedMemPerBlk",
    "hiprtc.hiprtcCreateProgram": "src name numHeaders headers includeNames",
    "hipblas.hipblasGemmEx": "handle transA transB m n k alpha A aType lda B bType ldb beta"
    " C cType ldc computeType algo",
    "hipblas.hipblasGemmStridedBatchedEx": "handle transA transB m n k alpha A aType lda strideA"
    " B bType ldb strideB beta C cType ldc strideC batchCount computeType algo",
    "hipblas.hipblasGemmBatchedEx": "handle transA transB m n k alpha A aType lda B bType ldb beta"
    " C cType ldc batchCount computeType algo",
    "hipblaslt.hipblasLtMatmul": "handle matmulDesc alpha A Adesc B Bdesc beta C Cdesc D Ddesc algo"
    " workspace workspaceSizeInBytes stream",
}


def used_names() -> Iterator[tuple[str, str, str, int | None]]:
    """(where, module, name, arguments passed or None if the source does not say)."""
    for path in sorted(DEVICES.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        counts = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node.func) in CALLERS and node.args:
                counts[id(node.args[0])] = _count(node.args[1:])
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith(("hip", "_hip")):
                module = SPELLINGS.get(_called(node.value))
                if module:
                    yield f"{path.name}:{node.lineno}", module, node.attr, counts.get(id(node))


def _called(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _count(arguments: list[ast.expr]) -> int | None:
    """How many arguments an argument list is, starred tuples opened."""
    total = 0
    for argument in arguments:
        if not isinstance(argument, ast.Starred):
            total += 1
        elif isinstance(argument.value, ast.Tuple):
            inner = _count(argument.value.elts)
            if inner is None:
                return None
            total += inner
        elif isinstance(argument.value, ast.Name) and argument.value.id in ("grid", "block"):
            total += 3
        else:
            return None
    return total


def hip_python() -> dict[str, Any]:
    """hip-python's modules by name, of whichever version is installed."""
    for flavour in ("rocm.bindings", "hip"):
        modules = {}
        for name in ("hip", "hiprtc", "hipblas", "hipblaslt"):
            try:
                modules[name] = importlib.import_module(f"{flavour}.{name}")
            except ImportError:
                continue
        if modules:
            return modules
    raise SystemExit("hip-python is not installed")


def mistakes() -> Iterator[str]:
    """One sentence a call that hip-python would not take."""
    modules = hip_python()
    for where, module, name, passed in used_names():
        if module not in modules:
            continue  # hipBLASLt, which 7.2 has not and the sources treat as optional
        function = getattr(modules[module], name, None)
        if function is None:
            yield f"{where}: {module}.{name} does not exist"
            continue
        if passed is not None:
            taken = len(inspect.signature(function).parameters)
            if taken != passed:
                yield f"{where}: {module}.{name} takes {taken} arguments, is passed {passed}"
    for qualified, order in ORDERS.items():
        module, name = qualified.split(".")
        if module in modules:
            parameters = list(inspect.signature(getattr(modules[module], name)).parameters)
            if parameters != order.split():
                yield f"{qualified} takes {parameters}"


if __name__ == "__main__":
    found = list(mistakes())
    checked = {(module, name) for _, module, name, _ in used_names()}
    print(f"{len(checked)} names checked")
    print("\n".join(found))
    sys.exit(1 if found else 0)
