"""Measure the constants of a device's cost model: `start`, `launch`, `wait` and `fork`."""

from __future__ import annotations

import time

from graphexec.runtime.device import Device
from graphexec.tools.tuning.measuring import Loaded
from graphexec.tools.tuning.probes import Probe, chains, diamonds, launches

_WARM_UP = 0.1  # seconds
_SHORT, _LONG = 8, 72  # kernels of a chain
_FEW, _MANY = 4, 24  # forks and joins
_STREAMS = 8


def measure_constants(device: Device) -> dict[str, float]:
    """`start`, `launch`, `wait` and `fork` of a CostModel, in microseconds.

    A chain of n empty kernels takes start + n · launch. A fork and the join after it take two
    launches, one on stream 0 and one on stream 1, with a wait before and after the second. Chains
    on several streams take as long as one, the wait for the fork, and a fork for each other stream.
    """
    _warm_up(device)
    short, long = (_time(launches(n), device) for n in (_SHORT, _LONG))
    launch = max((long - short) / (_LONG - _SHORT), 0.0)
    start = max(short - _SHORT * launch, 0.0)
    few, many = (_time(diamonds(n), device) for n in (_FEW, _MANY))
    diamond = (many - few) / (_MANY - _FEW)
    wait = max((diamond - 2 * launch) / 2, 0.0)
    apart = _time(chains(_SHORT, _STREAMS), device)
    fork = max((apart - short - wait) / (_STREAMS - 1), 0.0)
    found = {"start": start, "launch": launch, "wait": wait, "fork": fork}
    return {name: round(value, 3) for name, value in found.items()}


def _warm_up(device: Device) -> None:
    """Keep the device busy for a moment: an idle device runs slower."""
    with Loaded(launches(_LONG), device) as loaded:
        end = time.monotonic() + _WARM_UP
        while time.monotonic() < end:
            loaded.time()


def _time(probe: Probe, device: Device) -> float:
    with Loaded(probe, device) as loaded:
        return loaded.time()
