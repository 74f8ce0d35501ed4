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
from graphexec.cli import interrupt, ranks
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
            code = interrupt.say()
            ranks.interrupted(code)
            return code
        except BrokenPipeError:
            # Python flushes at exit and would fail again.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            return _CLOSED_PIPE
        except Exception as exc:
            if debugging():
                traceback.print_exc()
            text, code = _told(exc)
            ranks.fail(text, code)
            click.echo(text, err=True)
            return code
        return code or 0


def _told(exc: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    if isinstance(exc, InputError):
        return str(exc), exc.exit_code
    if isinstance(exc, GraphexecError) and not isinstance(exc, InternalError):
        return f"error: {printable_lines(str(exc))}", exc.exit_code  # a compiler's log has lines
    if isinstance(exc, MemoryError):
        return f"error: out of memory{f': {exc}' if str(exc) else ''}", 1
    if isinstance(exc, OSError) and exc.filename is None:  # of standard output
        return f"error: cannot write the results: {exc.strerror or exc}", 1
    if isinstance(exc, OSError):  # of a file that the user named, or the environment
        where = printable(str(exc.filename))
        why = exc.strerror or type(exc).__name__
        return f"error: cannot use '{where}': {why}", InputError.exit_code
    return _request_for_report(exc), 1


def _request_for_report(exc: Exception) -> str:
    again = shlex.join(["graphexec", "--debug", *(a for a in sys.argv[1:] if a != "--debug")])
    return (
        f"internal error: {type(exc).__name__}: {printable(str(exc))}\n"
        "This is a bug of graphexec. Please report it with the graph and the output of\n"
        f"this command: {printable(again)}"
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
