"""A body as C for the CPU: a function for one row, or one run of elements, and a loop over them.

A row is gone along in pieces of CHUNK elements, so that all that is computed of a piece stays in
the first-level cache: operands are loaded into arrays of the type in which they are computed
(those that lie so are read in place), one loop computes every step, and results are stored. A
reduction takes what the loop left of the piece; what a later pass needs again is kept for the
whole row. elements.h has the functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from graphexec.base.tensor import DType
from graphexec.ir.body import Body, Number, Step
from graphexec.ops.kit.generate.passes import Pass, Passes, passes_of

HALVES = Path(__file__).parents[1] / "halves.h"
ELEMENTS = Path(__file__).with_name("elements.h")

_TYPES = {DType.BOOL: "u8"}
_COMPUTED = {DType.F16: "f32", DType.BF16: "f32", DType.BOOL: "u8"}

_OPERATORS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "neg": "-{0}", "min": "MIN({0}, {1})", "max": "MAX({0}, {1})",
    "sign": "SIGN({type}, {0})", "where": "{0} ? {1} : {2}",
    "isnan": "{0} != {0}", "eq": "{0} == {1}", "ne": "{0} != {1}", "lt": "{0} < {1}",
    "le": "{0} <= {1}", "and": "{0} & {1}", "or": "{0} | {1}", "not": "!{0}",
}  # fmt: skip
_FLOATING = {
    "floordiv": "FLOOR({0} / {1})", "mod": "{0} - {1} * FLOOR({0} / {1})", "abs": "FABS({0})",
    "floor": "FLOOR({0})", "ceil": "CEIL({0})", "round": "RINT({0})", "sqrt": "SQRT({0})",
    "isinf": "FABS({0}) == INFINITY", "pow": "pow_{type}({0}, {1})",
}  # fmt: skip
_WHOLE = {
    "floordiv": "floordiv_{type}({0}, {1})", "mod": "mod_{type}({0}, {1})",
    "abs": "{0} < 0 ? -{0} : {0}",
}  # fmt: skip
_FOLDS = {
    "reduce_sum": ("sum", "SUM", "0"), "reduce_prod": ("prod", "PROD", "1"),
    "reduce_min": ("min", "MIN", None), "reduce_max": ("max", "MAX", None),
    "reduce_any": ("max", "MAX", "0"), "reduce_all": ("min", "MIN", "1"),
}  # fmt: skip
"""What a reduction folds a piece with, what pieces are joined with, and what it begins with."""


def source(body: Body) -> str:
    """The library's source: `run`, and `kept`, the number of values kept for a row."""
    included = "\n".join(path.read_text("utf-8") for path in (HALVES, ELEMENTS))
    return included + _LOOP.format(
        arrays=len(body.operands) + len(body.results), indexes=len(body.indexes),
        row="\n".join(f"    {line}" for line in _Row(body).lines()),
        kept=len(passes_of(body).kept), operands=len(body.operands),
        sizes=", ".join(str(dtype.itemsize) for dtype in (*body.operands, *body.dtypes)),
    )  # fmt: skip


