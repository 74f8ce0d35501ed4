"""The verbosity of standard error: -v, -q, --debug, and the environment's GRAPHEXEC_LOG."""

from __future__ import annotations

import logging
import os
import sys

import click

_LEVELS = ("debug", "info", "warning", "error")
_KEY = "graphexec.cli."


def common_options() -> list[click.Option]:
    """--debug, -v and -q, before or after the name of a command."""
    texts = {
        ("--debug",): "Show tracebacks and all warnings.",
        ("-v", "--verbose"): "Log each step with the time it took.",
        ("-q", "--quiet"): "Say nothing but results and errors.",
    }
    return [
        click.Option(names, is_flag=True, help=text, expose_value=False, callback=_note)
        for names, text in texts.items()
    ]


def _note(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_KEY + str(param.name)] = True  # shared by program and command
    if _has("verbose", ctx) and _has("quiet", ctx):
        raise click.UsageError("-v and -q contradict one another.", ctx)


def _has(option: str, ctx: click.Context | None) -> bool:
    return ctx is not None and _KEY + option in ctx.meta


def level() -> int:
    """1 with -v, -1 with -q, else 0; 0 outside of a command."""
    context = click.get_current_context(silent=True)
    return int(_has("verbose", context)) - int(_has("quiet", context))


def debugging() -> bool:
    """Whether --debug was given."""
    return _has("debug", click.get_current_context(silent=True))


def set_up_log() -> None:
    """Send the log to standard error as GRAPHEXEC_LOG says. A UsageError for an unknown level."""
    wanted = os.environ.get("GRAPHEXEC_LOG", "").lower()
    if not wanted:
        return
    if wanted not in _LEVELS:
        raise click.UsageError(f"GRAPHEXEC_LOG is '{wanted}'; expected {', '.join(_LEVELS)}.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(relativeCreated)10.3f ms  %(message)s"))
    logger = logging.getLogger("graphexec")
    logger.handlers[:] = [handler]
    logger.setLevel(wanted.upper())
