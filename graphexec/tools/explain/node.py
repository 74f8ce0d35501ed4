"""One node, tensor or output in words: its stream, its waits, its bytes, and their reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphexec.base.diagnostics import Diagnostic, did_you_mean
from graphexec.base.errors import InputError
from graphexec.graph.not_computed import not_computed
from graphexec.ir.program import Gemm
from graphexec.tools.explain.facts import MOST_NAMED, Facts, cut

_LATE = 0.005  # µs: times are printed with two digits


def node_in_words(facts: Facts, name: str) -> Iterator[str]:
    """A node: its rewrites, its commands or those that do its work, its bytes. A tensor: its
    bytes. An output: its tensor."""
    notes = [note for note in facts.notes if name in note.nodes]
    if not _commands(facts, name) and name not in facts.program.tensors and not notes:
        tensor, what = facts.graph.outputs.get(name), f"output '{name}'"
        if tensor is None:
            tensor, what = facts.graph.same.get(name), f"'{name}'"
        if tensor is None:
            raise _unknown(facts, name)
        yield f"{what} is tensor '{tensor}'"
        yield from node_in_words(facts, tensor)
        return
    for note in notes:
        how = "" if note.applied else " did not apply"
        yield f"rewrite {note.rewrite}{how}: {note.text}"
    yield from _instead(facts, name)
    yield from _work(facts, name)


def _unknown(facts: Facts, name: str) -> InputError:
    known = [*facts.program.tensors, *(n for c in facts.commands for n in (c.node, *c.nodes))]
    known += [node for note in facts.notes for node in note.nodes]
    message = f"the plan has no node or tensor '{name}'"
    help = did_you_mean(name, [*known, *facts.graph.outputs])
    return InputError([Diagnostic(message, help=help)])


def _instead(facts: Facts, name: str) -> Iterator[str]:
    """For a node without a command: the explanation of the nodes that do its work."""
    computed = {node for c in facts.commands for node in (c.node, *c.nodes)}
    gone = not_computed(facts.graph, facts.rewritten, computed).get(name)
    if gone is None or gone.how == "left out":
        return
    by = " and ".join(f"'{other}'" for other in gone.by)
    if gone.how == "view":
        yield f"no command computes '{name}': its readers read {by} in place"
        return
    yield f"its work is done by {by}"
    for other in gone.by:
        yield from _work(facts, other)


def _work(facts: Facts, name: str) -> Iterator[str]:
    for index in _commands(facts, name):
        yield from _command(facts, index)
    if name in facts.program.tensors:
        yield from _bytes(facts, name)


def _commands(facts: Facts, name: str) -> list[int]:
    return [i for i, c in enumerate(facts.commands) if name in c.members]


def _command(facts: Facts, index: int) -> Iterator[str]:
    start, end = facts.timeline.start[index], facts.timeline.end[index]
    label, work = facts.commands[index].label, facts.commands[index].work
    yield f"{facts.name(index)}: {label}, predicted from {start:.2f} to {end:.2f} µs"
    yield f"  stream: {_why_stream(facts, index)}"
    yield f"  starts {_when(facts, index)}"
    if isinstance(work, Gemm) and work.bias is not None:
        then = f", then {work.activation}," if work.activation else ""
        added = _added(facts, index)
        yield f"  adds {added}{then} in its epilogue, which takes no command of its own"
    for need in facts.schedule.predecessors[index]:
        yield f"  after {facts.name(need)}: {facts.why(need, index)}; {_how(facts, need, index)}"
    if not facts.schedule.predecessors[index]:
        yield "  after nothing: it depends on no other command"


def _added(facts: Facts, index: int) -> str:
    """The addends of a GEMM: its operands after a and b, for each of its nodes, the bias last."""
    command = facts.commands[index]
    each = len(command.reads) // max(1, len(command.nodes))
    *c, biases = (
        [*dict.fromkeys(view.storage for view in command.reads[place::each])]
        for place in range(2, each)
    )
    bias = f"{'the biases' if len(biases) > 1 else 'bias'} {', '.join(cut(biases))}"
    return "".join(f"c {', '.join(cut(names))} and " for names in c) + bias


def _why_stream(facts: Facts, index: int) -> str:
    own = facts.schedule.stream[index]
    previous = facts.before_on_stream.get(index)
    if previous is None:
        return f"the first command of stream {own}"
    if previous in facts.schedule.predecessors[index]:
        return f"follows {facts.name(previous)}, which it depends on: no event is needed"
    return f"stream {own} is free after {facts.name(previous)}, on which it does not depend"


def _when(facts: Facts, index: int) -> str:
    """What determines the predicted start of a command."""
    held = facts.held_up_by[index]
    own, event = facts.schedule.stream[index], facts.prediction.tasks.event
    start = facts.timeline.start[index]
    if held is not None:
        text = f"when {facts.name(held)} has ended ({facts.timeline.end[held]:.2f} µs)"
        waited = facts.schedule.stream[held] != own
        text += f" and its event has arrived ({event:g} µs later)" if waited else ""
        late = start - facts.timeline.end[held] - (event if waited else 0.0)
        return text + (
            f"; streams begin one after another ({start:.2f} µs)" if late > _LATE else ""
        )
    if start > 0:
        return f"when stream {own} has forked from the first ({start:g} µs)"
    return "when the run does"


def _how(facts: Facts, first: int, second: int) -> str:
    """The wait or the stream order that keeps a dependency."""
    stream, waits = facts.schedule.stream, facts.waits[second]
    if stream[first] == stream[second]:
        return f"kept by the order of stream {stream[first]}"
    if first in waits:
        return "kept by a wait"
    clocks, position = facts.synchronized.before, facts.synchronized.position
    for other in waits:
        if clocks[other][stream[first]] > position[first] or (
            stream[other] == stream[first] and position[other] > position[first]
        ):
            return f"needs no wait: it waits for {facts.name(other)}, which comes later"
    return f"needs no wait: what precedes it on stream {stream[second]} comes after that"


def _bytes(facts: Facts, name: str) -> Iterator[str]:
    storage = facts.program.tensors[name].storage
    buffer, low = facts.allocation.places[storage]
    high = low + facts.program.storages[storage].nbytes
    yield f"tensor {name}: bytes {low} to {high} of {buffer}"
    sharing = [
        other for other, (where, at) in facts.allocation.places.items()
        if other != storage and where == buffer and at < high
        and low < at + facts.program.storages[other].nbytes
    ]  # fmt: skip
    for other in sharing[:MOST_NAMED]:
        yield f"  shared with {other}: {_why_safe(facts, storage, other)}"
    if not sharing:
        yield "  shared with no other tensor"


def _why_safe(facts: Facts, one: str, other: str) -> str:
    ours, theirs = _users(facts, one), _users(facts, other)
    both = set(ours) & set(theirs)
    if both:
        return f"{facts.name(min(both))} writes one over the other in place"
    first, last = (ours, theirs) if _all_before(facts, ours, theirs) else (theirs, ours)
    name = one if first is ours else other
    return (
        f"safe because all accesses of {name} (the last is {facts.name(first[-1])}) happen "
        f"before {facts.name(last[0])}"
    )


def _users(facts: Facts, storage: str) -> list[int]:
    commands = facts.commands
    return [
        c for c in facts.schedule.order
        if any(v.storage == storage for v in (*commands[c].reads, *commands[c].writes))
    ]  # fmt: skip


def _all_before(facts: Facts, first: Sequence[int], second: Sequence[int]) -> bool:
    before, position = facts.synchronized.before, facts.synchronized.position
    stream = facts.schedule.stream
    return all(before[second[0]][stream[c]] > position[c] for c in first)
