"""The ranks that this process is one of: they meet once, when first needed.

They stay together until the process ends. A rank whose program ends after a failure takes the other
ranks of MPI with it, which would wait for it in MPI_Finalize otherwise.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from math import prod
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.identity import find, of_communicator

_lock = threading.Lock()
_groups: dict[int, Group | None] = {}


def world(communicator: Any = None) -> Group | None:
    """All ranks: those of a communicator of mpi4py, or those that this process was started with, or
    None if it is alone. All ranks call this, the first time together.

    Raises as graphexec.runtime.ranks.identity.find and graphexec.runtime.ranks.meet.meet.
    """
    with _lock:
        key = 0 if communicator is None else id(communicator)
        if key not in _groups:
            identity = find() if communicator is None else of_communicator(communicator)
            _groups[key] = group = None if identity is None else Group(identity)
            if group is not None:
                atexit.register(_end, group)
        return _groups[key]


def _end(group: Group) -> None:
    if group.failure is None:
        group.leave()
    elif group.communicator is not None and not group.handled:
        group.communicator.Abort(group.failure.code)


def check_size(mesh: Mapping[str, int], group: Group | None, asked: bool, line: str = "") -> None:
    """InputError unless there are as many ranks as the mesh has places. One process alone is enough
    for a mesh that the file states, but not for one that was `asked` for; `line` starts it."""
    size, ranks = prod(mesh.values()), 1 if group is None else group.ranks
    if size == ranks or (group is None and not asked):
        return
    shown = ",".join(f"{axis}={extent}" for axis, extent in mesh.items())
    if group is None:
        message = f"the mesh {shown} has {size} ranks, and this is one process alone"
        help = f"start one for each rank: mpirun -n {size} {line or 'python …'}"
        raise InputError([Diagnostic(message, help=help)])
    message = f"there are {ranks} ranks, but the mesh {shown} has {size}"
    if not mesh:
        message = f"there are {ranks} ranks, but neither the graph nor the options have a mesh"
    help = f"start {size} of them, or set --mesh (mesh= in Python) so that it has {ranks}"
    raise InputError([Diagnostic(message, help=help)])
