"""The plan as a whole in words: rewrites, time, waits, memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphexec.base.units import shown
from graphexec.planning.keep_in_place import REWRITE as keep_in_place
from graphexec.planning.scheduling import ONE_STREAM
from graphexec.tools.explain.facts import MOST_NAMED, Facts, cut
from graphexec.views.table import count, size

if TYPE_CHECKING:
    from graphexec.planning.pipeline import Compiled


def plan_in_words(facts: Facts, more: Compiled | None) -> Iterator[str]:
    """The plan as a whole."""
    streams = count(facts.schedule.streams, "stream")
    yield f"{facts.program.graph}: {count(len(facts.commands), 'command')} on {streams}"
    yield ""
    yield from _rewrites(facts)
    yield from _states(facts)
    yield from _time(facts, more)
    yield ""
    yield from _all_waits(facts)
    yield ""
    yield from _memory(facts)


def _rewrites(facts: Facts) -> Iterator[str]:
    done = [note for note in facts.notes if note.applied]
    if not done:
        return
    yield "Rewrites:"
    for note in done[:MOST_NAMED]:
        yield f"  {note.rewrite}: {note.text}."
    if len(done) > MOST_NAMED:
        yield f"  … and {len(done) - MOST_NAMED} more; `explain FILE NODE` shows a node's."
    yield ""


def _states(facts: Facts) -> Iterator[str]:
    """Where the next value of each state is computed, and why."""
    states = facts.program.states
    if not states:
        return
    why = {note.nodes[-1]: note for note in facts.notes if note.rewrite == keep_in_place.name}
    yield "States:"
    for name in [*states][:MOST_NAMED]:
        kept = states[name]
        if kept.end == name:
            text = f"'{name}' keeps its value"
        elif name in why:
            text = why[name].text
        else:
            text = f"'{kept.next}' is copied to where state '{name}' lies"
        yield f"  {name} ({size(facts.program.storages[kept.home.storage].nbytes)}): {text}."
    if len(states) > MOST_NAMED:
        yield f"  … and {len(states) - MOST_NAMED} more; `explain FILE NAME` shows one."
    yield ""


def _time(facts: Facts, more: Compiled | None) -> Iterator[str]:
    # Launching the plan comes first and is not what a schedule can change.
    low, makespan = facts.prediction.bounds, facts.timeline.makespan
    ratio = makespan / low.best if low.best else 1.0
    yield (
        f"Time: predicted {shown(makespan, 4)} by the {facts.prediction.costs}, "
        f"{ratio:.2f} × the lower bound of {shown(low.best, 4)} ({facts.prediction.candidate})."
    )
    yield f"  critical path       {low.critical_path:10.2f} µs  the longest chain, no events"
    yield f"  capacity            {low.capacity:10.2f} µs  all the work at full speed"
    yield f"  copies              {low.copies:10.2f} µs  the busier direction"
    yield f"  streams             {low.streams:10.2f} µs  what the streams get through in turn"
    if low.combined > max(low.plain, low.streams):
        yield f"  together            {low.combined:10.2f} µs  what must come before and after"
    yield f"  It is bounded most by {low.reason}."
    path = [facts.title(c) for c in _holding_up(facts)]
    yield f"  What holds it up: {' → '.join(cut(path))}."
    if facts.measured:
        each = sorted((time, name) for name, time in facts.measured.items())
        yield f"  Measured: {', '.join(f'{shown(time, 4)} ({name})' for time, name in each)}."
    alone, here = _one_stream(facts)
    yield f"  One stream would take {shown(alone, 4)} ({alone / here:.2f} × as long)."
    if more is not None:
        yield _further(facts, more)


def _one_stream(facts: Facts) -> tuple[float, float]:
    """Microseconds on one stream, and of this plan: measured if both were."""
    one, here = (facts.measured.get(name) for name in (ONE_STREAM, facts.prediction.candidate))
    if one is not None and here is not None:
        return one, here
    return facts.prediction.one_stream, facts.timeline.makespan


def _further(facts: Facts, more: Compiled) -> str:
    found = more.synchronized.schedule
    assert found.prediction is not None
    now, then = facts.timeline.makespan, found.prediction.timeline.makespan
    if found.streams <= facts.schedule.streams or then >= now * 0.9995:
        return "  A further stream would bring nothing."
    return f"  A further stream would take {1 - then / now:.1%} less ({shown(then, 4)})."


def _holding_up(facts: Facts) -> list[int]:
    """The critical path, from the first command to the last to end."""
    return [facts.schedule.order[launch] for launch in sorted(facts.times.critical())]


def _all_waits(facts: Facts) -> Iterator[str]:
    waits = sum(map(len, facts.waits.values()))
    edges = facts.synchronized.cross_stream_edges
    yield (
        f"Waits: {waits} for {edges} dependencies between streams; no set of fewer waits keeps "
        "them in this order."
    )
    shown = [(c, needed) for c in facts.schedule.order for needed in facts.waits[c]]
    for command, needed in shown[:MOST_NAMED]:
        why = facts.why(needed, command)
        yield f"  {facts.name(command)} waits for {facts.name(needed)}: {why}."
    if len(shown) > MOST_NAMED:
        yield f"  … and {len(shown) - MOST_NAMED} more; `explain FILE NODE` shows a node's."


def _memory(facts: Facts) -> Iterator[str]:
    found = facts.allocation
    ratio = found.arena_bytes / found.lower_bound if found.lower_bound else 1.0
    yield (
        f"Memory: arena {size(found.arena_bytes)}, {ratio:.2f} × the lower bound of "
        f"{size(found.lower_bound)} that must be there at once; "
        f"{size(found.naive_bytes)} without reuse."
    )


def whole(facts: Facts, more: Compiled | None) -> dict[str, object]:
    """The same as a document for JSON."""
    low, places = facts.prediction.bounds, facts.allocation
    then = None if more is None else more.synchronized.schedule.prediction
    return {
        "graph": facts.program.graph,
        "commands": len(facts.commands),
        "streams": facts.schedule.streams,
        "rewrites": [{"name": n.rewrite, "text": n.text} for n in facts.notes if n.applied],
        "time": {
            "predicted": facts.timeline.makespan,
            "costs": facts.prediction.costs,
            "schedule": facts.prediction.candidate,
            "bounds": {"best": low.best, "critical_path": low.critical_path,
                       "capacity": low.capacity, "copies": low.copies, "streams": low.streams,
                       "together": low.combined, "reason": low.reason},
            "held_up_by": [facts.title(c) for c in _holding_up(facts)],
            "one_stream": _one_stream(facts)[0],
            "measured": dict(facts.measured),
            "one_more_stream": None if then is None else then.timeline.makespan,
        },
        "waits": [{"command": facts.name(c), "for": facts.name(other), "why": facts.why(other, c)}
                  for c in facts.schedule.order for other in facts.waits[c]],
        "memory": {"arena_bytes": places.arena_bytes, "lower_bound": places.lower_bound,
                   "naive_bytes": places.naive_bytes},
    }  # fmt: skip
