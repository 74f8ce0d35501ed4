import json
import math
import re
import time
import tracemalloc

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from graphexec.base.diagnostics import Mark, Source
from graphexec.base.errors import GraphError
from graphexec.frontend.yaml import tree as yaml_tree
from graphexec.frontend.yaml.scalars import resolve
from graphexec.frontend.yaml.text import MAX_BYTES, decode
from graphexec.frontend.yaml.tree import ListNode, MapNode, ScalarNode, compose


@pytest.fixture(params=["libyaml", "python"])
def parser(request, monkeypatch):
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader")
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML without libyaml")


def plain(node):
    if isinstance(node, MapNode):
        return {k.value: plain(v) for k, v in node.pairs}
    return [plain(i) for i in node.items] if isinstance(node, ListNode) else node.value


def tree(text):
    root, problems = compose(Source("t.yaml", text))
    assert problems == []
    return plain(root)


def complaints(text):
    try:
        return [d.message for d in compose(Source("t.yaml", text))[1]]
    except GraphError as exc:
        return [d.message for d in exc.diagnostics]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("-12", -12), ("+3", 3),
        ("0o17", 15), ("0x1F", 31), ("017", 17), ("0", 0), ("-.inf", -math.inf), (".Inf", math.inf),
        ("no", "no"), ("on", "on"), ("y", "y"), ("yes", "yes"), ("True", True), ("false", False),
        ("~", None), ("", None), ("null", None), ("Null", None), ("nULL", "nULL"),
        ("1_000", "1_000"), ("1:30", "1:30"), ("2001-01-01", "2001-01-01"), ("0b11", "0b11"),
        ("1e", "1e"), (".", "."), ("-", "-"), ("+.5e+3", 500.0), ("0o8", "0o8"), ("inf", "inf"),
        ("-0x1", "-0x1"), ("٣", "٣"),
    ],
)  # fmt: skip
def test_core_schema(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_nan():
    assert math.isnan(resolve(".nan"))


@pytest.mark.usefixtures("parser")
def test_values():
    text = "a: {b: [1, '2', \"3\", null], 1: x}\nc: |\n  one\n  two\nd: >-\n  three\n  four\n"
    assert tree(text) == {
        "a": {"b": [1, "2", "3", None], 1: "x"}, "c": "one\ntwo\n", "d": "three four",
    }  # fmt: skip


@pytest.mark.usefixtures("parser")
def test_places():
    root, _ = compose(Source("t.yaml", "é: {q: ab}\nb:\n  - 'x y'\n"))
    (key, value), (_, items) = root.pairs
    assert key == ScalarNode("é", 1, 1, 1, True)
    assert value.mark == Mark(1, 4, 7)
    assert value.pairs[0][1].mark == Mark(1, 8, 2)
    assert items.items[0] == ScalarNode("x y", 3, 5, 5, False)


@pytest.mark.usefixtures("parser")
def test_merges():
    text = (
        "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\n"
        "c: {<<: *a, y: 0}\nd: {<<: [*a, *b, *a]}\ne: {'<<': 1}\nf: {y: 0, <<: {y: 1}}\n"
    )
    merged = tree(text)
    assert merged["c"] == {"x": 1, "y": 0}
    assert merged["d"] == {"x": 1, "y": 1, "z": 2}
    assert merged["e"] == {"<<": 1}
    assert merged["f"] == {"y": 0}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a'"),
        ("{&k a: 1, *k : 2}", "duplicate key 'a'"),
        ("1: a\n0x1: b", "duplicate key '1'"),
        ("a: 1\n---\nb: 2\n", "a second document begins here"),
        ("a:\n\t- b\n", "a tab is used for indentation"),
        ("a: 1\n\tb: 1\n", "a tab is used for indentation"),
        ("? [a]\n: b", "a list or mapping is used as a key"),
        ("a: !!python/object:os.system x", "the tag '!!python/object:os.system' has no meaning"),
        ("a: !x [1]", "the tag '!x' has no meaning here"),
        ("a: *b", "no anchor '&b' stands above"),
        ("a: &a [*a]", "the anchor '&a' contains itself"),
        ("a: &a {b: *a}", "the anchor '&a' contains itself"),
        ("a: {<<: 1}", "a merge '<<' takes a mapping"),
        ("a: 'x", "not valid YAML"),
        ("a: [1, 2", "not valid YAML"),
        ("a: @x", "not valid YAML"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("a: b: c", "not valid YAML: mapping values are not allowed"),
        ("a: \x07", "the character U+0007 is not allowed"),
        ("a: \x0b", "the character U+000B is not allowed"),
        ("a: \ud800", "the character U+D800 is not allowed"),
        ("a: " + "x" * 10_001, "a text of 10,001 characters"),
        ("a: " + "1" * 5_000, "a number of 5,000 characters"),
        ("[" * 10_000, "nested deeper than 100 levels"),
        ("[" * 10_000 + "]" * 10_000, "nested deeper than 100 levels"),
        ("{a: " * 10_000, "nested deeper than 100 levels"),
        ("- " * 10_000, "nested deeper than 100 levels"),
        ("\n".join(" " * i + "a:" for i in range(1000)), "nested deeper than 100 levels"),
        ("a: !!" + "x" * 999, "the tag '!!xxxx"),
    ],
)
def test_complaints(text, message):
    (found,) = complaints(text)[:1]
    assert found.startswith(message)


