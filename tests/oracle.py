"""A brute-force oracle for stream-ordered plans, in two forms that share nothing but the input.

`racy` looks at the order: it closes happens-before of two runs back to back by Warshall's
algorithm and asks of every two accesses of the same bytes whether they are ordered.

`racy_by_execution` looks at the values: it runs a tiny plan in every order that its queues,
records and waits allow. A byte holds the launch that wrote it last, and no launch, nor the
host at the end, may ever see anything else than in the first order tried.

Where the two differ, by nature:

1. Two unordered writes of bytes that nobody reads before they are overwritten again are a
   race of order and no race of values. With `observe_overwrites` a launch also sees what it
   overwrites; then such pairs count in both forms.
2. What no execution shows counts in `racy` alone: whether the plan is well-formed (events,
   streams, buffers, ranges), fork and join through stream 0, host_wait only at the edge, BLAS
   handles, aliasing operands of one launch, `after`, writes to inputs and weights.
3. `racy` takes two runs together. The other form does so for the plan that `back_to_back` makes.

Every reason begins with its kind and a colon, see `kinds`. Written from the contract alone, to
check graphexec.proof: the two share no code and must not start to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement, pairwise

from graphexec.ir.plan import HostWait, Instruction, Launch, Plan, Range, Record, Wait

ORIGIN = 0
READ_ONLY = ("input", "weights")
EXECUTION_KINDS = frozenset({"RAW", "WAR", "WAW", "unwritten", "output", "host"})
"""The kinds that racy_by_execution with `observe_overwrites` finds too."""

ILL_FORMED = frozenset({"declaration", "event", "stream", "range", "read-only"})
"""The kinds that make an execution meaningless."""


def kinds(reasons: Iterable[str]) -> set[str]:
    """The kinds of some reasons: the text before the colon, as "RAW" or "RAW across runs"."""
    return {reason.split(":")[0] for reason in reasons}


def racy(plan: Plan) -> list[str]:
    """Why the plan is not safe; an empty list when it is."""
    before = happens_before(plan, runs=2)
    return [
        *_declarations(plan),
        *_streams(plan),
        *_events(plan),
        *_ranges(plan),
        *_tensors(plan),
        *_handles(plan),
        *_aliases(plan),
        *_forks(plan),
        *_joins(plan, before),
        *_edge(plan),
        *_afters(plan, before),
        *_unwritten(plan, before),
        *_outputs(plan, before),
        *_states(plan),
        *_races(plan, before),
    ]


# Happens-before --------------------------------------------------------------------------

Before = list[int]
"""`before[i]`, as a set of bits, holds every j that instruction i happens before."""


def happens_before(plan: Plan, runs: int = 1) -> Before:
    """The transitive closure; instruction i of run r is number r * len(instructions) + i.

    Nothing comes after a host_wait: the next run is enqueued without waiting for the host.
    """
    before = [0] * (runs * len(plan.instructions))
    for source, target in _edges(plan, runs):
        before[source] |= 1 << target
    for middle in range(len(before)):
        bit, onward = 1 << middle, before[middle]
        for source, reached in enumerate(before):
            if reached & bit:
                before[source] = reached | onward
    return before


def _edges(plan: Plan, runs: int) -> Iterator[tuple[int, int]]:
    last: dict[int, int] = {}  # of a stream
    recorded: dict[tuple[int, int], int] = {}  # by run and event
    for run in range(runs):
        for place, step in enumerate(plan.instructions):
            number = run * len(plan.instructions) + place
            if isinstance(step, (Wait, HostWait)) and (run, step.event) in recorded:
                yield recorded[run, step.event], number
            if isinstance(step, Record):
                recorded[run, step.event] = number
            if not isinstance(step, HostWait):
                if step.stream in last:
                    yield last[step.stream], number
                last[step.stream] = number


def _ordered(before: Before, first: int, second: int) -> bool:
    return bool(before[first] >> second & 1)


def _launches(plan: Plan) -> list[tuple[int, Launch]]:
    return [(i, step) for i, step in enumerate(plan.instructions) if isinstance(step, Launch)]


# Well-formed -----------------------------------------------------------------------------


def _declarations(plan: Plan) -> Iterator[str]:
    names = [f"stream {s.id}" for s in plan.streams] + [f"buffer {b.id}" for b in plan.buffers]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"declaration: {name} is declared twice"


def _streams(plan: Plan) -> Iterator[str]:
    known = {s.id for s in plan.streams}
    for place, step in enumerate(plan.instructions):
        if not isinstance(step, HostWait) and step.stream not in known:
            yield f"stream: instruction {place} is on unknown stream {step.stream}"


def _events(plan: Plan) -> Iterator[str]:
    recorded: set[int] = set()
    for place, step in enumerate(plan.instructions):
        if isinstance(step, Record):
            if step.event in recorded:
                yield f"event: instruction {place} records event {step.event} again"
            recorded.add(step.event)
        elif isinstance(step, (Wait, HostWait)) and step.event not in recorded:
            yield f"event: instruction {place} waits for event {step.event}, not yet recorded"


def _ranges(plan: Plan) -> Iterator[str]:
    buffers = {b.id: b for b in plan.buffers}
    for place, launch in _launches(plan):
        for item in (*launch.reads, *launch.writes):
            buffer = buffers.get(item.buffer)
            if buffer is None:
                yield f"range: {_name(place, launch)} touches unknown buffer {item.buffer}"
            elif item.low >= item.high:
                yield f"range: {_name(place, launch)} touches nothing at {_text(item)}"
            elif item.low < 0 or item.high > buffer.bytes:
                yield f"range: {_name(place, launch)} is outside its buffer at {_text(item)}"
        for item in launch.writes:
            if item.buffer in buffers and buffers[item.buffer].role in READ_ONLY:
                yield f"read-only: {_name(place, launch)} writes {_text(item)}"


def _tensors(plan: Plan) -> Iterator[str]:
    sizes = {b.id: b.bytes for b in plan.buffers}
    for tensor in plan.tensors:
        low, high = tensor.offset, tensor.offset + tensor.bytes
        if not 0 <= low <= high <= sizes.get(tensor.buffer, -1):
            yield f"range: tensor {tensor.name} lies outside its buffer {tensor.buffer}"


# Handles and operands --------------------------------------------------------------------


def _handles(plan: Plan) -> Iterator[str]:
    for one, two in combinations(plan.streams, 2):
        if one.blas_handle is not None and one.blas_handle == two.blas_handle:
            yield f"handle: {one.blas_handle} is bound to streams {one.id} and {two.id}"
    bound = {s.id: s.blas_handle for s in plan.streams}
    some = any(handle is not None for handle in bound.values())
    for place, launch in _launches(plan):
        own = bound.get(launch.stream)
        if launch.blas_handle is not None and launch.blas_handle != own:
            yield f"handle: {_name(place, launch)} has {launch.blas_handle}, its stream {own}"
        if launch.kind in ("gemm", "gemm_batch") and launch.blas_handle is None and some:
            yield f"handle: {_name(place, launch)} has none"


def _aliases(plan: Plan) -> Iterator[str]:
    """Nothing orders the accesses of one launch: a write meets another range only to be equal."""
    for place, launch in _launches(plan):
        touched = (*launch.writes, *launch.reads)
        for i, write in enumerate(launch.writes):
            for item in touched[i + 1 :]:
                if _overlap(write, item) and write != item:
                    yield (
                        f"alias: {_name(place, launch)} writes {_text(write)} "
                        f"and touches {_text(item)}"
                    )


# Fork, join, after -----------------------------------------------------------------------


def _forks(plan: Plan) -> Iterator[str]:
    seen = {ORIGIN}
    for step in plan.instructions:
        if not isinstance(step, HostWait) and step.stream not in seen:
            seen.add(step.stream)
            if not isinstance(step, Wait):
                yield f"fork: stream {step.stream} begins without a wait"


def _joins(plan: Plan, before: Before) -> Iterator[str]:
    """The host waits for every launch, and for a record of stream 0 after all of them.

    A record or a wait is no work: it may be left over on any stream.
    """
    waits = [(i, s) for i, s in enumerate(plan.instructions) if isinstance(s, HostWait)]
    waited = {s.event for _, s in waits}
    ends = [
        i
        for i, s in enumerate(plan.instructions)
        if isinstance(s, Record) and s.stream == ORIGIN and s.event in waited
    ]
    for place, launch in _launches(plan):
        if not any(_ordered(before, place, wait) for wait, _ in waits):
            yield f"host: nothing makes the host wait for {_name(place, launch)}"
        if not any(_ordered(before, place, end) for end in ends):
            yield f"join: {_name(place, launch)} is not joined into stream 0"


def _edge(plan: Plan) -> Iterator[str]:
    waited = False
    for place, step in enumerate(plan.instructions):
        if isinstance(step, HostWait):
            waited = True
        elif waited:
            yield f"edge: instruction {place} is issued after a host_wait"


def _afters(plan: Plan, before: Before) -> Iterator[str]:
    launches = _launches(plan)
    for place, launch in launches:
        for node in launch.after:
            named = [(i, one) for i, one in launches if one.node == node]
            if not named:
                yield f"after: {_name(place, launch)} is to come after unknown node '{node}'"
            for i, one in named:
                if not _ordered(before, i, place):
                    yield f"after: {_name(i, one)} may end after {_name(place, launch)} starts"


# Bytes -----------------------------------------------------------------------------------


def _unwritten(plan: Plan, before: Before) -> Iterator[str]:
    ready = {b.id for b in plan.buffers if b.role in (*READ_ONLY, "state")}
    empty = [t.range for t in plan.tensors if t.state and not t.init]
    launches = _launches(plan)
    for place, launch in launches:
        earlier = [w for i, one in launches if _ordered(before, i, place) for w in one.writes]
        for read in launch.reads:
            wanted = [read] if read.buffer not in ready else [
                Range(e.buffer, max(e.low, read.low), min(e.high, read.high))
                for e in empty if e.buffer == read.buffer
            ]  # fmt: skip
            for part in wanted:
                for gap in _without(part, earlier):
                    yield f"unwritten: {_name(place, launch)} reads {_text(gap)}"


def _outputs(plan: Plan, before: Before) -> Iterator[str]:
    waits = [i for i, s in enumerate(plan.instructions) if isinstance(s, HostWait)]
    seen = [
        write
        for place, launch in _launches(plan)
        if any(_ordered(before, place, wait) for wait in waits)
        for write in launch.writes
    ]
    for buffer in plan.buffers:
        if buffer.role == "output":
            for gap in _without(Range(buffer.id, 0, buffer.bytes), seen):
                yield f"output: the host reads {_text(gap)}, which nothing has written"


def _states(plan: Plan) -> Iterator[str]:
    """Of every state: where it begins, and the one tensor that it is at the end."""
    kept = {b.id for b in plan.buffers if b.role == "state"}
    names = {t.state for t in plan.tensors} | {t.next for t in plan.tensors}
    for name in sorted(names - {""}):
        begins = [t for t in plan.tensors if t.state == name]
        ends = [t for t in plan.tensors if t.next == name]
        places = {(t.buffer, t.offset, t.bytes) for t in (*begins, *ends)}
        if not begins or len(ends) != 1 or len(places) != 1:
            yield f"state: {name} begins {len(begins)} times, ends {len(ends)} times, at {places}"
            continue
        if begins[0].buffer not in kept:
            yield f"state: {name} is in {begins[0].buffer}, which is not kept"
        written = any(
            w.buffer == ends[0].buffer and w.low < ends[0].offset + ends[0].bytes
            and ends[0].offset < w.high
            for _, launch in _launches(plan) for w in launch.writes
        )  # fmt: skip
        if ends[0] not in begins and not written:
            yield f"state: nothing writes {ends[0].name}, the next value of {name}"


def _without(whole: Range, parts: Iterable[Range]) -> list[Range]:
    """What is left of `whole` without `parts`."""
    left = [whole] if whole.low < whole.high else []
    for part in parts:
        if part.buffer == whole.buffer:
            left = [
                Range(whole.buffer, low, high)
                for gap in left
                for low, high in (
                    (gap.low, min(gap.high, part.low)),
                    (max(gap.low, part.high), gap.high),
                )
                if low < high
            ]
    return left


@dataclass(frozen=True)
class _Access:
    """A launch reads ("R") or writes ("W") a range."""

    place: int
    launch: Launch
    letter: str
    item: Range

    def __str__(self) -> str:
        verb = "reads" if self.letter == "R" else "writes"
        return f"{_name(self.place, self.launch)} {verb} {_text(self.item)}"


def _races(plan: Plan, before: Before) -> Iterator[str]:
    for one, two in _conflicts(plan):
        i, j = one.place, two.place
        if i != j and not _ordered(before, i, j) and not _ordered(before, j, i):
            yield f"{two.letter}A{one.letter}: {one}, {two}"
        for first, then in ((one, two), (two, one)):
            if not _ordered(before, first.place, then.place + len(plan.instructions)):
                yield f"{then.letter}A{first.letter} across runs: {first}, then {then}"


def _conflicts(plan: Plan) -> Iterator[tuple[_Access, _Access]]:
    """Two accesses of the same bytes, at least one a write; also of one launch with itself."""
    accesses: dict[str, list[_Access]] = {}
    for place, launch in _launches(plan):
        for letter, items in (("R", launch.reads), ("W", launch.writes)):
            for item in items:
                accesses.setdefault(item.buffer, []).append(_Access(place, launch, letter, item))
    for some in accesses.values():
        for one, two in combinations_with_replacement(some, 2):
            if "W" in (one.letter, two.letter) and _overlap(one.item, two.item):
                yield one, two


def _overlap(one: Range, two: Range) -> bool:
    return one.buffer == two.buffer and max(one.low, two.low) < min(one.high, two.high)


def _name(place: int, launch: Launch) -> str:
    return f"{launch.command} of '{launch.node}' (instruction {place})"


def _text(item: Range) -> str:
    return f"{item.buffer}[{item.low}:{item.high}]"


# Execution -------------------------------------------------------------------------------

HOST = -1
Segment = tuple[str, int, int]
Memory = dict[Segment, int]
State = tuple[dict[int, int], Memory]
"""The position of each queue, and the last writer of each segment (absent: unwritten)."""


def racy_by_execution(plan: Plan, *, observe_overwrites: bool = False) -> list[str]:
    """Run a well-formed plan of few launches in every possible order; see the module."""
    wrong = kinds(racy(plan)) & ILL_FORMED
    if wrong:
        raise ValueError(f"the plan is not well-formed: {sorted(wrong)}")
    return _Execution(plan, observe_overwrites).explore()


def back_to_back(plan: Plan) -> Plan:
    """The plan enqueued twice, as one plan whose host waits only at the end."""
    shift = 1 + max((s.event for s in plan.instructions if not isinstance(s, Launch)), default=0)
    again = [
        step if isinstance(step, Launch) else replace(step, event=step.event + shift)
        for step in plan.instructions
    ]
    first = [step for step in plan.instructions if not isinstance(step, HostWait)]
    return replace(plan, instructions=(*first, *again))


class _Execution:
    """All orders of one plan. A state reached in two ways is continued once."""

    def __init__(self, plan: Plan, observe_overwrites: bool) -> None:
        self.steps = plan.instructions
        self.queues = _queues(plan)
        self.segments = _segments(plan)
        self.observe_overwrites = observe_overwrites
        self.ready = {b.id for b in plan.buffers if b.role in READ_ONLY}
        self.outputs = [Range(b.id, 0, b.bytes) for b in plan.buffers if b.role == "output"]
        self.launches = len(_launches(plan))
        self.last_host_wait = max(self.queues.get(HOST, ()), default=None)
        self.seen: dict[int, object] = {}
        self.reasons: list[str] = []

    def explore(self) -> list[str]:
        if self.last_host_wait is None and (self.launches or self.outputs):
            self.reasons.append("host: it never waits")
        todo: list[State] = [(dict.fromkeys(self.queues, 0), {})]
        done = set()
        while todo:
            place, memory = todo.pop()
            self.pass_synchronization(place)
            key = (tuple(place.values()), tuple(sorted(memory.items())))
            if key not in done:
                done.add(key)
                todo += [self.step(queue, place, memory) for queue in self.startable(place)]
        return sorted(set(self.reasons))

    def head(self, queue: int, place: dict[int, int]) -> int | None:
        """The number of the instruction a queue is about to start."""
        order = self.queues[queue]
        return order[place[queue]] if place[queue] < len(order) else None

    def blocked(self, number: int, place: dict[int, int]) -> bool:
        """An event that is not recorded yet blocks the instruction."""
        step = self.steps[number]
        if not isinstance(step, (Wait, HostWait)):
            return False
        finished = (i for q, order in self.queues.items() for i in order[: place[q]])
        return not any(_is_record(self.steps[i], step.event) for i in finished)

    def pass_synchronization(self, place: dict[int, int]) -> None:
        """Execute records and waits at once: they only affect the order."""
        moved = True
        while moved:
            moved = False
            for queue in self.queues:
                number = self.head(queue, place)
                if number is None or self.acts(number) or self.blocked(number, place):
                    continue
                place[queue] += 1
                moved = True

    def acts(self, number: int) -> bool:
        """A launch, or the host's last wait, after which it reads the outputs."""
        return isinstance(self.steps[number], Launch) or number == self.last_host_wait

    def startable(self, place: dict[int, int]) -> list[int]:
        heads = {queue: self.head(queue, place) for queue in self.queues}
        return [q for q, n in heads.items() if n is not None and not self.blocked(n, place)]

    def step(self, queue: int, place: dict[int, int], memory: Memory) -> State:
        """The state after the head of a queue, which is a launch or the host's look."""
        number = self.queues[queue][place[queue]]
        launch = self.steps[number]
        after = {**place, queue: place[queue] + 1}
        if not isinstance(launch, Launch):
            self.look(number, place, memory)
            return after, memory
        watched = launch.reads + (launch.writes if self.observe_overwrites else ())
        self.observe(number, [memory.get(s) for r in watched for s in self.parts(r)])
        for segment in (s for r in launch.reads for s in self.parts(r)):
            if segment not in memory and segment[0] not in self.ready:
                self.reasons.append(f"unwritten: {_name(number, launch)} reads {segment}")
        written = {s: number for r in launch.writes for s in self.parts(r)}
        return after, {**memory, **written}

    def look(self, number: int, place: dict[int, int], memory: Memory) -> None:
        """The host reads the outputs."""
        segments = [s for item in self.outputs for s in self.parts(item)]
        finished = [i for q, order in self.queues.items() for i in order[: place[q]]]
        if sum(isinstance(self.steps[i], Launch) for i in finished) < self.launches:
            self.reasons.append("host: it goes on before every launch is done")
        if any(segment not in memory for segment in segments):
            self.reasons.append("output: the host reads what nothing has written")
        self.observe(number, [memory.get(segment) for segment in segments])

    def observe(self, number: int, values: list[int | None]) -> None:
        if self.seen.setdefault(number, values) != values:
            self.reasons.append(f"values: instruction {number} may see different ones")

    def parts(self, item: Range) -> list[Segment]:
        return [s for s in self.segments[item.buffer] if item.low <= s[1] and s[2] <= item.high]


def _is_record(step: Instruction, event: int) -> bool:
    return isinstance(step, Record) and step.event == event


def _queues(plan: Plan) -> dict[int, list[int]]:
    """The numbers of the instructions of each stream, and of the host's."""
    queues: dict[int, list[int]] = {}
    for number, step in enumerate(plan.instructions):
        queue = HOST if isinstance(step, HostWait) else step.stream
        queues.setdefault(queue, []).append(number)
    return queues


def _segments(plan: Plan) -> dict[str, list[Segment]]:
    """Each buffer cut wherever a range begins or ends."""
    cuts = {buffer.id: {0, buffer.bytes} for buffer in plan.buffers}
    for _, launch in _launches(plan):
        for item in (*launch.reads, *launch.writes):
            cuts[item.buffer] |= {item.low, item.high}
    ordered = {name: sorted(some) for name, some in cuts.items()}
    return {
        name: [(name, low, high) for low, high in pairwise(some)] for name, some in ordered.items()
    }
