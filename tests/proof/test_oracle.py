"""The oracle itself: every rule with a plan that breaks it and the nearest plan that does not,
and its two forms against each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from mutants import KINDS, mutants
from oracle import EXECUTION_KINDS, ILL_FORMED, back_to_back, kinds, racy, racy_by_execution
from strategies import Seeded, graphs, plans, random_plan

from graphexec.base.tensor import DType
from graphexec.ir.graph import Graph
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

BUFFERS = (
    Buffer("a", 8, "device", "arena"),
    Buffer("in", 4, "host", "input"),
    Buffer("w", 4, "device", "weights"),
    Buffer("out", 2, "host", "output"),
)
NO_OUTPUT = BUFFERS[:3]
VALUE_RACES = EXECUTION_KINDS - {"WAW"}
"""Kinds that show even if the overwritten bytes are not read."""


def plan_of(
    text: str,
    *,
    handles: tuple[int | None, ...] = (0, 1),
    buffers: tuple[Buffer, ...] = NO_OUTPUT,
) -> Plan:
    """A plan of instructions with semicolons in between:

    s0 record 1; s1 wait 1; host 1; s0 gemm/x h0 after y: in 0:4, w 0:4 > a 0:4
    """
    steps = tuple(_step(line) for line in text.split(";") if line.strip())
    streams = tuple(Stream(i, handle) for i, handle in enumerate(handles))
    return Plan("test", "cpu", {}, streams, buffers, (), steps)


def _step(line: str) -> Instruction:
    head, _, touched = line.partition(":")
    words = head.split()
    if words[0] == "host":
        return HostWait(int(words[1]))
    stream, verb = int(words[0][1:]), words[1]
    if verb in ("record", "wait"):
        return (Record if verb == "record" else Wait)(stream, int(words[2]))
    command, _, node = verb.partition("/")
    handle = next((int(w[1:]) for w in words[2:] if w[0] == "h"), None)
    after = tuple(words[words.index("after") + 1 :]) if "after" in words else ()
    reads, writes = (_ranges(part) for part in touched.split(">"))
    kind: WorkKind = "gemm" if command == "gemm" else "kernel"
    return Launch(stream, node or command, command, reads, writes, handle, after, kind=kind)


def _ranges(text: str) -> tuple[Range, ...]:
    found = []
    for item in text.split(","):
        if item.strip():
            buffer, span = item.split()
            low, high = span.split(":")
            found.append(Range(buffer, int(low), int(high)))
    return tuple(found)


def one(text: str, end: str = "s0 record 9; host 9", **more: Any) -> Plan:
    """A plan on stream 0 with a host_wait."""
    return plan_of(f"{text}; {end}", **more)


def with_tensors(plan: Plan, *tensors: PlacedTensor) -> Plan:
    return replace(plan, tensors=tensors)


def two(text: str, **more: Any) -> Plan:
    """A plan on two streams, forked and joined."""
    return one(f"s0 record 0; s1 wait 0; {text}; s1 record 8; s0 wait 8", **more)


LOAD = "s0 copy/x: in 0:4 > a 0:4"
SIGNAL = "s0 record 1; s1 wait 1"  # from stream 0 to 1
GEMM = "s1 gemm h1: w 0:4 > a 4:8"

CASES: dict[str, tuple[set[str], Plan, Plan]] = {
    "RAW, unordered": (
        {"RAW"},
        two(f"{LOAD}; {SIGNAL}; {LOAD}; s1 copy: a 3:4 > a 4:8"),
        two(f"{LOAD}; {LOAD}; {SIGNAL}; s1 copy: a 3:4 > a 4:8"),
    ),
    "RAW, one byte shared": (
        {"RAW"},
        two(f"{LOAD}; {SIGNAL}; s0 copy: w 0:1 > a 3:4; s1 copy: a 0:4 > a 4:8"),
        two(f"{LOAD}; {SIGNAL}; s0 copy: w 0:1 > a 3:4; s1 copy: a 0:3 > a 4:8"),
    ),
    "RAW, not made safe by a wait on another stream": (
        {"RAW"},
        two(f"{LOAD}; {SIGNAL}; {LOAD}; s0 record 2; s0 wait 2; s1 copy: a 0:4 > a 4:8"),
        two(f"{LOAD}; {SIGNAL}; {LOAD}; s0 record 2; s1 wait 2; s1 copy: a 0:4 > a 4:8"),
    ),
    "WAR": (
        {"WAR"},
        two(f"{LOAD}; {SIGNAL}; s0 copy: a 0:4 > a 4:8; s1 copy: w 0:4 > a 0:4"),
        two(f"{LOAD}; s0 copy: a 0:4 > a 4:8; {SIGNAL}; s1 copy: w 0:4 > a 0:4"),
    ),
    "WAW": (
        {"WAW"},
        two(f"{LOAD}; s1 copy: w 0:2 > a 3:5"),
        two(f"{LOAD}; s1 copy: w 0:2 > a 4:5"),
    ),
    "two accesses, one a write": (
        {"WAR"},
        two(f"{LOAD}; {SIGNAL}; s0 copy: a 0:4 > a 4:5; s1 copy: w 0:1 > a 3:4"),
        two(f"{LOAD}; {SIGNAL}; s0 copy: a 0:4 > a 4:5; s1 copy: a 0:4 > a 5:6"),
    ),
    "read of unwritten bytes": (
        {"unwritten"},
        one(f"{LOAD}; s0 copy: a 0:5 > a 5:6"),
        one(f"{LOAD}; s0 copy: a 0:4 > a 5:6"),
    ),
    "read of bytes written later": (
        {"unwritten"},
        one(f"s0 copy: a 3:4 > a 5:6; {LOAD}"),
        one(f"{LOAD}; s0 copy: a 3:4 > a 5:6"),
    ),
    "read of what the launch itself writes": (
        {"unwritten"},
        one("s0 softmax: a 0:4 > a 0:4"),
        one(f"{LOAD}; s0 softmax: a 0:4 > a 0:4"),
    ),
    "event recorded twice": (
        {"event"},
        two(f"{LOAD}; {SIGNAL}; s0 record 1"),
        two(f"{LOAD}; {SIGNAL}; s0 record 2"),
    ),
    "event waited for before its record": (
        {"event"},
        two(f"{LOAD}; s1 wait 1; s0 record 1"),
        two(f"{LOAD}; s0 record 1; s1 wait 1"),
    ),
    "event never recorded": (
        {"event", "host", "join"},
        plan_of(f"{LOAD}; s0 record 9; host 8"),
        plan_of(f"{LOAD}; s0 record 9; host 9"),
    ),
    "unknown stream": (
        {"stream"},
        one(f"{LOAD}; s0 record 0; s2 wait 0"),
        one(f"{LOAD}; s0 record 0; s1 wait 0"),
    ),
    "unknown buffer": (
        {"range"},
        one("s0 copy: in 0:4 > b 0:4"),
        one("s0 copy: in 0:4 > a 0:4"),
    ),
    "range past the end": (
        {"range"},
        one("s0 copy: in 0:4 > a 5:9"),
        one("s0 copy: in 0:4 > a 4:8"),
    ),
    "range before the start": (
        {"range"},
        one("s0 copy: in -1:4 > a 0:4"),
        one("s0 copy: in 0:4 > a 0:4"),
    ),
    "empty range": (
        {"range"},
        one("s0 copy: in 2:2 > a 0:4"),
        one("s0 copy: in 2:3 > a 0:4"),
    ),
    "write to an input": (
        {"read-only"},
        one("s0 copy: w 0:4 > in 0:4"),
        one("s0 copy: w 0:4 > a 0:4"),
    ),
    "write to weights": (
        {"read-only"},
        one("s0 copy: in 0:4 > w 0:1"),
        one("s0 copy: in 0:4 > a 0:1"),
    ),
    "output byte not written": (
        {"output"},
        one("s0 copy: w 0:1 > out 0:1", buffers=BUFFERS),
        one("s0 copy: w 0:1 > out 0:1; s0 copy: w 0:1 > out 1:2", buffers=BUFFERS),
    ),
    "host waits for nothing": (
        {"host", "join"},
        plan_of(f"{LOAD}; s0 record 9"),
        plan_of(f"{LOAD}; s0 record 9; host 9"),
    ),
    "host waits too early": (
        {"host", "join"},
        plan_of(f"{LOAD}; s0 record 9; s0 copy: w 0:4 > a 4:8; host 9"),
        plan_of(f"{LOAD}; s0 copy: w 0:4 > a 4:8; s0 record 9; host 9"),
    ),
    "stream not joined": (
        {"host", "join"},
        one(f"s0 record 0; s1 wait 0; {GEMM}; s1 record 8"),
        one(f"s0 record 0; s1 wait 0; {GEMM}; s1 record 8; s0 wait 8"),
    ),
    "joined into another stream than 0": (
        {"join"},
        plan_of(f"s0 record 0; s1 wait 0; {LOAD}; {SIGNAL}; {GEMM}; s1 record 9; host 9"),
        plan_of(
            f"s0 record 0; s1 wait 0; {LOAD}; {GEMM}; s1 record 8; s0 wait 8; s0 record 9; host 9"
        ),
    ),
    "launch after a host_wait": (
        {"edge"},
        one(f"{LOAD}; s0 record 1; host 1; s0 copy: w 0:4 > a 4:8"),
        one(f"{LOAD}; s0 record 1; s0 copy: w 0:4 > a 4:8", end="s0 record 9; host 1; host 9"),
    ),
    "launch left over on a stream": (
        {"host", "join"},
        two(f"{LOAD}; {GEMM}", end="s0 record 9; s1 copy: w 0:1 > a 4:5; host 9"),
        two(f"{LOAD}; {GEMM}", end="s0 record 9; s1 wait 9; host 9"),
    ),
    "launch left over, and a record, which is no work": (
        {"host", "join"},
        two(f"{LOAD}; {GEMM}", end="s0 record 9; s1 copy: w 0:1 > a 4:5; host 9"),
        two(f"{LOAD}; {GEMM}", end="s0 record 9; s1 record 5; host 9"),
    ),
    "stream not forked": (
        {"fork"},
        one(f"{GEMM}; s1 record 8; s0 wait 8"),
        one(f"s0 record 0; s1 wait 0; {GEMM}; s1 record 8; s0 wait 8"),
    ),
    "stream forked late": (
        {"fork"},
        one(f"s1 record 0; s1 wait 0; {GEMM}; s1 record 8; s0 wait 8"),
        one(f"s0 record 0; s1 wait 0; {GEMM}; s1 record 8; s0 wait 8"),
    ),
    "gemm without the handle of its stream": (
        {"handle"},
        one("s0 gemm: w 0:4 > a 0:4"),
        one("s0 copy: w 0:4 > a 0:4"),
    ),
    "gemm on a stream without a handle": (
        {"handle"},
        one("s0 gemm: w 0:4 > a 0:4", handles=(None, 1)),
        one("s0 gemm: w 0:4 > a 0:4", handles=(None, None)),
    ),
    "handle of another stream": (
        {"handle"},
        two("s1 gemm h0: w 0:4 > a 0:4"),
        two("s1 gemm h1: w 0:4 > a 0:4"),
    ),
    "handle of another stream on a launch that needs none": (
        {"handle"},
        one("s0 copy h1: w 0:4 > a 0:4"),
        one("s0 copy h0: w 0:4 > a 0:4"),
    ),
    "one handle on two streams": (
        {"handle"},
        two(GEMM, handles=(1, 1)),
        two(GEMM, handles=(2, 1)),
    ),
    "gemm that writes part of what it reads": (
        {"alias"},
        one(f"{LOAD}; s0 gemm h0: w 0:4, a 0:4 > a 0:2"),
        one(f"{LOAD}; s0 gemm h0: w 0:4, a 0:4 > a 0:4"),
    ),
    "kernel that writes part of what it reads": (
        {"alias"},
        one(f"{LOAD}; s0 softmax: a 0:4 > a 3:7"),
        one(f"{LOAD}; s0 softmax: a 0:4 > a 4:8"),
    ),
    "two writes of one launch": (
        {"alias"},
        one("s0 copy: w 0:4 > a 0:4, a 3:7"),
        one("s0 copy: w 0:4 > a 0:4, a 4:8"),
    ),
    "after a node that is not there": (
        {"after"},
        one("s0 copy/x: in 0:4 > a 0:4; s0 copy after y: w 0:4 > a 4:8"),
        one("s0 copy/x: in 0:4 > a 0:4; s0 copy after x: w 0:4 > a 4:8"),
    ),
    "after itself": (
        {"after"},
        one("s0 copy/x after x: w 0:4 > a 4:8"),
        one("s0 copy/x: w 0:4 > a 4:8"),
    ),
    "tensor past the end": (
        {"range"},
        with_tensors(one(LOAD), PlacedTensor("x", "a", 1, 8, (4,), DType.F16)),
        with_tensors(one(LOAD), PlacedTensor("x", "a", 0, 8, (4,), DType.F16)),
    ),
    "tensor in an unknown buffer": (
        {"range"},
        with_tensors(one(LOAD), PlacedTensor("x", "b", 0, 4, (2,), DType.F16)),
        with_tensors(one(LOAD), PlacedTensor("x", "a", 0, 4, (2,), DType.F16)),
    ),
    "record after a host_wait": (
        {"edge"},
        one(f"{LOAD}; s0 record 1", end="s0 record 9; host 9; s0 record 2"),
        one(f"{LOAD}; s0 record 1", end="s0 record 9; host 9; host 1"),
    ),
    "after, not in order": (
        {"after"},
        two(f"{LOAD}; s1 copy after x: w 0:4 > a 4:8"),
        two(f"{LOAD}; {SIGNAL}; s1 copy after x: w 0:4 > a 4:8"),
    ),
    "after, one of two launches": (
        {"after"},
        two(f"{LOAD}; {SIGNAL}; s0 copy/x: w 0:1 > a 4:5; s1 copy after x: w 0:1 > a 5:6"),
        two(f"{LOAD}; {SIGNAL}; s0 copy/y: w 0:1 > a 4:5; s1 copy after x: w 0:1 > a 5:6"),
    ),
    "declared twice": (
        {"declaration"},
        one(LOAD, buffers=(*NO_OUTPUT, NO_OUTPUT[0])),
        one(LOAD, buffers=(*NO_OUTPUT, replace(NO_OUTPUT[0], id="b"))),
    ),
}
"""A rule: the kinds of a plan that breaks it, that plan, and the nearest plan that does not."""


@pytest.mark.parametrize("rule", CASES)
def test_every_rule_fails_and_its_nearest_miss_passes(rule: str) -> None:
    expected, wrong, right = CASES[rule]
    assert kinds(racy(wrong)) == expected
    assert racy(right) == []


@pytest.mark.parametrize("rule", CASES)
def test_execution_agrees_on_every_rule(rule: str) -> None:
    expected, wrong, right = CASES[rule]
    assert racy_by_execution(right, observe_overwrites=True) == []
    if expected & ILL_FORMED:
        with pytest.raises(ValueError, match="not well-formed"):
            racy_by_execution(wrong)
    else:
        found = racy_by_execution(wrong, observe_overwrites=True)
        assert bool(found) == bool(expected & EXECUTION_KINDS)


def test_two_runs_meet_where_a_stream_is_not_forked() -> None:
    """Run 2 may write a 0:4 on stream 1 while run 1 still reads it on stream 0."""
    order = "s1 record 1; s0 wait 1; s0 copy: a 0:4 > a 4:8"
    apart = one(f"s1 copy: w 0:4 > a 0:4; {order}")
    assert kinds(racy(apart)) == {"fork", "WAR across runs"}
    assert racy_by_execution(apart) == []
    assert racy_by_execution(back_to_back(apart)) != []
    forked = one(f"s0 record 0; s1 wait 0; s1 copy: w 0:4 > a 0:4; {order}")
    assert racy(forked) == []
    assert racy_by_execution(back_to_back(forked)) == []


def test_writes_nobody_reads_are_a_race_of_order_only() -> None:
    """The difference between the two forms that the module names first."""
    dead = two(f"{LOAD}; s1 copy: w 0:2 > a 3:5")
    assert kinds(racy(dead)) == {"WAW"}
    assert racy_by_execution(dead) == []
    assert racy_by_execution(dead, observe_overwrites=True) != []


def test_a_plan_of_nothing_is_safe() -> None:
    assert racy(plan_of("")) == []
    assert racy_by_execution(plan_of("")) == []
    assert kinds(racy(plan_of("", buffers=BUFFERS))) == {"output"}


@settings(max_examples=200, deadline=None)
@given(plans())
def test_order_and_execution_agree(plan: Plan) -> None:
    reasons = kinds(racy(plan))
    assume(not reasons & ILL_FORMED)
    seen_strictly = racy_by_execution(plan, observe_overwrites=True)
    assert bool(seen_strictly) == bool(reasons & EXECUTION_KINDS)
    seen = racy_by_execution(plan)
    if reasons & VALUE_RACES:
        assert seen
    elif "WAW" not in reasons:
        assert not seen


@settings(max_examples=100, deadline=None)
@given(plans(max_launches=3))
def test_order_and_execution_agree_on_two_runs(plan: Plan) -> None:
    reasons = kinds(racy(plan))
    assume(not reasons & ILL_FORMED)
    expected = {reason.split()[0] for reason in reasons} & EXECUTION_KINDS
    seen = racy_by_execution(back_to_back(plan), observe_overwrites=True)
    assert bool(seen) == bool(expected)


def test_random_plans_are_a_fair_mixture() -> None:
    """Every kind has safe and unsafe plans: plans of one verdict would prove nothing."""
    found = Counter(kind for seed in range(600) for kind in kinds(random_verdict(seed)) or {"safe"})
    assert 150 < found["safe"] < 450
    wanted = EXECUTION_KINDS | {"event", "fork", "join", "handle", "alias", "after", "edge"}
    assert wanted <= found.keys()


def random_verdict(seed: int) -> list[str]:
    return racy(random_plan(Seeded(seed)))


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_random_graphs_have_nodes_and_outputs(graph: Graph) -> None:
    assert 1 <= len(graph.nodes) <= 12
    assert graph.outputs


def test_every_kind_of_mutant_is_made() -> None:
    """Every one is a plan, differs from its origin, and but for a few kinds some are refused."""
    origin = two(
        f"{LOAD}; {SIGNAL}; {GEMM}; s1 record 2; s0 wait 2; s0 gemm/y h0: a 4:8, w 0:4 > a 0:4;"
        "s0 copy/y.d2h: a 0:2 > out 0:2",
        buffers=BUFFERS,
    )
    tensors = (
        PlacedTensor("x", "a", 0, 4, (2,), DType.F16),
        PlacedTensor("gemm", "a", 4, 4, (2,), DType.F16),
    )
    origin = with_tensors(origin, *tensors)
    assert racy(origin) == []
    made, refused = Counter[str](), Counter[str]()
    for what, mutant in mutants(origin):
        assert mutant != origin, what
        kind = what.split(":")[0]
        made[kind] += 1
        refused[kind] += bool(racy(mutant))
    assert made.keys() == KINDS.keys()
    assert all(refused[kind] for kind in KINDS)


def test_a_moved_tensor_takes_its_ranges_along() -> None:
    origin = one(f"{LOAD}; s0 copy/y: a 0:4 > a 4:8; s0 copy/z: a 4:8 > a 0:4")
    tensor = PlacedTensor("x", "a", 0, 4, (2,), DType.F16)
    origin = with_tensors(origin, tensor)
    shifted = dict(mutants(origin))["shift allocation: x from [0, +4) to [1, +4)"]
    assert shifted.tensors == (replace(tensor, offset=1),)
    first, second, third = (s for s in shifted.instructions if isinstance(s, Launch))
    assert (first.writes, second.reads) == ((Range("a", 1, 5),), (Range("a", 1, 5),))
    assert third.writes == (Range("a", 0, 4),), "another tensor by then"
