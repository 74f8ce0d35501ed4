"""Blocks in YAML: what they expand to, what they may not be, and where errors point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphexec as gx
from graphexec.frontend.expand import expand
from graphexec.graph.infer import infer

LAYER = """\
version: 1
dims: {L: 3, E: 8}
inputs: {x0: {shape: [E, E], dtype: f32}}
blocks:
  half:
    inputs: [q]
    nodes: {r: q * 0.5}
    outputs: [r]
  layer:
    inputs: {x: [E, E], bias: null}
    nodes:
      h: {op: softmax, x: x}
      m: {block: half, q: h}
      y: m + x + bias
    outputs: {x: y}
nodes:
  b: x0 * 2.0
  trunk: {block: layer, x: x0, bias: b, repeat: L}
outputs: {y: trunk}
"""


def edges(graph: gx.Graph) -> dict[str, dict[str, str]]:
    return {node.name: dict(node.operands) for node in expand(graph).nodes.values()}


def refused(text: str, **more: Any) -> list[Any]:
    with pytest.raises(gx.GraphError) as caught:
        infer(gx.loads(text, path="m.yaml", **more))
    return caught.value.diagnostics


def changed(old: str, new: str, text: str = LAYER) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_repeated_and_nested() -> None:
    graph = gx.loads(LAYER)
    assert edges(graph) == {
        "b": {"x0": "x0"},
        "trunk.0.h": {"x": "x0"},
        "trunk.0.m.r": {"q": "trunk.0.h"},
        "trunk.0.y": {"m": "trunk.0.m.r", "x": "x0", "bias": "b"},
        "trunk.1.h": {"x": "trunk.0.y"},
        "trunk.1.m.r": {"q": "trunk.1.h"},
        "trunk.1.y": {"m": "trunk.1.m.r", "x": "trunk.0.y", "bias": "b"},
        "trunk.2.h": {"x": "trunk.1.y"},
        "trunk.2.m.r": {"q": "trunk.2.h"},
        "trunk.2.y": {"m": "trunk.2.m.r", "x": "trunk.1.y", "bias": "b"},
    }
    assert not graph.warnings
    assert infer(graph).outputs == {"y": "trunk.2.y"}


def test_repeat_follows_a_dim() -> None:
    graph = gx.loads(LAYER, dims={"L": 1})
    assert list(edges(graph)) == ["b", "trunk.0.h", "trunk.0.m.r", "trunk.0.y"]
    assert infer(graph.with_dims(L=5)).outputs == {"y": "trunk.4.y"}
    assert graph.with_dims() == graph != graph.with_dims(L=2)


def test_runs() -> None:
    x = np.random.default_rng(0).standard_normal((8, 8), np.float32)
    with gx.compile(gx.loads(LAYER), device="cpu") as exe:
        found = exe.run(x0=x)["y"]
    y = x.astype(np.float64)
    for _ in range(3):
        e = np.exp(y - y.max(-1, keepdims=True))
        y = e / e.sum(-1, keepdims=True) * 0.5 + y + x * 2.0
    np.testing.assert_allclose(found, y, rtol=1e-5)


@pytest.mark.parametrize("name", ["trunk.1.h", "trunk.0.m.r", "trunk.2.m", "trunk.x", "trunk.2.y"])
def test_expanded_names_are_tensors(name: str) -> None:
    text = changed("{y: trunk}", f"{{y: trunk, z: {name}, copy: c, m: e}}")
    text = changed(
        "  b: x0 * 2.0\n",
        f"  b: x0 * 2.0\n  c: {{op: copy, x: {name}, after: [trunk.1.h]}}\n"
        f'  e: {{op: map, expr: "t + 1", with: {{t: {name}}}}}\n',
        text,
    )
    graph = expand(gx.loads(text))
    meant = {"trunk.2.m": "trunk.2.m.r", "trunk.x": "trunk.2.y"}.get(name, name)
    assert graph.outputs["z"] == graph.nodes["c"].operands["x"] == meant
    assert graph.nodes["e"].operands == {"t": meant}
    assert graph.nodes["c"].after == ("trunk.1.h",)


def test_without_repeat_and_with_several_outputs() -> None:
    graph = gx.loads("""\
