"""Each hazard has a plan that shows it, and the nearest plan that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plans import Draft, at, layered, pair

from graphexec.base.tensor import DType
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stream,
    Wait,
)
from graphexec.ir.program import WorkKind
from graphexec.proof import HazardError, find_hazards, lint, prove
from graphexec.proof.history import History

A, B, C = at(0, 64), at(64, 128), at(128, 192)


def kinds(plan: Plan) -> list[str]:
    return [hazard.kind for hazard in find_hazards(plan)]


def report(plan: Plan) -> str:
    """The only hazard of the plan, as text."""
    (hazard,) = find_hazards(plan)
    return str(hazard)


def assert_safe(plan: Plan) -> None:
    assert find_hazards(plan) == []
    assert prove(plan) is plan


def without(plan: Plan, *indices: int) -> Plan:
    kept = (i for n, i in enumerate(plan.instructions) if n not in indices)
    return replace(plan, instructions=tuple(kept))


# --- RAW, WAR, WAW -------------------------------------------------------------------------------

RACES = {
    "RAW": (([], [A]), ([A], [at(576, 640)])),
    "WAR": (([A], [at(512, 576)]), ([], [A])),
    "WAW": (([], [A]), ([], [A])),
}


@pytest.mark.parametrize("kind", RACES)
def test_a_conflict_must_be_ordered(kind: str) -> None:
    first, second = RACES[kind]
    (hazard,) = find_hazards(pair(first, second, ordered=False))
    assert (hazard.kind, hazard.relation, hazard.range) == (kind, "same run", A)
    assert hazard.first is not None
    assert hazard.second is not None
    assert (hazard.first.node, hazard.second.node) == ("first", "second")
    assert_safe(pair(first, second, ordered=True))


@pytest.mark.parametrize("kind", RACES)
@pytest.mark.parametrize("where", [at(63, 127), at(64, 128)], ids=["one byte", "no byte"])
def test_ranges_conflict_from_the_first_common_byte_on(kind: str, where: Range) -> None:
    moved = {A: where}
    first, second = RACES[kind]
    reads, writes = ([moved.get(r, r) for r in ranges] for ranges in second)
    found = find_hazards(pair(first, (reads, writes), ordered=False))
    shared = [h.range for h in found]
    assert shared == ([at(63, 64)] if where.low < 64 else [])


def test_two_reads_need_no_order() -> None:
    assert_safe(pair(([A], [B]), ([A], [C]), ordered=False))


def test_one_stream_is_an_order() -> None:
    draft = Draft(streams=1)
    draft.launch(0, "a", [], [A])
    draft.launch(0, "b", [A], [A])
    draft.launch(0, "c", [], [A])
    draft.join()
    assert_safe(draft.plan())


def test_the_same_bytes_of_two_buffers_do_not_conflict() -> None:
    draft = Draft()
    draft.buffers.append(Buffer("other", 1024, "device", "arena"))
    draft.fork()
    draft.launch(0, "a", writes=[A])
    draft.launch(1, "b", writes=[at(0, 64, "other")])
    draft.join()
    assert_safe(draft.plan())


def test_order_may_come_through_a_third_stream() -> None:
    def plan(through: bool) -> Plan:
        draft = Draft(streams=3)
        draft.fork()
        draft.launch(0, "a", writes=[A])
        draft.edge(0, 2)
        draft.launch(2, "between", writes=[C])
        if through:
            draft.edge(2, 1)
        draft.launch(1, "b", reads=[A], writes=[B])
        draft.join()
        return draft.plan()

    assert kinds(plan(through=False)) == ["RAW"]
    assert_safe(plan(through=True))


def test_a_record_before_the_command_does_not_mark_it() -> None:
    draft = Draft()
    draft.fork()
    draft.launch(0, "other", writes=[C])
    early = draft.record(0)
    draft.launch(0, "scores", writes=[draft.tensor("scores", A)], command="gemm", handle=0)
    draft.wait(1, early)
    draft.launch(1, "probs", reads=[A], writes=[B], command="softmax")
    draft.join()
    assert report(draft.plan()) == (
        "RAW hazard: 'probs' (softmax, stream 1, instruction 6) reads arena[0, 64) (tensor "
        "'scores') while 'scores' (gemm, stream 0, instruction 4) may still be writing it; the "
        "last event of stream 0 that stream 1 waits for before it is event 1, recorded by "
        "instruction 3, before 'scores': missing edge 'scores' → 'probs'."
    )


def test_the_report_of_a_deleted_wait_names_the_event_that_nobody_waits_for() -> None:
    draft = Draft()
    draft.launch(0, "scores", writes=[draft.tensor("scores", A)])
    draft.record(0)
    draft.instructions.append(Wait(1, 7, "fork"))
    draft.instructions.insert(0, Record(0, 7))
    draft.launch(1, "probs", reads=[A], writes=[B])
    draft.join()
    text = report(draft.plan())
    assert "recorded by instruction 0, before 'scores'; event 0 marks 'scores'" in text
    assert "does not reach stream 1 in time: missing edge 'scores' → 'probs'." in text


def test_every_pair_is_reported_not_only_the_last() -> None:
    draft = Draft(streams=3)
    draft.launch(0, "init", writes=[A])
    draft.fork()
    for n in range(4):
        draft.launch(n % 2, f"r{n}", reads=[A], writes=[at(64 * n + 256, 64 * n + 320)])
    draft.launch(2, "w", writes=[A])
    draft.launch(2, "again", writes=[A])
    draft.join()
    found = find_hazards(draft.plan())
    pairs = {(h.first.node, h.second.node) for h in found if h.first and h.second}
    assert pairs == set(product(["r0", "r1", "r2", "r3"], ["w", "again"]))
    assert len(find_hazards(draft.plan(), limit=3)) == 3
    assert find_hazards(draft.plan(), limit=0) == []


def test_256_readers_between_two_writers() -> None:
    def plan(joined: bool) -> Plan:
        draft = Draft(streams=4)
        draft.buffers[0] = replace(draft.buffers[0], bytes=64 * 300)
        draft.launch(0, "w1", writes=[A])
        draft.fork()
        for n in range(256):
            draft.launch(n % 4, f"r{n}", [A], [at(64 * n + 64, 64 * n + 128)])
        for stream in (1, 2, 3) if joined else (1, 2):
            draft.edge(stream, 0)
        draft.launch(0, "w2", writes=[A])
        draft.join()
        return draft.plan()

    assert_safe(plan(joined=True))
    found = find_hazards(plan(joined=False), limit=1000)
    assert len(found) == 64
    assert {h.first.stream for h in found if h.first} == {3}


@pytest.mark.parametrize("late", [False, True])
def test_a_write_is_after_the_last_read_of_each_stream(late: bool) -> None:
    draft = Draft()
    draft.launch(0, "init", writes=[A])
    draft.fork()
    draft.launch(0, "early", [A], [B])
    if not late:
        draft.edge(0, 1)
    draft.launch(0, "last", [A], [C])
    if late:
        draft.edge(0, 1)
    draft.launch(1, "w", writes=[A])
    draft.join()
    found = find_hazards(draft.plan())
    assert [h.first.node for h in found if h.first] == ([] if late else ["last"])


def test_a_race_for_bytes_that_nobody_may_write_is_reported_too() -> None:
    draft = Draft()
    draft.fork()
    draft.launch(0, "w", writes=[at(0, 64, "weights")])
    draft.launch(1, "r", [at(0, 64, "weights")], [A])
    draft.join()
    assert kinds(draft.plan()) == ["READONLY", "RAW"]


def test_a_write_over_many_parts_is_after_each_of_them() -> None:
    for missing in (1, 2, 3, None):
        draft = Draft(streams=4)
        draft.fork()
        for n in range(4):
            draft.launch(n, f"part{n}", writes=[at(16 * n, 16 * n + 16)])
        for n in (1, 2, 3):
            if n != missing:
                draft.edge(n, 0)
        draft.launch(0, "whole", reads=[A], writes=[A])
        draft.join()
        found = find_hazards(draft.plan())
        assert {h.kind for h in found} == (set() if missing is None else {"RAW", "WAW"})
        assert all(h.range == at(16 * (missing or 0), 16 * (missing or 0) + 16) for h in found)


# --- UNINITIALISED -------------------------------------------------------------------------------


@pytest.mark.parametrize(("read", "holes"), [
    (at(0, 64), []),
    (at(0, 65), [at(64, 65)]),
    (at(0, 256), [at(64, 128), at(192, 256)]),
    (at(256, 300), [at(256, 300)]),
    (at(0, 64, "in"), []),
    (at(0, 64, "weights"), []),
    (at(0, 64, "out"), [at(0, 64, "out")]),
])  # fmt: skip
def test_bytes_are_written_before_they_are_read(read: Range, holes: list[Range]) -> None:
    draft = Draft(streams=1)
    draft.launch(0, "a", writes=[A])
    draft.launch(0, "c", writes=[C])
    draft.launch(0, "b", reads=[read], writes=[at(512, 576)])
    draft.launch(0, "late", writes=[at(0, 512), draft.output()])
    draft.join()
    found = find_hazards(draft.plan())
    assert [h.kind for h in found] == ["UNINITIALISED"] * len(holes)
    assert [h.range for h in found] == holes


def test_the_report_of_bytes_nobody_wrote() -> None:
    draft = Draft(streams=1)
    draft.launch(0, "y", reads=[draft.tensor("x", A)], writes=[B])
    draft.join()
    assert report(draft.plan()) == (
        "UNINITIALISED hazard: 'y' (kernel, stream 0, instruction 0) reads arena[0, 64) (tensor "
        "'x'), which no launch before it has written."
    )


# --- events, streams, bounds, handles, aliases, read-only ----------------------------------------


def safe() -> Draft:
    """Two streams with one dependency: the plan most tests below spoil in one place."""
    draft = Draft()
    draft.fork()  # 0 record, 1 wait
    draft.launch(0, "a", writes=[A])  # 2
    draft.edge(0, 1)  # 3 record event 1, 4 wait
    draft.launch(1, "b", reads=[A], writes=[B])  # 5
    draft.join()  # 6 record event 2, 7 wait, 8 record event 3, 9 host_wait
    return draft


def spoiled(change: Callable[[list[Instruction]], None]) -> Plan:
    draft = safe()
    change(draft.instructions)
    return draft.plan()


def test_the_plan_to_be_spoiled_is_safe() -> None:
    assert_safe(safe().plan())
    assert lint(safe().plan()) == []


@pytest.mark.parametrize(("index", "found"), [
    (1, {"FORK", "RAW"}), (4, {"RAW"}), (7, {"JOIN", "RAW", "WAR", "WAW"}), (9, {"JOIN"}),
])  # fmt: skip
def test_every_wait_of_a_plan_is_needed(index: int, found: set[str]) -> None:
    missing = set(kinds(without(safe().plan(), index)))
    if index == 1:
        # The next wait of the stream forks it as well: nothing is lost without the first.
        assert missing == set()
    else:
        assert missing
        assert missing <= found


def test_an_event_is_recorded_before_it_is_waited_for() -> None:
    plan = safe().plan()
    texts = [str(h) for h in find_hazards(without(plan, 3)) if h.kind == "EVENT"]
    (text,) = texts
    assert text == (
        "EVENT hazard: the wait (stream 1, instruction 3) is for event 1, which is never "
        "recorded: it orders nothing."
    )
    swapped = list(plan.instructions)
    swapped[3], swapped[4] = swapped[4], swapped[3]
    found = find_hazards(replace(plan, instructions=tuple(swapped)))
    assert [h.kind for h in found][:2] == ["EVENT", "RAW"]
    assert "only recorded later, by the record (stream 0, instruction 4)" in str(found[0])


def test_a_host_wait_needs_its_record() -> None:
    plan = spoiled(lambda i: i.append(HostWait(9)))
    assert report(plan).startswith("EVENT hazard: the host_wait (instruction 10) is for event 9")


def test_an_event_is_recorded_once() -> None:
    plan = spoiled(lambda i: i.insert(3, Record(0, 0)))
    assert "event 0 is recorded twice, by the record (stream 0, instruction 0)" in report(plan)
    assert_safe(spoiled(lambda i: i.insert(3, Record(0, 99))))


def test_streams_are_declared_once_and_known() -> None:
    draft = safe()
    draft.streams.pop()
    found = find_hazards(draft.plan())
    assert {h.kind for h in found} == {"STREAM"}
    assert "'b' (kernel, stream 1, instruction 5) is on a stream the plan does not" in str(found[2])
    draft.streams += [Stream(1, 1), Stream(1)]
    assert report(draft.plan()) == "STREAM hazard: stream 1 is declared twice."
    assert kinds(spoiled(lambda i: i.insert(0, Record(7, 99))))[0] == "STREAM"


def test_stream_0_is_the_origin() -> None:
    draft = Draft(streams=1)
    draft.streams = [Stream(3)]
    draft.launch(3, "a", writes=[A])
    draft.host_wait(draft.record(3))
    assert kinds(draft.plan()) == ["STREAM", "FORK", "JOIN"]


@pytest.mark.parametrize(("range", "words"), [
    (at(960, 1025), "arena[960, 1025), outside the buffer's 1024 bytes"),
    (at(-1, 64), "arena[-1, 64), outside"),
    (at(64, 64), "arena[64, 64), a range without bytes"),
    (at(64, 0), "arena[64, 0), a range without bytes"),
    (at(0, 64, "nowhere"), "buffer 'nowhere', which the plan does not have"),
])  # fmt: skip
def test_ranges_lie_in_their_buffer(range: Range, words: str) -> None:
    draft = Draft(streams=1)
    draft.launch(0, "a", writes=[range])
    draft.join()
    assert f"'a' (kernel, stream 0, instruction 0) writes {words}" in report(draft.plan())


def test_the_last_byte_of_a_buffer_may_be_used() -> None:
    draft = Draft(streams=1)
    draft.launch(0, "a", writes=[draft.tensor("a", at(960, 1024))])
    draft.join()
    assert_safe(draft.plan())


@pytest.mark.parametrize("range", [at(1000, 1028), at(-4, 4), at(0, 4, "nowhere")])
def test_tensors_lie_in_their_buffer(range: Range) -> None:
    draft = safe()
    draft.tensor("t", range)
    assert report(draft.plan()).startswith("BOUNDS hazard: tensor 't' is placed ")


def test_buffers_are_declared_once() -> None:
    draft = safe()
    draft.buffers.append(draft.buffers[0])
    assert report(draft.plan()) == "BOUNDS hazard: buffer 'arena' is declared twice."


def gemm_plan(
    handle: int | None, streams: list[Stream], kind: WorkKind | None = "gemm",
    device: str = "cpu", command: str = "product",
) -> Plan:  # fmt: skip
    draft = Draft(device=device)
    draft.streams = streams
    draft.fork()
    draft.launch(1, "y", writes=[A], command=command, handle=handle, kind=kind)
    draft.join()
    return draft.plan()


BOUND = [Stream(0, 0), Stream(1, 1)]
BARE = [Stream(0), Stream(1)]


@pytest.mark.parametrize(("handle", "streams", "words"), [
    (0, BOUND, "carries BLAS handle 0, but stream 1 has handle 1"),
    (0, BARE, "carries BLAS handle 0, but stream 1 has no handle"),
    (None, BOUND, "it would run on the default stream"),
    (None, [Stream(0, 1), Stream(1, 0)], "it would run on the default stream"),
    (None, [Stream(0, 0), Stream(1)], "it would run on the default stream"),
    (1, [Stream(0, 1), Stream(1, 1)], "BLAS handle 1 is bound to stream 0 and to stream 1"),
])  # fmt: skip
def test_a_gemm_runs_with_the_handle_of_its_stream(
    handle: int | None, streams: list[Stream], words: str
) -> None:
    text = report(gemm_plan(handle, streams))
    assert text.startswith("HANDLE hazard: ")
    assert words in text


def test_right_handles() -> None:
    assert_safe(gemm_plan(1, BOUND))
    assert_safe(gemm_plan(None, BOUND, kind="kernel"))


def test_only_the_cpu_does_without_handles() -> None:
    assert_safe(gemm_plan(None, BARE))
    assert kinds(gemm_plan(None, BARE, device="hip")) == ["HANDLE"]
    assert_safe(gemm_plan(None, BARE, kind="kernel", device="hip"))


@pytest.mark.parametrize("kind", ["gemm", "gemm_batch"])
@pytest.mark.parametrize("command", ["gemm", "softmax", "memcpy"])
def test_what_a_launch_is_called_decides_nothing(kind: WorkKind, command: str) -> None:
    assert kinds(gemm_plan(None, BOUND, kind, command=command)) == ["HANDLE"]
    for other in (None, "kernel", "memcpy"):
        assert_safe(gemm_plan(None, BOUND, other, command=command))


@pytest.mark.parametrize(("reads", "writes", "found"), [
    ([A, B], [A], []),
    ([A, B], [at(32, 96)], ["ALIAS", "ALIAS"]),
    ([at(0, 65)], [B], ["ALIAS"]),
    ([A], [B], []),
    ([], [A, at(63, 128)], ["ALIAS", "ALIAS"]),
    ([], [A, B], []),
])  # fmt: skip
@pytest.mark.parametrize("command", ["gemm", "softmax"])
def test_the_operands_of_a_launch_do_not_alias(
    reads: list[Range], writes: list[Range], found: list[str], command: str
) -> None:
    draft = Draft(streams=1)
    draft.launch(0, "init", writes=[at(0, 192)])
    draft.launch(0, "y", reads, writes, command, handle=0)
    draft.join()
    assert kinds(draft.plan()) == found


@settings(max_examples=300)
@given(st.data())
def test_the_operands_of_a_batch_do_not_alias(data: st.DataObject) -> None:
    """Many ranges are checked by another algorithm than few; hazards are the same."""
    buffers = st.sampled_from(["arena", "other"])
    dense = [at(32 * n, 32 * n + 32, data.draw(buffers)) for n in range(20)]
    odd = st.builds(
        lambda low, size, buffer: at(low, low + size, buffer),
        st.integers(0, 600), st.integers(1, 80), buffers,
    )  # fmt: skip
    reads = [*dense[:10], *data.draw(st.lists(odd, max_size=2))]
    writes = [*dense[10:], *data.draw(st.lists(odd, max_size=1))]
    pairs = sum(
        w is not o and w != o and w.buffer == o.buffer and w.low < o.high and o.low < w.high
        for w in writes for o in (*reads, *writes)
    )  # fmt: skip
    draft = Draft(streams=1)
    draft.buffers.append(Buffer("other", 1024, "device", "arena"))
    draft.launch(0, "init", writes=[at(0, 1024), at(0, 1024, "other")])
    draft.launch(0, "y", reads, writes)
    draft.join()
    assert kinds(draft.plan()) == ["ALIAS"] * pairs


@pytest.mark.parametrize("buffer", ["in", "weights"])
def test_inputs_and_weights_are_not_written(buffer: str) -> None:
    draft = Draft(streams=1)
    draft.launch(0, "a", reads=[at(0, 64, buffer)], writes=[at(0, 64, buffer)])
    draft.join()
    assert report(draft.plan()).startswith("READONLY hazard: 'a' (kernel, stream 0, instruction 0)")


# --- forks, joins, the host, after ---------------------------------------------------------------


def test_a_stream_forks_from_the_origin() -> None:
    draft = Draft()
    draft.launch(1, "b", writes=[B])
    draft.launch(0, "a", writes=[A])
    draft.join()
    found = find_hazards(draft.plan())
    # Nothing but the join keeps two runs of it apart: 'b' of the next one does not wait for it.
    assert [h.kind for h in found] == ["FORK"]
    assert "stream 1 starts with 'b' (kernel, stream 1, instruction 0)" in str(found[0])
    draft.instructions[:0] = [Record(0, 50), Wait(1, 50, "fork")]
    assert_safe(draft.plan())


def test_a_stream_may_fork_through_another() -> None:
    draft = Draft(streams=3)
    draft.edge(0, 1, "fork")
    draft.edge(1, 2, "fork")
    draft.launch(2, "c", writes=[C])
    draft.join()
    assert_safe(draft.plan())


def test_every_stream_is_joined() -> None:
    plan = without(safe().plan(), 6, 7)
    found = find_hazards(plan)
    assert str(found[0]) == (
        "JOIN hazard: 'b' (kernel, stream 1, instruction 5) may still be running when the record "
        "(stream 0, instruction 6), the join, is reached: stream 1 is not joined into stream 0: "
        "missing edge the end of stream 1 → the record (stream 0, instruction 6)."
    )


def test_streams_may_be_joined_through_another() -> None:
    draft = Draft(streams=3)
    draft.fork()
    draft.launch(2, "c", writes=[C])
    draft.edge(2, 1, "join")
    draft.edge(1, 0, "join")
    draft.host_wait(draft.record(0))
    assert_safe(draft.plan())


def test_no_work_follows_the_join() -> None:
    late = Launch(0, "late", "kernel", (), (C,))
    text = report(spoiled(lambda i: i.insert(9, late)))
    assert text == (
        "JOIN hazard: 'late' (kernel, stream 0, instruction 9) is work after the join, the record "
        "(stream 0, instruction 8), the last the host waits for."
    )
    assert_safe(spoiled(lambda i: i.insert(8, late)))
    assert_safe(spoiled(lambda i: i.insert(9, Record(1, 60))))


def test_the_host_waits_for_the_origin() -> None:
    assert "the host never waits for any event" in report(without(safe().plan(), 9))
    draft = Draft()
    draft.fork()
    draft.launch(0, "a", writes=[A])
    draft.edge(0, 1)
    draft.host_wait(draft.record(1))
    assert "the host never waits for an event of stream 0" in report(draft.plan())


def test_a_plan_that_launches_nothing_is_safe() -> None:
    assert_safe(Draft().plan())


def test_the_host_may_wait_for_several_events() -> None:
    draft = safe()
    draft.instructions.insert(8, Record(1, 70))
    draft.host_wait(70)
    assert_safe(draft.plan())


def test_nothing_is_issued_after_a_host_wait() -> None:
    plan = spoiled(lambda i: i.insert(4, HostWait(1)))
    text = report(plan)
    assert text.startswith("HOST hazard: the wait (stream 1, instruction 5) is issued after the")


def output_plan(written: Range, joined: bool) -> Plan:
    draft = Draft()
    draft.output()
    draft.tensor("y", at(0, 64, "out"))
    draft.fork()
    draft.launch(1, "y.d2h", writes=[written])
    if joined:
        draft.join()
    else:
        draft.host_wait(draft.record(0))
    return draft.plan()


def test_the_host_reads_finished_outputs() -> None:
    assert_safe(output_plan(at(0, 64, "out"), joined=True))
    found = find_hazards(output_plan(at(0, 64, "out"), joined=False))
    assert [h.kind for h in found] == ["JOIN", "HOST"]
    assert str(found[1]) == (
        "HOST hazard: the host reads out[0, 64) (tensor 'y') while 'y.d2h' (kernel, stream 1, "
        "instruction 2) may still be writing it; it waits for no event recorded after 'y.d2h': "
        "missing edge 'y.d2h' → the host."
    )


@pytest.mark.parametrize("written", [at(0, 63, "out"), at(1, 64, "out")])
def test_the_host_reads_no_byte_nobody_wrote(written: Range) -> None:
    text = report(output_plan(written, joined=True))
    assert text.startswith("HOST hazard: the host reads unwritten bytes: out[")


def after_plan(*after: str, ordered: bool) -> Plan:
    draft = Draft()
    draft.fork()
    draft.launch(0, "a", writes=[A])
    draft.launch(0, "a", writes=[C])
    if ordered:
        draft.edge(0, 1)
    draft.tensor("view", A)
    draft.launch(1, "b", writes=[B], after=after)
    draft.join()
    return draft.plan()


def test_after_is_an_order() -> None:
    assert_safe(after_plan("a", "view", ordered=True))
    assert_safe(after_plan("view", ordered=False))
    assert report(after_plan("a", ordered=False)) == (
        "ORDER hazard: 'b' (kernel, stream 1, instruction 4) is to come after 'a', but 'a' "
        "(kernel, stream 0, instruction 3) may still be running when it starts: missing edge "
        "'a' → 'b'."
    )


def test_after_names_nodes() -> None:
    assert "is to come after 'c', which is no node" in report(after_plan("c", ordered=True))
    assert "is to come after itself" in report(after_plan("b", ordered=True))


def test_after_means_all_launches_of_the_node() -> None:
    plan = after_plan("a", ordered=True)
    moved = list(plan.instructions)
    moved[3], moved[4] = moved[4], moved[3]  # the record comes between the launches of 'a'
    (hazard,) = find_hazards(replace(plan, instructions=tuple(moved)))
    assert hazard.kind == "ORDER"
    late = list(plan.instructions)
    late.insert(7, late.pop(3))
    found = find_hazards(replace(plan, instructions=tuple(late)))
    assert "is only issued later when it starts" in str(found[0])


# --- back to back --------------------------------------------------------------------------------


def test_a_run_does_not_overtake_the_one_before() -> None:
    """Stream 1 reads A last; nothing makes the next run's write of A wait for that."""
    plan = without(safe().plan(), 6, 7)
    found = [h for h in find_hazards(plan) if h.relation == "next run"]
    assert [(h.kind, h.first.node, h.second.node) for h in found if h.first and h.second] == [
        ("WAR", "b", "a")
    ]
    assert str(found[0]) == (
        "WAR hazard: issued again right after this run, 'a' (kernel, stream 0, instruction 2) "
        "writes arena[0, 64) while 'b' (kernel, stream 1, instruction 5) may still be reading "
        "it; stream 0 of the next run starts 'a' after nothing that follows 'b': missing edge "
        "'b' → 'a' of the next run."
    )


