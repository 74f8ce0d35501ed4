"""What each wait of a plan orders, whatever stands between the two."""

from __future__ import annotations

from graphexec.ir.plan import HostWait, Instruction, Launch, Plan, Range, Record, Stream, Wait
from graphexec.views.lanes import to_svg
from graphexec.views.waits import by_launch, wait_ends

A, B = Range("arena", 0, 4), Range("arena", 4, 8)


def plan_of(*instructions: Instruction) -> Plan:
    return Plan("g", "cpu", {}, (Stream(0), Stream(1)), (), (), instructions)


def launch(stream: int, node: str) -> Launch:
    return Launch(stream, node, "copy", (A,), (B,))


def ends(plan: Plan) -> list[tuple[int, int | None, int | None]]:
    return [(e.number, e.before, e.after) for e in wait_ends(plan)]


def test_a_wait_is_between_the_launch_before_its_record_and_the_next_on_its_stream() -> None:
    first, second = Wait(1, 0, "dependency"), Wait(1, 1, "dependency")
    plan = plan_of(
        launch(0, "a"), Record(0, 0), launch(0, "b"), Record(0, 1), first, second,
        *[launch(0, f"c{n}") for n in range(20)], launch(1, "d"), Record(1, 2), HostWait(2),
    )  # fmt: skip
    assert ends(plan) == [(4, 0, 26), (5, 2, 26), (28, 26, None)]
    assert [e.record for e in wait_ends(plan)] == [Record(0, 0), Record(0, 1), Record(1, 2)]


def test_waits_without_a_record_or_a_launch() -> None:
    never, early = Wait(0, 7, "dependency"), Wait(1, 0, "fork")
    found = wait_ends(plan_of(never, Record(0, 0), Record(0, 7), early, launch(0, "a")))
    assert [(e.wait, e.before, e.after) for e in found] == [(never, None, 4), (early, None, None)]
    assert [e.record for e in found] == [None, Record(0, 0)]


def test_waits_in_the_order_of_the_launches_after_them() -> None:
    plan = plan_of(
        launch(0, "a"), Record(0, 0), Wait(1, 0, "dependency"), Wait(0, 0, "dependency"),
        launch(0, "b"), launch(1, "c"), Record(1, 1), HostWait(1),
    )  # fmt: skip
    assert [e.number for e in by_launch(wait_ends(plan))] == [3, 2, 7]


def test_the_critical_path_leads_through_a_wait_far_before_its_launch() -> None:
    long = [launch(0, "a") for _ in range(30)]
    others = [Record(0, event) for event in range(2, 30)]
    plan = plan_of(*long, Record(0, 0), Wait(1, 0, "dependency"), *others, launch(1, "late"))
    assert ' class="w cw"' in to_svg(plan)
