"""The views graph and memory as text and as data, for terminals, searches and scripts."""

from __future__ import annotations

from typing import Any

from graphexec.base.printable import printable
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.figures import figures
from graphexec.ir.plan import Plan
from graphexec.views.lifetimes import Tenant, tenants, usage
from graphexec.views.outline import Outline
from graphexec.views.predict import predict
from graphexec.views.repetitions import fold
from graphexec.views.table import count, size, table


def graph_to_text(outline: Outline) -> str:
    """A row for each node, in topological order: op, result, operands. Blocks are told once; what a
    repetition reads of the one before stands after `↺`."""
    shown, carried = fold(outline)
    reads: dict[int, list[str]] = {}
    for arrow in (*shown.arrows, *carried):
        name = shown.boxes[arrow.source].name.partition(" ×")[0]
        name = f"↺ {name}" if arrow.source >= arrow.target else name
        reads.setdefault(arrow.target, []).append(f"({name})" if arrow.order_only else name)
    rows = [
        (box.name, box.op, box.type, ", ".join(reads.get(n, ())), str(box.line or ""))
        for n, box in enumerate(shown.boxes)
    ]
    nodes = sum(box.kind == "op" for box in outline.boxes)
    head = ("name", "op", "tensor", "reads", "line")
    return f"{printable(outline.graph)}: {count(nodes, 'node')}\n\n{table(head, rows, '<<<<>')}\n"


def memory_to_text(plan: Plan, known: Prediction | None = None) -> str:
    """A row for each tensor, by address; rows with the same bytes share them in turn."""
    found = memory_to_dict(plan, known)
    rows = [
        (t["buffer"], f"{t['offset']:,}", f"{t['offset'] + t['bytes']:,}", size(t["bytes"]),
         t["name"], t["writer"], t["last_user"])
        for t in sorted(found["tensors"], key=lambda t: (t["buffer"], t["offset"], t["begin_us"]))
    ]  # fmt: skip
    head = ("buffer", "from byte", "to", "size", "tensor", "written by", "needed until")
    facts = [f"arena {size(found['arena_bytes'])}", f"peak {size(found['peak_bytes'])}"]
    stats = figures(plan)
    if stats.arena_lower_bound is not None:
        facts.append(f"lower bound {size(stats.arena_lower_bound)}")
    if stats.naive_bytes is not None:
        facts.append(f"{size(stats.naive_bytes)} without sharing")
    title = f"memory of {printable(plan.graph)}: {', '.join(facts)}"
    return f"{title}\n\n{table(head, rows, '<>>><<<')}\n"


def memory_to_dict(plan: Plan, known: Prediction | None = None) -> dict[str, Any]:
    """The tensors of the arenas with their bytes and lifetimes (microseconds of the predicted
    run), and the peak of bytes in use. `known` is the planner's prediction."""
    launches = [*plan.launches.values()]
    times, all = predict(plan, known), tenants(plan)

    def row(t: Tenant) -> dict[str, Any]:
        last = max(t.users, key=lambda n: times.end[n])
        return {
            "name": t.name, "buffer": t.range.buffer, "offset": t.range.low, "bytes": t.bytes,
            "writer": launches[t.users[0]].node, "last_user": launches[last].node,
            "begin_us": round(t.begin(times), 3), "end_us": round(t.end(times), 3),
        }  # fmt: skip

    return {
        "graph": plan.graph,
        "arena_bytes": sum(b.bytes for b in plan.buffers if b.role == "arena"),
        "peak_bytes": max((used for _, used in usage(all, times)), default=0),
        "tensors": [row(t) for t in all],
    }
