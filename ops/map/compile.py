"""From an expression to a body: types, functions, and numbers that are known beforehand."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from graphexec.base.grammar import Binary, Call, Expression, Name, Unary
from graphexec.base.grammar import Number as Literal
from graphexec.base.tensor import DType
from graphexec.ir.body import Body, Number, Operand, Value, Writer
from graphexec.ops.kit import OpError


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
        except ZeroDivisionError:
            raise _at(tree, "division by zero") from None
        except (OverflowError, ValueError) as exc:
            raise _at(tree, f"this has no value: {exc}") from None

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
        if symbol in ("//", "%") and b == 0 and isinstance(a, Value) and not a.dtype.is_float:
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
            condition, a, b = args
            if not isinstance(condition, Value):
                return a if condition else b
            return self.writer.where(condition, a, b)
        x = args[0]
        if name == "relu":
            return self._extreme("max", [x, 0])
        if not isinstance(x, Value):
            return _known(name, x, self.writer)
        if name in ("abs", "sign", "floor", "ceil", "round"):
            return self.writer.numeric(name, x)
        if name in _WRITTEN:
            if not x.dtype.is_float:
                raise _at(call, f"{name}() of {x.dtype}", f"{name}(cast(x, f32))")
            written: Value = getattr(self.writer, name)(x)
            return written
        return self.writer.floating(name, x)

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
    "//": operator.floordiv, "%": operator.mod, "**": operator.pow, "==": operator.eq,
    "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b),
}  # fmt: skip

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": abs, "floor": math.floor, "ceil": math.ceil, "round": round, "exp": math.exp,
    "log": math.log, "log1p": math.log1p, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos,
    "tanh": math.tanh, "erf": math.erf, "isnan": math.isnan, "isinf": math.isinf,
    "rsqrt": lambda x: 1 / math.sqrt(x), "sign": lambda x: (x > 0) - (x < 0),
}  # fmt: skip


def _known(name: str, x: Number, writer: Writer) -> Operand:
    """A function of a number. Some are left to the kernel."""
    if name in _FUNCTIONS:
        found: Number = _FUNCTIONS[name](x)
        return found
    written: Value = getattr(writer, name)(writer.cast(float(x), DType.F32))
    return written


def _at(tree: Expression, message: str, help: str = "") -> OpError:
    error = OpError(message, "expr", help=help)
    error.place = (tree.start, tree.length)
    return error
