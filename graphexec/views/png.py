"""SVG to PNG, by the renderer that is installed: resvg as a wheel, rsvg-convert, Graphviz.

Graphviz cannot read SVG: it draws the DOT of the same view instead, if there is one.
"""

from __future__ import annotations

import shutil
import subprocess

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError

_WIDEST, _MOST = 8000, 6e6  # pixels; more takes seconds, and is refused by many programs


def to_png(svg: str, dot: str = "", zoom: float = 2.0) -> bytes:
    """The picture, `zoom` pixels for each of the SVG's. Raises DataError without a renderer."""
    width, height = (float(svg.split(f'{side}="', 1)[1].split('"', 1)[0])
                     for side in ("width", "height"))  # fmt: skip
    zoom = min(zoom, _WIDEST / width, (_MOST / (width * height)) ** 0.5)
    try:
        import resvg_py
    except ImportError:
        return _by_program(svg, dot, zoom)
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=zoom))


def _by_program(svg: str, dot: str, zoom: float) -> bytes:
    if program := shutil.which("rsvg-convert"):
        return _run([program, "--zoom", str(zoom)], svg)
    if dot and (program := shutil.which("dot")):
        return _run([program, "-Tpng", "-Gdpi=144"], dot)
    raise DataError([Diagnostic(
        "no program to make a PNG is installed",
        help="pip install 'graphexec[png]', or write .svg, which needs nothing",
    )])  # fmt: skip


def _run(command: list[str], text: str) -> bytes:
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip()
        raise DataError([Diagnostic(f"{command[0]} failed: {reason}")])
    return done.stdout
