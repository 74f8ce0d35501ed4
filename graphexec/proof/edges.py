"""The beginning and the end of a plan: forks, joins, reads of the host; and orders without data.

FORK   a stream other than the origin starts with a wait. By induction over the issue order it
       then starts after something issued to the origin in the same run.
JOIN   every launch happens before one record of the origin that the host waits for, the join.
       (A record may come later: it is no work, and a wait for it adds no order.)
HOST   output bytes are all written, each write happens before a host_wait, and the host waits
       only after everything else has been issued.
ORDER  all launches of the nodes named in a launch's `after` happen before it.

Stream capture requires FORK and JOIN. Together they order every launch of a run before every
launch of the next.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphexec.ir.plan import HostWait, Launch, Plan, Range, Record, Wait
from graphexec.proof.clocks import Stamp
from graphexec.proof.evidence import Evidence, show_tensors
from graphexec.proof.hazard import Hazard, Site, show_range

_ORIGIN = 0
_Lasts = dict[int, tuple[int, int, Launch]]


def forks(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """FORK: streams start after the origin."""
    started = {_ORIGIN}
    for index, i in enumerate(plan.instructions):
        if isinstance(i, HostWait) or i.stream in started:
            continue
        started.add(i.stream)
        if not isinstance(i, Wait):
            yield _no_fork(Site.of(index, i))


def _no_fork(site: Site) -> Hazard:
    missing = f"a record on stream {_ORIGIN} → {site.name}"
    message = (
        f"stream {site.stream} starts with {site} and waits for nothing before it: it never forks "
        f"from stream {_ORIGIN}, cannot be captured, and may overtake the previous run: missing "
        f"edge {missing}."
    )
    return Hazard("FORK", message, None, site, missing=missing)


def joins(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """JOIN: all streams end in the origin before the host's last wait."""
    if not evidence.launches:
        return
    join = _join(plan)
    if join is None:
        waited = any(isinstance(i, HostWait) for i in plan.instructions)
        what = f"an event of stream {_ORIGIN}" if waited else "any event"
        yield Hazard("JOIN", f"the host never waits for {what}: it cannot know that a run ended.")
        return
    end = evidence.history.clocks
    at_join = end.records[join.event]
    for stream, launches in evidence.launches.items():
        unseen = launches[at_join[end.slots[stream]] :]
        if unseen:
            yield _unjoined(Site.of(*unseen[0]), len(unseen), join)


class _Join:
    """The last record of the origin that the host waits for."""

    def __init__(self, event: int, site: Site) -> None:
        self.event, self.site = event, site


def _join(plan: Plan) -> _Join | None:
    host_waited = {i.event for i in plan.instructions if isinstance(i, HostWait)}
    for index in range(len(plan.instructions) - 1, -1, -1):
        i = plan.instructions[index]
        if isinstance(i, Record) and i.stream == _ORIGIN and i.event in host_waited:
            return _Join(i.event, Site.of(index, i))
    return None


def _unjoined(site: Site, count: int, join: _Join) -> Hazard:
    if site.index > join.site.index:
        return _after_join(site, join)
    more = f" and {count - 1} more of stream {site.stream}" if count > 1 else ""
    missing = f"the end of stream {site.stream} → {join.site}"
    message = (
        f"{site}{more} may still be running when {join.site}, the join, is reached: stream "
        f"{site.stream} is not joined into stream {_ORIGIN}: missing edge {missing}."
    )
    return Hazard("JOIN", message, site, join.site, missing=missing)


def _after_join(site: Site, join: _Join) -> Hazard:
    message = f"{site} is work after the join, {join.site}, the last the host waits for."
    return Hazard("JOIN", message, join.site, site)


def host_reads(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """HOST: outputs are complete, and finished when the host reads them."""
    yield from _host_waits_too_early(plan)
    end = evidence.history.clocks
    sizes = {b.id: b.bytes for b in plan.buffers if b.role == "output"}
    written: dict[str, list[tuple[int, int]]] = {id: [] for id in sizes}
    for stream, launches in evidence.launches.items():
        finished = end.host[end.slots[stream]]
        for number, (index, launch) in enumerate(launches, 1):
            for range in launch.writes:
                if range.buffer in sizes:
                    written[range.buffer].append((range.low, range.high))
                    if number > finished:
                        yield _host_too_early(Site.of(index, launch), range, evidence)
    for id, size in sizes.items():
        for low, high in _gaps(written[id], size):
            yield _never_written(Range(id, low, high), evidence)


def _host_waits_too_early(plan: Plan) -> Iterator[Hazard]:
    host_wait = None
    for index, i in enumerate(plan.instructions):
        if isinstance(i, HostWait):
            host_wait = host_wait or Site.of(index, i)
        elif host_wait is not None:
            site = Site.of(index, i)
            message = (
                f"{site} is issued after {host_wait}: the host waits only at the end of a plan, "
                "or it could be neither captured nor issued twice in a row."
            )
            yield Hazard("HOST", message, host_wait, site)
            return


def _host_too_early(site: Site, range: Range, evidence: Evidence) -> Hazard:
    tensors = evidence.tensors(range)
    missing = f"{site.name} → the host"
    message = (
        f"the host reads {show_range(range)}{show_tensors(tensors)} while {site} may still be "
        f"writing it; it waits for no event recorded after {site.name}: missing edge {missing}."
    )
    return Hazard("HOST", message, site, None, tensors, range, missing=missing)


def _never_written(range: Range, evidence: Evidence) -> Hazard:
    tensors = evidence.tensors(range)
    message = f"the host reads unwritten bytes: {show_range(range)}{show_tensors(tensors)}."
    return Hazard("HOST", message, None, None, tensors, range)


def _gaps(extents: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    end = 0
    for low, high in sorted(extents):
        if low > end:
            yield end, low
        end = max(end, high)
    if end < size:
        yield end, size


def orders(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """ORDER: `after` holds."""
    late = evidence.history.with_after
    lasts = _last_launches(evidence, {name for _, launch, _ in late for name in launch.after})
    tensors = {tensor.name for tensor in plan.tensors}
    for index, launch, clock in late:
        for name in dict.fromkeys(launch.after):
            if name in lasts and name not in launch.members:
                yield from _order(index, launch, lasts[name], clock)
                continue
            site = Site.of(index, launch)
            if name in launch.members:
                yield Hazard("ORDER", f"{site} is to come after itself.", site, site)
            elif name not in tensors:
                message = f"{site} is to come after '{name}', which is no node of the plan."
                yield Hazard("ORDER", message, None, site)


def _last_launches(evidence: Evidence, named: set[str]) -> dict[str, _Lasts]:
    """For each named node and stream slot its last launch there, with its number."""
    found: dict[str, _Lasts] = {}
    for stream, launches in evidence.launches.items():
        slot = evidence.history.clocks.slots[stream]
        for number, (index, launch) in enumerate(launches, 1):
            for name in named.intersection(launch.members):
                found.setdefault(name, {})[slot] = number, index, launch
    return found


def _order(index: int, launch: Launch, lasts: _Lasts, clock: Stamp) -> Iterator[Hazard]:
    for slot, (number, at, last) in lasts.items():
        if clock[slot] < number:
            site, first = Site.of(index, launch), Site.of(at, last)
            missing = f"{first.name} → {site.name}"
            late = "is only issued later" if first.index > site.index else "may still be running"
            message = (
                f"{site} is to come after {first.name}, but {first} {late} when it starts: "
                f"missing edge {missing}."
            )
            yield Hazard("ORDER", message, first, site, missing=missing)