def test_events_of_the_next_run_are_its_own() -> None:
    """If event 0 were taken from the previous run, the early stream would seem ordered."""
    draft = Draft()
    draft.launch(1, "early", writes=[A])
    draft.launch(0, "late", writes=[B])
    draft.edge(0, 1)
    draft.launch(1, "reader", reads=[A, B], writes=[C])
    draft.launch(1, "last", reads=[C], writes=[at(256, 320)])
    draft.host_wait(draft.record(0))
    found = [h for h in find_hazards(draft.plan()) if h.relation == "next run"]
    pairs = [(h.kind, h.first.node, h.second.node) for h in found if h.first and h.second]
    assert pairs == [("WAR", "reader", "late")]


# --- all of it against a closure by brute force --------------------------------------------------


@st.composite
def small_plans(draw: st.DrawFn) -> Plan:
    streams = draw(st.integers(1, 4))
    draft = Draft(streams)
    if draw(st.booleans()):
        draft.fork()
    random = Random(draw(st.integers(0, 2**32)))
    for n in range(draw(st.integers(1, 12))):
        stream, action = random.randrange(streams), random.random()
        events = [i.event for i in draft.instructions if isinstance(i, Record)]
        if action < 0.55:
            cuts = [sorted(random.sample(range(7), 2)) for _ in range(3)]
            ranges = [at(16 * low, 16 * high) for low, high in cuts]
            draft.launch(stream, f"n{n}", ranges[: random.randrange(3)], ranges[2:])
        elif action < 0.75 or not events:
            draft.record(stream, random.choice(events) if events and action < 0.57 else None)
        else:
            # Now and then an event that is only recorded later.
            draft.wait(stream, random.choice([*events, *events, max(events) + 1]))
    if draw(st.booleans()):
        draft.join()
    return draft.plan()


