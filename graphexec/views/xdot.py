"""A picture of svg.py in the drawing operations of Graphviz, so that `dot` makes a PNG of it.

Graphviz reads no SVG, but it draws what the attribute `_background` holds, without any layout:
https://graphviz.org/docs/outputs/canon/#xdot. Only what svg.py writes is read: rectangles, text and
paths of M, C, H, V, h and Z, styled by classes. Colours are those of a light background.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import hypot
from xml.etree import ElementTree

from graphexec.views.svg import LIGHT, SHAPES

_Point = tuple[float, float]
_Look = dict[str, str]
_PIECE = 3000  # characters, of up to four bytes
_ARROW = (7.0, 3.5)  # as long, and half as wide, as the marker of svg.py


def to_dot(svg: str) -> str:
    """A DOT digraph for `neato -n2` whose drawing is the picture, a point for each pixel."""
    root = ElementTree.fromstring(svg)
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    painter = _Painter(height)
    drawn = " ".join(painter.operations(root))
    # A joiner keeps a backslash from escaping the quote behind it.
    drawn = drawn.replace('\\"', '\\\u2060"').replace('"', '\\"')
    return (
        f"digraph {{ graph [bgcolor=white, pad=0, _background={_string(drawn)}];\n"
        '  node [shape=point, style=invis, width=0, height=0, label=""];\n'
        f'  low [pos="0,0"]; high [pos="{width},{height}"]; }}\n'
    )


def _string(text: str) -> str:
    """A DOT string in pieces: Graphviz refuses one of more than 16,384 bytes."""
    pieces, length = [""], 0
    for word in text.split(" "):
        if length > _PIECE:
            pieces, length = [*pieces, ""], 0
        pieces[-1] += f"{word} "
        length += len(word) + 1
    return "\n + ".join(f'"{piece}"' for piece in pieces)


class _Painter:
    """Operations for elements; y grows upwards in Graphviz."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.rules = [(selector.strip().removeprefix("."), dict(_declarations(body)))
                      for selectors, body in re.findall(r"([^{}]+)\{([^}]*)\}", SHAPES + LIGHT)
                      for selector in selectors.split(",")]  # fmt: skip

    def operations(self, element: ElementTree.Element) -> Iterator[str]:
        """The operations of an element and of those in it, from back to front."""
        kind, look = element.tag.rpartition("}")[2], self.look(element)
        if kind == "rect" and element.get("width") != "100%":
            yield self.rectangle(element, look)
        elif kind == "text":
            yield self.text(element, look)
        elif kind == "path":
            yield from self.path(element, look)
        elif kind in ("svg", "g"):
            for child in element:
                yield from self.operations(child)

    def look(self, element: ElementTree.Element) -> _Look:
        classes = {element.tag.rpartition("}")[2], *element.get("class", "").split()}
        look: _Look = {}
        for selector, declared in self.rules:
            if selector in classes:
                look |= declared
        return look

    def rectangle(self, element: ElementTree.Element, look: _Look) -> str:
        x, y, width, height = (float(element.get(k, "0")) for k in ("x", "y", "width", "height"))
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        return f"{self.style(look)} P {self.points(corners)}"

    def text(self, element: ElementTree.Element, look: _Look) -> str:
        content = "".join(element.itertext()).replace("\\", "\\\u2060")
        (at,) = self.transposed([(float(element.get("x", "0")), float(element.get("y", "0")))])
        just = {"middle": 0, "end": 1}.get(look.get("text-anchor", ""), -1)
        size = look.get("font-size", "11px").removesuffix("px")
        bold = int(look.get("font-weight") == "bold")
        return (f"{_pen('c', look.get('fill', '#000000'))} F {size} 9 -Helvetica t {bold} "
                f"T {at} {just} 0 {len(content.encode())} -{content}")  # fmt: skip

    def path(self, element: ElementTree.Element, look: _Look) -> Iterator[str]:
        controls, closed = _bezier(element.get("d", ""))
        style = self.style(look)
        if closed:
            yield f"{style} P {self.points(controls[::3])}"
            return
        yield f"{style} B {self.points(controls)}"
        if element.get("marker-end"):
            colour = look.get("stroke", "#000000")
            solid = {"stroke": colour, "fill": colour}
            yield f"{self.style(solid)} P {self.points(_head(controls))}"

    def style(self, look: _Look) -> str:
        """Pen, fill and line of an element. Without a stroke, the pen is that of the fill."""
        fill = look.get("fill", "#000000")
        pen = look.get("stroke", fill)
        line = "dashed" if "stroke-dasharray" in look else "solid"
        wide = f"setlinewidth({look.get('stroke-width', '1')})"
        filled = _pen("C", fill) if fill != "none" else ""
        return f"{_pen('c', pen)} {filled} S {len(line)} -{line} S {len(wide)} -{wide}"

    def points(self, points: list[_Point]) -> str:
        return f"{len(points)} {' '.join(self.transposed(points))}"

    def transposed(self, points: list[_Point]) -> list[str]:
        return [f"{x:.1f} {self.height - y:.1f}" for x, y in points]


def _declarations(body: str) -> Iterator[tuple[str, str]]:
    for declaration in body.split(";"):
        name, _, value = declaration.partition(":")
        yield name.strip(), value.strip()


def _pen(operation: str, colour: str) -> str:
    return f"{operation} {len(colour)} -{colour}"


def _bezier(d: str) -> tuple[list[_Point], bool]:
    """The control points of a path, straight lines included, and whether it is closed."""
    found: list[_Point] = []
    for command, given in re.findall(r"([A-Za-z])([^A-Za-z]*)", d):
        numbers = [float(n) for n in given.split()]
        x, y = found[-1] if found else (0.0, 0.0)
        match command:
            case "M":
                found.append((numbers[0], numbers[1]))
            case "C" | "L":
                ends = list(zip(numbers[::2], numbers[1::2], strict=True))
                found += ends if command == "C" else [(x, y), *ends, *ends]
            case "H" | "h" | "V" | "v":
                to = {"H": (numbers[0], y), "h": (x + numbers[0], y),
                      "V": (x, numbers[0]), "v": (x, y + numbers[0])}[command]  # fmt: skip
                found += [(x, y), to, to]
    return found, d.rstrip().endswith("Z")


def _head(controls: list[_Point]) -> list[_Point]:
    """The triangle at the end of a line, in the direction in which it ends."""
    x, y = controls[-1]
    before = next((p for p in reversed(controls) if p != (x, y)), (x - 1, y))
    length = hypot(x - before[0], y - before[1])
    along = ((x - before[0]) / length, (y - before[1]) / length)
    long, half = _ARROW
    back = (x - long * along[0], y - long * along[1])
    side = (half * along[1], -half * along[0])
    return [(x, y), (back[0] + side[0], back[1] + side[1]),
            (back[0] - side[0], back[1] - side[1])]  # fmt: skip