version: 1
inputs: {x: {shape: [2], dtype: f32}}
blocks:
  two:
    inputs: [x]
    nodes: {h: x + 1, a: h * 2, b: h * 3}
    outputs: {first: a, second: b, same: x}
nodes:
  t: {block: two, x: x}
  s: {op: concat, x: [t.first, t.second, t.h, t.same], axis: 0}
outputs: [s]
""")
    assert edges(graph)["s"] == {"x[0]": "t.a", "x[1]": "t.b", "x[2]": "t.h", "x[3]": "x"}


def test_after_orders_the_first_nodes() -> None:
    text = changed("bias: b, repeat: L}", "bias: b, repeat: L, after: [b]}")
    nodes = expand(gx.loads(text)).nodes
    assert nodes["trunk.0.h"].after == ("b",)
    assert not nodes["trunk.0.m.r"].after
    assert not nodes["trunk.1.h"].after


def test_a_node_may_wait_for_a_use() -> None:
    text = changed("outputs: {y: trunk}", "  c: {op: copy, x: x0, after: [trunk]}\noutputs: [c]")
    assert expand(gx.loads(text)).nodes["c"].after == ("trunk.2.y",)


# Weights ----------------------------------------------------------------------------------

WEIGHTS = """\
version: 1
inputs: {x: {shape: [2], dtype: f32}}
file: w.npz
blocks:
  inner:
    inputs: [x]
    prefix: "in{layer.i}.{i}."
    weights: {w: {key: w}}
    nodes: {y: x * w}
    outputs: {x: y}
  layer:
    inputs: [x]
    prefix: "out{i}."
    weights: {v: "v{2 * i + 1}{j}{}", s: {file: shared.npz, key: s}, f: {file: "f{i}.npz"}}
    nodes:
      t: {block: inner, x: x, repeat: 2}
      y: t + v + s + f
    outputs: {x: y}
nodes:
  trunk: {block: layer, x: x, repeat: 2}
outputs: {y: trunk}
"""


def test_numbers_in_keys_and_files() -> None:
    found = {w.name: (w.file, w.key) for w in expand(gx.loads(WEIGHTS)).weights.values()}
    assert found == {
        "trunk.0.v": (None, "out0.v1{j}{}"),
        "trunk.0.s": ("shared.npz", "out0.s"),
        "trunk.0.f": ("f0.npz", None),
        "trunk.0.t.0.w": (None, "in0.0.w"),
        "trunk.0.t.1.w": (None, "in0.1.w"),
        "trunk.1.v": (None, "out1.v3{j}{}"),
        "trunk.1.s": ("shared.npz", "out1.s"),
        "trunk.1.f": ("f1.npz", None),
        "trunk.1.t.0.w": (None, "in1.0.w"),
        "trunk.1.t.1.w": (None, "in1.1.w"),
    }


def test_repetitions_share_a_weight_without_a_number() -> None:
    graph = expand(gx.loads(changed('    prefix: "out{i}."\n', "", WEIGHTS)))
    assert [name for name in graph.weights if name.endswith(".s")] == ["trunk.0.s"]
    assert graph.nodes["trunk.1.y"].operands["s"] == "trunk.0.s"
    assert graph.same["trunk.1.s"] == "trunk.0.s"


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    text = """\
version: 1
inputs: {x: {shape: [2], dtype: f32}}
file: w.npz
blocks:
  layer:
    inputs: [x]
    prefix: "layers.{i}."
    weights: {w: weight}
    nodes: {y: x * w}
    outputs: {x: y}
nodes:
  trunk: {block: layer, x: x, repeat: 20}