def closure(instructions: list[tuple[int, Instruction]]) -> list[int]:
    """For each instruction of (run, instruction) the set of those before it, as bits."""
    before: list[int] = []
    ends: dict[int, int] = {}
    records: dict[tuple[int, int], int] = {}
    for index, (run, i) in enumerate(instructions):
        if isinstance(i, HostWait):
            before.append(0)
            continue
        bits = ends.get(i.stream, 0)
        if isinstance(i, Wait):
            bits |= records.get((run, i.event), 0)
        before.append(bits)
        ends[i.stream] = bits | 1 << index
        if isinstance(i, Record):
            records[run, i.event] = ends[i.stream]
    return before


def brute_races(plan: Plan) -> set[tuple[str, int, int, int, int, str]]:
    twice = [(run, i) for run in (1, 2) for i in plan.instructions]
    before, size = closure(twice), len(plan.instructions)
    found = set()
    for (x, (run_x, a)), (y, (run_y, b)) in combinations(enumerate(twice), 2):
        if isinstance(a, Launch) and isinstance(b, Launch) and run_x == 1:
            if before[y] >> x & 1:
                continue
            relation = "same run" if run_y == 1 else "next run"
            for kind, ours, theirs in (
                ("RAW", a.writes, b.reads), ("WAR", a.reads, b.writes), ("WAW", a.writes, b.writes)
            ):  # fmt: skip
                for r, s in product(ours, theirs):
                    low, high = max(r.low, s.low), min(r.high, s.high)
                    if low < high:
                        found.add((kind, x, y % size, low, high, relation))
    return found


