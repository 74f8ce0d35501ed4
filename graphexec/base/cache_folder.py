"""Where what is kept between runs lies: one folder a kind, all under the user's cache directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path | None:
    """`$XDG_CACHE_HOME/graphexec/<kind>`, or that under `~/.cache`; None for a user without a home.

    https://specifications.freedesktop.org/basedir-spec: a relative path is ignored.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:
            return None
    return Path(base) / "graphexec" / kind


__all__ = ["cache_folder"]
