"""How much is said on standard error: -v, -q, and the environment's GRAPHEXEC_LOG."""

from __future__ import annotations

import logging
import os
import sys

import click

_LEVELS = ("debug", "info", "warning", "error")


def level() -> int:
    """1 with -v, -1 with -q, else 0; 0 outside of a command."""
    context = click.get_current_context(silent=True)
    params = context.find_root().params if context is not None else {}
    return int(bool(params.get("verbose"))) - int(bool(params.get("quiet")))


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


__all__ = ["level", "set_up_log"]
