"""How long a command may take: a roofline with a launch cost, in microseconds."""

from __future__ import annotations

from dataclasses import dataclass

from graphexec.command import Command, Memcpy


@dataclass(frozen=True)
class CostModel:
    """Rates of a device: operations and bytes a microsecond, microseconds a launch and a wait."""

    flops: float
    bytes: float
    link_bytes: float
    launch: float
    wait: float

    def microseconds(self, command: Command) -> float:
        """The time of one command running alone."""
        crosses = isinstance(command.work, Memcpy) and command.node.endswith((".h2d", ".d2h"))
        rate = self.link_bytes if crosses else self.bytes
        return self.launch + max(command.cost.flops / self.flops, command.cost.bytes / rate)


CPU = CostModel(flops=100e3, bytes=10e3, link_bytes=10e3, launch=15.0, wait=60.0)
"""A couple of cores with NumPy."""

GPU = CostModel(flops=200e6, bytes=3e6, link_bytes=50e3, launch=2.0, wait=1.5)
"""A data-centre GPU running f16 GEMMs of moderate size."""
