"""The schema and the loader give the same verdict, but for what a schema cannot say."""

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from graphexec.base.errors import GraphError
from graphexec.frontend.load import loads
from graphexec.frontend.schema import schema
from graphexec.ir.op import Attribute, Op, Operand
from graphexec.ir.registry import known_ops

# What the loader says about mistakes that a schema of single values cannot express ...
BEYOND = re.compile(
    "there is no tensor|is used twice|uses itself|^cycle|defined by itself|unknown name"
    "|unknown function|takes (at least )?[0-9]+ arguments?|divide exactly"
    "|expected (an operator|a number or a name|'[)]'), found|expression ends where|is not closed"
    "|has no meaning in dims|begins with 0"
    "|division by zero|not a finite number|an expression of|nested deeper|too large"
    "|of a negative number|is sliced twice|the value must be an integer"
    "|an extent must be at least 1, found .* = "
    "|is no tensor, dim or const|expression has no name|'@'|^T|is a dtype|is a tensor and a dim"
    "|is a subtraction"
    "|has several outputs|unknown block|lacks input|^block '.*' has no key|carries nothing"
    "|is not the tensor of this name|blocks use each other"
)
# ... and what it can express in part: numbers past int64 only where floats are no option, some
# characters of expressions; 8.0 and 1e+16 are integers to JSON Schema.
PARTLY = re.compile(
    r"past int64|an empty expression|has no meaning in expressions|is not a number"
    r"|found (the number )?-?[\d.]+(\.0|e\+\d+)$"
)

VALIDATOR = Draft202012Validator(schema(known_ops()))

GOOD = {
    "version": 1,
    "name": "g",
    "dims": {"S": 8, "D": 64},
    "consts": {"scale": "D ** -0.5", "half": 0.5},
    "inputs": {"x": {"shape": ["S", "D"], "dtype": "f16"}, "m": {"shape": [], "dtype": "f16"}},
    "file": "m.safetensors",
    "prefix": "m.",
    "weights": {
        "w": {"file": "w.npz", "key": "w", "shape": ["D", "D"], "dtype": "f16"}, "v": "v",
        "u": {},
    },
    "nodes": {
        "a": {"op": "gemm", "a": "x", "b": "w", "alpha": "scale", "trans_b": True, "beta": None},
        "s": {"op": "softmax", "x": "a", "axis": -1, "scale": 0.5, "causal": False, "mask": "m"},
        "c": {
            "op": "copy", "x": "s", "slice": {"0": [None, "S // 2", 1], "-1": [1]},
            "permute": [1, 0], "reshape": [-1, "D"], "to": "host", "dtype": None,
            "after": ["x", "w"], "shape": ["D", 4],
        },
        "t": "gelu(a) + S",
        "b": {"block": "layer", "h": "x", "n": "m", "repeat": 2, "after": ["a"]},
        "e": {"op": "map", "expr": "where(u < 0, u, half * a)", "with": {"u": "s"}, "dtype": "f16"},
    },
    "blocks": {
        "layer": {
            "inputs": {"h": ["S", "D"], "n": None}, "prefix": "l{i}.", "file": "l.npz",
            "weights": {"w": "w{2 * i}", "k": {"key": "{i}", "file": "{i}.npz", "shape": ["D"]}},
            "nodes": {"y": "h * w + n", "z": {"block": "inner", "x": "y", "after": ["k"]}},
            "outputs": {"h": "z", "y": "y"},
        },
        "inner": {"inputs": ["x"], "nodes": {"r": "x + 1"}, "outputs": ["r"]},
    },
    "outputs": {"out": "c"},
}  # fmt: skip


def complaints(document):
    try:
        loads(json.dumps(document).replace("Infinity", ".inf"))
    except GraphError as exc:
        return [d.message for d in exc.diagnostics]
    return []


def agree(document):
    messages = complaints(document)
    unknown = [m for m in messages if not BEYOND.search(m)]
    certain = [m for m in unknown if not PARTLY.search(m)]
    valid = VALIDATOR.is_valid(document)
    assert not (valid and certain), (messages, document)
    assert valid or unknown, (messages, document)


def edited(*path, to):
    document = copy.deepcopy(GOOD)
    at = document
    for key in path[:-1]:
        at = at[key]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return document


