"""The plan as DOT: what is drawn, and that Graphviz draws it without a word."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from graphexec.base.tensor import DType
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stream,
    Wait,
)
from graphexec.proof import find_hazards
from graphexec.views.blocks import blocks
from graphexec.views.dataflow import data_edges
from graphexec.views.dot import to_dot
from graphexec.views.table import count


def graphviz(dot: str, format: str = "plain") -> str:
    """The output of Graphviz; fails on any message of Graphviz."""
    if shutil.which("dot") is None:
        pytest.skip("needs Graphviz: apt-get install graphviz")
    done = subprocess.run(
        ["dot", f"-T{format}"], input=dot.encode(), capture_output=True, timeout=120, check=False
    )
    assert done.stderr == b""
    assert done.returncode == 0
    return done.stdout.decode()


def test_attention(golden, attention):
    golden("views/attention.dot", to_dot(attention))


def test_eight_chains_on_four_streams(golden, chains):
    golden("views/chains.dot", to_dot(chains(8, 4)))


def test_names_of_any_characters(golden, awkward):
    golden("views/awkward.dot", to_dot(awkward))


def test_graphviz_has_nothing_to_say(attention, chains, awkward):
    for plan in (attention, chains(8, 4), chains(12, 11), awkward):
        graphviz(to_dot(plan))


def test_awkward_names_arrive_unharmed(awkward):
    svg = graphviz(to_dot(awkward), "svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    shown = {t.replace("&#8288;", "").replace("\u2060", "") for t in texts}
    assert {"&lt;x&gt;", "node", "подграф", "back\\N", "a&amp;amp;b", "层"} <= shown
    assert {'a"b', "a&quot;b"} & shown


def test_the_same_plan_gives_the_same_text(chains):
    assert to_dot(chains(8, 4)) == to_dot(chains(8, 4))


def test_data_edges_carry_dtype_and_shape(attention):
    assert re.search(r'n0 -> n3 \[label=" f16 \[2, 8, 128, 64\] "', to_dot(attention))


def test_waits_are_dashed_and_numbered(attention):
    dashed = [line for line in to_dot(attention).splitlines() if "->" in line and "dashed" in line]
    assert [re.match(r'  (\S+) -> (\S+) \[label=" (.*?) "', line).groups() for line in dashed] == [
        ("n0", "n1", "e0 fork"), ("n0", "n2", "e1 fork"), ("n1", "n3", "e2"), ("n2", "n5", "e3"),
        ("n6", "host", "e4"),
    ]  # fmt: skip


def test_streams_differ_in_colour(attention):
    fills = re.findall(r'  n\d+ \[.*?fillcolor="(#\w+)"', to_dot(attention))
    assert len(fills) == 7
    assert len(set(fills)) == 3


def test_transfers_and_buffers_have_shapes_of_their_own(attention):
    dot = to_dot(attention)
    assert dot.count('shape="parallelogram"') == 4
    assert dot.count('shape="cylinder"') == 4


def test_a_wait_without_launches_around_it_starts_and_ends_at_marks():
    plan = Plan("p", "cpu", {}, (Stream(0), Stream(1)), (), (), (
        Record(0, 0), Wait(1, 0, "fork"), Launch(1, "x", "gemm", (), ()), Record(1, 1),
        Wait(0, 1, "join"), Record(0, 2), HostWait(2),
    ))  # fmt: skip
    dot = to_dot(plan)
    assert "start0 -> n0" in dot
    assert "n0 -> host" in dot
    graphviz(dot)


def test_a_plan_that_makes_no_sense_is_drawn_all_the_same():
    odd = Launch(7, "x", "gemm", (Range("nowhere", 5, 2), Range("void", 0, 8)), ())
    plan = Plan("", "", {}, (), (), (), (Wait(9, 3), odd, HostWait(4), Record(1, 1)))
    dot = to_dot(plan)
    assert "never recorded" in dot
    assert "never written" in dot
    graphviz(dot)


def test_weights_in_one_buffer_are_drawn_each():
    reads = (Range("weights", 0, 8), Range("weights", 8, 16))
    plan = Plan(
        "p", "cpu", {}, (Stream(0),), (Buffer("weights", 16, "device", "weights"),),
        (PlacedTensor("wq", "weights", 0, 8, (2,), DType.F32),
         PlacedTensor("wk", "weights", 8, 8, (2,), DType.F32)),
        (Launch(0, "y", "gemm", reads, ()),),
    )  # fmt: skip
    dot = to_dot(plan)
    assert dot.count('shape="folder"') == 2
    assert "<b>wq</b>" in dot
    assert "<b>wk</b>" in dot
    graphviz(dot)


@pytest.mark.parametrize("most", [1, 5, 40])
def test_few_boxes_are_the_blocks_of_the_lanes(chains, most):
    plan = chains(8, 4, 25)
    dot = to_dot(plan, most=most)
    made = blocks(plan, most)
    shown = re.findall(r"^  n(\d+) \[label", dot, re.MULTILINE)
    assert shown == [str(n) for n in range(len(made))]
    assert f"drawn as {count(len(made), 'block')}" in dot
    ends = re.findall(r'^  (\w+) -> (\w+) \[.*?\bcolor="(.*?)"', dot, re.MULTILINE)
    assert len(ends) == len(set(ends))
    assert all(source != target for source, target, _ in ends)
    graphviz(dot)


def test_buffers_of_one_role_are_one_where_few_boxes_are_wanted(sketch):
    s = sketch("wide", 1)
    for n in range(9):
        s.tensor(f"x{n}", (4,))
        s.input(0, f"x{n}")
    s.output(0, "y", "x0")
    dot = to_dot(s.plan(), most=3)
    assert dot.count('shape="cylinder"') == 2
    assert "9 × input" in dot
    graphviz(dot)


def test_races_between_blocks_are_drawn_once(chains):
    plan = chains(4, 2, 20)
    kept = tuple(i for i in plan.instructions if getattr(i, "role", "") != "dependency")
    racy = replace(plan, instructions=kept)
    dot = to_dot(racy, find_hazards(racy), most=6)
    assert 1 <= dot.count('dir="none"') <= 36
    graphviz(dot)


@pytest.mark.parametrize(("color", "fills"), [("op", 3), ("cost", 2)])
def test_colours_by_op_and_by_cost(attention, color, fills):
    dot = to_dot(attention, color=color)
    found = re.findall(r'  n\d+ \[.*?fillcolor="(#\w+)"', dot)
    assert len(set(found)) >= fills
    legend = dot.split("// buffers")[0]
    assert all(f'bgcolor="{fill}"' in legend for fill in found)
    assert ("softmax" if color == "op" else "µs") in legend
    assert "stream 0" not in legend
    graphviz(dot)


# Data edges -----------------------------------------------------------------------------


def launches(*accesses: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> Plan:
    """Launches n0, n1, … of reads and writes in one buffer."""
    instructions = tuple(
        Launch(0, f"n{n}", "k", tuple(Range("b", *r) for r in reads),
               tuple(Range("b", *w) for w in writes))
        for n, (reads, writes) in enumerate(accesses)
    )  # fmt: skip
    return Plan("p", "cpu", {}, (Stream(0),), (), (), instructions)


@pytest.mark.parametrize(("accesses", "expected"), [
    ([([], [(0, 8)]), ([(0, 8)], [])], {(0, 1)}),
    ([([], [(0, 8)]), ([], [(0, 8)]), ([(0, 8)], [])], {(1, 2)}),
    ([([], [(0, 8)]), ([], [(2, 4)]), ([(0, 8)], [])], {(0, 2), (1, 2)}),
    ([([], [(0, 4)]), ([], [(4, 8)]), ([(2, 6)], [])], {(0, 2), (1, 2)}),
    ([([], [(0, 4)]), ([(4, 8)], [])], {(None, 1)}),
    ([([], [(2, 4)]), ([(0, 8)], [])], {(None, 1), (0, 1)}),
    ([([], [(0, 8)]), ([(0, 8)], [(0, 8)]), ([(0, 1)], [])], {(0, 1), (1, 2)}),
    ([([], [(4, 4)]), ([(3, 3)], []), ([(8, 2)], [])], set()),
])  # fmt: skip
def test_data_runs_from_the_last_writer_of_each_byte(accesses, expected):
    found = data_edges(launches(*accesses))
    assert {(edge.writer, edge.reader) for edge in found} == expected


def test_a_tensor_that_shares_bytes_is_told_by_its_writer():
    tensors = tuple(PlacedTensor(f"n{i}", "b", 0, 8, (i + 1,), DType.F32) for i in range(2))
    plan = launches(([], [(0, 8)]), ([(0, 8)], []), ([], [(0, 8)]), ([(0, 8)], []))
    plan = Plan("p", "cpu", {}, plan.streams, (), tensors, plan.instructions)
    assert data_edges(plan)[0].tensor == tensors[0]


def test_a_thousand_nodes_are_written_quickly(chains):
    dot = to_dot(chains(8, 4, 125), most=2000)
    assert dot.count("\n") > 3000
