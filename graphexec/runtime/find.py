"""Which devices there are on this machine, and the one of a name."""

from __future__ import annotations

import warnings

from graphexec.base.errors import DeviceUnavailable
from graphexec.runtime.device import Device, DeviceInfo, FallbackWarning


def available() -> list[DeviceInfo]:
    """Every kind of device, usable or not."""
    from graphexec.runtime.cpu import device as cpu
    from graphexec.runtime.hip import device as hip

    return [cpu.info(), hip.info()]


def find_device(name: str) -> Device:
    """The device called `name`: "cpu", "hip" or "auto". Raises DeviceUnavailable."""
    from graphexec.runtime.cpu.device import CpuDevice

    if name == "cpu":
        return CpuDevice()
    if name == "hip":
        return _hip_device()
    if name == "auto":
        try:
            return _hip_device()
        except DeviceUnavailable as exc:
            warnings.warn(f"running on the CPU: {exc}", FallbackWarning, stacklevel=3)
            return CpuDevice()
    raise DeviceUnavailable(f"unknown device '{name}'; expected auto, cpu or hip")


def _hip_device() -> Device:
    from graphexec.runtime.hip.device import HipDevice

    device = HipDevice()
    device.describe()  # raises where there is no GPU
    return device