@settings(max_examples=400, deadline=None)
@given(small_plans())
def test_exactly_the_races_of_the_definition_are_found(plan: Plan) -> None:
    found = {
        (h.kind, h.first.index, h.second.index, h.range.low, h.range.high, h.relation)
        for h in find_hazards(plan, limit=10**9)
        if h.kind in ("RAW", "WAR", "WAW") and h.first and h.second and h.range
    }
    assert found == brute_races(plan)
    if not {"STREAM", "EVENT", "FORK", "JOIN"} & set(kinds(plan)):
        assert all(relation == "same run" for *_, relation in found)


@settings(max_examples=200, deadline=None)
@given(small_plans())
def test_exactly_the_unwritten_bytes_are_found(plan: Plan) -> None:
    written: set[int] = set()
    expected: set[tuple[int, int]] = set()
    for index, i in enumerate(plan.instructions):
        if isinstance(i, Launch):
            read = {byte for r in i.reads for byte in range(r.low, r.high)}
            expected |= {(index, byte) for byte in read - written}
            written |= {byte for r in i.writes for byte in range(r.low, r.high)}
    found = {
        (h.second.index, byte)
        for h in find_hazards(plan, limit=10**9)
        if h.kind == "UNINITIALISED" and h.second and h.range
        for byte in range(h.range.low, h.range.high)
    }
    assert found == expected


