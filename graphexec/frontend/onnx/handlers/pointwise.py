"""Operators element by element: each is a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphexec.base.tensor import DType
from graphexec.frontend.onnx.builder import Builder, literal
from graphexec.frontend.onnx.handlers.bits import power
from graphexec.frontend.onnx.handlers.patterns import gelu, layer_norm
from graphexec.frontend.onnx.model import DTYPES, type_name
from graphexec.frontend.onnx.values import Node, Unsupported, Value

_BOOL = DType.BOOL


def _map(text: str, gives: DType | None = None) -> Callable[[Builder, Node], Value]:
    """`text` of the operands in their order; of the type `gives`, or of the first."""
    return lambda b, n: b.map(text, *n.present, gives=gives)


def _mul(b: Builder, n: Node) -> Value:
    found = gelu(n)
    if found is not None:
        return b.map("gelu({0})", found)
    return b.map("{0} * {1}", n.value(0), n.value(1))


def _div(b: Builder, n: Node) -> Value:
    if n.value(0).dtype.is_float:
        found = layer_norm(n)
        if found is not None:
            x, eps = found
            return b.op("norm", {"x": x}, x.shape, x.dtype, kind="layer", eps=eps)
        return b.map("{0} / {1}", n.value(0), n.value(1))
    if n.value(0).dtype == DType.U8:
        return b.map("{0} // {1}", n.value(0), n.value(1))
    # Towards zero: the quotient rounded down, and one more where that was of different signs.
    text = "{0} // {1} + where({0} % {1} != 0 and ({0} < 0) != ({1} < 0), 1, 0)"
    return b.map(text, n.value(0), n.value(1), to=n.value(0).dtype)


def _mod(b: Builder, n: Node) -> Value:
    x, y = n.value(0), n.value(1)
    if n.attr("fmod", 0):
        rest = "where(isinf({1}) and not isinf({0}), {0}, %s)" if x.dtype.is_float else "%s"
        signed = "where({0} < 0, -(abs({0}) % abs({1})), abs({0}) % abs({1}))"
        return b.map(rest % signed, x, y)
    if not x.dtype.is_float:
        return b.map("{0} % {1}", x, y)
    whole = "where({0} == 0 or ({0} < 0) == ({1} < 0), {0}, {1})"
    return b.map(
        f"where(isinf({{1}}) and not isinf({{0}}) and not isnan({{0}}), {whole}, {{0}} % {{1}})",
        x,
        y,
    )


def _pow(b: Builder, n: Node) -> Value:
    x, y = n.value(0), n.value(1)
    if not x.dtype.is_float and y.dtype.is_float:
        wide = DType.F64 if x.dtype in (DType.I32, DType.I64) else DType.F32
        text = f"cast({{0}}, {wide}) ** cast({{1}}, {wide})"
        return b.map(text, x, y, gives=wide, to=x.dtype)
    if not x.dtype.is_float and not y.known:
        return power(b, x, b.cast(y, x.dtype, "exponent"))
    if x.dtype == y.dtype:
        return b.map("{0} ** {1}", x, y)
    return b.map(f"{{0}} ** cast({{1}}, {x.dtype})", x, y)


def _logical(word: str) -> Callable[[Builder, Node], Value]:
    return lambda b, n: b.map(f"{{0}} {word} {{1}}", n.value(0), n.value(1))


def _compare(sign: str) -> Callable[[Builder, Node], Value]:
    def handler(b: Builder, n: Node) -> Value:
        return b.map(f"{{0}} {sign} {{1}}", n.value(0), n.value(1), gives=_BOOL)

    return handler


def _joined(function: str, sign: str = ",") -> Callable[[Builder, Node], Value]:
    """A function, or sums, of any number of operands."""

    def handler(b: Builder, n: Node) -> Value:
        values = n.present
        if len(values) == 1:
            return b.map("{0}", values[0])
        terms = [f"{{{i}}}" for i in range(len(values))]
        text = f"{function}({', '.join(terms)})" if function else f" {sign} ".join(terms)
        return b.map(text, *values)

    return handler


def _mean(b: Builder, n: Node) -> Value:
    terms = " + ".join(f"{{{i}}}" for i in range(len(n.present)))
    return b.map(f"({terms}) / {len(n.present)}", *n.present)


def _clip(b: Builder, n: Node) -> Value:
    x, low, high = n.value(0), n.given(1), n.given(2)
    text, values = "{0}", [x]
    if low is not None:
        values.append(low)
        text = f"max({text}, {{{len(values) - 1}}})"
    if high is not None:
        values.append(high)
        text = f"min({text}, {{{len(values) - 1}}})"
    return b.map(text, *values)


def _cast(b: Builder, n: Node) -> Value:
    to = DTYPES.get(n.attr("to"))
    if to is None:
        raise Unsupported(f"a cast to {type_name(n.attr('to'))}")
    return b.map("{0}", n.value(0), to=to)


def _cast_like(b: Builder, n: Node) -> Value:
    return b.map("{0}", n.value(0), to=n.value(1).dtype)


def _where(b: Builder, n: Node) -> Value:
    return b.map("where({0}, {1}, {2})", *n.inputs[:3], gives=n.value(1).dtype)  # type: ignore[arg-type]


def _gelu(b: Builder, n: Node) -> Value:
    return b.map("gelu_tanh({0})" if n.attr("approximate") == "tanh" else "gelu({0})", n.value(0))


def _prelu(b: Builder, n: Node) -> Value:
    return b.map("where({0} < 0, {0} * {1}, {0})", n.value(0), n.value(1))


def _with(text: str, **defaults: float) -> Callable[[Builder, Node], Value]:
    """A map with attributes: `[alpha]` in the text is the number."""

    def handler(b: Builder, n: Node) -> Value:
        found = text
        for name, default in defaults.items():
            found = found.replace(f"[{name}]", literal(n.attr(name, default)))
        return b.map(found, n.value(0))

    return handler


def _dropout(b: Builder, n: Node) -> Sequence[Value]:
    """Nothing is dropped but in training."""
    training = n.given(2)
    if training is not None and training.number():
        raise Unsupported("training")
    x = n.value(0)
    found = [b.map("{0}", x)]
    if len(n.outputs) > 1:
        found.append(b.map("1", shape=x.shape, to=_BOOL, output=1))
    return found


def _isinf(b: Builder, n: Node) -> Value:
    signs = n.attr("detect_negative", 1), n.attr("detect_positive", 1)
    text = {(1, 1): "isinf({0})", (1, 0): "{0} == -inf", (0, 1): "{0} == inf"}
    return b.map(text.get(signs, "{0} != {0} and {0} == {0}"), n.value(0), gives=_BOOL)


_TAN = "sin({0}) / cos({0})"
_ATAN_TERMS = " + ".join(
    f"{'(-' if k % 2 else ''}1 / {2 * k + 1}{')' if k % 2 else ''} * {{0}} ** {2 * k}"
    for k in range(1, 12)
)


def _half_angle(b: Builder, x: Value, part: str) -> Value:
    """tan of half the angle whose tangent is x; below 1 in size also for infinite x."""
    text = "where(isinf({0}), sign({0}), {0} / (1 + sqrt(1 + {0} * {0})))"
    return b.map(text, x, part=part)


def _arctangent(b: Builder, x: Value, factor: str) -> Value:
    """factor · atan(x): three half angles, then the series of what is left, below tan(pi / 16)."""
    for number in range(3):
        x = _half_angle(b, x, f"half_{number}")
    return b.map(f"{factor} * 8 * {{0}} * (1 + {_ATAN_TERMS})", x)


def _atan(b: Builder, n: Node) -> Value:
    return _arctangent(b, n.value(0), "1")


def _asin(b: Builder, n: Node) -> Value:
    text = "{0} / (1 + sqrt((1 - {0}) * (1 + {0})))"
    return _arctangent(b, b.map(text, n.value(0), part="tangent"), "2")


def _acos(b: Builder, n: Node) -> Value:
    text = "sqrt((1 - {0}) * (1 + {0})) / (1 + {0})"
    return _arctangent(b, b.map(text, n.value(0), part="tangent"), "2")


_UNARY = {
    "Abs": "abs({0})", "Neg": "-{0}", "Sign": "sign({0})", "Floor": "floor({0})",
    "Ceil": "ceil({0})", "Round": "round({0})", "Exp": "exp({0})", "Log": "log({0})",
    "Sqrt": "sqrt({0})", "Reciprocal": "1 / {0}", "Sin": "sin({0})", "Cos": "cos({0})",
    "Tan": _TAN, "Tanh": "tanh({0})", "Sinh": "(exp({0}) - exp(-{0})) / 2",
    "Cosh": "(exp({0}) + exp(-{0})) / 2",
    "Asinh": "sign({0}) * log1p(abs({0}) + {0} * {0} / (1 + sqrt({0} * {0} + 1)))",
    "Acosh": "log({0} + sqrt({0} * {0} - 1))", "Atanh": "(log1p({0}) - log1p(-{0})) / 2",
    "Sigmoid": "sigmoid({0})", "Erf": "erf({0})", "Relu": "relu({0})",
    "Softplus": "softplus({0})", "Softsign": "{0} / (1 + abs({0}))",
    "HardSwish": "{0} * max(0, min(1, {0} / 6 + 0.5))", "Mish": "{0} * tanh(softplus({0}))",
    "Identity": "{0}",
}  # fmt: skip

HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {
    **{name: _map(text) for name, text in _UNARY.items()},
    "Sub": _map("{0} - {1}"), "Mul": _mul, "Div": _div,
    "Mod": _mod, "Pow": _pow, "PRelu": _prelu,
    "Equal": _compare("=="), "Less": _compare("<"), "LessOrEqual": _compare("<="),
    "Greater": _compare(">"), "GreaterOrEqual": _compare(">="),
    "And": _logical("and"), "Or": _logical("or"), "Xor": _compare("!="),
    "Not": _map("not {0}"), "IsNaN": _map("isnan({0})", _BOOL), "IsInf": _isinf,
    "Min": _joined("min"), "Max": _joined("max"), "Sum": _joined("", "+"), "Mean": _mean,
    "Clip": _clip, "Cast": _cast, "CastLike": _cast_like, "Where": _where, "Gelu": _gelu,
    "Dropout": _dropout, "Atan": _atan, "Asin": _asin, "Acos": _acos,
    "LeakyRelu": _with("where({0} < 0, [alpha] * {0}, {0})", alpha=0.01),
    "Elu": _with("where({0} < 0, [alpha] * (exp({0}) - 1), {0})", alpha=1.0),
    "Celu": _with("max(0, {0}) + min(0, [alpha] * (exp({0} / [alpha]) - 1))", alpha=1.0),
    "Selu": _with("[gamma] * where({0} < 0, [alpha] * (exp({0}) - 1), {0})",
                  alpha=1.6732631921768188, gamma=1.0507009873554805),
    "ThresholdedRelu": _with("where({0} > [alpha], {0}, 0)", alpha=1.0),
    "HardSigmoid": _with("max(0, min(1, [alpha] * {0} + [beta]))", alpha=0.2, beta=0.5),
    "Swish": _with("{0} * sigmoid([alpha] * {0})", alpha=1.0),
    "Shrink": _with("where({0} < -[lambd], {0} + [bias], where({0} > [lambd], {0} - [bias], 0))",
                    lambd=0.5, bias=0.0),
}  # fmt: skip
