"""The facts of a plan for its explanations: waits, causes of starts, and names of commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from graphexec.ir.plan import Record, Wait, title
from graphexec.ir.program import Command
from graphexec.planning.scheduled import Prediction
from graphexec.views.predict import simulate

if TYPE_CHECKING:
    from graphexec.planning.pipeline import Compiled

MOST_NAMED = 12
_MOST_HAZARDS = 4


class Facts:
    """The data of the pipeline for a plan. Commands are numbered as in the program."""

    def __init__(self, compiled: Compiled) -> None:
        self.synchronized, self.allocation = compiled.synchronized, compiled.allocation
        self.schedule = compiled.synchronized.schedule
        self.graph, self.rewritten = compiled.graph, compiled.rewritten
        self.program, self.plan = compiled.program, compiled.plan
        self.notes = compiled.notes
        self.measured: Mapping[str, float] = {}  # µs of whole runs, by schedule candidate
        if compiled.measured is not None:
            self.measured = compiled.measured.tried
        self.commands = self.program.commands
        prediction = self.schedule.prediction
        assert prediction is not None, "plans of the pipeline are predicted"
        self.prediction: Prediction = prediction
        self.timeline = prediction.timeline
        self.per_node = Counter(command.node for command in self.commands)
        self.before_on_stream = self._before_on_stream()
        self.waits = self._waits()
        # Causes are read from the plan, as in its pictures.
        self.times = simulate(
            self.plan, (), prediction.tasks.event, [*compiled.bound.prediction.spans.values()]
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
        """For each command the commands that it waits for by dependency waits."""
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
        """For each command the one whose end, or event, determines its start."""
        order = self.schedule.order
        causes = (None if launch is None else order[launch] for launch in self.times.after)
        return dict(zip(order, causes, strict=True))

    def name(self, command: int) -> str:
        """The node and its stream; also the number of the command if the node has several."""
        node, label = self.commands[command].node, self.commands[command].label
        which = f"{label}, " if self.per_node[node] > 1 else ""
        return f"{self.title(command)} ({which}s{self.schedule.stream[command]})"

    def title(self, command: int) -> str:
        """The node of a command, or its nodes."""
        return title(self.commands[command].node, self.commands[command].nodes)

    def why(self, first: int, second: int) -> str:
        """The hazards that a dependency prevents."""
        found = list(_hazards(self.commands[first], self.commands[second]))
        if first in self.commands[second].after:
            found.append("the graph says `after`")
        if len(found) > _MOST_HAZARDS:
            found[_MOST_HAZARDS:] = [f"and {len(found) - _MOST_HAZARDS} more"]
        return ", ".join(found) or "it stands for a dependency of what it follows"


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


def cut(names: list[str]) -> list[str]:
    """The names; of many, the middle ones are omitted."""
    if len(names) <= MOST_NAMED:
        return names
    half = MOST_NAMED // 2
    return [*names[:half], f"({len(names) - 2 * half} more)", *names[-half:]]
