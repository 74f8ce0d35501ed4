"""A plan in words: why this stream, why this wait, who shared these bytes, what bounds the time.

Requires what the pipeline knew when it made the plan (Compiled): dependencies, the simulated
timeline, vector clocks, places. Guarantees to say nothing that does not follow from these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graphexec.command import Command, Gemm
from graphexec.diagnostics import Diagnostic, did_you_mean
from graphexec.errors import InputError
from graphexec.not_computed import not_computed
from graphexec.plan import Record, Wait, title
from graphexec.scheduled import Prediction
from graphexec.views.predict import simulate
from graphexec.views.table import count, size

if TYPE_CHECKING:
    from graphexec.pipeline import Compiled

_MOST_NAMED = 12
_MOST_HAZARDS = 4


def explain(compiled: Compiled, node: str | None = None, more: Compiled | None = None) -> str:
    """The plan, or one node or tensor of it, in words.

    `more` is the same graph planned with one stream more, for what that would bring. InputError
    when the plan has no such node.
    """
    story = _Story(compiled)
    lines = story.whole(more) if node is None else story.node(node)
    return "\n".join(lines)


class _Story:
    def __init__(self, compiled: Compiled) -> None:
        self.synchronized, self.allocation = compiled.synchronized, compiled.allocation
        self.schedule = compiled.synchronized.schedule
        self.graph, self.rewritten = compiled.graph, compiled.rewritten
        self.program, self.plan = compiled.program, compiled.plan
        self.notes = compiled.notes
        self.commands = self.program.commands
        prediction = self.schedule.prediction
        assert prediction is not None, "plans of the pipeline are predicted"
        self.prediction: Prediction = prediction
        self.timeline = prediction.timeline
        self.per_node = Counter(command.node for command in self.commands)
        self.before_on_stream = self._before_on_stream()
        self.waits = self._waits()
        # What is due to what is read off the plan, as its pictures do it.
        self.times = simulate(
            self.plan, (), prediction.tasks.event, [*self.plan.predicted.values()]
        )
        self.held_up_by = self._held_up_by()

    def _before_on_stream(self) -> dict[int, int]:
        """The command directly before each command on its stream."""
        last: dict[int, int] = {}
        found = {}
        for command in self.schedule.order:
            own = self.schedule.stream[command]
            if own in last:
                found[command] = last[own]
            last[own] = command
        return found

    def _waits(self) -> dict[int, list[int]]:
        """For each command the commands that the dependency waits before it are for."""
        last: dict[int, int] = {}
        recorded: dict[int, int] = {}
        pending: dict[int, list[int]] = {}
        found: dict[int, list[int]] = {}
        for step in self.synchronized.steps:
            if isinstance(step, int):
                own = self.schedule.stream[step]
                last[own] = step
                found[step] = pending.pop(own, [])
            elif isinstance(step, Record) and step.stream in last:
                recorded[step.event] = last[step.stream]
            elif isinstance(step, Wait) and step.role == "dependency":
                pending.setdefault(step.stream, []).append(recorded[step.event])
        return found

    def _held_up_by(self) -> dict[int, int | None]:
        """For each command the one whose end, or the event after it, its start is due to."""
        order = self.schedule.order
        causes = (None if launch is None else order[launch] for launch in self.times.after)
        return dict(zip(order, causes, strict=True))

    # The whole plan -------------------------------------------------------------------------

    def whole(self, more: Compiled | None) -> Iterator[str]:
        """The plan as a whole."""
        streams = count(self.schedule.streams, "stream")
        yield f"{self.program.graph}: {count(len(self.commands), 'command')} on {streams}"
        yield ""
        yield from self._rewrites()
        yield from self._time(more)
        yield ""
        yield from self._all_waits()
        yield ""
        yield from self._memory()

    def _rewrites(self) -> Iterator[str]:
        done = [note for note in self.notes if note.applied]
        if not done:
            return
        yield "Rewrites:"
        for note in done[:_MOST_NAMED]:
            yield f"  {note.rewrite}: {note.text}."
        if len(done) > _MOST_NAMED:
            yield f"  … and {len(done) - _MOST_NAMED} more; `explain FILE NODE` shows a node's."
        yield ""

    def _time(self, more: Compiled | None) -> Iterator[str]:
        # Launching the plan comes first and is not what a schedule can change.
        low, makespan = self.prediction.bounds, self.timeline.makespan
        ratio = makespan / low.best if low.best else 1.0
        yield (
            f"Time: predicted {makespan:.4g} µs by the {self.prediction.costs}, "
            f"{ratio:.2f} × the lower bound of {low.best:.4g} µs ({self.prediction.candidate})."
        )
        yield f"  critical path       {low.critical_path:10.2f} µs  the longest chain, no events"
        yield f"  capacity            {low.capacity:10.2f} µs  all the work at full speed"
        yield f"  copies              {low.copies:10.2f} µs  the busier direction"
        yield f"  streams             {low.streams:10.2f} µs  what the streams get through in turn"
        if low.combined > max(low.plain, low.streams):
            yield f"  together            {low.combined:10.2f} µs  what must come before and after"
        yield f"  It is bounded most by {low.reason}."
        path = [self._title(c) for c in self._holding_up()]
        yield f"  What holds it up: {' → '.join(_cut(path))}."
        tasks = self.prediction.tasks
        alone = sum(tasks.time) + tasks.launch * len(tasks)
        yield f"  One stream would take {alone:.4g} µs ({alone / makespan:.2f} × as long)."
        if more is not None:
            yield self._further(more)

    def _further(self, more: Compiled) -> str:
        found = more.synchronized.schedule
        assert found.prediction is not None
        now, then = self.timeline.makespan, found.prediction.timeline.makespan
        if found.streams <= self.schedule.streams or then >= now * 0.9995:
            return "  A further stream would bring nothing."
        return f"  A further stream would take {1 - then / now:.1%} less ({then:.4g} µs)."

    def _holding_up(self) -> list[int]:
        """The critical path, from the first command to the last to end."""
        return [self.schedule.order[launch] for launch in sorted(self.times.critical())]

    def _when(self, index: int) -> str:
        """What determines the predicted start of a command."""
        held = self.held_up_by[index]
        own, event = self.schedule.stream[index], self.prediction.tasks.event
        if held is not None:
            text = f"when {self._name(held)} has ended ({self.timeline.end[held]:.2f} µs)"
            waited = self.schedule.stream[held] != own
            return text + (f" and its event has arrived ({event:g} µs later)" if waited else "")
        if self.timeline.start[index] > 0:
            return f"when stream {own} has forked from the first (an event, {event:g} µs)"
        return "when the run does"

    def _all_waits(self) -> Iterator[str]:
        waits = sum(map(len, self.waits.values()))
        edges = self.synchronized.cross_stream_edges
        yield (
            f"Waits: {waits} for {edges} dependencies between streams; no set of fewer waits keeps "
            "them in this order."
        )
        shown = [(c, needed) for c in self.schedule.order for needed in self.waits[c]]
        for command, needed in shown[:_MOST_NAMED]:
            why = self._why(needed, command)
            yield f"  {self._name(command)} waits for {self._name(needed)}: {why}."
        if len(shown) > _MOST_NAMED:
            yield f"  … and {len(shown) - _MOST_NAMED} more; `explain FILE NODE` shows a node's."

    def _memory(self) -> Iterator[str]:
        found = self.allocation
        ratio = found.arena_bytes / found.lower_bound if found.lower_bound else 1.0
        yield (
            f"Memory: arena {size(found.arena_bytes)}, {ratio:.2f} × the lower bound of "
            f"{size(found.lower_bound)} that must be there at once; "
            f"{size(found.naive_bytes)} without reuse."
        )

    # One node -------------------------------------------------------------------------------

    def node(self, name: str) -> Iterator[str]:
        """What became of a node: its rewrites, its commands or those that do its work now, its
        bytes; or a tensor's bytes; or those of the tensor that an output is."""
        notes = [note for note in self.notes if name in note.nodes]
        if not self._commands(name) and name not in self.program.tensors and not notes:
            tensor = self.graph.outputs.get(name)
            if tensor is None:
                raise self._unknown(name)
            yield f"output '{name}' is tensor '{tensor}'"
            yield from self.node(tensor)
            return
        for note in notes:
            how = "" if note.applied else " did not apply"
            yield f"rewrite {note.rewrite}{how}: {note.text}"
        yield from self._instead(name)
        yield from self._work(name)

    def _unknown(self, name: str) -> InputError:
        known = [*self.program.tensors, *(n for c in self.commands for n in (c.node, *c.nodes))]
        known += [node for note in self.notes for node in note.nodes]
        message = f"the plan has no node or tensor '{name}'"
        help = did_you_mean(name, [*known, *self.graph.outputs])
        return InputError([Diagnostic(message, help=help)])

    def _instead(self, name: str) -> Iterator[str]:
        """Of a node without a command: where its work is done, as told of any node."""
        computed = {node for c in self.commands for node in (c.node, *c.nodes)}
        gone = not_computed(self.graph, self.rewritten, computed).get(name)
        if gone is None or gone.how == "left out":
            return
        by = " and ".join(f"'{other}'" for other in gone.by)
        if gone.how == "view":
            yield f"no command computes '{name}': its readers read {by} in place"
            return
        yield f"its work is done by {by}"
        for other in gone.by:
            yield from self._work(other)

    def _work(self, name: str) -> Iterator[str]:
        for index in self._commands(name):
            yield from self._command(index)
        if name in self.program.tensors:
            yield from self._bytes(name)

    def _commands(self, name: str) -> list[int]:
        return [i for i, c in enumerate(self.commands) if name in (c.nodes or (c.node,))]

    def _command(self, index: int) -> Iterator[str]:
        start, end = self.timeline.start[index], self.timeline.end[index]
        label, work = self.commands[index].label, self.commands[index].work
        yield f"{self._name(index)}: {label}, predicted from {start:.2f} to {end:.2f} µs"
        yield f"  stream: {self._why_stream(index)}"
        yield f"  starts {self._when(index)}"
        if isinstance(work, Gemm) and work.bias is not None:
            yield f"  adds {self._biases(index)} in its epilogue, which takes no command of its own"
        for need in self.schedule.predecessors[index]:
            yield f"  after {self._name(need)}: {self._why(need, index)}; {self._how(need, index)}"
        if not self.schedule.predecessors[index]:
            yield "  after nothing: it depends on no other command"

    def _biases(self, index: int) -> str:
        """The biases that a GEMM adds: what it reads last, for each of its nodes."""
        command = self.commands[index]
        each = len(command.reads) // max(1, len(command.nodes))
        names = dict.fromkeys(view.storage for view in command.reads[each - 1 :: each])
        return f"{'the biases' if len(names) > 1 else 'bias'} {', '.join(_cut([*names]))}"

    def _why_stream(self, index: int) -> str:
        own = self.schedule.stream[index]
        previous = self.before_on_stream.get(index)
        if previous is None:
            return f"the first command of stream {own}"
        if previous in self.schedule.predecessors[index]:
            return f"follows {self._name(previous)}, which it depends on: no event is needed"
        return f"stream {own} is free after {self._name(previous)}, on which it does not depend"

    def _why(self, first: int, second: int) -> str:
        """Which hazards a dependency is for."""
        found = list(_hazards(self.commands[first], self.commands[second]))
        if first in self.commands[second].after:
            found.append("the graph says `after`")
        if len(found) > _MOST_HAZARDS:
            found[_MOST_HAZARDS:] = [f"and {len(found) - _MOST_HAZARDS} more"]
        return ", ".join(found) or "it stands for a dependency of what it follows"

    def _how(self, first: int, second: int) -> str:
        """What keeps a dependency."""
        stream, waits = self.schedule.stream, self.waits[second]
        if stream[first] == stream[second]:
            return f"kept by the order of stream {stream[first]}"
        if first in waits:
            return "kept by a wait"
        clocks, position = self.synchronized.before, self.synchronized.position
        for other in waits:
            if clocks[other][stream[first]] > position[first] or (
                stream[other] == stream[first] and position[other] > position[first]
            ):
                return f"needs no wait: it waits for {self._name(other)}, which comes later"
        return f"needs no wait: what precedes it on stream {stream[second]} comes after that"

    def _bytes(self, name: str) -> Iterator[str]:
        storage = self.program.tensors[name].storage
        buffer, low = self.allocation.places[storage]
        high = low + self.program.storages[storage].nbytes
        yield f"tensor {name}: bytes {low} to {high} of {buffer}"
        sharing = [
            other for other, (where, at) in self.allocation.places.items()
            if other != storage and where == buffer and at < high
            and low < at + self.program.storages[other].nbytes
        ]  # fmt: skip
        for other in sharing[:_MOST_NAMED]:
            yield f"  shared with {other}: {self._why_safe(storage, other)}"
        if not sharing:
            yield "  shared with no other tensor"

    def _why_safe(self, one: str, other: str) -> str:
        ours, theirs = self._users(one), self._users(other)
        both = set(ours) & set(theirs)
        if both:
            return f"{self._name(min(both))} writes one over the other in place"
        first, last = (ours, theirs) if self._all_before(ours, theirs) else (theirs, ours)
        name = one if first is ours else other
        return (
            f"safe because all accesses of {name} (the last is {self._name(first[-1])}) happen "
            f"before {self._name(last[0])}"
        )

    def _users(self, storage: str) -> list[int]:
        commands = self.commands
        return [
            c for c in self.schedule.order
            if any(v.storage == storage for v in (*commands[c].reads, *commands[c].writes))
        ]  # fmt: skip

    def _all_before(self, first: Sequence[int], second: Sequence[int]) -> bool:
        before, position = self.synchronized.before, self.synchronized.position
        stream = self.schedule.stream
        return all(before[second[0]][stream[c]] > position[c] for c in first)

    def _name(self, command: int) -> str:
        """The node and its stream; which command of the node, too, where it has several."""
        node, label = self.commands[command].node, self.commands[command].label
        which = f"{label}, " if self.per_node[node] > 1 else ""
        return f"{self._title(command)} ({which}s{self.schedule.stream[command]})"

    def _title(self, command: int) -> str:
        return title(self.commands[command].node, self.commands[command].nodes)


def _hazards(first: Command, second: Command) -> Iterator[str]:
    made, read = ({v.storage for v in views} for views in (first.writes, first.reads))
    for view in second.reads:
        if view.storage in made:
            yield f"reads {view.storage}, which that writes (RAW)"
    for view in second.writes:
        if view.storage in read:
            yield f"writes {view.storage}, which that reads (WAR)"
        if view.storage in made:
            yield f"writes {view.storage}, which that writes too (WAW)"


def _cut(names: list[str]) -> list[str]:
    if len(names) <= _MOST_NAMED:
        return names
    half = _MOST_NAMED // 2
    return [*names[:half], f"({len(names) - 2 * half} more)", *names[-half:]]


__all__ = ["explain"]
