import json
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphexec.api import make_plan
from graphexec.base.diagnostics import Mark
from graphexec.base.errors import GraphError
from graphexec.frontend.load import load, loads
from graphexec.ir.graph import Input, Node, Weight
from graphexec.ir.op import Attribute, Op, Operand

ATTENTION = """\
version: 1
name: attention
dims:   {B: 2, H: 8, S: 128, D: 64}       # defaults; -D S=256 overrides
consts: {scale: D ** -0.5}                # arithmetic over dims
inputs:
  q: {shape: [B, H, S, D], dtype: f16}
  k: {shape: [B, H, S, D], dtype: f16}
  v: {shape: [B, H, S, D], dtype: f16}
nodes:
  scores: {op: gemm, a: q, b: k, trans_b: true, alpha: scale}
  probs:  {op: softmax, x: scores, axis: -1}
  ctx:    {op: gemm, a: probs, b: v}
outputs: {out: ctx}
"""


def graph_with(*lines, inputs="x: {shape: [4, 4], dtype: f32}", out="y", dims="{S: 8, heads: 2}"):
    """A document with these nodes; line 6 is the first of them."""
    nodes = "\n".join(f"  {line}" for line in lines)
    return (
        f"version: 1\ndims: {dims}\ninputs:\n  {inputs}\nnodes:\n{nodes}\noutputs: {{out: {out}}}\n"
    )


def errors_of(text, **more):
    with pytest.raises(GraphError) as caught:
        loads(text, "bad.yaml", **more)
    return caught.value


# Good input ------------------------------------------------------------------------------


def test_attention():
    g = loads(ATTENTION)
    assert g.name == "attention"
    assert g.dims == {"B": 2, "H": 8, "S": 128, "D": 64}
    assert g.consts == {"scale": "D ** -0.5"}
    assert g.inputs["q"] == Input("q", ("B", "H", "S", "D"), "f16")
    attrs = {"trans_b": True, "alpha": "scale"}
    assert g.nodes["scores"] == Node("scores", "gemm", {"a": "q", "b": "k"}, attrs)
    assert g.outputs == {"out": "ctx"}
    assert g.warnings == []


def test_marks():
    g = loads(ATTENTION)
    assert g.nodes["probs"].marks == {
        "": Mark(11, 3, 5), "op": Mark(11, 16, 7), "x": Mark(11, 28, 6), "axis": Mark(11, 42, 2),
    }  # fmt: skip
    assert g.inputs["q"].marks["shape"] == Mark(6, 14, 12)
    assert g.inputs["q"].marks["shape[2]"] == Mark(6, 21, 1)
    assert g.inputs["q"].marks["dtype"] == Mark(6, 35, 3)
    assert g.output_marks == {"out": Mark(13, 16, 3)}


def test_every_field():
    g = loads(
        "version: 1\n"
        "weights:\n"
        "  w: {file: 'dir/ü.npz', key: '1e3', shape: [4, 2 * 2], dtype: bf16}\n"
        "nodes:\n"
        "  z: {op: copy, x: y, after: [w, y], shape: [4]}\n"
        "  y:\n"
        "    op: copy\n"
        "    x: w\n"
        "    dtype: f32\n"
        "    slice: {0: [null, 2, 1], '1': [1], -1: [0, 2 * 1]}\n"
        "    permute: [1, 0]\n"
        "    reshape: [-1]\n"
        "    to: null\n"
        "outputs: [z, w]\n"
    )
    assert g.weights["w"] == Weight("w", "dir/ü.npz", "1e3", (4, "2 * 2"), "bf16")
    assert g.nodes["z"] == Node("z", "copy", {"x": "y"}, {}, ("w", "y"), (4,))
    assert g.nodes["y"].attrs == {
        "dtype": "f32", "slice": {0: [None, 2, 1], 1: [1], -1: [0, "2 * 1"]},
        "permute": [1, 0], "reshape": [-1], "to": None,
    }  # fmt: skip
    assert g.outputs == {"z": "z", "w": "w"}
    assert g.name == "graph"


def test_dims_given():
    assert loads(ATTENTION, dims={"S": 256}).dims["S"] == 256
    assert type(loads(ATTENTION, dims={"S": np.int32(256)}).dims["S"]) is int


def test_empty_sections_and_an_input_as_output():
    text = "version: 1\ndims:\nconsts: {}\nweights:\nnodes:\ninputs: {x: {shape: [], dtype: f32}}\n"
    assert loads(text + "outputs: [x]").outputs == {"x": "x"}


