"""The collectives of a loaded plan: with whom, and whether all ranks have the same ones.

MPI and sockets check neither kinds nor sizes, so ranks compare what they will send before the first
run. Plans that were proved together agree; a plan of another proof is found here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import zip_longest

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import ExecutionError, InputError, RankFailed
from graphexec.base.tensor import Array, View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Launch
from graphexec.ir.program import Collective
from graphexec.ir.ranks import Ranks
from graphexec.runtime.ranks.collectives import Communication, as_bytes, at_work
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.transport import Transport, open_transport


class Meetings:
    """The collectives of one session. All ranks open it, in the same order of sessions."""

    def __init__(self, bound: BoundPlan, group: Group) -> None:
        """Raises InputError on all ranks if their plans do not fit together."""
        self.group = group
        ranks = ranks_of(bound, group)
        compare(group, meetings_of(bound, ranks))
        self._transport = open_transport(group)
        self._communications = {
            one.id: Communication(self._transport, one.ranks)
            for one in ranks.communicators if group.rank in one.ranks
        }  # fmt: skip
        work = [w for w in bound.work.values() if isinstance(w, Collective)]
        self._sizes = Counter(w.group for w in work if w.kind in ("send", "recv"))
        self._together: dict[int, _Together] = {}

    def prepare(
        self, launch: Launch, work: Collective, array: Callable[[View], Array]
    ) -> Callable[[], None]:
        """What takes this rank's part in a collective, on the arrays of its views. Of sends and
        recvs of one group, the last one does the work of all."""
        src, dst = (None if view is None else array(view) for view in (work.src, work.dst))
        if work.kind in ("send", "recv"):
            step = self._point_to_point(work, src, dst)
        else:
            assert src is not None
            assert dst is not None
            step = _meeting(self._communications[work.communicator], work, src, dst)
        return partial(at_work, self._transport, launch.node, titled(work), step)

    def _point_to_point(
        self, work: Collective, src: Array | None, dst: Array | None
    ) -> Callable[[], None]:
        peer = work.peer
        assert peer is not None
        together = _Together()
        if work.group is not None:
            together = self._together.setdefault(work.group, together)
        if src is not None:
            together.sends[peer].append(src)
        if dst is not None:
            together.receives[peer].append(dst)
        together.members += 1
        last = work.group is None or together.members == self._sizes[work.group]
        return partial(together.exchange, self._transport) if last else _nothing

    def failed(self, failure: ExecutionError) -> None:
        """A command of this rank failed: no rank can go on."""
        if not isinstance(failure, RankFailed):
            self.group.fail(f"rank {self.group.rank}: {failure}")

    def late(self, seconds: float, failure: ExecutionError) -> ExecutionError:
        """As `failed`, for a run that took too long; the error names who is late."""
        blamed = self.group.blamed(seconds)
        self.group.fail(blamed or f"rank {self.group.rank}: {failure}")
        assert self.group.failure is not None
        return RankFailed(self.group.failure.message)

    def close(self) -> None:
        """End the connections."""
        self._transport.close()


@dataclass
class _Together:
    """Sends and recvs that are one meeting, by the other rank."""

    sends: dict[int, list[Array]] = field(default_factory=lambda: defaultdict(list))
    receives: dict[int, list[Array]] = field(default_factory=lambda: defaultdict(list))
    members: int = 0

    def exchange(self, transport: Transport) -> None:
        """The n-th to and from each rank go side by side."""
        longest = max(map(len, [*self.sends.values(), *self.receives.values()]))
        for n in range(longest):
            transport.exchange(_nth(self.sends, n), _nth(self.receives, n))


def _nth(arrays: Mapping[int, Sequence[Array]], n: int) -> dict[int, Array]:
    """The bytes of the n-th array of each rank that has so many."""
    return {peer: as_bytes(each[n]) for peer, each in arrays.items() if n < len(each)}


def _nothing() -> None:
    pass


def titled(work: Collective) -> str:
    """A collective in a few words: "all_reduce on tp0", "send to rank 1"."""
    if work.kind in ("send", "recv"):
        return f"{work.kind} {'to' if work.kind == 'send' else 'from'} rank {work.peer}"
    return f"{work.kind} on {work.communicator}"


def _meeting(one: Communication, work: Collective, src: Array, dst: Array) -> Callable[[], None]:
    match work.kind:
        case "all_reduce":
            return partial(one.all_reduce, src, dst, work.reduction)
        case "reduce_scatter":
            return partial(one.reduce_scatter, src, dst, work.reduction)
        case "all_gather":
            return partial(one.all_gather, src, dst)
        case "all_to_all":
            return partial(one.all_to_all, src, dst)
    raise AssertionError(f"no meeting of a communicator: {work.kind}")


# Comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The meetings of `members` as one of them issues them: what each is, and its node here."""

    members: tuple[int, ...]
    texts: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Equal where the texts are."""
        return sha256("\n".join(self.texts).encode()).hexdigest()


def meetings_of(bound: BoundPlan, ranks: Ranks) -> dict[str, Line]:
    """The meetings of a plan by communicator; of sends, by sender and receiver. All who take part
    must have the same texts."""
    members = {one.id: one.ranks for one in ranks.communicators if ranks.rank in one.ranks}
    found: dict[str, list[tuple[str, str]]] = {where: [] for where in members}
    for number, launch in bound.plan.launches.items():
        work = bound.work[number]
        if not isinstance(work, Collective):
            continue
        where, kind = work.communicator, work.kind
        if kind in ("send", "recv"):
            assert work.peer is not None
            pair = (ranks.rank, work.peer) if kind == "send" else (work.peer, ranks.rank)
            where, kind = f"sends from rank {pair[0]} to rank {pair[1]}", "send"
            members[where] = pair
        reduction = f" {work.reduction}" if work.reduction else ""
        text = f"{kind}{reduction} of {work.count} {work.dtype}"
        found.setdefault(where, []).append((text, launch.node))
    return {
        where: Line(members[where], tuple(t for t, _ in each), tuple(n for _, n in each))
        for where, each in found.items()
    }


def compare(group: Group, mine: Mapping[str, Line]) -> None:
    """Raise InputError on all ranks unless those that meet have the same meetings. All ranks call
    this."""
    heads = group.gather({where: [line.members, line.digest] for where, line in mine.items()})
    for where in sorted({where for each in heads for where in each}):
        members = next(each[where][0] for each in heads if where in each)
        digests = {heads[rank].get(where, [None, None])[1] for rank in members}
        if len(digests) > 1:
            line = mine.get(where, Line((), (), ()))
            lines = group.gather([line.texts, line.nodes])
            raise InputError([Diagnostic(_difference(where, members, lines))])


def _difference(
    where: str, members: Sequence[int], lines: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> str:
    first, other = next((members[0], rank) for rank in members[1:]
                        if lines[rank][0] != lines[members[0]][0])  # fmt: skip
    pairs = zip_longest(lines[first][0], lines[other][0])
    n = next(n for n, (one, another) in enumerate(pairs) if one != another)

    def said(rank: int) -> str:
        texts, nodes = lines[rank]
        what = f"{texts[n]} (node '{nodes[n]}')" if n < len(texts) else "none"
        return f"{what} on rank {rank}"

    return (f"the ranks' plans do not fit together: meeting {n + 1} of {where} is {said(first)}, "
            f"and {said(other)}")  # fmt: skip


def ranks_of(bound: BoundPlan, group: Group) -> Ranks:
    """What the plan says of its ranks; InputError if it is another rank's."""
    ranks = bound.plan.ranks
    if ranks is None or (ranks.rank, ranks.ranks) != (group.rank, group.ranks):
        of = "one rank" if ranks is None else f"rank {ranks.rank} of {ranks.ranks}"
        message = f"the plan is for {of}, but this is rank {group.rank} of {group.ranks}"
        raise InputError([Diagnostic(message)])
    return ranks