# --- lint ----------------------------------------------------------------------------------------


def test_a_wait_for_what_is_known_is_redundant() -> None:
    plan = spoiled(lambda i: i.insert(5, Wait(1, 1)))
    (text,) = lint(plan)
    assert text == (
        "the wait (stream 1, instruction 4) for event 1 is redundant: its stream is already past "
        "that record."
    )
    assert_safe(plan)


def test_of_two_waits_the_one_that_the_other_covers_is_redundant() -> None:
    draft = Draft(streams=3)
    draft.fork()
    draft.launch(0, "a", writes=[A])
    a = draft.record(0)
    draft.wait(1, a)
    draft.launch(1, "b", reads=[A], writes=[B])
    b = draft.record(1)
    draft.wait(2, a)
    draft.wait(2, b)
    draft.launch(2, "c", reads=[A, B], writes=[C])
    draft.join()
    (text,) = lint(draft.plan())
    assert text.startswith("the wait (stream 2, instruction 8) for event 1 is redundant")


def test_what_nothing_follows_and_nobody_waits_for_is_reported() -> None:
    draft = safe()
    draft.instructions[8:8] = [Record(1, 90), Wait(1, 1)]
    unused, trailing = lint(draft.plan())
    assert unused == (
        "event 90 is never waited for: the record (stream 1, instruction 8) could be left out."
    )
    assert trailing == (
        "the wait (stream 1, instruction 9) for event 1 is redundant: nothing follows it on its "
        "stream."
    )


