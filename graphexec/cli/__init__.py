"""The command line. `main` is the entry point."""

from __future__ import annotations


def main() -> None:
    """The program `graphexec`: ends the process with the exit code of the command.

    0 fine, 1 failure at run time or hazards found, 2 wrong input or usage, 3 device not available,
    130 interrupted, 143 terminated, 141 standard output was closed by its reader.
    """
    import sys

    try:
        from graphexec.cli import interrupt

        interrupt.watch()
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        from graphexec.cli.app import app

        app(prog_name="graphexec")
    except (KeyboardInterrupt, SystemExit) as exc:
        from graphexec.cli import interrupt

        if isinstance(exc, KeyboardInterrupt) or interrupt.was_said():
            interrupt.end()
        raise
