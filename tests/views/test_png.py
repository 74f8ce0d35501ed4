"""PNG: the same picture by every renderer, and words where there is none or it fails."""

import shutil
import struct
import sys
import zlib

import numpy as np
import pytest

import graphexec as gx
from graphexec.views import graph, lanes, memory, png
from graphexec.views.recovered import of_plan


def pixels(data: bytes) -> np.ndarray:
    """The image of a PNG of 8 bits a channel, as [height, width, 3]."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, head = 8, b"", b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        head = body if kind == b"IHDR" else head
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    width, height, depth, color = struct.unpack(">IIBB", head[:10])
    assert depth == 8
    each = {2: 3, 6: 4}[color]
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).astype(int)
    rows = rows.reshape(height, 1 + width * each)
    image = np.zeros((height + 1, width + 1, each), np.int64)  # a blank row above, column before
    for y, line in enumerate(rows):
        kind, row = line[0], line[1:].reshape(width, each)
        if kind in (0, 2):
            image[y + 1, 1:] = (row + (image[y, 1:] if kind == 2 else 0)) % 256
            continue
        for x in range(width):
            left, up, corner = image[y + 1, x], image[y, x + 1], image[y, x]
            guess = left + up - corner
            by = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)]).argmin(0)
            paeth = np.choose(by, [left, up, corner])
            before = {1: left, 3: (left + up) // 2, 4: paeth}[int(kind)]
            image[y + 1, x + 1] = (row[x] + before) % 256
    return image[1:, 1:, :3]


def only(monkeypatch, *programs: str) -> None:
    """Leave no renderer but these."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    found = shutil.which
    monkeypatch.setattr(png.shutil, "which", lambda n: found(n) if n in programs else None)


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Make a script the only renderer."""

    def make(script: str) -> None:
        monkeypatch.setitem(sys.modules, "resvg_py", None)
        path = tmp_path / "rsvg-convert"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(png.shutil, "which", lambda n: str(path) if n == path.name else None)

    return make


@pytest.mark.parametrize("view", ["plan", "memory", "graph"])
def test_graphviz_alone_draws_the_same_picture(attention, view, monkeypatch):
    if shutil.which("dot") is None:
        pytest.skip("needs Graphviz: apt-get install graphviz")
    pytest.importorskip("resvg_py")
    svg = {"plan": lambda: lanes.to_svg(attention, color="op"),
           "memory": lambda: memory.to_svg(attention),
           "graph": lambda: graph.to_svg(of_plan(attention))}[view]()  # fmt: skip
    expected = pixels(png.to_png(svg, 0.5))
    only(monkeypatch, "dot")
    found = pixels(png.to_png(svg, 0.5))
    assert abs(found.shape[0] - expected.shape[0]) <= 1
    assert abs(found.shape[1] - expected.shape[1]) <= 1
    height, width = np.minimum(found.shape, expected.shape)[:2]
    far = abs(found[:height, :width] - expected[:height, :width]).max(axis=2) > 40
    assert far.mean() < 0.06, "only letters and edges differ"
    assert (abs(found - 255).max(axis=2) > 12).mean() > 0.05, "not blank"


def test_graphviz_draws_any_name(awkward, monkeypatch):
    if shutil.which("dot") is None:
        pytest.skip("needs Graphviz: apt-get install graphviz")
    only(monkeypatch, "dot")
    for picture in (lanes.to_svg(awkward), memory.to_svg(awkward), graph.to_svg(of_plan(awkward))):
        assert png.to_png(picture).startswith(b"\x89PNG")


def test_graphviz_draws_large_pictures(chains, monkeypatch):
    if shutil.which("dot") is None:
        pytest.skip("needs Graphviz: apt-get install graphviz")
    only(monkeypatch, "dot")
    plan = chains(12, 4, 30)
    for picture in (lanes.to_svg(plan), memory.to_svg(plan), graph.to_svg(of_plan(plan))):
        assert len(picture) > 16_384
        assert png.to_png(picture).startswith(b"\x89PNG")


def test_the_renderer_gets_the_picture(attention, program):
    program('printf "%s " "$@"; cat')
    svg = lanes.to_svg(attention)
    assert png.to_png(svg) == b"--zoom 2.0 " + svg.encode()


def test_without_a_renderer_it_says_what_to_install(attention, monkeypatch):
    only(monkeypatch)
    with pytest.raises(gx.DataError, match=r"graphexec\[png\]"):
        png.to_png(lanes.to_svg(attention))


def test_a_renderer_that_fails_is_quoted(attention, program):
    program("cat > /dev/null; echo it is broken >&2; exit 3")
    with pytest.raises(gx.DataError, match=r"rsvg-convert failed: it is broken"):
        png.to_png(lanes.to_svg(attention))


def test_a_renderer_that_does_not_end_is_stopped(attention, program, monkeypatch):
    program("exec tail -f /dev/null")
    monkeypatch.setattr(png, "_LONGEST", 0.3)
    with pytest.raises(gx.DataError, match=r"did not draw the PNG in 0.3 s[\s\S]*--max-nodes"):
        png.to_png(lanes.to_svg(attention))


@pytest.mark.parametrize("streams", [1, 4])
def test_a_png_of_many_launches_is_not_reduced(chains, streams):
    plan = chains(streams, streams, 1000 // streams)
    for draw in (lanes.to_svg, memory.to_svg):
        svg = png.readable(lambda most, draw=draw: draw(plan, most=most), 5000)
        width, height = (int(float(svg.split(f'{s}="', 1)[1].split('"', 1)[0]))
                         for s in ("width", "height"))  # fmt: skip
        assert width <= 4000
        assert width * height <= 6e6
        assert svg.count("<rect") > 20
