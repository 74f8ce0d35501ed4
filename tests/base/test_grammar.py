"""The parser of expressions, against Python's own."""

import ast
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphexec.base.grammar import (
    FUNCTIONS,
    MAX_DEPTH,
    MAX_LENGTH,
    Binary,
    Call,
    Expression,
    ExpressionError,
    Name,
    Number,
    Unary,
    parse,
    walk,
)

_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.MatMult: "@", ast.UAdd: "+", ast.USub: "-", ast.Not: "not", ast.Lt: "<",
    ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.And: "and", ast.Or: "or",
}  # fmt: skip


class Refused(Exception):
    """Python's grammar has it, ours does not."""


def by_python(text: str) -> Expression:
    """The tree that Python's parser gives; Refused, or SyntaxError."""
    return _converted(ast.parse(text.strip(), mode="eval").body)


def _converted(node: ast.expr) -> Expression:
    match node:
        case ast.Constant(value=int() | float() as value):
            return Number(value)
        case ast.Name(id=name):
            return Name(name)
        case ast.UnaryOp():
            return Unary(_SYMBOLS[type(node.op)], _converted(node.operand))
        case ast.BinOp():
            symbol = _SYMBOLS[type(node.op)]
            return Binary(symbol, _converted(node.left), _converted(node.right))
        case ast.Compare(comparators=[right]):
            return Binary(_SYMBOLS[type(node.ops[0])], _converted(node.left), _converted(right))
        case ast.BoolOp():
            tree, *others = map(_converted, node.values)
            for other in others:
                tree = Binary(_SYMBOLS[type(node.op)], tree, other)
            return tree
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            least, most = FUNCTIONS.get(name, (99, 99))
            if least <= len(node.args) <= (most or 99):
                return Call(name, tuple(map(_converted, node.args)))
    raise Refused


def fault(text: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    return caught.value


# Trees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1", "1.", ".5", "1e-3", "x", "-x ** 2", "2 ** -x ** y", "a - b - c", "a / b * c // d % e",
        "a + b @ T(w) * c", "not a == b", "not a and b or not c", "a < b and b <= c or d != e",
        "-(a + b) * +c", "where(a > 0, b, -c)", "max(a, b, c,)", "f32", "T", "index (0)",
        "exp + where * exp(exp)", "(a < b) == (c >= d)", " a\n\t+ b ", "0", "00", "0.0", "1 - -1",
        "cast(x, f32) * 2.5e10",
    ],
)  # fmt: skip
def test_the_tree_is_pythons(text: str) -> None:
    assert parse(text) == by_python(text.replace("\n", " "))


atoms = st.sampled_from(["1", "2.5", "x", "y", "T(x)", "min(x, 1)"])
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(list(_SYMBOLS.values())), inner).map(" ".join),
        st.tuples(st.sampled_from(["-", "+", "not "]), inner).map("".join),
        inner.map("({})".format),
        st.tuples(inner, inner, inner).map(lambda t: f"where({', '.join(t)})"),
    ),
    max_leaves=12,
)
pieces = st.lists(
    st.sampled_from([*"()+-*/%@<>,", "//", "**", "<=", "==", "not", "and", "or", "x", "y", "2",
                     "0.5", "max", "sqrt"])
).map(" ".join)  # fmt: skip


@given(trees | pieces)
def test_any_text_has_pythons_tree_or_none(text: str) -> None:
    try:
        expected = by_python(text)
    except (Refused, SyntaxError):
        error = fault(text)
        assert error.start is not None or not text.strip()
    else:
        assert parse(text) == expected


@given(trees)
def test_places_are_those_of_the_text(text: str) -> None:
    try:
        tree = parse(text)
    except ExpressionError:
        return
    for node in walk(tree):
        own = text[node.start : node.start + node.length]
        assert parse(own) == node


@given(st.text(max_size=30) | st.text("xyT12.eE+-*/%@<>=!(), andort", max_size=60))
def test_nothing_but_located_errors(text: str) -> None:
    try:
        parse(text)
        return
    except ExpressionError as exc:
        error = exc
    start = error.start or 0
    assert 0 <= start <= len(text)
    assert error.length >= 1