def test_own_op():
    class Twice(Op):
        name = "twice"
        operands = (Operand("x", "a tensor"), Operand("y", "another", optional=True))
        attributes = (Attribute("by", "number", 2, "factor"),)

    ops = {"twice": Twice()}
    g = loads(graph_with("y: {op: twice, x: x, by: 1 / 3}"), ops=ops)
    assert g.nodes["y"].attrs == {"by": "1 / 3"}
    error = errors_of(graph_with("y: {op: twice, y: x, bye: 1}"), ops=ops)
    assert [d.message for d in error.diagnostics] == [
        "node 'y' lacks operand 'x' of op 'twice'", "op 'twice' has no key 'bye'",
    ]  # fmt: skip


def test_load_from_a_file(tmp_path):
    path = tmp_path / "attention_2.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ATTENTION.replace("name: attention\n", "").encode())
    g = load(path, dims={"S": 16}, weight_root=tmp_path / "w")
    assert (g.name, g.folder, g.weight_root) == ("attention_2", tmp_path, tmp_path / "w")
    assert g.source.path == str(path)


def test_merge_keys():
    text = graph_with("y: &y {op: softmax, x: x, axis: 0}", "z: {<<: *y, x: y, axis: 1}", out="z")
    assert loads(text).nodes["z"] == Node("z", "softmax", {"x": "y"}, {"axis": 1})


def test_warnings(golden):
    g = loads(
        graph_with(
            "y: {op: copy, x: x}", "dead: {op: copy, x: y}", "kept: {op: copy, x: x}",
            "z: {op: copy, x: y, after: [kept]}", out="z",
            inputs="x: {shape: [4], dtype: f32}\n  idle: {shape: [4], dtype: f32}",
        ),
        "odd.yaml",
    )  # fmt: skip
    assert {d.severity for d in g.warnings} == {"warning"}
    golden("load/unused.txt", "\n\n".join(d.render() for d in g.warnings))


# Bad input: name → text, and the place and words that must be in the message -------------

