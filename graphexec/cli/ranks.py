"""Commands that several ranks run together, started by mpirun or with RANK, WORLD_SIZE, MASTER_ADDR
and MASTER_PORT: rank 0 prints and writes files, and a failure of one ends all of them at once.

The process ends by os._exit then: whatever its other threads wait for, a collective or MPI's end,
might never come.
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import stat
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from graphexec.base.version import __version__
from graphexec.cli import interrupt

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.planning.options import Options
    from graphexec.runtime.ranks.group import Group
    from graphexec.runtime.ranks.peer import Failure
    from graphexec.tools.selftest import Check

Command = TypeVar("Command", bound=Callable[..., Any])

_STARTERS = ("mpirun", "mpiexec", "prterun", "orterun")
_PATIENCE = 1.5  # seconds, which a lower rank has to tell the user and end

_group: Group | None = None
_terminal = 2  # where standard error goes, or went


def ranked(command: Command) -> Command:
    """Make a command one that ranks run together; adds --log-dir."""

    @click.option("--log-dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
                  help="With several ranks: write what each says, and its log, to "
                  "DIR/rank0.log and so on.")  # fmt: skip
    @wraps(command)
    def together(*args: Any, log_dir: Path | None, **parameters: Any) -> Any:
        from graphexec.runtime.ranks.world import world

        group = world()
        if group is not None:
            _begin(group, log_dir)
        code = command(*args, **parameters)
        if group is not None:
            sys.stdout.flush()
            group.leave()
        return code

    return together  # type: ignore[return-value]


mesh_option = click.option(
    "--mesh", metavar="AXIS=N,...", callback=lambda ctx, param, value: _mesh(value),
    help="Lay the ranks out as this mesh, such as tp=2, in place of the file's.",
)  # fmt: skip


def _mesh(text: str | None) -> Any:
    from graphexec.base.errors import InputError
    from graphexec.planning.options import Options

    try:
        return Options(mesh=text).mesh  # type: ignore[arg-type]
    except InputError as exc:
        raise click.BadParameter(f"'{text}': expected axes and numbers, such as tp=2.") from exc


def first() -> bool:
    """Whether this process prints and writes: it is alone, or rank 0."""
    return _group is None or _group.rank == 0


def check_mesh(options: Options, graph: Graph) -> None:
    """InputError unless there are as many ranks as the mesh has, that of the options or else of the
    graph."""
    from graphexec.runtime.ranks.world import check_size

    line = shlex.join(["graphexec", *sys.argv[1:]])
    mesh = graph.mesh if options.mesh is None else options.mesh
    check_size(mesh, _group, asked=options.mesh is not None, line=line)


def checks_of_ranks(names: list[str]) -> list[Check]:
    """What several ranks add to a selftest: their collectives, and the checks, `names`, that failed
    on others than rank 0."""
    from graphexec.tools.selftest_ranks import checks_of_ranks

    return [] if _group is None else checks_of_ranks(_group, names)


def fail(text: str, code: int) -> None:
    """This process ends with an error. If it is a rank, all end, and this does not return."""
    if _group is None:
        return
    if _group.failure is None and not first():
        # The others usually have the same mistake, and rank 0 tells the user.
        _group.wait_for_lower(_PATIENCE / 2)
        text = f"rank {_group.rank}: {text.removeprefix('error: ')}"
    _group.fail(text, code)
    time.sleep(3 * _PATIENCE)
    os._exit(code)


def interrupted(code: int) -> None:
    """A signal ended the command. A rank does not wait for the others."""
    from graphexec.base.atomic_file import discard_unfinished

    if _group is None:
        return
    if _group.failure is not None:  # mpirun ends the ranks that are left
        time.sleep(3 * _PATIENCE)
    discard_unfinished()
    os._exit(code)


def _begin(group: Group, log_dir: Path | None) -> None:
    global _group, _terminal
    _group = group
    sys.stdout.flush()
    sys.stderr.flush()
    _terminal = _standard_error()
    group.when_failed(_end)
    interrupt.when_interrupted(group.say_goodbye)
    if log_dir is not None:
        _open_log(group, log_dir)
    if group.rank > 0:
        interrupt.quiet()
        log = _log_file(group, log_dir)
        os.dup2(log, 1)
        if log_dir is not None:
            os.dup2(log, 2)
        else:  # what the system and libraries say of a crash is still seen
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _standard_error() -> int:
    """Where to tell the user. Open MPI drops what ranks say after one of them has ended with an
    exit code, so it is told to mpirun's own standard error where that is a pipe or a terminal."""
    try:
        with open(f"/proc/{os.getppid()}/comm", encoding="utf-8") as file:
            if file.read().strip() in _STARTERS:
                own = os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_NOCTTY)
                if stat.S_ISFIFO(os.fstat(own).st_mode) or os.isatty(own):
                    return own
                os.close(own)
    except OSError:
        pass
    return os.dup(2)


def _log_file(group: Group, log_dir: Path | None) -> int:
    if log_dir is None:
        return os.open(os.devnull, os.O_WRONLY)
    path = log_dir / f"rank{group.rank}.log"
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _open_log(group: Group, log_dir: Path) -> None:
    log_dir.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log_dir / f"rank{group.rank}.log", "w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(relativeCreated)10.3f ms  %(message)s"))
    logger = logging.getLogger("graphexec")
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    members = ", ".join(map(str, group.members))
    logger.info("graphexec %s, Python %s; ranks: %s", __version__, platform.python_version(),
                members)  # fmt: skip


def _end(failure: Failure) -> NoReturn:
    """The ranks have failed: the lowest one that is there tells the user and ends first, so that
    its exit code is that of mpirun."""
    from graphexec.base.atomic_file import discard_unfinished

    assert _group is not None
    logger = logging.getLogger("graphexec")
    if logger.handlers:  # else it says what the lowest rank says
        logger.error("%s", failure.message)
    if _group.tells or not _group.wait_for_lower(_PATIENCE):
        text = failure.message
        if not text.startswith(("error:", "internal error:")):
            text = f"error: {text}"
        prefix = "\r\x1b[K\x1b[?25h" if os.isatty(_terminal) else ""
        os.write(_terminal, f"{prefix}{text}\n".encode())
    discard_unfinished()
    os._exit(failure.code)
