"""fuse-attention: what becomes one attention, what must not, and that numbers stay right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attention_cases import FROBENIUS
from hardware import HALVES, Chip
from hypothesis import given, settings
from hypothesis import strategies as st
from rewritten import after, applied, assert_right, commands, draw, refused

import graphexec as gx
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.evaluate import evaluate

NAME = "fuse-attention"
Array = np.ndarray[Any, Any]


def attention(dtype: str = "f32", **change: Any) -> gx.Graph:
    """The pattern; `change` has settings of `scores`, `probs` and `ctx`, or shapes of q, k, v."""
    g = gx.Graph("g")
    q = g.input("q", change.get("q", (2, 3, 10, 8)), dtype)
    k = g.input("k", change.get("k", (2, 3, 12, 8)), dtype)
    v = g.input("v", change.get("v", (2, 3, 12, 6)), change.get("v_dtype", dtype))
    for name, shape in change.get("more", {}).items():
        g.input(name, shape, dtype)
    settings = {"trans_b": True, "alpha": 0.5, **change.get("scores", {})}
    scores = g.gemm(q, k, name="scores", **settings)
    if "cast" in change:
        scores = g.copy(scores, dtype=change["cast"], name="cast")
    probs = g.softmax(scores, name="probs", **change.get("probs", {}))
    if "narrow" in change:
        probs = g.copy(probs, dtype=change["narrow"], name="narrow")
    ctx = g.gemm(probs, v, name="ctx", **change.get("ctx", {}))
    g.output(out=ctx)
    return g


def is_one(g: gx.Graph) -> None:
    """The graph becomes one attention, and its numbers are those of the definition."""
    found = after(g, NAME)
    (command,) = commands(found)
    assert command in ("ctx:attention", "ctx:causal attention")
    (text,) = applied(found)
    assert text.startswith("'scores'")
    assert text.endswith("became the attention 'ctx'")
    assert refused(found) == []
    check(g)


def check(g: gx.Graph, *names: str) -> None:
    """Outputs against float64, with the bounds that are promised for attention."""
    device = gx.CpuDevice(poison=True)
    with gx.compile(g, device=device, rewrite=names or [NAME], no_rewrite=["all"]) as exe:
        inputs = draw(exe.inputs)
        assert_near(exe.graph.types(), g, inputs, exe.run(**inputs))


def assert_near(
    types: Any, g: gx.Graph, inputs: dict[str, Array], found: dict[str, Array], slack: float = 1,
    by_terms: bool = False,
) -> None:  # fmt: skip
    """`by_terms`: relative to Σ weight · |v|, as the terms of a tiny result may cancel."""
    from graphexec.graph.infer import infer

    exact = evaluate(infer(g), inputs)
    sizes = evaluate(infer(g), {**inputs, "v": np.abs(inputs["v"])}) if by_terms else exact
    bound = slack * max(FROBENIUS[t.dtype.value] for t in types.values())
    if by_terms:  # the rounding of a logit is an equal relative error of its weight
        bound += 4 * np.abs(exact["scores"]).max() * 2.0**-24
    for output, tensor in g.outputs.items():
        assert found[output].dtype == types[tensor].dtype.numpy()
        error = np.linalg.norm(found[output].astype(np.float64) - exact[tensor])
        assert error <= bound * max(1e-6, np.linalg.norm(sizes[tensor])), output


# What is one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_the_plain_pattern(dtype: str) -> None:
    is_one(attention(dtype))


VARIANTS: dict[str, dict[str, Any]] = {
    "k as it is stored for the product": {"k": (2, 3, 8, 12), "scores": {"trans_b": False}},
    "q turned": {"q": (2, 3, 8, 10), "scores": {"trans_a": True}},
    "v turned": {"v": (2, 3, 6, 12), "ctx": {"trans_b": True}},
    "causal": {"probs": {"causal": True}},
    "scaled twice": {"scores": {"alpha": -2.0}, "probs": {"scale": 0.25}},
    "axis from the front": {"probs": {"axis": 3}},
    "mask of the softmax": {"more": {"m": (10, 12)}, "probs": {"mask": "m"}},
    "mask and causal": {"more": {"m": (3, 1, 12)}, "probs": {"mask": "m", "causal": True}},
    "mask as an addend": {"more": {"m": (10, 12)}, "scores": {"c": "m"}},
    "mask whose factors cancel": {"more": {"m": (10, 12)}, "scores": {"c": "m", "beta": 4},
                                  "probs": {"scale": 0.25}},
    "bias as a mask": {"more": {"m": (12,)}, "scores": {"bias": "m"}},
    "an addend that is not read": {"more": {"m": (10, 12)}, "scores": {"c": "m", "beta": 0}},
    "shared keys": {"k": (2, 1, 12, 8), "v": (1, 12, 6)},
    "one query": {"q": (2, 3, 1, 8)},
    "no batch": {"q": (10, 8), "k": (12, 8), "v": (12, 6)},
    "asserted": {"ctx": {"shape": (2, 3, 10, 6)}},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str) -> None:
    is_one(attention(**VARIANTS[variant]))


@pytest.mark.parametrize("half", ["f16", "bf16"])
def test_casts_between(half: str) -> None:
    is_one(attention(half, scores={"out_dtype": "f32"}, narrow=half))
    is_one(attention(half, cast="f32", narrow=half))
    is_one(attention(half, ctx={"out_dtype": "f32"}))


def test_results_and_operands_of_copies_are_strides() -> None:
    """Heads are permuted before and after the attention without moving bytes."""
    g = gx.Graph("g")
    heads = []
    for name in "qkv":
        x = g.input(name, (2, 10, 24), "f32")
        split = g.copy(x, reshape=[2, 10, 3, 8], name=f"{name}_split")
        heads.append(g.copy(split, permute=[0, 2, 1, 3], name=f"{name}_heads"))
    q, k, v = heads
    scores = g.gemm(q, k, trans_b=True, alpha=0.3, name="scores")
    ctx = g.gemm(g.softmax(scores, name="probs"), v, name="ctx")
    g.output(out=g.copy(ctx, permute=[0, 2, 1, 3], reshape=[2, 10, 24], name="merged"))
    together = [NAME, "fold-copies", "permuted-results"]
    assert commands(after(g, *together)) == ["merged:attention"]
    check(g, *together)
    assert_right(g)


def test_attention_after_attention() -> None:
    g = gx.Graph("g")
    x = g.input("x", (4, 20, 8), "f32")
    for layer in range(3):
        scores = g.gemm(x, x, trans_b=True, name=f"scores{layer}")
        x = g.gemm(g.softmax(scores, name=f"probs{layer}"), x, name=f"ctx{layer}")
    g.output(out=x)
    assert commands(after(g, NAME)) == [f"ctx{n}:attention" for n in range(3)]
    check(g)


def test_the_last_node_keeps_its_after_edges() -> None:
    g = gx.Graph("g")
    q, k, v = (g.input(n, (10, 8)) for n in "qkv")
    first = g.softmax(v, name="first")
    scores = g.gemm(q, k, trans_b=True, name="scores")
    ctx = g.gemm(g.softmax(scores, name="probs"), v, name="ctx", after=[first])
    g.output(first, out=ctx, other=g.softmax(q, name="other", after=[ctx]))
    found = after(g, NAME)
    assert commands(found) == ["first:softmax", "ctx:attention", "other:softmax"]
    made = {c.node: (n, c.after) for n, c in enumerate(found.program.commands)}
    assert made["ctx"][1] == (made["first"][0],)
    assert made["other"][1] == (made["ctx"][0],)
    check(g)


def test_the_arena_does_not_hold_the_scores() -> None:
    length = 256
    big = dict.fromkeys("qkv", (1, 4, length, 16))
    arena = after(attention(**big), NAME).plan.stats.arena_bytes
    assert arena == 4 * 4 * length * 16 * 4
    apart = plan_graph(attention(**big), no_rewrite=[NAME]).plan.stats.arena_bytes
    assert apart > 4 * length**2 * 4


# What is left ---------------------------------------------------------------------------------

LEFT: dict[str, tuple[dict[str, Any], str]] = {
    "softmax along queries": ({"probs": {"axis": -2}}, "'probs' does not run along the keys"),
    "turned probabilities": ({"v": (2, 3, 10, 6), "ctx": {"trans_a": True}},
                             "'ctx' takes the probabilities transposed"),
    "scaled result": ({"ctx": {"alpha": 2}}, "'ctx' does more than multiply"),
    "added result": ({"more": {"m": (10, 6)}, "ctx": {"c": "m"}}, "'ctx' does more than multiply"),
    "biased result": ({"more": {"m": (6,)}, "ctx": {"bias": "m"}}, "'ctx' does more than multiply"),
    "addend with a factor": ({"more": {"m": (10, 12)}, "scores": {"c": "m", "beta": 2}},
                             "'m' is added to the scores with a factor other than 1"),
    "addend scaled after": ({"more": {"m": (12,)}, "scores": {"bias": "m"},
                             "probs": {"scale": 2}}, "with a factor other than 1"),
    "two addends": ({"more": {"m": (10, 12), "b": (12,)}, "scores": {"c": "m", "bias": "b"}},
                    "more than one tensor is added"),
    "mask and addend": ({"more": {"m": (10, 12)}, "scores": {"c": "m"}, "probs": {"mask": "m"}},
                        "more than one tensor is added"),
    "more values than scores": ({"q": (10, 8), "k": (12, 8)},
                                "'ctx' uses the scores for several batch entries"),
    "scores in f64": ({"cast": "f64", "narrow": "f32"}, "the scores are f64"),
    "a long head": ({"q": (9, 300), "k": (9, 300), "v": (9, 4)}, "a head of more than 256"),
    "long values": ({"q": (9, 4), "k": (9, 4), "v": (9, 300)}, "a head of more than 256"),
    "other values": ({"cast": "f16", "v_dtype": "f16"}, "the keys are f32 and the values f16"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_it_is_not(case: str) -> None:
    change, reason = LEFT[case]
    is_left(attention(**change), reason)


def is_left(g: gx.Graph, reason: str) -> None:
    """The graph is unchanged, and the note has the reason."""
    found, plain = after(g, NAME), after(g)
    assert found.plan == plain.plan
    assert applied(found) == []
    (text,) = refused(found)
    assert "stay apart: " in text
    assert reason in text
    check(g)


@pytest.mark.parametrize("name", ["scores", "probs", "narrow"])
def test_somebody_else_reads_what_lies_between(name: str) -> None:
    g = attention("f16", scores={"out_dtype": "f32"}, narrow="f16")
    g.output(other=g.copy(name, permute=[1, 0, 2, 3], name="other"))
    is_left(g, f"'{name}' has other readers")


@pytest.mark.parametrize("name", ["scores", "probs", "narrow"])
def test_what_lies_between_is_an_output(name: str) -> None:
    g = attention("f16", scores={"out_dtype": "f32"}, narrow="f16")
    g.output(between=name)
    is_left(g, f"'{name}' is an output")


@pytest.mark.parametrize("name", ["scores", "probs"])
def test_an_after_edge_from_what_lies_between(name: str) -> None:
    g = attention()
    g.output(other=g.softmax("v", name="other", after=[name]))
    is_left(g, f"there is an `after` edge at '{name}'")


def test_an_after_edge_to_what_lies_between() -> None:
    g = gx.Graph("g")
    q, k, v = (g.input(n, (10, 8)) for n in "qkv")
    first = g.softmax(v, name="first")
    scores = g.gemm(q, k, trans_b=True, name="scores", after=[first])
    g.output(first, out=g.gemm(g.softmax(scores, name="probs"), v, name="ctx"))
    is_left(g, "there is an `after` edge at 'scores'")


def test_probabilities_times_themselves() -> None:
    g = gx.Graph("g")
    q = g.input("q", (8, 8))
    probs = g.softmax(g.gemm(q, q, name="scores"), name="probs")
    g.output(out=g.gemm(probs, probs, name="ctx"))
    is_left(g, "'probs' has other readers")


def test_a_device_without_it() -> None:
    for dtype in ("f16", "f32"):
        found = after(attention(dtype), NAME, device="hip")
        assert commands(found) == ["scores:gemm", "probs:softmax", "ctx:gemm"]
        (text,) = refused(found)
        assert f"attention of {dtype} is not one command here" in text
        assert "graphexec[fused]" in text
    found = plan_graph(attention("bf16"), device="hip", hardware=Chip(attention=HALVES))
    assert commands(found) == ["ctx:attention"]


@pytest.mark.parametrize("chain", ["softmax of an input", "softmax, gemm", "gemm, softmax"])
def test_other_chains_are_not_spoken_of(chain: str) -> None:
    g = gx.Graph("g")
    x = g.input("x", (8, 8))
    if chain == "softmax of an input":
        g.output(out=g.gemm(g.softmax(x), x))
    elif chain == "softmax, gemm":
        g.output(out=g.gemm(g.softmax(g.copy(x, permute=[1, 0])), x))
    else:
        g.output(out=g.softmax(g.gemm(x, x)))
    assert not after(g, NAME).notes


# Any ------------------------------------------------------------------------------------------


@st.composite
def patterns(choose: st.DrawFn) -> tuple[gx.Graph, dict[str, Array]]:
    """The pattern in any shape, with masks, casts, copies and neighbours that may forbid it."""
    flip = st.booleans()
    dtype = choose(st.sampled_from(["f16", "bf16", "f32", "f64"]))
    batch = choose(st.lists(st.integers(1, 3), max_size=2))
    m, n, d, dv = (choose(st.integers(1, 20)) for _ in range(4))
    g = gx.Graph("g")
    turned = {name: choose(flip) for name in "qkv"}
    names = {}
    for name, rows, columns in (("q", m, d), ("k", n, d), ("v", n, dv)):
        own = batch if name == "q" else [choose(st.sampled_from([1, e])) for e in batch]
        shape = (columns, rows) if turned[name] else (rows, columns)
        names[name] = g.input(name, (*own, *shape), dtype)
    scores: dict[str, Any] = {"alpha": choose(st.sampled_from([1.0, 0.3, -1.5]))}
    probs: dict[str, Any] = {"scale": choose(st.sampled_from([1.0, 0.5])), "causal": choose(flip)}
    if choose(flip):
        probs["mask"] = g.input("mask", (*batch, m, n), "f32")
    if dtype in ("f16", "bf16") and choose(flip):
        scores["out_dtype"] = "f32"
    made = g.gemm(names["q"], names["k"], trans_a=turned["q"], trans_b=not turned["k"],
                  name="scores", **scores)  # fmt: skip
    made = g.softmax(made, name="probs", **probs)
    if "out_dtype" in scores:
        made = g.copy(made, dtype=dtype, name="narrow")
    ctx = g.gemm(made, names["v"], trans_b=turned["v"], name="ctx")
    if batch and choose(flip):
        axes = list(range(len(batch) + 2))
        axes[-2], axes[-3] = axes[-3], axes[-2]
        ctx = g.copy(ctx, permute=axes, name="moved")
    g.output(out=ctx)
    if choose(st.integers(0, 4)) == 0:
        g.output(between="probs")
    rng = np.random.default_rng(choose(st.integers(0, 2**32 - 1)))
    large = choose(st.sampled_from([1.0, 8.0]))
    inputs = {
        name: (rng.standard_normal(i.shape) * (large if name == "q" else 1))
        .astype(gx.DType(i.dtype).numpy()) for name, i in g.inputs.items()
    }  # fmt: skip
    if "mask" in inputs:
        inputs["mask"][rng.random(inputs["mask"].shape) < 0.3] = -np.inf
    return g, inputs


@settings(max_examples=150, deadline=None)
@given(patterns())
def test_any_pattern(drawn: tuple[gx.Graph, dict[str, Array]]) -> None:
    g, inputs = drawn
    with gx.compile(g, device=gx.CpuDevice(poison=True)) as exe:
        # Where it stays apart, scores are rounded to half precision: the more the larger they are.
        slack = 20 if "between" in g.outputs else 1
        assert_near(exe.graph.types(), g, inputs, exe.run(**inputs), slack, by_terms=True)
