"""Axes by name: what they mean against NumPy, and every mistake with its place."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphexec.base.tokens import ExpressionError
from graphexec.ir.axes import names_of, parse_axes
from graphexec.ir.op_error import OpError

NAMES = {"B": 2, "S": 6, "H": 3, "D": 4, "E": 12, "half": 0.5, "none": 0}


def apply(text: str, x: Any) -> Any:
    axes = parse_axes(text, NAMES)
    moved = axes.moved(x.shape)
    turned = x.reshape(moved.split).transpose(moved.order)
    return turned.reshape(axes.joined(turned.shape))


@pytest.mark.parametrize(
    ("text", "shape", "by_numpy"),
    [
        ("B S (H D) -> B H S D", (2, 6, 12),
         lambda x: x.reshape(2, 6, 3, 4).transpose(0, 2, 1, 3)),
        ("B H S D -> B S (H D)", (2, 3, 6, 4),
         lambda x: x.transpose(0, 2, 1, 3).reshape(2, 6, 12)),
        ("B S -> S B", (2, 6), lambda x: x.T),
        ("… S D -> … D S", (5, 7, 6, 4), lambda x: x.swapaxes(-1, -2)),
        ("B ... -> ... B", (2, 5, 7), lambda x: np.moveaxis(x, 0, -1)),
        ("B … D -> … (D B)", (2, 5, 4), lambda x: x.transpose(1, 2, 0).reshape(5, 8)),
        ("B S -> B 1 S 1", (2, 6), lambda x: x.reshape(2, 1, 6, 1)),
        ("B 1 S -> (S B)", (2, 1, 6), lambda x: x.reshape(2, 6).T.reshape(12)),
        ("… D -> … 1 D", (4,), lambda x: x.reshape(1, 4)),
        ("(1 B) -> B", (2,), lambda x: x),
        ("->", (), lambda x: x),
        ("  B   S->S B ", (2, 6), lambda x: x.T),
    ],
)  # fmt: skip
def test_meaning(text, shape, by_numpy):
    x = np.arange(prod(shape)).reshape(shape)
    np.testing.assert_array_equal(apply(text, x), by_numpy(x))


@given(st.data())
def test_any_split_and_order_against_numpy_and_back(data):
    names = data.draw(st.permutations(["B", "S", "H", "D"]))[: data.draw(st.integers(0, 4))]

    def side() -> str:
        groups, left = [], data.draw(st.permutations(names))
        while left:
            size = data.draw(st.integers(1, len(left)))
            part, left = left[:size], left[size:]
            groups.append(part)
        return " ".join(f"({' '.join(g)})" if len(g) > 1 else g[0] for g in groups)

    left, right = side(), side()
    shape = np.zeros([NAMES[n] for n in names_in_order(left)]).shape
    whole = np.arange(prod(shape)).reshape(shape)
    joined = parse_axes(f"{' '.join(names_in_order(left))} -> {left}", NAMES).joined(shape)
    x = whole.reshape(joined)
    y = apply(f"{left} -> {right}", x)
    order = [names_in_order(left).index(n) for n in names_in_order(right)]
    np.testing.assert_array_equal(y.ravel(), whole.transpose(order).ravel())
    np.testing.assert_array_equal(apply(f"{right} -> {left}", y), x)


def names_in_order(side: str) -> list[str]:
    return side.replace("(", " ").replace(")", " ").split()


@pytest.mark.parametrize(
    ("text", "message", "at", "length"),
    [
        ("B S", "there is no '->'", 2, 1),
        ("B -> B -> B", "'->' stands twice", 7, 2),
        ("B Q -> Q B", "unknown name 'Q'", 2, 1),
        ("B B -> B", "'B' stands twice on one side", 2, 1),
        ("B S -> B", "'S' stands only on the left", 2, 1),
        ("B -> B S", "'S' stands only on the right", 7, 1),
        ("B (S D -> B S D", "'(' is not closed", 2, 1),
        ("B S) -> B S", "')' closes nothing", 3, 1),
        ("B (S (D)) -> B S D", "'(' cannot stand within parentheses", 5, 1),
        ("(… B) -> B", "'…' cannot stand within parentheses", 1, 1),
        ("… … B -> B", "'…' stands twice on one side", 2, 1),
        ("B 3 -> B", "'3' is no axis: only 1 is", 2, 1),
        ("B * S -> B S", "'*' has no meaning in axes", 2, 1),
        ("B half -> half B", "'half' is 0.5; an axis needs an integer of at least 1", 2, 4),
        ("B none -> none B", "'none' is 0; an axis needs an integer of at least 1", 2, 4),
        ("… B -> B", "'…' stands only on the left", None, 1),
        ("B " * 200, "more than 200 characters", None, 1),
    ],
)
def test_mistakes_in_the_text(text, message, at, length):
    with pytest.raises(ExpressionError) as caught:
        parse_axes(text, NAMES)
    assert (caught.value.message, caught.value.start, caught.value.length) == (message, at, length)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("B S (H D) -> B H S D", (2, 6, 10),
         "axis 2 of [2, 6, 10] has 10 elements, but `axes` says (H D) = 3 · 4 = 12"),
        ("B S -> S B", (3, 6), "axis 0 of [3, 6] has 3 elements, but `axes` says B = 2"),
        ("B 1 -> B", (2, 3), "axis 1 of [2, 3] has 3 elements, but `axes` says 1"),
        ("B S -> S B", (2, 6, 1), "`axes` needs 2 axes, found 3: [2, 6, 1]"),
        ("B -> B", (), "`axes` needs 1 axis, found 0: []"),
        ("B … S -> S … B", (2,), "`axes` needs at least 2 axes, found 1: [2]"),
        ("… S -> S …", (2, 5), "axis 1 of [2, 5] has 5 elements, but `axes` says S = 6"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(text, shape, message):
    with pytest.raises(OpError) as caught:
        parse_axes(text, NAMES).moved(shape)
    assert str(caught.value) == message
    assert caught.value.key == "axes"


def test_names():
    assert names_of("B S (H D) -> B … 1") == {"B", "S", "H", "D"}