def test_numbers_differ_by_type_and_sign() -> None:
    assert Number(1) != Number(1.0)
    assert Number(0.0) != Number(-0.0)
    assert parse("x + 1") != parse("x + 1.0")
    assert Number(1, 3, 1) == Number(1, 7, 1)
    assert hash(Number(1, 3, 1)) == hash(Number(1, 7, 1))
    assert Number(float("nan")) == Number(float("nan"))


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "help", "start", "length"),
    [
        ("a < b < c", "comparisons are not chained", "write 'a < b and b < c'", 6, 1),
        ("a == b != c", "comparisons are not chained", "", 7, 2),
        ("gleu(x)", "unknown function 'gleu'", "did you mean 'gelu'?", 0, 4),
        ("x + blah(x)", "unknown function 'blah'", "functions: abs, ", 4, 4),
        ("where(a, b)", "where() takes 3 arguments, found 2", "", 0, 11),
        ("1 + T(a, b)", "T() takes 1 argument, found 2", "", 4, 7),
        ("1 + not a", "'not' binds less tightly", "(not a)", 4, 3),
        ("2 x", "expected an operator, found 'x'", "", 2, 1),
        ("2x", "'2x' is not a number", "a product needs '*'", 0, 2),
        ("1.2.3", "'1.2.3' is not a number", "", 0, 5),
        ("x + 0123", "'0123' begins with 0", "", 4, 4),
        ("a * (b + c", "this '(' is not closed", "", 4, 1),
        ("a * b)", "expected an operator, found ')'", "", 5, 1),
        ("a if b else c", "found 'if'", "write where(condition, a, b)", 2, 2),
        ("a && b", "'&' has no meaning in expressions", "write 'and'", 2, 1),
        ("a = b", "'=' has no meaning in expressions", "equality is '=='", 2, 1),
        ("a ^ 2", "'^' has no meaning in expressions", "a power is '**'", 2, 1),
        ("x[0]", "'[' has no meaning in expressions", "no indexing", 1, 1),
        ("h.x + 1", "'.' has no meaning in expressions", "with: {x: trunk.h}", 1, 1),
        ("x − 1", "'−' has no meaning in expressions", "write '-'", 2, 1),
        ("a +", "the expression ends where a number or a name is expected", "", 2, 1),
        ("1" * 500, "the value is too large", "", 0, 500),
    ],
)
def test_errors_have_a_place(text: str, message: str, help: str, start: int, length: int) -> None:
    error = fault(text)
    assert message in error.message
    assert help in error.help
    assert (error.start, error.length) == (start, length)


@pytest.mark.parametrize(
    "text",
    [
        "-" * 9_999 + "x", "(" * 4_000 + "x" + ")" * 4_000, "(" * 9_999, "exp(" * 2_000 + "x",
        "x" + "**x" * 3_000, "x" + "+x" * 4_000, "not " * 2_400 + "x", "where(a,b," * 900 + "c",
        "(-" * 4_000 + "x",
    ],
)  # fmt: skip
def test_too_deep(text: str) -> None:
    error = fault(text)
    assert error.message == "nested deeper than 100 levels"
    assert error.start is not None


def test_the_deepest_that_are_allowed() -> None:
    inner, most = MAX_DEPTH - 1, MAX_DEPTH
    for text in ("-" * inner + "x", "x" + "+x" * inner, "exp(" * inner + "x" + ")" * inner):
        assert parse(text)
        with pytest.raises(ExpressionError, match="nested deeper"):
            parse(f"exp({text})")
    assert parse("(" * most + "x" + ")" * most) == Name("x")
    assert parse(f"max({','.join('(x)' for _ in range(2_000))})")


def test_too_long() -> None:
    started = time.perf_counter()
    assert "1,000,001 characters; at most 10,000" in fault("x+" * 500_000 + "x").message
    assert "at most 10,000" in fault("(" * 10_000_000).message
    assert time.perf_counter() - started < 1
    text = " " * (MAX_LENGTH - 1) + "x"
    assert parse(text).start == MAX_LENGTH - 1


def test_deep_stack() -> None:
    def down(depth: int) -> Expression:
        return parse("(-" * 50 + "x" + ")" * 50) if depth == 0 else down(depth - 1)

    assert down(sys.getrecursionlimit() - 500)
