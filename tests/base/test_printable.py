"""Foreign text reaches a terminal as printable characters, on one line."""

import json

from hypothesis import given
from hypothesis import strategies as st

from graphexec.base.diagnostics import Diagnostic, Mark, Source
from graphexec.base.printable import json_escaped, printable, printable_lines

FORGED = "x'\n\ng.yaml: ok: proved free of races\x1b[2J\u202e\u2066\x9b1m\u2028\x07\r"


def test_what_a_terminal_interprets_is_escaped() -> None:
    assert printable("a\nb\x1b[2J\u202eé 層 😀") == "a\\nb\\x1b[2J\\u202eé 層 😀"


@given(st.text())
def test_one_printable_line_of_bounded_length(text: str) -> None:
    shown = printable(text, 40)
    assert shown.isprintable()
    assert len(shown) <= 40 or len(text) <= 40
    assert len(printable(text * 50, 40)) <= 240
    if text.isprintable() and len(text) <= 40:
        assert shown == text


@given(st.text())
def test_lines_stay_lines(text: str) -> None:
    shown = printable_lines(text)
    assert shown.count("\n") == text.count("\n")
    assert shown.replace("\n", "").replace("\t", "").isprintable()


@given(st.dictionaries(st.text(), st.text()))
def test_json_says_the_same(document: dict[str, str]) -> None:
    shown = json_escaped(json.dumps(document, ensure_ascii=False, indent=2))
    assert json.loads(shown) == document
    assert not set(shown) & set("\x1b\x7f\x9b\u202e\u2028\u2066")


def test_no_part_of_a_diagnostic_forges_a_line() -> None:
    found = Diagnostic(FORGED, source=Source(FORGED, f"{FORGED}"), mark=Mark(1, 1), label=FORGED,
                       notes=(FORGED, FORGED), help=FORGED).render()  # fmt: skip
    lines = found.split("\n")
    assert len(lines) == 8
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("g.yaml: ok") for line in lines)
