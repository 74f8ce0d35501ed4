"""The body of a generated kernel: straight-line code for one element of its results.

A Body is a list of typed steps, each computed from earlier ones (static single assignment), and the
numbers of the steps that are stored. Kernels run it for every element of an iteration shape, to
which all operands broadcast. A reduction is a step as well: it goes along the last axis, and each
element of a row sees its value. A step that is not computed in its own dtype (f16 and bf16 are
computed in f32) is not rounded, except by `cast` and when it is stored.

Writer makes bodies, and holds the rules by which types meet. The semantics of each function are in
FUNCTIONS; printers (graphexec.ops.kit) give it in HIP, in C and by NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graphexec.base.tensor import DType
from graphexec.ir.op_error import OpError

Number = bool | int | float

FUNCTIONS = {
    "load": "the element of operand number `value`",
    "constant": "the number `value`",
    "index": "the coordinate of the element along axis `value`, counted from the end; i32",
    "cast": "the argument in the dtype of the step: to nearest; floats to integers truncate, "
            "saturate, NaN gives 0; integers wrap; to bool is != 0",
    "add": "a + b; integers wrap",
    "sub": "a - b; integers wrap",
    "mul": "a · b; integers wrap",
    "div": "a / b of floats",
    "floordiv": "the floor of a / b; integers by 0 give 0",
    "mod": "a - b · floor(a / b); integers by 0 give 0",
    "pow": "a to the power of b, floats",
    "neg": "-a; integers wrap",
    "abs": "|a|; integers wrap",
    "sign": "-1, 0 or 1; NaN for NaN",
    "floor": "the largest integer not above a, as a float",
    "ceil": "the least integer not below a, as a float",
    "round": "the nearest integer, ties to even, as a float",
    "min": "the smaller of a and b; NaN if either is",
    "max": "the larger of a and b; NaN if either is",
    "where": "b if a, else c",
    "exp": "e to the power of a",
    "log": "the natural logarithm",
    "log1p": "log(1 + a)",
    "sqrt": "the square root, correctly rounded",
    "sin": "the sine",
    "cos": "the cosine",
    "tanh": "the hyperbolic tangent",
    "sigmoid": "1 / (1 + exp(-a)), without overflow and right where it is subnormal",
    "erf": "the error function",
    "erfc": "1 - erf(a), without cancellation",
    "isnan": "whether a is NaN",
    "isinf": "whether a is infinite",
    "eq": "a == b", "ne": "a != b", "lt": "a < b", "le": "a <= b",
    "and": "a and b, of bools", "or": "a or b, of bools", "not": "not a, of a bool",
    "reduce_sum": "the sum of the row",
    "reduce_prod": "the product of the row",
    "reduce_min": "the least of the row; NaN if there is one",
    "reduce_max": "the largest of the row; NaN if there is one",
    "reduce_argmin": "where the row has its first least element, or its first NaN; i64",
    "reduce_argmax": "where the row has its first largest element, or its first NaN; i64",
    "reduce_any": "whether any of the row is true",
    "reduce_all": "whether all of the row are true",
}  # fmt: skip
"""Every function of a step and what it gives. Steps have as many arguments as are named there."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `function` of the steps numbered `args`, a value of `dtype`.

    `value` is the number of the operand of a load, the value of a constant, the axis of an index.
    """

    function: str
    args: tuple[int, ...]
    dtype: DType
    value: Number | None = None

    @property
    def reduces(self) -> bool:
        """Whether it goes along the row."""
        return self.function.startswith("reduce_")


@dataclass(frozen=True)
class Body:
    """Steps, and the numbers of those that are stored, one a result."""

    steps: tuple[Step, ...]
    results: tuple[int, ...]

    @cached_property
    def operands(self) -> tuple[DType, ...]:
        """The dtypes of the operands, by their number."""
        found = {s.value: s.dtype for s in self.steps if s.function == "load"}
        return tuple(found[number] for number in range(len(found)))

    @cached_property
    def numbers(self) -> Mapping[Step, int]:
        """The number of each step."""
        return {step: number for number, step in enumerate(self.steps)}

    @cached_property
    def dtypes(self) -> tuple[DType, ...]:
        """The dtypes of the results."""
        return tuple(self.steps[number].dtype for number in self.results)

    @cached_property
    def reduces(self) -> bool:
        """Whether any step goes along the row."""
        return any(step.reduces for step in self.steps)

    @cached_property
    def makes_halves(self) -> bool:
        """Whether all results are f16 or bf16: less than f32 is enough for them, where not even
        the last bit of one in a hundred tells."""
        return all(dtype in (DType.F16, DType.BF16) for dtype in self.dtypes)

    @cached_property
    def along_rows(self) -> tuple[bool, ...]:
        """For each step, whether reductions and constants alone lead to it, so that it is the same
        for all elements of a row, whatever the operands are."""
        found: list[bool] = []
        for step in self.steps:
            varies = step.function == "load" or (step.function == "index" and step.value == -1)
            found.append(step.reduces or (not varies and all(found[a] for a in step.args)))
        return tuple(found)

    @cached_property
    def flops(self) -> int:
        """Operations an element."""
        plain = ("load", "constant", "index", "cast")
        return sum(step.function not in plain for step in self.steps)

    @cached_property
    def indexes(self) -> tuple[int, ...]:
        """The axes whose coordinate is used, negative, in the order of their first use."""
        axes = (int(s.value or 0) for s in self.steps if s.function == "index")
        return tuple(dict.fromkeys(axes))


@dataclass(frozen=True, slots=True)
class Value:
    """A step of a body that is being written; Python's operators write further steps."""

    writer: Writer = field(repr=False, compare=False)
    number: int
    dtype: DType

    def __add__(self, other: Operand) -> Value:
        return self.writer.arithmetic("add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.writer.arithmetic("add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self.writer.arithmetic("sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.writer.arithmetic("sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.writer.arithmetic("mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.writer.arithmetic("mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self.writer.divide(self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.writer.divide(other, self)

    def __neg__(self) -> Value:
        return self.writer.numeric("neg", self)

    def __lt__(self, other: Operand) -> Value:
        return self.writer.compare("lt", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.writer.compare("le", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.writer.compare("lt", other, self)

    def __ge__(self, other: Operand) -> Value:
        return self.writer.compare("le", other, self)


Operand = Value | Number
"""An argument. A plain number has no dtype of its own: it adapts to what it meets."""

_RANGES = {
    DType.I8: (-(2**7), 2**7 - 1), DType.U8: (0, 2**8 - 1),
    DType.I32: (-(2**31), 2**31 - 1), DType.I64: (-(2**63), 2**63 - 1),
}  # fmt: skip
_LARGEST = {DType.F32: (2 - 2**-23) * 2.0**127, DType.F64: math.inf}
MAX_STEPS = 20_000


class Writer:
    """Writes a body step by step. A step that was written before is not written again.

    Raises OpError where dtypes do not fit.
    """

    def __init__(self, begun: Body | None = None) -> None:
        """Nothing is written, or what a body computes; then `results` are its results."""
        self.steps: list[Step] = list(begun.steps) if begun else []
        self._known: dict[Step, int] = dict(begun.numbers) if begun else {}
        numbers = begun.results if begun else ()
        self.results = [Value(self, n, self.steps[n].dtype) for n in numbers]

    # Leaves -----------------------------------------------------------------------------

    def load(self, operand: int, dtype: DType) -> Value:
        """The element of an operand."""
        return self._step("load", (), dtype, operand)

    def index(self, axis: int) -> Value:
        """The coordinate along `axis`, which is negative."""
        return self._step("index", (), DType.I32, axis)

    def constant(self, value: Number, dtype: DType) -> Value:
        """A number in a dtype, in which it must fit: OpError."""
        if dtype is DType.BOOL:
            return self._step("constant", (), dtype, bool(value))
        if dtype.is_integer:
            low, high = _RANGES[dtype]
            if not low <= value <= high:
                raise OpError(f"{value} does not fit into {dtype}", help="cast the tensor wider")
            return self._step("constant", (), dtype, int(value))
        number = float(value)
        if math.isnan(number):
            number = math.nan  # one object, so that equal bodies are equal
        elif math.isfinite(number) and abs(number) > _LARGEST[dtype.accumulator]:
            raise OpError(f"{value} is infinite in {dtype.accumulator}, which is computed in")
        if number == 0 and math.copysign(1, number) < 0:  # it equals 0, for Python
            return self._step("neg", (self.constant(0.0, dtype).number,), dtype)
        return self._step("constant", (), dtype, number)

    # Types that meet --------------------------------------------------------------------

    def together(self, *values: Operand, what: str = "") -> list[Value]:
        """The values in the dtype in which they meet. Plain numbers adapt to the others; alone they
        are i32 (i64 if they need it), f32 or bool."""
        dtype = meet(values)
        return [self.cast(value, dtype) for value in values]

    def arithmetic(self, function: str, a: Operand, b: Operand) -> Value:
        """add, sub, mul, floordiv, mod, min or max."""
        left, right = self.together(a, b)
        if left.dtype is DType.BOOL:
            raise OpError(f"{function} of two bools", help="cast(x, i32) is 1 where x is true")
        return self._step(function, (left.number, right.number), left.dtype)

    def divide(self, a: Operand, b: Operand) -> Value:
        """a / b; f32 for integers."""
        left, right = self.together(a, b)
        if not left.dtype.is_float:
            left, right = self.cast(left, DType.F32), self.cast(right, DType.F32)
        return self._step("div", (left.number, right.number), left.dtype)

    def power(self, a: Operand, b: Operand) -> Value:
        """a ** b. Whole constant exponents of integers, and small ones of floats, are products."""
        whole = isinstance(b, int | float) and b == int(b) if _is_finite(b) else False
        base = self.together(a, *(() if whole else (b,)))[0]
        if whole and (not base.dtype.is_float or abs(int(b)) <= 4):  # type: ignore[arg-type]
            return self._whole_power(base, int(b))  # type: ignore[arg-type]
        if not base.dtype.is_float:
            raise OpError(f"** of {base.dtype} by an exponent that is no constant whole number",
                          help="cast(x, f32) ** …")  # fmt: skip
        left, right = self.together(base, b)
        return self._step("pow", (left.number, right.number), left.dtype)

    def _whole_power(self, base: Value, exponent: int) -> Value:
        if base.dtype is DType.BOOL:
            raise OpError("** of a bool", help="cast(x, i32) is 1 where x is true")
        if exponent < 0:
            if not base.dtype.is_float:
                raise OpError(f"{base.dtype} to a negative power", help="cast(x, f32) ** …")
            return self.divide(1, self._whole_power(base, -exponent))
        result = self.constant(1, base.dtype)
        square, first = base, True
        while exponent:
            if exponent & 1:
                result = square if first else result * square
                first = False
            exponent >>= 1
            if exponent:
                square = square * square
        return result

    def compare(self, function: str, a: Operand, b: Operand) -> Value:
        """eq, ne, lt or le."""
        left, right = self.together(a, b)
        return self._step(function, (left.number, right.number), DType.BOOL)

    def logical(self, function: str, *values: Operand) -> Value:
        """and, or, not: of bools."""
        given = [v if isinstance(v, Value) else self.cast(v, meet([v])) for v in values]
        for value in given:
            if value.dtype is not DType.BOOL:
                raise OpError(f"'{function}' of {value.dtype}", help="x != 0 is a bool")
        return self._step(function, tuple(v.number for v in given), DType.BOOL)

    def where(self, condition: Operand, a: Operand, b: Operand) -> Value:
        """a where the condition is true, else b."""
        chosen = condition if isinstance(condition, Value) else self.cast(condition, DType.BOOL)
        if chosen.dtype is not DType.BOOL:
            raise OpError(f"the condition is {chosen.dtype}", help="x != 0 is a bool")
        left, right = self.together(a, b)
        return self._step("where", (chosen.number, left.number, right.number), left.dtype)

    # Functions --------------------------------------------------------------------------

    def numeric(self, function: str, x: Operand) -> Value:
        """neg, abs, sign, floor, ceil or round; the last three leave integers as they are."""
        value = self.together(x)[0]
        if value.dtype is DType.BOOL:
            raise OpError(f"{function} of a bool", help="cast(x, i32) is 1 where x is true")
        if value.dtype.is_integer and function in ("floor", "ceil", "round"):
            return value
        return self._step(function, (value.number,), value.dtype)

    def floating(self, function: str, x: Operand) -> Value:
        """exp, log, log1p, sqrt, sin, cos, tanh, erf, erfc: of floats."""
        value = self.together(x if isinstance(x, Value) else float(x))[0]
        if not value.dtype.is_float:
            raise OpError(
                f"{function}() takes floats, found {value.dtype}", help=f"{function}(cast(…, f32))"
            )
        is_test = function in ("isnan", "isinf")
        return self._step(function, (value.number,), DType.BOOL if is_test else value.dtype)

    def maximum(self, a: Operand, b: Operand) -> Value:
        """The larger; NaN if either is."""
        return self.arithmetic("max", a, b)

    def minimum(self, a: Operand, b: Operand) -> Value:
        """The smaller; NaN if either is."""
        return self.arithmetic("min", a, b)

    def sigmoid(self, x: Operand) -> Value:
        """1 / (1 + exp(-x))."""
        return self.floating("sigmoid", x)

    def gelu(self, x: Operand) -> Value:
        """x · Φ(x) by the error function (Hendrycks and Gimpel 2016)."""
        value = self.together(x if isinstance(x, Value) else float(x))[0]
        return value * 0.5 * self.floating("erfc", value * -math.sqrt(0.5))

    def gelu_tanh(self, x: Operand) -> Value:
        """The approximation of gelu by tanh: 0.5 x (1 + tanh u) = x · sigmoid(2 u)."""
        value = self.together(x if isinstance(x, Value) else float(x))[0]
        inner = (value + value * value * value * 0.044715) * (2 * math.sqrt(2 / math.pi))
        return value * self.sigmoid(inner)

    def silu(self, x: Operand) -> Value:
        """x · sigmoid(x)."""
        value = self.together(x if isinstance(x, Value) else float(x))[0]
        return value * self.sigmoid(value)

    def softplus(self, x: Operand) -> Value:
        """log(1 + exp(x)), without overflow."""
        value = self.together(x if isinstance(x, Value) else float(x))[0]
        e = self.floating("exp", -self.numeric("abs", value))
        return self.maximum(value, 0.0) + self.floating("log1p", e)

    def rsqrt(self, x: Operand) -> Value:
        """1 / sqrt(x)."""
        return self.divide(1.0, self.floating("sqrt", x))

    # Conversions and rows ---------------------------------------------------------------

    def cast(self, x: Operand, dtype: DType) -> Value:
        """x in a dtype. A plain number must fit."""
        if not isinstance(x, Value):
            return self.constant(x, dtype)
        step = self.steps[x.number]
        if x.dtype is dtype:
            return x
        if step.function == "constant" and dtype.is_float and x.dtype.is_integer:
            return self.constant(step.value or 0, dtype)
        return self._step("cast", (x.number,), dtype)

    def rounded(self, x: Value) -> Value:
        """x as it would be stored and read again; `cast` to its own dtype does nothing."""
        return self._step("cast", (x.number,), x.dtype)

    def reduce(self, kind: str, x: Value) -> Value:
        """sum, prod, min, max, argmin, argmax, any or all of the row."""
        dtype = x.dtype
        if kind.startswith("arg"):
            dtype = DType.I64
        elif kind in ("any", "all"):
            x, dtype = self.cast(x, DType.BOOL), DType.BOOL
        elif x.dtype is DType.BOOL:
            raise OpError(f"the {kind} of bools", help="cast(x, i32) is 1 where x is true")
        return self._step(f"reduce_{kind}", (x.number,), dtype)

    # Whole bodies -----------------------------------------------------------------------

    def include(self, body: Body, operands: Sequence[Value]) -> list[Value]:
        """Write the steps of a body, with these values for its operands; its results."""
        at: list[int] = []
        for step in body.steps:
            if step.function == "load":
                at.append(operands[int(step.value or 0)].number)
            else:
                args = tuple(at[a] for a in step.args)
                at.append(self._step(step.function, args, step.dtype, step.value).number)
        return [Value(self, at[number], self.steps[at[number]].dtype) for number in body.results]

    def body(self, *results: Value) -> Body:
        """The body with these results, without the steps that none of them needs."""
        needed = {value.number for value in results}
        for number in reversed(range(len(self.steps))):
            if number in needed or self.steps[number].function == "load":
                needed.update(self.steps[number].args)
                needed.add(number)
        if len(needed) == len(self.steps):
            return Body(tuple(self.steps), tuple(value.number for value in results))
        kept = sorted(needed)
        at = {old: new for new, old in enumerate(kept)}
        steps = tuple(
            Step(s.function, tuple(at[a] for a in s.args), s.dtype, s.value)
            for s in (self.steps[number] for number in kept)
        )  # fmt: skip
        return Body(steps, tuple(at[value.number] for value in results))

    def _step(
        self, function: str, args: tuple[int, ...], dtype: DType, value: Number | None = None
    ) -> Value:
        step = Step(function, args, dtype, value)
        number = self._known.get(step)
        if number is None:
            if len(self.steps) >= MAX_STEPS:
                raise OpError(f"an expression of more than {MAX_STEPS:,} operations")
            number = self._known[step] = len(self.steps)
            self.steps.append(step)
        return Value(self, number, dtype)


def meet(values: Iterable[Operand]) -> DType:
    """The dtype in which values meet; plain numbers adapt to the others.

    Two floats: the wider; f16 with bf16 is f32. A float with an integer: the float's. Integers: the
    wider; u8 with i8 is i32. A bool meets any other as 0 or 1. Plain numbers alone: bool, i32, i64,
    f32. A plain number with a fraction and integers: f32.
    """
    values = list(values)
    known = [value.dtype for value in values if isinstance(value, Value)]
    plain = [value for value in values if not isinstance(value, Value)]
    found = known[0] if known else None
    for dtype in known[1:]:
        assert found is not None
        found = wider(found, dtype)
    if found is not None and found.is_float:
        return found
    if any(isinstance(value, float) for value in plain):
        return DType.F32
    whole = [int(value) for value in plain if not isinstance(value, bool)]
    if found is not None and (found.is_integer or not whole):
        return found
    if not whole:
        return DType.BOOL
    low, high = _RANGES[DType.I32]
    return DType.I32 if all(low <= value <= high for value in whole) else DType.I64


def wider(a: DType, b: DType) -> DType:
    """The dtype in which tensors of two dtypes meet."""
    if a is b:
        return a
    if a.is_float and b.is_float:
        if a.itemsize == b.itemsize:  # f16 and bf16
            return DType.F32
        return a if a.itemsize > b.itemsize else b
    if a.is_float or b.is_float:
        return a if a.is_float else b
    if a is DType.BOOL or b is DType.BOOL:
        return b if a is DType.BOOL else a
    if a.itemsize == b.itemsize:  # i8 and u8
        return DType.I32
    return a if a.itemsize > b.itemsize else b


def _is_finite(value: Operand) -> bool:
    return not isinstance(value, Value) and math.isfinite(value)
