"""The plan as a table: its content and its layout."""

import re
from dataclasses import replace

import pytest

from graphexec.ir.plan import HostWait, Launch, Plan, Range, Record, Stream, Wait
from graphexec.proof import find_hazards
from graphexec.views.table import count, fit, pad, size, table, width
from graphexec.views.text import to_text


def test_attention(golden, attention):
    golden("views/attention.txt", to_text(attention))


def test_eight_chains_on_four_streams(golden, chains):
    golden("views/chains.txt", to_text(chains(8, 4)))


def test_names_of_any_characters(golden, awkward):
    golden("views/awkward.txt", to_text(awkward))


def test_ten_streams_have_narrow_lanes(golden, chains):
    golden("views/ten_streams.txt", to_text(chains(10, 10, 1)))


def test_twenty_streams_are_named_in_a_column(golden, chains):
    golden("views/twenty_streams.txt", to_text(chains(20, 20, 1)))


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 6, 7, 10, 12, 13, 40])
def test_no_line_is_wider_than_a_hundred_columns(chains, streams):
    for line in to_text(chains(2 * streams, streams)).splitlines():
        assert width(line) <= 100


def test_long_names_lose_their_middle(sketch):
    s = sketch("long", 4)
    name = "encoder.layer_17.attention.self.query.projection.bias_added.reshaped_to_heads"
    s.input(0, s.tensor(name, (1024, 1024)))
    s.output(0, "y", name)
    text = to_text(s.plan())
    assert max(map(width, text.splitlines())) <= 100
    assert "encoder.layer_1" in text
    assert "s.h2d" in text
    assert "…" in text


def test_a_thousand_nodes_take_no_more_than_a_line_each_and_their_waits(chains):
    plan = chains(50, 4, 20)
    text = to_text(plan)
    launches = sum(isinstance(i, Launch) for i in plan.instructions)
    assert launches > 1000
    assert text.count("\n") < 2 * launches + 50


def test_every_instruction_is_visible(attention):
    text = to_text(attention)
    for number, i in enumerate(attention.instructions):
        match i:
            case Launch():
                assert re.search(rf"●.*{re.escape(i.node)} +{i.command}", text)
            case Wait():
                assert re.search(rf"◂e{i.event} from s\d \({i.role}\)", text)
            case Record():
                assert f"▸e{i.event}" in text
            case HostWait():
                assert f"{number}  ══ host waits for e{i.event}, recorded on s0" in text


def test_several_waits_before_a_launch_are_in_issue_order():
    plan = Plan("p", "cpu", {}, tuple(map(Stream, range(3))), (), (), (
        Record(0, 0), Record(1, 1), Wait(2, 0), Wait(2, 1), Launch(2, "x", "gemm", (), ()),
    ))  # fmt: skip
    rows = to_text(plan).split("\n\n")[1].splitlines()[1:]
    assert [row.split()[-4:] for row in rows[2:]] == [
        ["◂e0", "from", "s0", "(dependency)"], ["◂e1", "from", "s1", "(dependency)"]]  # fmt: skip
    assert "○" in rows[2]
    assert "●" in rows[3]


def test_colour_adds_escapes_and_nothing_else(attention, awkward):
    for plan in (attention, awkward):
        coloured = to_text(plan, color=True)
        assert coloured != to_text(plan)
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == to_text(plan)


def test_names_cannot_send_escapes_to_the_terminal(awkward):
    assert "\x1b" not in to_text(awkward)


def test_a_plan_that_makes_no_sense_is_shown_all_the_same():
    odd = Launch(7, "x", "gemm", (Range("nowhere", 5, 2),), ())
    plan = Plan("p", "cpu", {}, (), (), (), (Wait(9, 3), odd, HostWait(4), Record(1, 1)))
    text = to_text(plan)
    assert "◂e3 never recorded (dependency)" in text
    assert "host waits for e4, never recorded" in text


def test_an_empty_plan():
    assert to_text(Plan("p", "cpu", {}, (), (), (), ())).startswith("plan p on cpu · 0 launches")


# Cells ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("bytes", "text"), [
    (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2**20 - 1, "1 MiB"),
    (2**40, "1 TiB"), (2**63 - 1, "8 EiB"),
])  # fmt: skip
def test_sizes(bytes, text):
    assert size(bytes) == text


def test_counts():
    assert [count(1, "launch"), count(2, "launch"), count(0, "wait")] == [
        "1 launch", "2 launches", "0 waits"]  # fmt: skip


@pytest.mark.parametrize("columns", range(12))
def test_fit_is_never_too_wide(columns):
    for text in ("abcdefghijkl", "层层层层层层", "e\u0301" * 12):
        assert width(fit(text, columns)) <= columns


def test_wide_characters_take_two_columns():
    assert width("层") == 2
    assert pad("层", 4) == "层  "
    assert pad("a", 3, ">") == "  a"


def test_a_table_without_rows():
    assert table(("a", "bb"), [], "<>") == "a  bb\n─  ──"


def test_hazards_are_told_first_marked_in_the_table_and_red_on_a_terminal(attention):
    kept = tuple(i for i in attention.instructions if getattr(i, "role", "") != "dependency")
    racy = replace(attention, instructions=kept)
    hazards = find_hazards(racy)
    lines = to_text(racy, False, hazards).splitlines()
    assert lines[2] == f"✗ refuted: {len(hazards)} hazards"
    assert lines[3] == str(hazards[0])
    marked = {int(line.split()[0]) for line in lines if line.endswith("✗ hazard")}
    sites = {s.index for h in hazards for s in (h.first, h.second) if s is not None}
    launches = {n for n, i in enumerate(kept) if isinstance(i, Launch)}
    assert len(marked) == len(sites & launches) > 1
    assert "\x1b[31m✗ refuted" in to_text(racy, True, hazards)
    assert "✗" not in to_text(attention)
    assert "\x1b[m" not in to_text(racy, True, hazards)


HEAD = ("node", "dtype", "what it is")
ROWS = [("encoder.layer_1.query", "f32", "a product of two matrices of some size"), ("k", "", "")]


@pytest.mark.parametrize("columns", [22, 40, 60])
def test_a_table_wider_than_its_place_is_a_paragraph_a_row(columns):
    whole = table(HEAD, ROWS, "<<<", 90)
    assert table(HEAD, ROWS, "<<<", 90, columns=max(map(width, whole.splitlines()))) == whole
    lines = table(HEAD, ROWS, "<<<", 90, columns=columns).splitlines()
    assert max(map(width, lines)) <= columns
    assert lines[-1] == "k"
    assert "".join(lines).replace(" ", "") == (
        "encoder.layer_1.querydtypef32whatitisaproductoftwomatricesofsomesizek"
    )


def test_wide_letters_are_broken_by_their_columns():
    lines = table(("a", "b"), [("行列" * 30, "積")], "<<", 200, columns=33).splitlines()
    assert max(map(width, lines)) <= 33
    assert "".join(lines[:-1]) == "行列" * 30