def test_a_dependency_wait_that_forks_is_not_redundant() -> None:
    draft = Draft()
    draft.edge(0, 1)
    draft.launch(1, "b", writes=[B])
    draft.join()
    assert lint(draft.plan()) == []


@settings(max_examples=200, deadline=None)
@given(small_plans())
def test_launches_keep_their_order_without_redundant_waits(plan: Plan) -> None:
    recorded: set[int] = set()
    for i in plan.instructions:  # `lint` is for plans that have nothing worse
        if isinstance(i, Record):
            assume(i.event not in recorded)
            recorded.add(i.event)
        elif isinstance(i, Wait):
            assume(i.event in recorded)
    redundant = {
        int(text.split("instruction ")[1].split(")")[0]) for text in lint(plan) if "redun" in text
    }
    kept = [i for n, i in enumerate(plan.instructions) if n not in redundant]
    assert launch_order(kept) == launch_order(list(plan.instructions))


def launch_order(instructions: list[Instruction]) -> list[list[bool]]:
    before = closure([(1, i) for i in instructions])
    launches = [n for n, i in enumerate(instructions) if isinstance(i, Launch)]
    return [[bool(before[y] >> x & 1) for x in launches] for y in launches]


# --- the rest ------------------------------------------------------------------------------------


def test_verify_raises_all_that_was_found() -> None:
    first, second = RACES["RAW"]
    with pytest.raises(HazardError, match="RAW hazard: 'second'") as caught:
        prove(pair(first, second, ordered=False))
    assert len(caught.value.hazards) == 1


