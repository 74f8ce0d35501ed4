"""A description of the HIP device of this machine, for `info` and fault reports."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from graphexec.base.errors import DeviceUnavailable
from graphexec.base.interrupts import own
from graphexec.runtime.hip import triton as hip_triton
from graphexec.runtime.hip.bindings import Bindings, HipError, load
from graphexec.runtime.hip.replay import capture


def describe() -> dict[str, Any]:
    """Bindings, runtime, devices, and whether graphs can be used; `reason` says why not.

    With no usable device there is only `usable` (False) and `reason`.
    """
    try:
        hip = load()
        return {
            "usable": True,
            "platform": hip.platform.name,
            "hip_python": hip.platform.hip_python_version,
            "bindings": hip.platform.flavour,
            "runtime": hip.platform.runtime_path,
            "runtime_version": hip.platform.runtime_version,
            "hiprtc": ".".join(map(str, hip.kernels.version())),
            "devices": [_device(hip, index) for index in range(hip.platform.devices)],
            "graphs": _graphs(hip),
            "hipblaslt": {"usable": hip.lt is not None,
                          "reason": None if hip.lt else "this hip-python has no hipblaslt"},
            "triton": {"usable": not hip_triton.why_not(), "reason": hip_triton.why_not() or None},
        }  # fmt: skip
    except (DeviceUnavailable, HipError) as exc:
        return {"usable": False, "reason": str(exc)}


def _device(hip: Bindings, index: int) -> dict[str, Any]:
    p = hip.properties(index)
    hip.set_device(index)
    free, total = hip.memory_info()
    hip.set_device(0)
    return {
        "index": index, "name": p.name, "architecture": p.architecture, "free_bytes": free,
        "total_bytes": total, "wavefront": p.warp_size, "multiprocessors": p.multiprocessors,
    }  # fmt: skip


def _graphs(hip: Bindings) -> dict[str, Any]:
    """Whether a graph can be captured and launched; tries both."""
    try:
        with ExitStack() as owned:
            stream = own(owned, hip.create_stream, hip.destroy_stream)
            memory = own(owned, lambda: hip.malloc(256), hip.free)
            step = hip.prepare_fill(memory, 0, 256, stream)
            capture(hip, [step], stream, owned)()
            hip.synchronize_stream(stream)
    except HipError as exc:
        return {"usable": False, "reason": str(exc)}
    return {"usable": True, "reason": None}


def lines(found: dict[str, Any]) -> list[str]:
    """`describe()` as text."""
    if not found["usable"]:
        return [f"not usable: {found['reason']}"]
    text = [
        f"platform   {found['platform']}",
        f"bindings   hip-python {found['hip_python']} ({found['bindings']})",
        f"runtime    {found['runtime_version']}, {found['runtime']}",
        f"hiprtc     {found['hiprtc']}",
    ]
    for d in found["devices"]:
        free, total = d["free_bytes"] / 2**30, d["total_bytes"] / 2**30
        text.append(
            f"device {d['index']}   {d['name']}, {d['architecture']}, {free:.1f} of {total:.1f} "
            f"GiB free, wavefronts of {d['wavefront']}, {d['multiprocessors']} multiprocessors"
        )
    for what in ("graphs", "hipblaslt", "triton"):
        text.append(f"{what:<9}  {_usable(found[what])}")
    return text


def _usable(what: dict[str, Any]) -> str:
    return "usable" if what["usable"] else f"not usable: {what['reason']}"
