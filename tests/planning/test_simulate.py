from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_tasks import made, random_tasks

from graphexec.machine.bounds import bounds
from graphexec.machine.simulate import TO_DEVICE, TO_HOST, simulate


def ends(tasks, stream, order=None):
    return list(simulate(tasks, order or range(len(tasks)), stream).end)


def test_one_stream_is_a_sum():
    tasks = made([3, 4, 5], [(), (), ()], launch=1)
    assert ends(tasks, [0, 0, 0]) == [4, 9, 15]


def test_two_commands_that_fill_the_device_gain_only_a_launch_side_by_side():
    tasks = made([10, 10], [(), ()], share=1, launch=1)
    assert ends(tasks, [0, 1]) == [21, 21]
    assert ends(tasks, [0, 0]) == [11, 22]


def test_small_commands_run_side_by_side_for_nothing():
    tasks = made([10, 10, 10], [(), (), ()], share=0.25, launch=1)
    assert ends(tasks, [0, 1, 2]) == [11, 11, 11]


def test_what_is_over_capacity_slows_down_alike():
    # Shares 0.5 and 1 get two thirds of their speed; after 15 µs the first is done.
    tasks = made([10, 20], [(), ()], share=[0.5, 1.0])
    assert ends(tasks, [0, 1]) == pytest.approx([15, 25])


def test_copies_have_engines_of_their_own_one_a_direction():
    engine = [TO_DEVICE, TO_HOST, 0, TO_DEVICE]
    tasks = made([10, 10, 10, 10], [(), (), (), ()], share=1, engine=engine)
    assert ends(tasks, [0, 1, 2, 3]) == [20, 10, 10, 20]


def test_an_event_costs_between_streams_only():
    tasks = made([5, 5], [(), (0,)], event=2)
    assert ends(tasks, [0, 0]) == [5, 10]
    assert ends(tasks, [0, 1]) == [5, 12]


def test_issue_order_decides_on_a_stream():
    tasks = made([5, 3], [(), ()])
    assert ends(tasks, [0, 0], [1, 0]) == [8, 3]


def test_a_stream_is_in_order_even_if_its_first_command_waits():
    # 0 on stream 0; 1 waits for it on stream 1; 2 needs nothing but stands behind 1.
    tasks = made([10, 1, 1], [(), (0,), ()], share=0.1)
    assert ends(tasks, [0, 1, 1]) == [10, 11, 12]


def test_commands_without_time_and_without_launch():
    tasks = made([0, 0, 4], [(), (0,), (1,)])
    assert ends(tasks, [0, 1, 0]) == [0, 0, 4]


def test_nothing_to_do():
    assert simulate(made([], []), [], []).makespan == 0


@given(st.integers(0, 2**32), st.integers(1, 14), st.integers(1, 5))
def test_makespan_is_never_below_the_bounds(seed, count, streams):
    tasks, stream = random_tasks(seed, count, streams)
    timeline = simulate(tasks, range(count), stream)
    low = bounds(tasks, streams)
    assert timeline.makespan >= low.best - 1e-6
    assert simulate(tasks, range(count), stream) == timeline
    for command, needs in enumerate(tasks.predecessors):
        assert timeline.end[command] - timeline.start[command] >= tasks.time[command] - 1e-9
        for need in needs:
            event = tasks.event if stream[need] != stream[command] else 0.0
            assert timeline.start[command] >= timeline.end[need] + event - 1e-6


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_work_is_never_done_faster_than_the_device_can(seed, count):
    """At any time the active shares, scaled to the common rate, add up to at most 1."""
    tasks, stream = random_tasks(seed, count, 4)
    timeline = simulate(tasks, range(count), stream)
    work = sum(
        t * s for t, s, e in zip(tasks.time, tasks.share, tasks.engine, strict=True) if e == 0
    )
    assert timeline.makespan >= work - 1e-6
