"""What measured times are good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What measured times depend on: the hardware, and the versions of what runs on it."""

    architecture: str
    versions: Mapping[str, str]