_LOOP = """
/* The body ------------------------------------------------------------------------------------- */

enum {{ ARRAYS = {arrays}, INDEXES = {indexes}, ALL = ARRAYS + INDEXES }};

/* A row, or a run of `count` elements. `at` are the places of the arrays and the indexes of the
first, `step` the distances to the next. */
static void row(char *const *at, const word *index, const word *step, word count, char *memory) {{
    (void)index, (void)memory;
{row}
}}

EXPORT word kept(void) {{ return {kept}; }}

static const word sizes[] = {{ {sizes} }}; /* of an element of each array */
enum {{ OPERANDS = {operands} }};

/* The places of the arrays and indexes at a number of rows, or of runs. */
static void find(word *place, word number, word rank, const word *extents, const word *strides) {{
    for (int i = 0; i < ALL; i++)
        place[i] = 0;
    for (word axis = rank - 1; axis >= 0; axis--) {{
        for (int i = 0; i < ALL; i++)
            place[i] += number % extents[axis] * strides[axis * ALL + i];
        number /= extents[axis];
    }}
}}

/* Rows that are neighbours in memory while their elements are not, `count` from `place` on: they
are turned into memory, and the results of these arrays back. */
static void turned_rows(const word *place, char *const *data, const word *step, const word *next,
                        word count, word extent, char *memory) {{
    char *spare[ARRAYS], *left = memory + 8 * {kept} * extent;
    word pitch[ARRAYS], near[ALL + 1];
    for (int i = 0; i < ALL; i++)
        near[i] = step[i];
    for (int i = 0; i < ARRAYS; i++) {{
        spare[i] = NULL;
        if (!is_turned(step[i], next[i], sizes[i]))
            continue;
        spare[i] = left, pitch[i] = turned_pitch(extent, sizes[i]), near[i] = sizes[i];
        left += TURNED * pitch[i];
        if (i < OPERANDS)
            turn(data[i] + place[i], step[i], spare[i], pitch[i], count, extent, sizes[i], 0);
    }}
    for (word n = 0; n < count; n++) {{
        char *at[ARRAYS];
        word index[INDEXES + 1];
        for (int i = 0; i < ARRAYS; i++)
            at[i] = spare[i] ? spare[i] + n * pitch[i] : data[i] + place[i] + n * next[i];
        for (int i = 0; i < INDEXES; i++)
            index[i] = place[ARRAYS + i] + n * next[ARRAYS + i];
        row(at, index, near, extent, memory);
    }}
    for (int i = OPERANDS; i < ARRAYS; i++)
        if (spare[i])
            turn(data[i] + place[i], step[i], spare[i], pitch[i], count, extent, sizes[i], 1);
}}

/* Pieces `low` to `high` of all rows, numbered through; or groups of rows, if these are turned.
`told` are the extent of a row and of a piece, whether rows are turned, the number of outer axes,
their extents, the step of each array and index, and for each outer axis its strides. Those of
arrays are in bytes. */
EXPORT void run(const word *told, char *const *data, char *memory, word low, word high) {{
    word extent = told[0], piece = told[1], rank = told[3], place[ALL + 1];
    const word *extents = told + 4, *step = extents + rank, *strides = step + ALL;
    if (told[2]) {{
        const word last = extents[rank - 1], groups = (last + TURNED - 1) / TURNED;
        for (word n = low; n < high; n++) {{
            word first = n % groups * TURNED;
            find(place, n / groups * last + first, rank, extents, strides);
            turned_rows(place, data, step, strides + (rank - 1) * ALL,
                        least(TURNED, last - first), extent, memory);
        }}
        return;
    }}
    word pieces = (extent + piece - 1) / piece;
    for (word n = low; n < high; n++) {{
        word first = n % pieces * piece;
        find(place, n / pieces, rank, extents, strides);
        char *at[ARRAYS];
        for (int i = 0; i < ALL; i++)
            place[i] += first * step[i];
        for (int i = 0; i < ARRAYS; i++)
            at[i] = data[i] + place[i];
        row(at, place + ARRAYS, step, least(piece, extent - first), memory);
    }}
}}
"""


