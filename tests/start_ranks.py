"""Starts several processes as ranks: by mpirun, or by the variables that torchrun sets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MPIRUN = Path(sys.executable).with_name("mpirun")
LIMIT = 60.0  # seconds, for what ought to end by itself

# Open MPI refuses root, and more ranks than cores, unless it is told otherwise.
_OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What ranks said, and their exit codes: one, mpirun's, or one a rank."""

    out: str
    err: str
    codes: tuple[int, ...]

    @property
    def code(self) -> int:
        """That of rank 0, or of mpirun."""
        return self.codes[0]


def environment(more: Mapping[str, str] = {}) -> dict[str, str]:
    return {**os.environ, **_OPEN_MPI, **more}


def by_mpirun(ranks: int, command: Sequence[str], more: Mapping[str, str] = {}) -> Done:
    """`mpirun -n RANKS COMMAND`."""
    line = [str(MPIRUN), "-n", str(ranks), *command]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=LIMIT, env=environment(more)
    )
    return Done(done.stdout, done.stderr, (done.returncode,))


def by_variables(ranks: int, command: Sequence[str], more: Mapping[str, str] = {}) -> Done:
    """One process a rank, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT."""
    processes = begin(ranks, command, more)
    return finish(processes)


def begin(
    ranks: int, command: Sequence[str], more: Mapping[str, str] = {}, world: int | None = None
) -> list[subprocess.Popen[str]]:
    """As `by_variables`, without waiting for the end. They are told that there are `world`."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment({**place, "WORLD_SIZE": str(world or ranks), "RANK": str(r), **more}),
        )
        for r in range(ranks)
    ]  # fmt: skip


def finish(processes: Sequence[subprocess.Popen[str]]) -> Done:
    """Wait for the end of all. What does not end is killed, and the test fails."""
    until = time.monotonic() + LIMIT
    try:
        said = [p.communicate(timeout=max(0.1, until - time.monotonic())) for p in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.communicate()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
    codes = tuple(p.returncode for p in processes)
    return Done("".join(out for out, _ in said), "".join(err for _, err in said), codes)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


STARTERS = {"mpirun": by_mpirun, "variables": by_variables}
