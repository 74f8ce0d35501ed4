"""From an expression to a body: types, functions, and numbers that are known beforehand."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from graphexec.base.expressions import power
from graphexec.base.grammar import Binary, Call, Expression, Name, Unary
from graphexec.base.grammar import Number as Literal
from graphexec.base.tensor import DType
from graphexec.base.tokens import ExpressionError
from graphexec.ir.body import Body, Number, Operand, Value, Writer
from graphexec.ops.kit import OpError
from graphexec.ops.kit.generate.by_numpy import evaluate


@lru_cache(maxsize=4096)
def compiled(
    tree: Expression, names: tuple[str, ...], dtypes: tuple[DType, ...], rank: int,
    dtype: DType | None,
) -> Body:  # fmt: skip
    """The body of an expression over operands of these names and dtypes, whose result has `rank`
    axes and, if given, a dtype. Raises OpError with the place in the expression."""
    compiler = _Compiler(dict(zip(names, dtypes, strict=True)), rank)
    for number, each in enumerate(dtypes):
        compiler.writer.load(number, each)
    found = compiler.value(tree)
    writer = compiler.writer
    value = found if isinstance(found, Value) else writer.together(found)[0]
    return writer.body(value if dtype is None else writer.cast(value, dtype))


class _Compiler:
    def __init__(self, dtypes: Mapping[str, DType], rank: int) -> None:
        self.writer, self.dtypes, self.rank = Writer(), dtypes, rank
        self.numbers = {name: number for number, name in enumerate(dtypes)}

    def value(self, tree: Expression) -> Operand:
        """What a tree stands for: a step, or a number that is known beforehand."""
        try:
            return self._value(tree)
        except OpError as exc:
            if exc.place is None:
                exc.place, exc.key = (tree.start, tree.length), "expr"
            raise
        except ExpressionError as exc:
            raise _at(tree, exc.message, exc.help) from None
        except ZeroDivisionError:
            raise _at(tree, "division by zero") from None
        except OverflowError:
            raise _at(tree, "the value is too large") from None

    def _value(self, tree: Expression) -> Operand:
        match tree:
            case Literal(value):
                return value
            case Name(name):
                return self.writer.load(self.numbers[name], self.dtypes[name])
            case Unary(symbol, operand):
                return self._unary(symbol, self.value(operand))
            case Binary(symbol, left, right):
                return self._binary(tree, symbol, self.value(left), self.value(right))
            case Call():
                return self._call(tree)

    def _unary(self, symbol: str, x: Operand) -> Operand:
        if symbol == "not":
            return not x if isinstance(x, bool) else self.writer.logical("not", x)
        if not isinstance(x, Value):
            return -x if symbol == "-" else +x
        return self.writer.numeric("neg", x) if symbol == "-" else x

    def _binary(self, tree: Expression, symbol: str, a: Operand, b: Operand) -> Operand:
        if not isinstance(a, Value) and not isinstance(b, Value):
            found: Number = _KNOWN[symbol](a, b)
            return found
        writer = self.writer
        if symbol in ("/", "//", "%") and not isinstance(b, Value) and b == 0:
            raise _at(tree, "division by zero")
        match symbol:
            case "/":
                return writer.divide(a, b)
            case "**":
                return writer.power(a, b)
            case "and" | "or":
                return writer.logical(symbol, a, b)
            case ">" | ">=":
                return writer.compare(_COMPARISONS[symbol], b, a)
            case "==" | "!=" | "<" | "<=":
                return writer.compare(_COMPARISONS[symbol], a, b)
        return writer.arithmetic(_ARITHMETIC[symbol], a, b)

    def _call(self, call: Call) -> Operand:
        name = call.function
        if name == "index":
            return self._index(call)
        if name == "cast":
            return self._cast(call)
        args = [self.value(argument) for argument in call.arguments]
        if name in ("min", "max"):
            return self._extreme(name, args)
        if name == "clip":
            return self._extreme("min", [self._extreme("max", args[:2]), args[2]])
        if name == "where":
            return self._where(*args)
        x = args[0]
        if name == "relu":
            return self._extreme("max", [x, 0])
        if not isinstance(x, Value):
            return _known(name, x)
        if name in ("abs", "sign", "floor", "ceil", "round"):
            return self.writer.numeric(name, x)
        if name in _WRITTEN:
            if not x.dtype.is_float:
                raise _at(call, f"{name}() takes floats, found {x.dtype}", f"{name}(cast(…, f32))")
            written: Value = getattr(self.writer, name)(x)
            return written
        return self.writer.floating(name, x)

    def _where(self, condition: Operand, a: Operand, b: Operand) -> Operand:
        if isinstance(condition, Value):
            return self.writer.where(condition, a, b)
        if not isinstance(condition, bool):
            raise OpError(f"the condition is the number {condition}", help="x != 0 is a bool")
        if isinstance(a, Value) or isinstance(b, Value):
            a, b = self.writer.together(a, b)
        return a if condition else b

    def _extreme(self, function: str, args: list[Operand]) -> Operand:
        found = args[0]
        for other in args[1:]:
            if isinstance(found, Value) or isinstance(other, Value):
                found = self.writer.arithmetic(function, found, other)
            elif found != found or other != other:
                found = math.nan
            else:
                found = (min if function == "min" else max)(found, other)
        return found

    def _index(self, call: Call) -> Value:
        axis = self.value(call.arguments[0])
        if isinstance(axis, Value) or not isinstance(axis, int):
            raise _at(call, "the axis of index() is an integer")
        if not -self.rank <= axis < self.rank:
            raise _at(call, f"there is no axis {axis}: the result has {self.rank}")
        return self.writer.index(axis % self.rank - self.rank)

    def _cast(self, call: Call) -> Value:
        value, target = self.value(call.arguments[0]), call.arguments[1]
        assert isinstance(target, Name)
        try:
            dtype = DType(target.name)
        except ValueError:
            raise _at(
                target, f"unknown dtype '{target.name}'", f"one of {', '.join(DType)}"
            ) from None
        return self.writer.cast(value, dtype)


_COMPARISONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "lt", ">=": "le"}
_ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "//": "floordiv", "%": "mod"}
_WRITTEN = ("rsqrt", "sigmoid", "gelu", "gelu_tanh", "silu", "softplus")

_KNOWN: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "//": operator.floordiv, "%": operator.mod, "**": power, "==": operator.eq,
    "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b),
}  # fmt: skip

_ROUNDED: dict[str, Callable[[Number], Number]] = {
    "floor": math.floor, "ceil": math.ceil, "round": round,
}  # fmt: skip


def _known(name: str, x: Number) -> Number:
    """A function of a number, in float64; those to whole numbers give integers."""
    if name == "abs":
        return abs(x)
    if name in _ROUNDED:
        return _ROUNDED[name](x) if math.isfinite(x) else x
    if name == "sign" and x == x:
        return (x > 0) - (x < 0)
    writer = Writer()
    value = writer.constant(float(x), DType.F64)
    own = name in _WRITTEN
    step = getattr(writer, name)(value) if own else writer.floating(name, value)
    found: Number = evaluate(writer.body(step), [], (), exact=True)[0].item()
    if math.isfinite(x) and not math.isfinite(found):
        raise OpError(f"{name}({x}) is {found}", help="inf and nan are written as such")
    return found


def _at(tree: Expression, message: str, help: str = "") -> OpError:
    error = OpError(message, "expr", help=help)
    error.place = (tree.start, tree.length)
    return error