class _Row:
    """The lines of the function `row`."""

    def __init__(self, body: Body) -> None:
        self.body, self.steps = body, body.steps
        self.plan: Passes = passes_of(body)

    def lines(self) -> Iterator[str]:
        """Declarations, the passes, and what is the same for the whole row."""
        for place, number in enumerate(self.plan.kept):
            kind = computed(self.steps[number].dtype)
            yield f"{kind} *k{number} = ({kind} *)(memory + {place} * 8 * count);"
        for each in self.plan.passes:
            for number in each.before:
                yield f"const {self._declare(number)} = {self._expression(number)};"
            yield from self._pass(each, each is self.plan.passes[-1])
        for place, number in enumerate(self.body.results):
            if self.plan.uniform[number]:
                array = len(self.body.operands) + place
                kind = stored(self.steps[number].dtype)
                yield f"fill_{kind}(at[{array}], step[{array}], v{number}, count);"

    def _pass(self, each: Pass, last: bool) -> Iterator[str]:
        results = [
            (len(self.body.operands) + place, number)
            for place, number in enumerate(self.body.results)
            if last and not self.plan.uniform[number]
        ]
        if not results and not each.reductions:
            return
        for number in each.reductions:
            yield from self._begin(number)
        yield "for (word first = 0; first < count; first += CHUNK) {"
        yield "    word some = least(CHUNK, count - first);"
        yield from (f"    {line}" for line in self._piece(each, results))
        yield "}"
        for number in each.reductions:
            step, total = self.steps[number], f"t{number}"
            yield f"const {self._declare(number)} = ({computed(step.dtype)}){total};"

    def _piece(self, each: Pass, results: list[tuple[int, int]]) -> Iterator[str]:
        """One piece of the row: load, compute, store, reduce."""
        for number in each.steps:
            if self.steps[number].function == "load":
                yield from self._load(number)
        for array, number in results:
            kind, wide = stored(self.steps[number].dtype), computed(self.steps[number].dtype)
            yield f"{wide} r{array}[CHUNK];"
            yield f"char *to{array} = at[{array}] + first * step[{array}];"
            yield f"{wide} *y{array} = place_{kind}(r{array}, to{array}, step[{array}]);"
        for number in self._reduced(each):
            kind = computed(self.steps[number].dtype)
            if self._is_loaded(number, each):
                yield f"const {kind} *s{number} = x{number};"
            else:
                yield f"{kind} s{number}[CHUNK];"
        yield "VECTORS for (word i = 0; i < some; i++) {"
        yield from (f"    {line}" for line in self._loop(each, results))
        yield "}"
        for array, number in results:
            kind = stored(self.steps[number].dtype)
            yield f"store_{kind}(to{array}, step[{array}], y{array}, some);"
        for number in each.reductions:
            yield from self._join(number)

    def _load(self, number: int) -> Iterator[str]:
        step = self.steps[number]
        array, kind, wide = step.value, stored(step.dtype), computed(step.dtype)
        yield f"{wide} l{number}[CHUNK];"
        yield (
            f"const {wide} *x{number} = load_{kind}(l{number}, at[{array}] + first * step[{array}],"
            f" step[{array}], some);"
        )

    def _loop(self, each: Pass, results: list[tuple[int, int]]) -> Iterator[str]:
        """The elements of a piece."""
        here = set(each.steps)
        wanted = {arg for number in here for arg in self.steps[number].args}
        wanted |= {number for _, number in results} | set(self._reduced(each))
        for number in sorted(wanted - here):
            if number in self.plan.kept:
                yield f"const {self._declare(number)} = k{number}[first + i];"
        for number in each.steps:
            yield f"const {self._declare(number)} = {self._expression(number)};"
            if number in self.plan.kept:
                yield f"k{number}[first + i] = v{number};"
        for number in self._reduced(each):
            if not self._is_loaded(number, each):
                yield f"s{number}[i] = v{number};"
        for array, number in results:
            yield f"y{array}[i] = v{number};"

    # Reductions -------------------------------------------------------------------------

    def _reduced(self, each: Pass) -> list[int]:
        """The steps of which a pass reduces the elements."""
        return sorted({self.steps[number].args[0] for number in each.reductions})

    def _is_loaded(self, number: int, each: Pass) -> bool:
        """Whether a pass has the elements of a step in an array already."""
        return self.steps[number].function == "load" and number in each.steps

    def _begin(self, number: int) -> Iterator[str]:
        step = self.steps[number]
        kind = computed(self.steps[step.args[0]].dtype)
        if step.function.startswith("reduce_arg"):
            yield f"{kind} b{number} = 0;"
            yield f"i64 t{number} = -1;"
            return
        start = _FOLDS[step.function][2]
        # Sums of pieces are added in f64: their number adds no error.
        wide = "f64" if kind == "f32" and start is not None else kind
        yield f"{wide} t{number} = {start or '0'};"

    def _join(self, number: int) -> Iterator[str]:
        step = self.steps[number]
        arg = step.args[0]
        kind = computed(self.steps[arg].dtype)
        if step.function.startswith("reduce_arg"):
            name = step.function.removeprefix("reduce_")
            yield f"{name}_{kind}(s{arg}, some, first, &b{number}, &t{number});"
            return
        fold, join, start = _FOLDS[step.function]
        yield f"const {kind} f{number} = {fold}_{kind}(s{arg}, some);"
        joined = f"{join}(t{number}, f{number})"
        yield f"t{number} = {joined if start is not None else f'first ? {joined} : f{number}'};"

    # Steps ------------------------------------------------------------------------------

    def _declare(self, number: int) -> str:
        return f"{computed(self.steps[number].dtype)} v{number}"

    def _expression(self, number: int) -> str:
        step = self.steps[number]
        args = [f"v{arg}" for arg in step.args]
        match step.function:
            case "load":
                return f"x{number}[i]"
            case "constant":
                return constant(step.value or 0, step.dtype)
            case "index":
                return self._index(step)
            case "cast":
                return cast(args[0], self.steps[step.args[0]].dtype, step.dtype)
        return expression(step, args, self.steps[step.args[0]].dtype)

    def _index(self, step: Step) -> str:
        place = self.body.indexes.index(int(step.value or 0))
        here = f"index[{place}]"
        if self.body.reduces and step.value != -1:
            return f"(i32){here}"
        return f"(i32)({here} + (first + i) * step[ARRAYS + {place}])"


