"""Elements of SVG as text, and the style sheet of every picture.

Colours are classes, so that a picture follows the reader's dark or light setting, and a page can
bring a style sheet of its own. Elements of a launch carry its number in `data-l`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape as _escape
from xml.sax.saxutils import quoteattr

from graphexec.base.printable import escaped, printable
from graphexec.views.table import fit

FILLS = ("#9AD0F2", "#F7C873", "#8AD3BA", "#E9BCD7", "#F6EE93", "#B9A8E8", "#EE9878", "#BFD47C",
         "#C9A98C")  # fmt: skip
"""Okabe and Ito's colours, distinct for colour-blind readers, lightened for dark text, and more."""
OTHER = "#FFFFFF"
"""The colour of every op for which there is no colour left."""
RAMP = ("#FFF7D6", "#FEE391", "#FEC44F", "#FE9929", "#EC7014", "#D95F0E")
"""From cheap to expensive, also distinct by lightness alone."""
TRANSFER = "#D5D5D5"
MIXED = "#F4F4F4"
"""The colour of a box whose launches have different colours."""

WEIGHT = "#EBE7DC"
_COLORS = {
    **{f"f{n}": color for n, color in enumerate(FILLS)},
    **{f"c{n}": color for n, color in enumerate(RAMP)},
    "ot": OTHER, "tr": TRANSFER, "mx": MIXED, "wt": WEIGHT,
}  # fmt: skip
_BOXES = "\n".join(f".{cls}{{fill:{color}}}" for cls, color in _COLORS.items())
SHAPES = f"""\
text{{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;font-size:11px}}
.ti{{font-size:15px;font-weight:bold}}.in{{fill:#1B1B1B}}.sm{{font-size:9.5px}}.b{{font-weight:bold}}
.m{{text-anchor:middle}}.e{{text-anchor:end}}
.bx{{stroke:#3F3F3F;stroke-width:1}}.tr{{stroke-dasharray:3 2}}
.kn{{stroke-width:2.6}}.ra{{stroke:#D0021B;stroke-width:3}}
.w,.d,.l,.pr{{fill:none;stroke-width:1.4}}.fk{{stroke-dasharray:3 3;stroke-width:1}}
.cw{{stroke-width:2.6}}.rx{{fill:none;stroke:#D0021B;stroke-width:2;stroke-dasharray:6 3}}
.rt{{fill:#D0021B;font-weight:bold}}.lb{{stroke-width:3;stroke-linejoin:round}}
{_BOXES}"""
"""Rules for both dark and light backgrounds."""
LIGHT = """\
.bg{fill:#FFFFFF}.lb{stroke:#FFFFFF}.tx{fill:#1B1B1B}.so{fill:#555555}.la{fill:#F4F4F4}
.w,.d{stroke:#333333}.l{stroke:#C9C9C9}.fk{stroke:#8A8A8A}.ah{fill:#333333}.kn{stroke:#000000}
.pr{fill:#BFD9EA;stroke:#1F78A8}.pk{stroke:#A14400;fill:none;stroke-width:1.5}.pt{fill:#A14400}.ra{stroke:#D0021B}"""
DARK = """\
.bg{fill:#16181B}.lb{stroke:#16181B}.tx{fill:#ECECEC}.so{fill:#AEB4BA}.la{fill:#22262B}
.w,.d{stroke:#C9CED3}.l{stroke:#4A5058}.fk{stroke:#868D95}.ah{fill:#C9CED3}.kn{stroke:#FFFFFF}
.pr{fill:#24485E;stroke:#9AD0F2}.pk{stroke:#F2AE85;fill:none;stroke-width:1.5}.pt{fill:#F2AE85}
.rt{fill:#FF6B75}.ra,.rx{stroke:#FF4D5A}"""

ARROW = (
    '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'markerUnits="userSpaceOnUse" orient="auto"><path class="ah" d="M0 0L8 4L0 8z"/>'
    "</marker></defs>"
)


def picture(width: float, height: float, body: Iterable[str], *, inline: bool = False) -> str:
    """A whole SVG; `inline` leaves the style sheet to the page around it."""
    size = f'width="{number(width)}" height="{number(height)}"'
    box = f'viewBox="0 0 {number(width)} {number(height)}"'
    style = f"<style>{SHAPES}\n{LIGHT}\n@media (prefers-color-scheme:dark){{{DARK}}}</style>"
    head = "" if inline else f'{style}\n<rect class="bg" width="100%" height="100%"/>\n'
    lines = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img">\n'
        f"{ARROW}\n{head}{lines}\n</svg>\n"
    )


def fill(cls: str) -> str:
    """The colour of a class of boxes."""
    return _COLORS[cls]


def op_classes(ops: Iterable[str]) -> dict[str, str]:
    """A class of boxes for each op, in the order of their first use; no two ops look alike, until
    the colours are used up: then the rest is `ot`."""
    names = enumerate(dict.fromkeys(ops))
    return {op: f"f{n}" if n < len(FILLS) else "ot" for n, op in names}


def legend_of(classes: Mapping[str, str]) -> list[tuple[str, str]]:
    """The classes of ops and their names."""
    told = [(cls, fit(printable(op), 18)) for op, cls in classes.items() if cls != "ot"]
    return told + ([("ot", "other ops")] if "ot" in classes.values() else [])


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def attributes(names: Mapping[str, object]) -> str:
    """Attributes with a blank in front; None leaves one out."""
    return "".join(
        f" {key}={quoteattr(number(value) if isinstance(value, float) else escaped(str(value)))}"
        for key, value in names.items()
        if value is not None
    )


def escape(text: str) -> str:
    """Text inside an element."""
    return _escape(printable(text))


def rect(
    x: float, y: float, width: float, height: float, cls: str, round: float = 0.0, **more: object
) -> str:
    """A rectangle."""
    places = {"x": float(x), "y": float(y), "width": float(width), "height": float(height)}
    corner = {"rx": float(round)} if round else {}
    return f"<rect{attributes({'class': cls, **places, **corner, **_data(more)})}/>"


def text(x: float, y: float, content: str, cls: str = "tx") -> str:
    """One line of text that begins at x and stands on y."""
    # An attribute, not a rule: resvg reads it from nowhere else.
    halo = ' paint-order="stroke"' if cls.endswith("lb") else ""
    return f'<text class="{cls}"{halo} x="{number(x)}" y="{number(y)}">{escape(content)}</text>'


def title(content: str, facts: Iterable[str]) -> list[str]:
    """The first line of a picture: what it is, and figures in small print."""
    after = 30 + 9.3 * len(printable(content))
    return [text(14, 24, content, "tx ti"), text(after, 24, " · ".join(facts), "so")]


def path(d: str, cls: str, arrow: bool = False, title: str = "", **more: object) -> str:
    """A line."""
    head = {"marker-end": "url(#a)"} if arrow else {}
    told = f"<title>{escape(title)}</title>" if title else ""
    return f"<path{attributes({'class': cls, 'd': d, **head, **_data(more)})}>{told}</path>"


def group(body: Iterable[str], title: str = "", **more: object) -> str:
    """A group of elements; `title` is shown by the pointer."""
    told = f"<title>{escape(title)}</title>" if title else ""
    return f"<g{attributes(_data(more))}>{told}{''.join(body)}</g>"


def fitted(content: str, width: float, letter: float = 7.3) -> str:
    """`content` cut to about `width` pixels, of letters that wide: bold ones of DejaVu Sans, the
    widest of the fonts."""
    return fit(printable(content), int(width / letter))


def _data(names: Mapping[str, object]) -> dict[str, object]:
    return {f"data-{key}": value for key, value in names.items()}