GEMM = "y: {op: gemm, a: x, b: x%s}"
COPY = "y: {op: copy, x: x%s}"
BAD = {
    "empty": ("", "the file is empty"),
    "list_at_root": ("- a\n- b\n", "bad.yaml:1:1", "expected a mapping", "found a list"),
    "text_at_root": ("hello", "bad.yaml:1:1", "found the text 'hello'"),
    "two_documents": (ATTENTION + "---\n" + ATTENTION, "bad.yaml:14:1", "a second document"),
    "tabs": ("version: 1\nnodes:\n\ty: {op: copy}\n", "bad.yaml:3:1", "a tab", "spaces"),
    "syntax": ("version: 1\nnodes: {y: [}\n", "bad.yaml:2:13", "not valid YAML"),
    "no_version": ("inputs: {x: {shape: [1], dtype: f32}}\noutputs: [x]", "'version' is missing"),
    "other_version": (ATTENTION.replace("version: 1", "version: 2"), "bad.yaml:1:10", "version 1"),
    "version_text": (ATTENTION.replace("version: 1", "version: '1'"), "found the text '1'"),
    "unknown_section": (ATTENTION.replace("nodes:", "node:"), "bad.yaml:9:1", "mean 'nodes'?"),
    "unknown_input_key": (
        ATTENTION.replace("dtype: f16}\nnodes", "dtyp: f16}\nnodes"), "bad.yaml:8:28",
        "input 'v' has no key 'dtyp'", "did you mean 'dtype'?", "input 'v' needs the key 'dtype'",
    ),
    "unknown_op": (ATTENTION.replace("softmax", "softmx"), "bad.yaml:11:16", "mean 'softmax'?"),
    "no_op": (graph_with("y: {a: x, b: x}"), "bad.yaml:6:6", "node 'y' needs the key 'op'"),
    "unknown_attribute": (graph_with(GEMM % ", transb: true"), "bad.yaml:6:29", "mean 'trans_b'?"),
    "key_not_a_text": (graph_with(GEMM % ", 1: true"), "bad.yaml:6:29", "has no key '1'"),
    "missing_operand": (graph_with("y: {op: gemm, a: x}"), "bad.yaml:6:3", "lacks operand 'b'"),
    "unknown_tensor": (ATTENTION.replace("x: scores", "x: score"), "bad.yaml:11:28", "'scores'?"),
    "operand_not_a_name": (graph_with("y: {op: copy, x: [x]}"), "bad.yaml:6:20", "found a list"),
    "duplicate_key": (
        graph_with("y: {op: copy, x: x, x: x}"), "bad.yaml:6:23", "duplicate key 'x'",
        "first given at bad.yaml:6:17",
    ),
    "duplicate_node": (
        graph_with(COPY % "", COPY % ""), "bad.yaml:7:3", "duplicate key 'y'", "bad.yaml:6:3",
    ),
    "duplicate_name": (
        graph_with("x: {op: copy, x: y}", COPY % ""), "bad.yaml:6:3", "the name 'x' is used twice",
        "first used at bad.yaml:4:3",
    ),
    "duplicate_output": (graph_with(COPY % "", out="y, out: y"), "duplicate key 'out'"),
    "duplicate_output_in_list": (
        graph_with(COPY % "").replace("{out: y}", "[y, y]"), "bad.yaml:7:14", "declared twice",
    ),
    "dim_and_const": (ATTENTION.replace("scale:", "S:"), "bad.yaml:4:10", "'S' is used twice"),
    "self_edge": (graph_with("y: {op: copy, x: y}"), "bad.yaml:6:20", "node 'y' uses itself"),
    "cycle": (
        graph_with("a: {op: copy, x: c}", "b: {op: copy, x: a}",
                   "c: {op: gemm, a: x, b: b}", "d: {op: copy, x: c}", out="d"),
        "cycle: a → b → c → a", "bad.yaml:6:20", "'b' needs 'a' at bad.yaml:7:20",
        "'c' needs 'b' at bad.yaml:8:26",
    ),
    "cycle_through_after": (
        graph_with("y: {op: copy, x: x, after: [z]}", "z: {op: copy, x: y}"), "cycle: y → z → y",
    ),
    "two_cycles": (
        graph_with("a: {op: copy, x: b}", "b: {op: copy, x: a}", "y: {op: copy, x: z}",
                   "z: {op: copy, x: y}"), "cycle: a → b → a", "cycle: y → z → y",
    ),
    "bad_dims": (
        ATTENTION.replace("{B: 2, H: 8, S: 128, D: 64}",
                          "{B: 0, H: -8, S: 1.5, D: true, E: 9223372036854775808, F: 2 * 3, G: }"),
        "bad.yaml:3:13", "found the number 0", "bad.yaml:3:19", "found the number -8",
        "bad.yaml:3:26", "found the number 1.5", "found true", "dim 'E' is past int64",
        "belong in consts", "found nothing",
    ),
    "dim_names": (
        graph_with(COPY % "", dims="{my-dim: 1, min: 2, lambda: 3, 4: 5}"), "bad.yaml:2:8",
        "not a name expressions can use", "'min' has a meaning", "'lambda' has", "put it in quotes",
    ),
    "bad_extents": (
        graph_with(COPY % "", inputs="x: {shape: [0, -1, 2.0, true, T, S - 8, S / 3, null, "
                   "10 ** 10 ** 10, hads], dtype: f32}"),
        "bad.yaml:4:15", "at least 1, found 0", "found -1", "found 2.0", "found true",
        "unknown name 'T'", "found S - 8 = 0", "8 / 3 does not divide exactly", "found nothing",
        "10 ** 10000000000 is past int64", "bad.yaml:4:72", "did you mean 'heads'?",
    ),
    "shape_not_a_list": (graph_with(COPY % "", inputs="x: {shape: 4, dtype: f32}"), "a shape such"),
    "unknown_dtype": (
        ATTENTION.replace("v: {shape: [B, H, S, D], dtype: f16",
                          "v: {shape: [B, H, S, D], dtype: float16"),
        "bad.yaml:8:35", "unknown dtype 'float16'", "one of: f16, bf16, f32, f64", "'f16'?",
    ),
    "bad_consts": (
        ATTENTION.replace("{scale: D ** -0.5}", "{scale: d ** -0.5, a: b, b: a, huge: 9 ** 9 ** 9, "
                          "no: [1], nan: .nan, wrong: 1 +}"),
        "bad.yaml:4:17", "unknown name 'd'", "cycle: a → b → a", "9 ** 387420489 is past int64",
        "found a list", "nan is not a finite number",
        "the expression ends where a number or a name is expected",
    ),
    "bad_alpha": (
        graph_with(GEMM % ", alpha: .nan, beta: .inf, out_dtype: f8, trans_a: yes, trans_b: 1"),
        "bad.yaml:6:36", "'alpha' must be finite, found nan", "'beta' must be finite",
        "unknown dtype 'f8'", "found the text 'yes'", "found the number 1",
    ),
    "alpha_text": (
        graph_with("y: {op: gemm, a: x, b: x, alpha: nan, beta: '0.5 * T'}"),
        "'nan' is not a finite number", "unknown name 'T'",
    ),
    "bad_attributes": (
        graph_with("y: {op: copy, x: x, to: hots, permute: 0, reshape: [-1, -1], "
                   "slice: {a: [1], 0: [], 1: 2, 2: [1.5, null]}}",
                   "z: {op: softmax, x: x, axis: 1.0}"),
        "unknown choice for 'to': 'hots'", "did you mean 'host'?", "a list of axes such as",
        "only one extent of 'reshape' may be -1", "an axis, which is an integer",
        "expected [start, stop, step], found a list of 0", "found the number 2", "found 1.5",
        "bad.yaml:7:32",
    ),
    "bad_after": (
        graph_with("y: {op: copy, x: x, after: z}", "z: {op: copy, x: x, after: [1, yy]}"),
        "bad.yaml:6:30", "a list of nodes", "bad.yaml:7:31", "there is no tensor 'yy'",
    ),
    "bad_weights": (
        graph_with(COPY % "").replace("nodes:", "weights:\n  w: {key: 1}\n  v: w.npy\nnodes:"),
        "weight 'w' needs the key 'file'", "put it in quotes", "the text 'w.npy' is the key",
    ),
    "bad_names": (
        graph_with("1: {op: copy, x: x}", "a b: {op: copy, x: x}", "on: {op: copy, x: x}",
                   out="on"),
        "bad.yaml:6:3", "expected a name, found the number 1", "'a b' is not a name",
    ),
    "bad_graph_name": (ATTENTION.replace("name: attention", "name: 3"), "bad.yaml:2:7", "quotes"),
    "bad_section": (ATTENTION.replace("outputs: {out: ctx}", "outputs: ctx\nweights: [a]"),
                    "a mapping for 'outputs'", "a mapping for 'weights'"),
    "no_outputs": (ATTENTION.replace("outputs: {out: ctx}", ""), "the graph has no outputs"),
    "empty_outputs": (ATTENTION.replace("{out: ctx}", "{}"), "bad.yaml:13:1", "no outputs"),
    "bad_output": (ATTENTION.replace("{out: ctx}", "{out: ctxt, 'a b': v, w: 1}"), "bad.yaml:13:16",
                   "did you mean 'ctx'?", "'a b' is not a name", "found the number 1"),
    "node_not_a_mapping": (graph_with("y: 3"), "bad.yaml:6:6", "a mapping such as {op: …}"),
    "node_is_an_op": (graph_with("y: copy"), "bad.yaml:6:6", "written as {op: copy, …}"),
    "alias_unknown": (graph_with("y: *yy"), "bad.yaml:6:6", "no anchor '&yy'"),
    "many_at_once": (
        ATTENTION.replace("op: gemm", "op: gem").replace("f16", "f17").replace("S: 128", "S: 0"),
        "S: 0", "'f17'", "'gem'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, golden):
    text, *words = BAD[name]
    message = str(errors_of(text))
    for word in words:
        assert word in message
    golden(f"load/{name}.txt", message)


def test_bad_overrides(golden):
    error = errors_of(ATTENTION, dims={"s": 1, "S": 0, "B": 2.5, "H": True, "D": 10**9999})
    golden("load/overrides.txt", str(error))
    assert "no dims" in str(errors_of("version: 1\noutputs: [x]", dims={"S": 1}))


def test_an_overridden_dim_may_break_an_expression():
    text = graph_with(COPY % "", inputs="x: {shape: [S / 2], dtype: f32}")
    assert loads(text, dims={"S": 6})
    assert "7 / 2 does not divide exactly" in str(errors_of(text, dims={"S": 7}))


def test_errors_come_in_the_order_of_the_file_and_end():
    nodes = [f"n{i}: {{op: copy, x: none{i}}}" for i in range(100)]
    diagnostics = errors_of(graph_with(*nodes, out="n0")).diagnostics
    assert [d.mark.line for d in diagnostics[:-1]] == list(range(6, 26))
    assert diagnostics[-1].message == "and 80 more errors"


def test_faulty_dims_are_complained_about_once():
    text = ATTENTION.replace("D: 64", "D: 0")
    assert [d.message for d in errors_of(text).diagnostics] == [
        "expected a positive integer for dim 'D', found the number 0"
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.yaml", "No such file"),
        ("", "cannot read ''"),
        ("attentoin.yaml", "did you mean 'attention.yaml'?"),
        (".", "is a folder without a config.json"),
        ("nul\0.yaml", "null"),
        ("utf16.yaml", "UTF-16"),
        ("latin1.yaml", "byte 0xe9 at offset 6"),
    ],
)
def test_unreadable_files(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attention.yaml").write_text(ATTENTION)
    (tmp_path / "utf16.yaml").write_text(ATTENTION, "utf-16")
    (tmp_path / "latin1.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(GraphError) as caught:
        load(path)
    assert words in str(caught.value)


# Large and hostile input -----------------------------------------------------------------


def chain(count, first="x"):
    """A chain in an order that is not the order of the file."""
    lines = [f"n{i}: {{op: copy, x: {f'n{i - 1}' if i else first}}}" for i in range(count)]
    random.Random(0).shuffle(lines)
    return lines


def test_long_chain():
    text = graph_with(*chain(10_000), out="n9999")
    started = time.process_time()
    assert len(loads(text).nodes) == 10_000
    assert time.process_time() - started < 5


def test_long_cycle():
    message = str(errors_of(graph_with(*chain(10_000, first="n9999"), out="n0")))
    assert "(9,981 more)" in message
    assert len(message) < 5_000


def test_ten_thousand_mistakes():
    lines = [f"n{i}: {{op: copy, x: m{i}}}" for i in range(10_000)]
    started = time.process_time()
    assert len(errors_of(graph_with(*lines, out="n0")).diagnostics) == 21
    assert time.process_time() - started < 10


ENTRY = "{op: copy, x: x, slice: {" + ", ".join(f"{i}: *l" for i in range(40)) + "}}"
MULTIPLIED = graph_with(
    "a: {op: copy, x: x, reshape: &l [" + "1, " * 40 + "], after: &e [x]}",
    "b: &b " + ENTRY, *(f"c{i}: *b" for i in range(40)), out="c0",
)  # fmt: skip


def test_aliases_within_the_structure_are_cheap():
    assert len(MULTIPLIED) < 1_200
    loads(ATTENTION)
    started = time.process_time()
    errors_of(MULTIPLIED)
    assert time.process_time() - started < 0.1


# Nothing but GraphError ------------------------------------------------------------------


def attempt(text, **more):
    try:
        loads(text, **more)
        return
    except GraphError as exc:
        error = exc
    assert error.diagnostics
    assert str(error)


@given(st.text("version:1 {}[]nodes,op&*<-'\"\n") | st.text())
def test_random_text(text):
    attempt(text)


PIECES = ["{", "}", "[", "]", ": ", ", ", "- ", "\n", "\t", "&a ", "*a", "<<: ", "'", '"', "#", "1",
          "-1", "0", "true", "null", ".nan", "1e999", "op", "copy", "x", "scores", "S", "S / 3",
          "!!a", "9" * 30, "|", ">", "?", "é", "\x00", "after: [ctx]", "shape: [1]"]  # fmt: skip


@settings(max_examples=300)
@given(st.data())
def test_mutated_text(data):
    text = ATTENTION
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        end = min(len(text), at + data.draw(st.integers(0, 12)))
        text = text[:at] + data.draw(st.sampled_from(PIECES)) + text[end:]
    attempt(text)


words = st.sampled_from(
    ["version", "name", "dims", "consts", "inputs", "weights", "nodes", "outputs", "op", "copy",
     "gemm", "softmax", "x", "a", "b", "shape", "dtype", "f32", "after", "slice", "permute",
     "reshape", "to", "host", "axis", "alpha", "S", "S // 0", "min", "file", "key",
     "prefix", "{i}"]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**64) | st.floats() | words | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(words | st.text(max_size=3), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip
sections = st.fixed_dictionaries(
    {"version": st.just(1) | values, "outputs": values},
    optional=dict.fromkeys(
        ("name", "dims", "consts", "inputs", "file", "prefix", "weights", "nodes"), values
    ),
)


@settings(max_examples=300)
@given(values | sections, st.none() | st.dictionaries(words, values, max_size=2))
def test_random_structures(value, dims):
    attempt(json.dumps(value).replace("Infinity", ".inf").replace("NaN", ".nan"), dims=dims)


def test_a_plan_is_no_graph(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(make_plan(load("graphs/attention.yaml")).to_json())
    with pytest.raises(GraphError, match="this is a plan, not a graph") as caught:
        load(path)
    assert str(caught.value).count("error: ") == 1