outputs: {y: trunk}
"""
    values = {f"layers.{i}.weight": np.ones(2, np.float32) for i in range(20) if i != 17}
    np.savez(tmp_path / "w.npz", **values)  # type: ignore[arg-type]
    (found,) = refused(text, folder=tmp_path)
    assert "'layers.17.weight'" in found.message
    assert found.mark == (8, 18, 6)
    assert found.notes == ("block 'layer' is used by 'trunk' at m.yaml:12:3, repetition 17",)


def test_a_key_that_all_repetitions_miss_is_told_once(tmp_path: Path) -> None:
    text = changed('prefix: "out{i}."', 'prefix: "no{i}."', WEIGHTS)
    np.savez(tmp_path / "w.npz", a=np.ones(2, np.float32))
    for name in ("shared", "f0", "f1"):
        np.savez(tmp_path / f"{name}.npz", s=np.ones(2, np.float32))
    found = refused(text, folder=tmp_path)
    (of_v,) = [d for d in found if d.message.startswith("weight 'trunk.0.v'")]
    assert of_v.notes[-1] == "and 1 more of this block"
    assert not any("trunk.1" in d.message for d in found)


# Mistakes ---------------------------------------------------------------------------------

USED = "block 'layer' is used by 'trunk' at m.yaml:17:3"
BAD = {
    "zero": ("repeat: L}", "repeat: 0}", "repeat must be at least 1, found 0"),
    "negative": ("repeat: L}", "repeat: L - 5}", "repeat must be at least 1, found L - 5 = -2"),
    "fraction": ("repeat: L}", "repeat: 1.5}", "expected an integer, found 1.5"),
    "divided": ("repeat: L}", "repeat: L / 2}", "3 / 2 does not divide exactly"),
    "unknown dim": ("repeat: L}", "repeat: M}", "unknown name 'M'"),
    "carries nothing": (
        "{x: y}", "{z: y}",
        "repeat of block 'layer' carries nothing: no output is named like an input",
    ),
    "does not fit": (
        "y: m + x + bias",
        "y: {op: reduce, kind: sum, x: x, axis: 0}",
        "output 'x' of block 'layer' is f32[8], and its input 'x' is f32[8, 8]",
    ),
    "dtype does not fit": (
        "y: m + x + bias",
        "y: {op: copy, x: m, dtype: f16}",
        "output 'x' of block 'layer' is f16[8, 8], and its input 'x' is f32[8, 8]",
    ),
    "stated shape": (
        "{x: [E, E], bias: null}", "{x: [E, 2], bias: null}",
        "input 'x' of block 'layer' is stated as [E, 2] = [8, 2], and it is given f32[8, 8]",
    ),
    "stated extent": ("x: [E, E]", "x: [E, N]", "unknown name 'N'"),
    "unknown block": ("block: layer", "block: lair", "unknown block 'lair'"),
    "unknown input": ("bias: b, ", "bias: b, c: b, ", "block 'layer' has no key 'c'"),
    "missing input": ("bias: b, ", "", "node 'trunk' lacks input 'bias' of block 'layer'"),
    "unknown tensor": ("bias: b, ", "bias: d, ", "there is no tensor 'd'"),
    "outer tensor": ("q: h}", "q: b}", "there is no tensor 'b'"),
    "outer name": ("m + x + bias", "m + x + b", "'b' is no tensor, dim or const"),
    "unknown op": ("op: softmax", "op: softmx", "unknown op 'softmx'"),
    "itself": ("block: half", "block: layer", "node 'm' lacks input 'x' of block 'layer'"),
    "no repetition": ("{y: trunk}", "{y: trunk.3.h}", "there is no tensor 'trunk.3.h'"),
    "no number": ("{y: trunk}", "{y: trunk.h}", "there is no tensor 'trunk.h'"),
    "padded number": ("{y: trunk}", "{y: trunk.01.h}", "there is no tensor 'trunk.01.h'"),
    "name of the user": ("  b: x0", "  trunk.1.h: x0\n  b: x0",
                         "the name 'trunk.1.h' is used twice"),
    "name of a result": ("  b: x0", "  trunk.x: x0\n  b: x0", "the name 'trunk.x' is used twice"),
    "input named as a key": ("{x: [E, E]", "{repeat: [E], x: [E, E]",
                             "an input of a block cannot be named 'repeat'"),
    "output and inner": ("{x: y}", "{x: y, h: m}",
                         "output 'h' is not the tensor of this name in the block"),
    "outputs missing": ("    outputs: {x: y}\n", "", "block 'layer' needs the key 'outputs'"),
    "outputs empty": ("{x: y}", "{}", "block 'layer' has no outputs"),
    "unknown key": ("    inputs: [q]", "    input: [q]", "block 'half' has no key 'input'"),
    "op and block": ("{block: layer,", "{op: softmax, block: layer,",
                     "node 'trunk' has an op and uses a block"),
    "shape of a use": ("repeat: L}", "repeat: L, shape: [E, E]}",
                       "block 'layer' has no key 'shape'"),
    "blocks is a list": ("blocks:\n  half", "blocks:\n  - 1\nxx:\n  half",
                         "expected a mapping for 'blocks', found a list"),
    "inputs is a number": ("    inputs: [q]", "    inputs: 3",
                           "expected a mapping for 'inputs', found the number 3"),
    "input is a list": ("    inputs: [q]", "    inputs: [[q]]",
                        "expected the name of an input, found a list"),
    "block is null": ("  half:\n", "  none:\n  half:\n", "expected a mapping"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes(case: str) -> None:
    old, new, message = BAD[case]
    found = refused(changed(old, new))
    assert any(message in d.message for d in found), [d.render() for d in found]
    for each in found:
        assert each.mark is not None
        assert each.source is not None


def test_no_number_without_repeat() -> None:
    text = changed("x: x, repeat: 2}\n      y", "x: x}\n      y", WEIGHTS)
    text = changed("x: x, repeat: 2}\noutputs", "x: x}\noutputs", text)
    found = refused(text)
    assert {d.message for d in found} == {
        "prefix: '{i}' has no value here", "prefix: '{layer.i}' has no value here",
        "key: '{2 * i + 1}' has no value here", "file: '{i}' has no value here",
    }  # fmt: skip
    notes = {line for d in found for line in d.notes}
    assert "block 'layer' is used by 'trunk' at m.yaml:20:3" in notes
    assert "block 'inner' is used by 'trunk.t' at m.yaml:16:7" in notes
    assert all(d.mark and d.help.startswith("{i} is the number") for d in found)


def test_numbers_that_divide_do_so_exactly() -> None:
    (found, *_) = refused(changed("{2 * i + 1}", "{i / 2}", WEIGHTS))
    assert "'{i / 2}'" in found.message
    assert found.mark is not None
    assert found.mark.line == 14


def test_a_circle_of_blocks() -> None:
    text = changed("outputs: [r]", "outputs: [s]", LAYER)
    text = changed("r: q * 0.5}", "s: {block: layer, x: q, bias: q}}", text)
    (found,) = refused(text)
    assert found.message.startswith("blocks use each other: ")
    assert "half → layer" in found.message
    assert found.mark is not None


def test_a_cycle_through_a_block() -> None:
    (found,) = refused(changed("  b: x0 * 2.0", "  b: trunk * 2.0"))
    assert found.message.startswith("cycle: ")
    assert "trunk" in found.message
    assert any("m.yaml:17" in line for line in (str(found.render()), *found.notes))


def test_warnings() -> None:
    text = changed("y: m + x + bias", "y: m + x\n      z: x * 2")
    text = changed("nodes:\n  b:", "  alone: {inputs: [x], outputs: [x]}\nnodes:\n  b:", text)
    text = changed("{y: trunk}", "{y: x0}", text)
    found = [(w.message, w.mark.line if w.mark else None) for w in gx.loads(text).warnings]
    assert found == [
        ("input 'bias' of block 'layer' is not used", 10),
        ("node 'z' of block 'layer' is not used", 15),
        ("block 'alone' is not used", 17),
        ("node 'b' is not used", 19),
        ("node 'trunk' is not used", 20),
    ]


def test_what_is_named_outside_of_a_block_is_used() -> None:
    text = changed("y: m + x + bias", "y: m + x + bias\n      z: x * 2")
    assert not gx.loads(changed("{y: trunk}", "{y: trunk, z: trunk.1.z}", text)).warnings


HOSTILE = {
    "deep": (
        "".join(f"  b{n}: {{inputs: [x], nodes: {{t: {{block: b{n - 1}, x: x}}}}, outputs: [t]}}\n"
                for n in range(1, 3000)), "b2999",
        "blocks lie more than 100 deep within one another",
    ),
    "doubling": (
        "".join(f"  b{n}: {{inputs: [x], nodes: {{t: {{block: b{n - 1}, x: x}}, "
                f"u: {{block: b{n - 1}, x: t}}}}, outputs: [u]}}\n" for n in range(1, 90)), "b89",
        "at most 1,000,000 are allowed",
    ),
    "endless": ("", "b0, repeat: 9223372036854775807", "at most 1,000,000 are allowed"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case: str) -> None:
    blocks, used, message = HOSTILE[case]
    (found,) = refused(
        "version: 1\ninputs: {x: {shape: [2], dtype: f32}}\nblocks:\n"
        f"  b0: {{inputs: [x], outputs: [x]}}\n{blocks}nodes: {{a: {{block: {used}, x: x}}}}\n"
        "outputs: [a]\n"
    )
    assert message in found.message


def test_long_names_in_circles_of_blocks() -> None:
    name = ".".join("a" * 4000)
    text = f"""\