def test_malformed_parts_are_reported_before_races_use_up_the_limit() -> None:
    draft = Draft(streams=2)
    for n in range(40):
        draft.launch(n % 2, f"n{n}", writes=[A])
    draft.launch(0, "gemm", writes=[B], command="gemm", handle=1)
    draft.join()
    assert kinds(draft.plan())[:2] == ["HANDLE", "FORK"]
    assert len(kinds(draft.plan())) == 100


def test_reports_name_some_tensors_and_count_the_rest() -> None:
    draft = Draft()
    draft.tensor("whole", at(0, 256))
    for n in range(5):
        draft.tensor(f"t{n}", A)
    draft.fork()
    draft.launch(0, "a", writes=[A])
    draft.launch(1, "b", writes=[A])
    draft.join()
    (hazard,) = find_hazards(draft.plan())
    assert hazard.tensors == ("t0", "t1", "t2", "t3", "t4", "whole")
    assert "(tensors 't0', 't1', 't2' and 3 more)" in str(hazard)


@pytest.mark.parametrize("streams", [2, 8])
def test_large_plans(streams: int) -> None:
    plan = layered(4_000, streams)
    assert_safe(plan)
    assert lint(plan) == []
    waits = [n for n, i in enumerate(plan.instructions) if isinstance(i, Wait) and i.stream == 1]
    wait = waits[len(waits) // 2]
    assert {"RAW", "WAR"} & set(kinds(without(plan, wait)))


def test_a_safe_plan_is_proved_without_comparing_launches() -> None:
    """What makes the verifier fast: only launches that race are looked at twice."""
    assert History(layered(400, 4)).suspects == []
    draft = Draft()
    draft.launch(0, "init", writes=[A])
    draft.fork()
    draft.launch(0, "all", [A], [B])
    draft.launch(0, "low", [at(0, 32)], [C])
    draft.launch(1, "high", [at(32, 64)], [at(256, 320)])
    draft.edge(0, 1)
    draft.launch(0, "more", [at(32, 64)], [at(320, 384)])
    draft.launch(1, "low again", [at(0, 32)], [at(0, 32)])
    draft.edge(1, 0)
    draft.launch(0, "over", [], [A])
    draft.join()
    assert_safe(draft.plan())
    assert History(draft.plan()).suspects == []


def test_a_long_chain_on_alternating_streams() -> None:
    draft = Draft()
    draft.fork()
    for n in range(10_000):
        draft.launch(n % 2, f"n{n}", [A] if n else [], [A])
        draft.edge(n % 2, (n + 1) % 2)
    draft.join()
    assert_safe(draft.plan())


def test_tensors_without_bytes_are_no_hazard() -> None:
    draft = safe()
    draft.tensors.append(PlacedTensor("empty", "arena", 1024, 0, (), DType.F32))
    assert_safe(draft.plan())