def stored(dtype: DType) -> str:
    """The C type of an element in memory."""
    return _TYPES.get(dtype, dtype.value)


def computed(dtype: DType) -> str:
    """The C type in which a dtype is computed."""
    return _COMPUTED.get(dtype, dtype.value)


def expression(step: Step, args: list[str], given: DType) -> str:
    """A function of arguments of the dtype `given` (of the first), in the step's type."""
    kind = computed(given)
    special = _FLOATING if given.is_float else _WHOLE
    template = special.get(step.function) or _OPERATORS.get(step.function) or "{name}_{type}({0})"
    text = template.format(*args, type=kind, name=step.function)
    if kind == "f32":
        for name in ("FLOOR", "FABS", "CEIL", "RINT", "SQRT"):
            text = text.replace(f"{name}(", f"{name}F(")
    return f"({computed(step.dtype)})({text})"


def constant(value: Number, dtype: DType) -> str:
    """A number in the type in which a dtype is computed."""
    if not dtype.is_float:
        low = value == -(2**63)
        return "INT64_MIN" if low else f"{int(value)}{'LL' if dtype is DType.I64 else ''}"
    number = float(value) if dtype is DType.F64 else float(np.float32(value))
    if not math.isfinite(number):
        return "NAN" if math.isnan(number) else "INFINITY" if number > 0 else "-INFINITY"
    return number.hex() + ("" if dtype is DType.F64 else "f")


def cast(x: str, source: DType, target: DType) -> str:
    """A value of one dtype in the type in which another is computed, rounded to that."""
    kind, wide = computed(source), computed(target)
    if target is DType.BOOL:
        return f"{x} != 0"
    if target.is_integer:
        return f"{kind}_to_{wide}({x})" if source.is_float else f"({wide}){x}"
    if target not in (DType.F16, DType.BF16):
        return f"({wide}){x}"
    if not source.is_float:
        x, kind = (f"odd_double({x})" if source is DType.I64 else f"(f64){x}"), "f64"
    single = f"to_odd({x})" if kind == "f64" else x
    name = target.value
    return f"from_{name}(to_{name}({single}))"
