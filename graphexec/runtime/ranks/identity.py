"""Which rank this process is: MPI says so under mpirun, elsewhere four variables.

`RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` are those of torchrun and of Kubernetes'
training operators.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DeviceUnavailable, InputError

_BY_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""What starters of MPI set: Open MPI's, MPICH's with Intel's and Slurm's, MVAPICH's."""

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Identity:
    """A rank among so many. Rank 0 listens on `address`, unless there is a `communicator` of
    mpi4py, through which it tells where it does."""

    rank: int
    ranks: int
    address: tuple[str, int] = ("", 0)
    communicator: Any = None


def find(environment: Mapping[str, str] = os.environ) -> Identity | None:
    """This process's, or None if it was started alone, which one rank of MPI is too.

    Raises InputError for variables that are wrong or missing, and DeviceUnavailable where mpirun
    started it and mpi4py is not installed.
    """
    if any(environment.get(name, "1") != "1" for name in _BY_MPI):
        return of_communicator(_mpi().COMM_WORLD)
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return None
    return _of_variables(environment)


def of_communicator(communicator: Any) -> Identity | None:
    """The identity in a communicator of mpi4py; None if it has one rank."""
    mpi = _mpi()
    if mpi.Query_thread() < mpi.THREAD_SERIALIZED:
        raise DeviceUnavailable(
            "MPI was started without support for threads, and collectives run on one of their own; "
            "leave mpi4py.rc.thread_level as it is"
        )
    if communicator.Get_size() == 1:
        return None
    return Identity(communicator.Get_rank(), communicator.Get_size(), ("", 0), communicator)


def _of_variables(environment: Mapping[str, str]) -> Identity | None:
    mistakes = []
    missing = [name for name in _VARIABLES if not environment.get(name)]
    if missing:
        which = " and ".join(missing)
        mistakes.append(f"ranks are started by {', '.join(_VARIABLES)}, but {which} is not set")
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        text = environment.get(name, "")
        if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
            mistakes.append(f"{name} must be a number, found '{text}'")
        numbers[name] = int(text) if text.isdecimal() and text.isascii() and text else 0
    rank, ranks, port = numbers.values()
    if not mistakes and rank >= ranks:
        mistakes.append(f"RANK is {rank}, but WORLD_SIZE {ranks}: ranks are numbered from 0")
    if not mistakes and not 0 < port < 65536:
        mistakes.append(f"MASTER_PORT is {port}, which is no port")
    if mistakes:
        raise InputError([Diagnostic(message) for message in mistakes])
    return None if ranks == 1 else Identity(rank, ranks, (environment["MASTER_ADDR"], port))


def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as exc:
        raise DeviceUnavailable(
            f"MPI started this process as one of several, and mpi4py cannot be loaded ({exc}); "
            "pip install 'graphexec[mpi]'"
        ) from exc
    return MPI