def test_complaints_before_a_fatal_one_are_kept():
    assert complaints("a: 1\na: 2\nb: [\n")[0] == "duplicate key 'a'"
    assert len(complaints("a: 1\na: 2\nb: [\n")) == 2


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 15)
)
MERGES = "a0: &a0 {" + ", ".join(f"k{i}: {i}" for i in range(40)) + "}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)  # fmt: skip
WIDE = "a: &a [" + "1," * 300 + "]\nb: [" + "*a," * 130 + "]\n"


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("bomb", [LAUGHS, MERGES, WIDE], ids=["laughs", "merges", "wide"])
def test_bombs(bomb):
    assert len(bomb) < 1200
    complaints("a: 1")  # imports
    tracemalloc.start()
    started = time.process_time()
    assert complaints(bomb) == ["aliases and merges make this file too large"]
    assert time.process_time() - started < 0.1 * 3  # tracemalloc costs a factor of two to three
    assert tracemalloc.get_traced_memory()[1] < 2**20 * 4
    tracemalloc.stop()


def test_honest_aliases():
    text = "s: &s [B, H, S, D]\n" + "".join(f"i{i}: {{shape: *s}}\n" for i in range(1000))
    assert tree(text)["i999"] == {"shape": ["B", "H", "S", "D"]}


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "\ufeff"])
def test_empty(text):
    root, _ = compose(Source("t", text.removeprefix("\ufeff")))
    assert root is None or root.value is None


def decoding(data):
    with pytest.raises(GraphError) as caught:
        decode(data, "t.yaml")
    return str(caught.value)


def test_encodings():
    assert decode("é: 1".encode(), "t").text == "é: 1"
    assert decode("é: 1".encode("utf-8-sig"), "t").text == "é: 1"
    assert "is UTF-16, not UTF-8" in decoding("a: 1".encode("utf-16"))
    assert "is UTF-32, not UTF-8" in decoding("a: 1".encode("utf-32"))
    assert "looks like UTF-16" in decoding("a: 1".encode("utf-16-le"))
    message = decoding("a: é\nbé: x".encode() + b"\xff")
    assert "byte 0xff at offset 12" in message
    assert "t.yaml:2:6" in message
    assert "byte 0xe9 at offset 6" in decoding(b"\xef\xbb\xbfa: \xe9")
    assert "larger than" in decoding(b" " * (MAX_BYTES + 1))


def test_too_many_values(monkeypatch):
    assert yaml_tree.MAX_NODES == 4_000_000
    monkeypatch.setattr(yaml_tree, "MAX_NODES", 4_000)
    assert complaints("[" + "1," * 3_999 + "]") == []
    assert complaints("[" + "1," * 4_001 + "]") == ["more than 4,000 values in one file"]


# JSON escapes characters past U+FFFF as surrogates, which YAML refuses.
texts = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF))
data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(data)
@example({"Infinity": [float("inf"), -float("inf"), "-Infinity"]})
def test_json_is_yaml(value):
    text = re.sub(
        r'"(\\.|[^"\\])*"|Infinity',
        lambda found: ".inf" if found[0] == "Infinity" else found[0],
        json.dumps(value),
    )
    if len(text) > 900:  # simple keys end at 1024 characters
        return
    root, problems = compose(Source("t", text))
    assert problems == []
    assert plain(root) == json.loads(json.dumps(value))


@given(st.text("ab01 -:,[]{}&*!|>'\"%@`#?\n\t<.~é") | st.text())
def test_nothing_but_graph_errors(text):
    complaints(text)


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1  # comment", "b: 2"),  # the rest of a comment would be read
        ("{a: 1,  # comment", "b: 2}"),
        ('a: "x', 'y"'),
        ("a: x", "y"),
        ("a", "b: 1"),
        ('"a', 'b": 1'),
        ("- 1", "- 2"),
    ],
)
def test_line_breaks_of_yaml_1_1_are_located_errors(parser, character, before, after):
    with pytest.raises(GraphError) as caught:
        compose(Source("t.yaml", before + character + after))
    (complaint,) = caught.value.diagnostics
    assert f"U+{ord(character):04X} is a line break in YAML 1.1" in complaint.message
    assert complaint.mark == Mark(1, len(before) + 1)
    assert f"\\u{ord(character):04X}" in complaint.help


def test_escapes_of_these_line_breaks_are_text(parser):
    assert tree('a: "x\\u2028y\\u2029\\u0085"') == {"a": "x\u2028y\u2029\x85"}
