import math
import sys
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphexec.base.expressions import (
    ExpressionError,
    evaluate,
    evaluate_consts,
    names_in,
    resolve_consts,
)
from graphexec.base.tensor import INT64_MAX

NAMES = {"S": 128, "D": 64, "odd": 7, "half": 0.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (3, 3),
        (0.25, 0.25),
        ("S", 128),
        (" S * 2 ", 256),
        ("S // 3", 42),
        ("-S // 3", -43),
        ("S / 2", 64),
        ("odd / 2", 3.5),
        ("odd % 4", 3),
        ("D ** -0.5", 0.125),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("2 ** 62", 2**62),
        ("sqrt(D)", 8),
        ("1 / sqrt(D)", 0.125),
        ("sqrt(2)", math.sqrt(2)),
        ("min(S, D, 3)", 3),
        ("max(S, D) + -(1)", 127),
        ("1e-3", 1e-3),
        (".5 + 5.", 5.5),
        ("half * S", 64.0),
        (str(INT64_MAX), INT64_MAX),
        (f"-{INT64_MAX} - 1", -INT64_MAX - 1),
    ],
)
def test_value(text, value):
    result = evaluate(text, NAMES)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("T", "unknown name 'T'"),
        ("nan", "'nan' is not a finite number"),
        ("1e999", "not a finite number"),
        ("S +", "the expression ends where a number or a name is expected"),
        ("S S", "expected an operator, found 'S'"),
        ("", "an empty expression"),
        ("S.real", "'.' has no meaning in expressions"),
        ("__import__('os')", "unknown function '__import__'"),
        ("[S]", "'[' has no meaning in expressions"),
        ("0x10", "'0x10' is not a number"),
        ("1_000", "'1_000' is not a number"),
        ("1if S else 2", "'1if' is not a number"),
        ("1 if S else 2", "expected an operator, found 'if'"),
        ("not S", "'not' has no meaning in dims and consts"),
        ("S < D", "'<' has no meaning in dims and consts"),
        ("S @ D", "'@' has no meaning in dims and consts"),
        ("S and (D or 1)", "'and' has no meaning in dims and consts"),
        ("(S, D)", "expected ')', found ','"),
        ("S(2)", "unknown function 'S'"),
        ("007", "'007' begins with 0"),
        ("min(*S)", "expected a number or a name, found '*'"),
        ("abs(S)", "abs() has no meaning in dims and consts"),
        ("max()", "max() takes at least 1 argument, found 0"),
        ("sqrt(1, 2)", "sqrt() takes 1 argument, found 2"),
        ("sqrt(-1)", "the square root of a negative number"),
        ("(-8) ** 0.5", "a fractional power of a negative number"),
        ("S // 0", "division by zero"),
        ("S % 0", "division by zero"),
        ("S / 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("10 ** 10 ** 10", "is past int64"),
        ("S ** 100000000", "is past int64"),
        ("2.0 ** 5000", "too large"),
        ("9223372036854775807 + 1", "past int64"),
        ("True", "unknown name 'True'"),
        ("S\n", "a line break has no meaning in dims and consts"),
        ("x" * 300, "at most 200"),
        ("-" * 150 + "1", "nested deeper"),
        (True, "expected a number, found true"),
        (None, "expected a number, found none"),
        (math.nan, "not a finite number"),
        (2**63, "past int64"),
    ],
)
def test_no_value(text, message):
    started = time.perf_counter()
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, NAMES)
    assert message in caught.value.message
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("odd / 2", "7 / 2 does not divide exactly"),
        ("(odd / 2) * 2", "does not divide exactly"),
        ("D ** -0.5", "the value must be an integer, found 0.125"),
        ("half * S", "the value must be an integer, found 64.0"),
        (2.0, "expected an integer, found 2.0"),
    ],
)
def test_where_an_integer_is_wanted(text, message):
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, NAMES, "int")
    assert message in caught.value.message
    assert evaluate("S / 2", NAMES, "int") == 64


def test_place_and_help():
    with pytest.raises(ExpressionError) as caught:
        evaluate("D * (heds + 1)", {"D": 1, "heads": 2})
    error = caught.value
    assert (error.start, error.length, error.help) == (5, 4, "did you mean 'heads'?")
    with pytest.raises(ExpressionError) as caught:
        evaluate("\t heds", {"heads": 2})
    assert (caught.value.start, caught.value.length) == (2, 4)


def test_consts_in_any_order():
    consts = {"a": "b * 2", "b": "S // 2", "c": 0.5, "d": "a + c"}
    assert evaluate_consts(consts, {"S": 8}) == {"a": 8, "b": 4, "c": 0.5, "d": 8.5}


def test_faulty_consts():
    consts = {"a": "b", "b": "c + 1", "c": "a", "d": "a + 1", "e": "typo", "f": "f", "g": "1 +"}
    values, errors = resolve_consts({**consts, "ok": 1}, {})
    assert values == {"ok": 1}
    assert errors["a"].message == "cycle: a → c → b → a"
    assert errors["f"].message == "a const defined by itself: f → f"
    assert set(errors) == {"a", "e", "f", "g"}  # d only follows from a
    with pytest.raises(ExpressionError, match="const 'e': unknown name 'typo'"):
        evaluate_consts({"e": "typo"}, {})


def test_long_chain_of_consts():
    consts = {f"c{i}": f"c{i + 1} + 1" for i in range(10_000)}
    assert evaluate_consts({**consts, "c10000": 0}, {})["c0"] == 10_000


def test_names():
    assert names_in("min(S, D * 2) ** x_1") == {"S", "D", "x_1"}


numbers = st.integers(-50, 50).map(str) | st.sampled_from(["S", "D", "odd"])
trees = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(
        lambda t: f"({t[0]} {t[1]} {t[2]})"
    ),
    max_leaves=8,
)


@given(trees)
def test_integers_agree_with_python(text):
    try:
        expected = eval(text, {}, dict(NAMES))
    except ZeroDivisionError:
        expected = None
    try:
        value = evaluate(text, NAMES, "int")
    except ExpressionError as exc:
        value = "too long" if "characters" in exc.message else None
    assert value in (expected, "too long")


@given(st.text() | st.text("SD0123456789.eE+-*/%(), xinf_"))
def test_nothing_but_expression_errors(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            value = evaluate(text, NAMES)
        except ExpressionError:
            return
    assert math.isfinite(value)
    assert isinstance(value, (int, float))


def test_deep_stack():
    def down(depth):
        return evaluate("-" * 40 + "1", {}) if depth == 0 else down(depth - 1)

    assert down(sys.getrecursionlimit() - 400) == 1