version: 1
inputs: {{x: {{shape: [2], dtype: f32}}}}
blocks:
  b: {{inputs: [x], nodes: {{a: {{block: b, x: x}}, a.a: {{block: b, x: a}}}}, outputs: {{z: a}}}}
nodes: {{a: {{block: b, x: x}}, a.a: {{block: b, x: a}}}}
outputs: [{name}, {name[:901]}.b]
"""
    assert all("there is no tensor" in d.message for d in refused(text))


def test_many_uses_in_a_row() -> None:
    uses = "".join(f"  a{n}: {{block: same, x: a{n - 1}}}\n" for n in range(1, 3000))
    graph = gx.loads(
        "version: 1\ninputs: {a0: {shape: [2], dtype: f32}}\n"
        f"blocks: {{same: {{inputs: [x], outputs: [x]}}}}\nnodes:\n{uses}outputs: [a2999]\n"
    )
    assert expand(graph).outputs == {"a2999": "a0"}


def test_repetitions_are_fixed_when_compiled() -> None:
    text = changed("x0: {shape: [E, E]", "n: {shape: [L], dtype: f32}, x0: {shape: [E, E]")
    text = changed("outputs: {y: trunk}", "  m: n + 1\noutputs: {y: trunk, m: m}", text)
    x = np.ones((8, 8), np.float32)
    with gx.compile(gx.loads(text), device="cpu") as exe:
        exe.run(x0=x, n=np.ones(3, np.float32))
        with pytest.raises(gx.DataError) as caught:
            exe.run(x0=x, n=np.ones(4, np.float32))
    assert caught.value.diagnostics[0].message == (
        "the repeat of 'trunk' has the dim 'L', which is 3 since the graph was compiled; the "
        "inputs say 4"
    )


def test_mistakes_of_types_say_who_uses_the_block() -> None:
    (found,) = refused(changed("h: {op: softmax, x: x}", "h: {op: softmax, x: x, axis: 2}"))
    assert found.message.startswith("softmax 'trunk.0.h': there is no axis 2")
    assert found.mark is not None
    assert found.mark.line == 12
    assert "block 'layer' is used by 'trunk' at m.yaml:18:3, repetition 0" in found.notes
    text = changed("r: q * 0.5", "r: {op: copy, x: q, permute: [0, 0]}")
    (found,) = refused(changed("y: m + x + bias", "y: x + bias\n      z: m + x", text))
    assert found.message.startswith("copy 'trunk.0.m.r': ")
    assert found.notes[-3:] == (
        "block 'half' is used by 'trunk.0.m' at m.yaml:13:7",
        "block 'layer' is used by 'trunk' at m.yaml:19:3, repetition 0",
        "and 2 more of this block",
    )


def test_a_file_and_a_prefix_of_a_block_that_no_weight_has() -> None:
    text = changed("    inputs: [q]", "    inputs: [q]\n    file: w.npz\n    prefix: l")
    found = [(w.message, w.mark.line if w.mark else None) for w in gx.loads(text).warnings]
    assert found == [("'file' is not used", 7), ("'prefix' is not used", 8)]


@pytest.mark.parametrize(("old", "new", "help"), [
    ("{block: layer", "{op: layer", "a block is used as {block: layer, …}"),
    ("{block: half", "{block: softmax", "an op is used as {op: softmax, …}"),
    ("{block: layer, ", "{", "or 'block', to use a block"),
])  # fmt: skip
def test_ops_and_blocks_taken_for_each_other(old: str, new: str, help: str) -> None:
    assert help in {d.help for d in refused(changed(old, new))}
