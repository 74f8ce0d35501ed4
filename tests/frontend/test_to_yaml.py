import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from graphexec.base.errors import GraphError
from graphexec.frontend.load import loads
from graphexec.frontend.yaml.write import to_yaml
from graphexec.ir.graph import Graph, Input, Node, Weight

ATTENTION = """\
version: 1
name: attention
dims: {B: 2, H: 8, S: 128, D: 64}
consts: {scale: D ** -0.5, tiny: 1.0e-05}
inputs:
  q: {shape: [B, H, S, D], dtype: f16}
  k: {shape: [B, H, S, D], dtype: f16}
weights:
  w: {file: weights/v.npz, key: v, dtype: f16}
nodes:
  scores: {op: gemm, a: q, b: k, trans_b: true, alpha: scale}
  probs: {op: softmax, x: scores, axis: -1, scale: "max(1, S)"}
  cut: {op: copy, x: probs, slice: {-1: [null, S // 2, 1]}, to: device, after: [w]}
  ctx: {op: gemm, a: probs, b: w, shape: [B, H, S, D]}
outputs: {out: ctx, cut: cut}
"""


def test_text():
    assert to_yaml(loads(ATTENTION)) == ATTENTION


def test_other_readers_agree():
    # PyYAML reads YAML 1.1.
    read = yaml.safe_load(ATTENTION)
    assert read["consts"] == {"scale": "D ** -0.5", "tiny": 1e-05}
    assert read["nodes"]["cut"]["slice"] == {-1: [None, "S // 2", 1]}


def test_a_built_graph():
    g = Graph("on", dims={"S": 4}, consts={"no": 1e-3, "y": 1e300})
    x = g.input("null", ("S", np.int64(4)), "f32")
    y = g.gemm(x, x, alpha=np.float32(0.5), trans_a=np.bool_(True), name="true")
    z = g.copy(y, reshape=["S * 4", -1], slice={0: [None, 2, 1]}, name="yes", after=[x])
    g.output(off=z, y="true")
    text = to_yaml(g)
    assert loads(text) == g
    assert '  "null": {shape: [S, 4], dtype: f32}\n' in text
    assert yaml.safe_load(text)["outputs"] == {"off": "yes", "y": "true"}


@pytest.mark.parametrize(
    "file",
    ["1e3", "~", "a: b", "a #b", "- x", "é/ü.npy", "日本.npy", "𐀀", "a\nb", "\x00\x7f\x85\u2028",
     "{x}", "'\"\\", " x ", "*a", "...", "---", "0x1F", "1_000", "=", "<<", "a  b", "a,b", "%x"],
)  # fmt: skip
def test_odd_strings(file):
    g = Graph(file if file.isprintable() else "g", file=file, prefix=file)
    g.output(w=g.weight("w", file, file), v=g.weight("v", key=file))
    assert loads(to_yaml(g)) == g
    read = yaml.safe_load(to_yaml(g))
    assert read["weights"] == {"w": {"file": file, "key": file}, "v": file}
    assert (read["file"], read["prefix"]) == (file, file)


def test_what_utf8_cannot_hold():
    g = Graph()
    g.output(w=g.weight("w", "\udcff.npy"))
    with pytest.raises(GraphError, match="cannot be written"):
        to_yaml(g)


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,5}", fullmatch=True) | st.sampled_from(
    ["on", "no", "y", "null", "true", "False", "e1", "_", "a-", "a.b-", "NULL", "op", "n"]
)
variables = st.from_regex(r"[A-Z][a-z0-9_]{0,3}", fullmatch=True).filter(
    lambda v: v not in ("None", "True")
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
extents = st.integers(1, 2**63 - 1) | st.sampled_from(["S", "S // 2", "max(S, 3)", "(S + 1) % 7"])
ends = st.none() | st.integers(-9, 9) | st.just("S - 1")
attributes = {
    "gemm": {"trans_a": st.booleans(), "alpha": numbers | st.just("scale"), "beta": st.none()},
    "softmax": {"axis": st.integers(-3, 3) | st.just("S - 4"), "scale": numbers},
    "copy": {
        "permute": st.lists(st.integers(-3, 3), max_size=3),
        "reshape": st.lists(extents, max_size=3),
        "slice": st.dictionaries(st.integers(-9, 9), st.lists(ends, min_size=1, max_size=3)),
        "to": st.sampled_from(["host", "device", None]),
        "dtype": st.sampled_from(["f16", "bf16", None]),
    },
}


@st.composite
def graphs(draw):
    shapes = st.lists(extents, max_size=4).map(tuple)
    dims = {**draw(st.dictionaries(variables, st.integers(1, 2**63 - 1), max_size=2)), "S": 4}
    file = draw(st.none() | texts)
    g = Graph(
        draw(texts.filter(str.isprintable)), dims=dims, file=file, prefix=draw(st.just("") | texts),
        consts={**draw(st.dictionaries(st.sampled_from(["on", "z"]), numbers)), "scale": "S ** -1"},
    )  # fmt: skip
    tensors = draw(st.lists(names, min_size=2, max_size=7, unique=True))
    g.add(Input(tensors[0], draw(shapes), "f32"))
    for i, name in enumerate(tensors[1:], 1):
        if draw(st.integers(0, 3)) == 0:
            own = draw(texts if file is None else st.none() | texts)
            key, shape = draw(st.none() | texts), draw(st.none() | shapes)
            g.add(Weight(name, own, key, shape, draw(st.sampled_from([None, "f64"]))))
            continue
        op = draw(st.sampled_from(["gemm", "softmax", "copy"]))
        earlier = st.sampled_from(tensors[:i])
        operands = {o.name: draw(earlier) for o in g.ops[op].operands if not o.optional}
        attrs = draw(st.fixed_dictionaries({}, optional=attributes[op]))
        after = tuple(draw(st.lists(earlier, max_size=2)))
        g.add(Node(name, op, operands, attrs, after, draw(st.none() | shapes)))
    g.outputs = draw(st.dictionaries(names, st.sampled_from(tensors), min_size=1, max_size=3))
    return g


@given(graphs())
def test_round_trip(g):
    assert loads(to_yaml(g)) == g
    assert to_yaml(loads(to_yaml(g))) == to_yaml(g)