def test_it_is_a_schema():
    Draft202012Validator.check_schema(VALIDATOR.schema)
    json.dumps(VALIDATOR.schema)


def test_every_op_is_documented():
    for name, op in known_ops().items():
        properties = VALIDATOR.schema["$defs"][f"op.{name}"]["properties"]
        for operand in op.operands:
            assert properties[operand.name]["description"] == operand.text
        for attribute in op.attributes:
            assert properties[attribute.name]["description"] == attribute.doc


def test_own_ops():
    class Twice(Op):
        name = "twice"
        doc = "Doubles."
        operands = (Operand("x", "a tensor"),)
        attributes = (Attribute("by", "int", 2, "factor"),)

    own = Draft202012Validator(schema({"twice": Twice()}))
    node = {"op": "twice", "x": "x", "by": 3}
    document = {"version": 1, "nodes": {"y": node}, "outputs": ["y"]}
    assert own.is_valid(document)
    assert not own.is_valid({**document, "nodes": {"y": {**node, "by": 0.5}}})
    assert not own.is_valid({**document, "nodes": {"y": {**node, "op": "gemm"}}})


def test_good():
    assert complaints(GOOD) == []
    assert VALIDATOR.is_valid(GOOD)


EDITS = [
    (("version",), ...), (("version",), 2), (("version",), "1"), (("version",), True),
    (("name",), ...), (("name",), 1), (("name",), ""), (("names",), "g"),
    (("dims",), None), (("dims",), []), (("dims", "S"), 0), (("dims", "S"), -1),
    (("dims", "S"), 8.5), (("dims", "S"), True), (("dims", "S"), "8"), (("dims", "S"), None),
    (("dims", "S"), 2**63), (("dims", "my-dim"), 1), (("dims", "min"), 1),
    (("consts", "half"), True), (("consts", "half"), None), (("consts", "half"), [1]),
    (("consts", "half"), "S +"), (("consts", "half"), "a[0]"), (("consts", "S"), 1),
    (("inputs",), None), (("inputs", "x"), ["S"]), (("inputs", "x", "shape"), ...),
    (("inputs", "x", "shape"), 4), (("inputs", "x", "shape"), ["S", 0]),
    (("inputs", "x", "shape"), ["S", -1]), (("inputs", "x", "shape"), ["S", 1.5]),
    (("inputs", "x", "shape"), ["S", "T"]), (("inputs", "x", "shape"), [False]),
    (("inputs", "x", "dtype"), ...), (("inputs", "x", "dtype"), "float16"),
    (("inputs", "x", "dtype"), None), (("inputs", "x", "space"), "host"),
    (("inputs", "1x"), {"shape": [1], "dtype": "f16"}), (("inputs", "w"), GOOD["inputs"]["x"]),
    (("weights", "w", "file"), ...), (("weights", "w", "file"), ""), (("weights", "w", "file"), 1),
    (("weights", "w", "key"), ...), (("weights", "w", "key"), None), (("weights", "w"), "w.npy"),
    (("weights", "w"), ""), (("weights", "w"), None), (("weights", "w"), 1),
    (("weights", "w"), "l.{i}"), (("weights", "w", "key"), "{i}"), (("weights", "w"), "{j}"),
    (("weights", "u"), ...), (("weights", "v"), ...), (("weights",), None), (("weights",), {}),
    (("file",), ...), (("file",), ""), (("file",), None), (("file",), {"file": "w.npz"}),
    (("prefix",), ...), (("prefix",), ""), (("prefix",), 1), (("prefix",), "l.{i}."),
    (("nodes",), []), (("nodes", "a"), None), (("nodes", "a", "op"), ...),
    (("nodes", "a", "op"), "gem"), (("nodes", "a", "op"), None), (("nodes", "a", "op"), "copy"),
    (("nodes", "a", "a"), ...), (("nodes", "a", "a"), "no"), (("nodes", "a", "a"), ["x"]),
    (("nodes", "a", "c"), None), (("nodes", "a", "bias"), "x"), (("nodes", "a", "a"), "c"),
    (("nodes", "a", "alpha"), True), (("nodes", "a", "alpha"), None), (("nodes", "a", "alpha"), []),
    (("nodes", "a", "alpha"), "1 / 0"), (("nodes", "a", "beta"), 1e300),
    (("nodes", "a", "trans_b"), "true"), (("nodes", "a", "trans_b"), 1),
    (("nodes", "a", "trans_b"), None), (("nodes", "a", "out_dtype"), "f8"),
    (("nodes", "s", "axis"), 0.5), (("nodes", "s", "axis"), "S"), (("nodes", "s", "axis"), None),
    (("nodes", "s", "axis"), 2**63), (("nodes", "s", "axes"), 1),
    (("nodes", "c", "to"), "hots"), (("nodes", "c", "to"), None), (("nodes", "c", "to"), 1),
    (("nodes", "c", "permute"), 1), (("nodes", "c", "permute"), ["a b"]),
    (("nodes", "c", "permute"), [None]), (("nodes", "c", "permute"), []),
    (("nodes", "c", "reshape"), [-1, -1]), (("nodes", "c", "reshape"), [-2]),
    (("nodes", "c", "reshape"), [0]), (("nodes", "c", "reshape"), "S"),
    (("nodes", "c", "slice"), []), (("nodes", "c", "slice"), {"a": [1]}),
    (("nodes", "c", "slice"), {"01": [1]}), (("nodes", "c", "slice"), {"0": []}),
    (("nodes", "c", "slice"), {"0": [1, 2, 3, 4]}), (("nodes", "c", "slice"), {"0": [1.5]}),
    (("nodes", "c", "slice"), {"0": 1}), (("nodes", "c", "slice"), {}),
    (("nodes", "c", "after"), "x"), (("nodes", "c", "after"), [1]), (("nodes", "c", "after"), []),
    (("nodes", "c", "shape"), None), (("nodes", "c", "shape"), [0]),
    (("nodes", "t"), "a +"), (("nodes", "t"), ""), (("nodes", "t"), 3), (("nodes", "t"), "a @ w"),
    (("nodes", "t"), "a-b"), (("nodes", "t"), "gleu(a)"), (("nodes", "t"), "gelu(a, a)"),
    (("nodes", "e", "expr"), ...), (("nodes", "e", "expr"), 0.5), (("nodes", "e", "expr"), True),
    (("nodes", "e", "expr"), "u"), (("nodes", "e", "expr"), "u + S + S_"),
    (("nodes", "e", "with"), {}), (("nodes", "e", "with"), None), (("nodes", "e", "with"), ["u"]),
    (("nodes", "e", "with", "u"), "S"), (("nodes", "e", "with", "not"), "s"),
    (("nodes", "e", "with", "a-b"), "s"), (("nodes", "e", "with", "half"), "s"),
    (("nodes", "e", "u"), "s"), (("nodes", "e", "dtype"), "f8"),
    (("outputs",), ...), (("outputs",), None), (("outputs",), {}), (("outputs",), []),
    (("outputs",), ["c", "a"]), (("outputs",), ["c", "c"]), (("outputs",), "c"),
    (("outputs",), [1]), (("outputs", "out"), 1), (("outputs", "a b"), "c"),
    (("outputs", "out"), "nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "to"), EDITS)
def test_corpus(path, to):
    agree(edited(*path, to=to))


@pytest.mark.parametrize("document", [None, [], "x", 1, {}, {"version": 1, "outputs": ["x"]}])
def test_roots(document):
    agree(document)


paths = sorted(
    {path for path, _ in EDITS} | {("nodes", "a"), ("nodes", "s"), ("nodes", "c"), ("nodes", "e")}
)
known = st.sampled_from(
    ["x", "w", "a", "s", "c", "S", "scale", "S * 2", "gemm", "copy", "f16", "host", "op", "shape",
     "0", "-1", "", "a b", "1x", "alpha", "dtype", "file", "axis", "key", "{i}"]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | known,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(known, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.sampled_from(paths), values | st.just(...)), min_size=1, max_size=3))
def test_random_edits(edits):
    document = copy.deepcopy(GOOD)
    for path, to in edits:
        at = document
        for key in path[:-1]:
            at = at.get(key) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            continue
        if to is ...:
            at.pop(path[-1], None)
        else:
            at[path[-1]] = to
    agree(document)
