"""The graph as Graphviz DOT: ops, shapes and dtypes; tensors on the edges."""

from __future__ import annotations

from graphexec.views.collapse import collapsed
from graphexec.views.dot_look import HEAD
from graphexec.views.dot_syntax import edge, html, label, node, quoted
from graphexec.views.outline import Outline
from graphexec.views.svg import MIXED, TRANSFER, WEIGHT, fill, op_classes

_SHAPES = {
    "input": {"shape": "cylinder", "style": "filled", "fillcolor": TRANSFER},
    "output": {"shape": "cylinder", "style": "filled", "fillcolor": TRANSFER},
    "weight": {"shape": "folder", "style": "filled", "fillcolor": WEIGHT},
    "state": {"shape": "folder", "style": "filled", "fillcolor": WEIGHT},
    "many": {"peripheries": "2", "fillcolor": MIXED},
}


def to_dot(outline: Outline, most: int) -> str:
    """The outline as a DOT digraph with at most about `most` nodes. Ends with a newline."""
    shown = collapsed(outline, most)
    classes = op_classes(box.op for box in outline.boxes if box.kind == "op")
    fills = {op: fill(cls) for op, cls in classes.items()}
    lines = [
        f"digraph {quoted(outline.graph)} {{",
        HEAD,
        f"  label=<<b>{html(outline.graph)}</b>>;",
    ]
    for n, box in enumerate(shown.boxes):
        look = _SHAPES.get(box.kind) or {"fillcolor": fills[box.op]}
        if len(box.ops) == 1:  # several alike
            look = look | {"fillcolor": fills[box.ops[0][0]]}
        line = f", line {box.line}" if box.line is not None else ""
        tip = {"tooltip": f"{box.name}: {box.op} {box.type}{line}"}
        below = f"{box.op} {'' if box.ops else '· '}{box.type}"
        lines.append(node(f"n{n}", label(box.name, below), look | tip))
    for arrow in shown.arrows:
        look = {"label": f" {arrow.label} "} if arrow.label else {}
        look |= {"style": "dashed"} if arrow.order_only else {}
        lines.append(edge(f"n{arrow.source}", f"n{arrow.target}", look))
    return "\n".join([*lines, "}", ""])
