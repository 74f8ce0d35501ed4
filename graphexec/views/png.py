"""SVG to PNG, by the renderer that is installed: resvg as a wheel, rsvg-convert, or Graphviz."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from math import sqrt

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError
from graphexec.views.xdot import to_dot

_WIDEST, _MOST = 8000, 6e6  # pixels; more takes seconds, and is refused by many programs
_LONGEST = 60.0  # seconds that a renderer may take
_INSTALL = "pip install 'graphexec[png]', or write .svg, which needs nothing"


def to_png(svg: str, zoom: float = 2.0) -> bytes:
    """The picture, `zoom` pixels for each of the SVG's or fewer if it is large. Raises DataError
    without a renderer, and when it fails or takes longer than a minute."""
    zoom = min(zoom, _most_zoom(svg))
    try:
        import resvg_py
    except ImportError:
        return _by_program(svg, zoom)
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=zoom))


def readable(draw: Callable[[int], str], most: int) -> str:
    """The picture of at most `most` boxes, or of fewer, so that it is no wider than a few screens
    and a PNG of it is not reduced."""
    picture = draw(most)
    while most > 8 and (_size(picture)[0] > _WIDEST / 2 or _most_zoom(picture) < 1):
        most = most * 3 // 4
        picture = draw(most)
    return picture


def _most_zoom(svg: str) -> float:
    width, height = _size(svg)
    return min(_WIDEST / width, _WIDEST / height, sqrt(_MOST / (width * height)))


def _size(svg: str) -> tuple[float, float]:
    width, height = (float(svg.split(f'{side}="', 1)[1].split('"', 1)[0])
                     for side in ("width", "height"))  # fmt: skip
    return width, height


def _by_program(svg: str, zoom: float) -> bytes:
    if program := shutil.which("rsvg-convert"):
        return _run([program, "--zoom", str(zoom)], svg)
    if program := shutil.which("dot"):
        return _run([program, "-Kneato", "-n2", "-Tpng", f"-Gdpi={72 * zoom}"], to_dot(svg))
    raise DataError([Diagnostic("no program to make a PNG is installed", help=_INSTALL)])


def _run(command: list[str], text: str) -> bytes:
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, check=False, timeout=_LONGEST
        )
    except subprocess.TimeoutExpired:
        told = f"{command[0]} did not draw the PNG in {_LONGEST:g} s"
        raise DataError([Diagnostic(told, help=f"--max-nodes draws fewer boxes; or {_INSTALL}")]) \
            from None  # fmt: skip
    if done.returncode != 0 or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip()
        raise DataError([Diagnostic(f"{command[0]} failed: {reason}", help=_INSTALL)])
    return done.stdout
