"""The group of commands, and the one place where exceptions become messages and exit codes."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
import warnings
from typing import Any, TextIO

import click

from graphexec.base.errors import GraphexecError, InputError, InternalError
from graphexec.base.printable import printable, printable_lines
from graphexec.base.version import __version__
from graphexec.cli import interrupt
from graphexec.cli.bench import bench
from graphexec.cli.check import check
from graphexec.cli.compare import compare
from graphexec.cli.explain import explain
from graphexec.cli.import_ import import_
from graphexec.cli.info import info
from graphexec.cli.init import init
from graphexec.cli.ops import ops, schema
from graphexec.cli.plan import plan
from graphexec.cli.run import run
from graphexec.cli.selftest import selftest
from graphexec.cli.tune import tune
from graphexec.cli.verbosity import common_options, debugging, level, set_up_log

_CLOSED_PIPE = 128 + 13  # what a shell reports for a program that SIGPIPE ended


class _App(click.Group):
    """Commands return their exit code, or None for 0; they may raise any exception."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and end with its exit code. Only click's exceptions propagate."""
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _show_warning
            ctx.exit(self._guarded(ctx))

    def _guarded(self, ctx: click.Context) -> int:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            return interrupt.say()
        except BrokenPipeError:
            # Python flushes at exit and would fail again.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            return _CLOSED_PIPE
        except Exception as exc:
            if debugging():
                traceback.print_exc()
            return _explain(exc)
        return code or 0


def _explain(exc: Exception) -> int:
    """Print the error; returns the exit code."""
    if isinstance(exc, InputError):
        click.echo(str(exc), err=True)
        return exc.exit_code
    if isinstance(exc, GraphexecError) and not isinstance(exc, InternalError):
        click.echo(f"error: {printable_lines(str(exc))}", err=True)  # a compiler's log has lines
        return exc.exit_code
    if isinstance(exc, MemoryError):
        click.echo(f"error: out of memory{f': {exc}' if str(exc) else ''}", err=True)
        return 1
    if isinstance(exc, OSError) and exc.filename is None:  # of standard output
        click.echo(f"error: cannot write the results: {exc.strerror or exc}", err=True)
        return 1
    if isinstance(exc, OSError):  # of a file that the user named, or the environment
        where = printable(str(exc.filename))
        click.echo(f"error: cannot use '{where}': {exc.strerror or type(exc).__name__}", err=True)
        return InputError.exit_code
    _ask_for_report(exc)
    return 1


def _ask_for_report(exc: Exception) -> None:
    again = shlex.join(["graphexec", "--debug", *(a for a in sys.argv[1:] if a != "--debug")])
    click.echo(
        f"internal error: {type(exc).__name__}: {printable(str(exc))}\n"
        "This is a bug of graphexec. Please report it with the graph and the output of\n"
        f"this command: {printable(again)}",
        err=True,
    )


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    """Show graphexec's warnings for users; other warnings are for developers."""
    if debugging():
        click.echo(f"{filename}:{lineno}: {category.__name__}: {message}", err=True)
    elif category.__module__.startswith("graphexec.") and level() >= 0:
        click.echo(f"warning: {printable_lines(str(message))}", err=True)


@click.group(
    cls=_App,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 failure at run time or race found, 2 wrong input or usage, "
    "3 device not available.",
)
@click.version_option(__version__, prog_name="graphexec", message="%(prog)s %(version)s")
def app() -> None:
    """Compile a graph of tensor operations into a stream-ordered plan, prove it free of races, and
    run it.

    Results go to standard output, everything else to standard error. GRAPHEXEC_LOG=debug logs
    every instruction of a run as it is issued and completed.
    """
    set_up_log()


app.params += common_options()
for command in (
    run, check, plan, explain, compare, bench, tune, init, import_, ops, schema, info, selftest,
):  # fmt: skip
    command.params += common_options()
    app.add_command(command)
