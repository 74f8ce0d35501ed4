"""common-subexpressions: equal nodes are one, and when they are not."""

from __future__ import annotations

import numpy as np
from rewritten import after, applied, assert_right, commands, draw, refused

import graphexec as gx

NAME = "common-subexpressions"


def twins(**second: object) -> gx.Graph:
    """Two branches of two nodes, joined; `second` changes the second one's softmax."""
    g = gx.Graph("twins")
    x, w = g.input("x", (4, 4)), g.input("w", (4, 4))
    one = g.softmax(g.gemm(x, w, name="g1"), name="s1")
    two = g.softmax(g.gemm(x, w, name="g2"), name="s2", **second)
    g.output(y=g.gemm(one, two, name="y"))
    return g


def test_whole_equal_branches_merge() -> None:
    found = after(twins(), NAME)
    assert commands(found) == ["g1:gemm", "s1:softmax", "y:gemm"]
    assert applied(found) == [
        "'g2' repeats 'g1', which is used instead", "'s2' repeats 's1', which is used instead",
    ]  # fmt: skip
    assert found.rewritten.same == {"g2": "g1", "s2": "s1"}
    assert found.rewritten.nodes[-1].operands == {"a": "s1", "b": "s1"}
    assert_right(twins(), NAME)


def test_attributes_must_be_the_same() -> None:
    assert len(commands(after(twins(axis=0), NAME))) == 4
    assert len(commands(after(twins(scale=1), NAME))) == 4  # 1 is not 1.0: no harm, no merging


def test_operands_must_be_the_same() -> None:
    g = gx.Graph("g")
    x, w = g.input("x", (4, 4)), g.input("w", (4, 4))
    g.output(y=g.gemm(g.gemm(x, w, name="xw"), g.gemm(w, x, name="wx")))
    assert applied(after(g, NAME)) == []


def test_the_type_must_be_the_same() -> None:
    g = gx.Graph("g")
    x = g.input("x", (4, 4))
    half, whole = g.copy(x, dtype="f16", name="half"), g.copy(x, dtype="f32", name="whole")
    g.output(half, whole)
    assert applied(after(g, NAME)) == []


def test_slices_are_compared() -> None:
    g = gx.Graph("g")
    x = g.input("x", (4, 4))
    parts = [g.copy(x, slice={0: [i, i + 2]}, name=f"p{n}") for n, i in enumerate((0, 2, 0))]
    g.output(y=g.gemm(g.gemm(parts[0], parts[1], trans_b=True), parts[2]))
    assert applied(after(g, NAME)) == ["'p2' repeats 'p0', which is used instead"]
    assert_right(g, NAME)


def test_an_output_keeps_its_own_bytes() -> None:
    g = twins()
    g.output("s2")
    found = after(g, NAME)
    assert applied(found) == ["'g2' repeats 'g1', which is used instead"]
    assert refused(found) == ["'s2' repeats 's1' but is an output"]
    assert_right(g, NAME)


def test_after_edges_keep_both() -> None:
    g = gx.Graph("g")
    x = g.input("x", (4, 4))
    one = g.softmax(x, name="one")
    two = g.softmax(x, name="two", after=["one"])
    g.output(y=g.gemm(one, two))
    assert applied(after(g, NAME)) == []


def test_what_is_not_deterministic_is_computed_twice() -> None:
    class Noise(type(gx.known_ops()["softmax"])):  # type: ignore[misc]
        name = "noise"
        deterministic = False

    g = gx.Graph("g", ops={**gx.known_ops(), "noise": Noise()})
    x = g.input("x", (4, 4))
    g.output(y=g.gemm(g.noise(x, name="one"), g.noise(x, name="two")))
    assert applied(after(g, NAME)) == []


def test_compare_knows_what_stands_for_what() -> None:
    """The reader of a merged half-precision node is measured on the rounded numbers it had."""
    g = gx.Graph("g")
    x = g.input("x", (64, 64), "f16")
    one, two = (g.gemm(x, x, alpha=8.0, name=n) for n in ("one", "two"))
    g.output(y=g.softmax(two, name="y"), z=g.softmax(one, axis=0, name="z"))
    found = gx.compare(g, draw({"x": after(g).graph.inputs["x"]}), device="cpu")
    rows = {row.name: row for row in found.nodes}
    assert rows["one"].relative == rows["two"].relative
    assert rows["y"].relative < 1e-3
    assert np.isfinite(rows["y"].max_abs)
