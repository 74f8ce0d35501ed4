"""A plan in words: the reasons of streams, waits, shared bytes and the predicted time.

Requires the data of the pipeline (Compiled): dependencies, the simulated timeline, vector clocks,
places. Every statement follows from these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphexec.tools.explain.facts import Facts
from graphexec.tools.explain.node import node_in_words
from graphexec.tools.explain.whole import plan_in_words, whole

if TYPE_CHECKING:
    from graphexec.planning.pipeline import Compiled


def explain(compiled: Compiled, node: str | None = None, more: Compiled | None = None) -> str:
    """The plan, or one node or tensor of it, in words.

    `more` is the same graph planned with one stream more, to report its gain. InputError if the
    plan has no such node.
    """
    facts = Facts(compiled)
    lines = plan_in_words(facts, more) if node is None else node_in_words(facts, node)
    return "\n".join(lines)


def explain_as_dict(
    compiled: Compiled, node: str | None = None, more: Compiled | None = None
) -> dict[str, object]:
    """The same as a document for JSON; times are in microseconds. Of a node the sentences."""
    facts = Facts(compiled)
    if node is None:
        return whole(facts, more)
    return {"graph": facts.program.graph, "node": node, "lines": [*node_in_words(facts, node)]}
