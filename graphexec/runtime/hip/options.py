"""What a session on a GPU is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from graphexec.runtime.ranks.group import Group

Mode = Literal["graph", "stream"]


@dataclass(frozen=True)
class HipOptions:
    """What a session is told; the fields of HipDevice."""

    index: int = 0
    mode: Mode = "graph"
    timeout: float | None = None
    algorithms: Mapping[str, int] = field(default_factory=dict)
    markers: bool = False
    check_access: bool = False
    reproducible: bool = False
    group: Group | None = None
