"""The source of a kernel over rows: its loops, and the steps of a body in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from graphexec.base.tensor import DType
from graphexec.ir.body import Step
from graphexec.ops.kit.generate.hip import coordinate, statements, value_type
from graphexec.ops.kit.generate.row_blocks import Rows
from graphexec.ops.kit.generate.stages import Pass
from graphexec.ops.kit.launch import element_type
from graphexec.ops.kit.strides import index_type

PATH = Path(__file__)
MOST_CHUNK = 1 << 16  # elements of a row that a block holds at a time

_OPERATIONS = {
    "reduce_sum": "Add", "reduce_prod": "Multiply", "reduce_min": "Smallest",
    "reduce_max": "Largest", "reduce_any": "Largest", "reduce_all": "Smallest",
    "reduce_argmin": "Smallest", "reduce_argmax": "Largest",
}  # fmt: skip


def text(rows: Rows) -> str:
    """The whole source."""
    return "\n".join(_Source(rows).lines()) + "\n"


def _within(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" if line else line for line in lines)


class _Source:
    def __init__(self, rows: Rows) -> None:
        self.rows, self.body, self.block = rows, rows.body, rows.block
        self.stages = rows.stages(keep=rows.one_pass)
        self.warps = self.block.threads // 32
        self.is_shared = self.block.lanes > (1 if self.block.columns else 32)
        # Indices reach to the end of the last chunk.
        reach = index_type(rows.length + MOST_CHUNK)
        self.index = "int" if reach == "u32" else "i64"
        self.is_full = rows.one_pass and self.block.chunk == rows.length

    def lines(self) -> Iterator[str]:
        rows = self.rows
        yield '#include "rows.h"'
        yield ""
        if not self.is_full:
            yield f"constexpr {self.index} length = {rows.length};  // of a row"
        if rows.steps:
            yield f"struct Steps {{ i64 step[{len(rows.steps)}]; }};  // along a row"
        yield ""
        yield from self._signature()
        yield from _within(self._whole())
        yield "}"

    def _signature(self) -> Iterator[str]:
        rows = self.rows
        parameters = [f"const {element_type(v.dtype)}* x{n}" for n, v in enumerate(rows.reads)]
        parameters += [f"{element_type(v.dtype)}* y{n}" for n, v in enumerate(rows.writes)]
        parameters += ["i64 rows", *(["Steps steps"] if rows.steps else [])]
        yield f'extern "C" __global__ void __launch_bounds__({self.block.threads})'
        yield f"rows({', '.join(parameters)},"
        yield f"     Axes<{len(rows.places)}, {len(rows.extents)}> axes) {{"

    def _whole(self) -> Iterator[str]:
        block = self.block
        if self.is_shared:
            for number in (n for each in self.stages.passes for n in each.reductions):
                yield f"__shared__ {self._type(number)} s{number}[{self._entries()}];"
        if block.columns:
            yield f"const int lane = threadIdx.x / {block.columns};"
            mine = f"threadIdx.x % {block.columns}"
        else:
            yield f"const int lane = threadIdx.x % {block.lanes};"
            mine = f"threadIdx.x / {block.lanes}"
        yield f"const i64 stride = i64(gridDim.x) * {block.rows};"
        yield f"for (i64 first = i64(blockIdx.x) * {block.rows}; first < rows; first += stride) {{"
        yield f"    const i64 wanted = first + {mine};"
        yield "    const bool exists = wanted < rows;"
        yield from _within(self._row())
        yield "}"

    def _row(self) -> Iterator[str]:
        rows = self.rows
        yield f"i64 at[{len(rows.places)}] = {{}};"
        index = index_type(rows.rows)
        yield f"locate(axes, static_cast<{index}>(exists ? wanted : first), at);"
        for axis, place in rows.indexes.items():
            yield f"const i32 {coordinate(axis)} = i32(at[{place}]);"
        if -1 in self.body.indexes and rows.length == 1:
            yield f"const i32 {coordinate(-1)} = 0;"
        yield from self._statements(self.stages.before)
        if rows.one_pass:
            loaded = {n for each in self.stages.passes for n in self._operands(each)}
            yield from self._loads(sorted(loaded - set(rows.late)))
            for number in self.stages.kept:
                kind = value_type(self.body.steps[number].dtype)
                yield f"{kind} k{number}[{self.block.per_thread * self.block.vector}];"
        *reducing, last = self.stages.passes
        for each in reducing:
            yield from self._reducing(each)
        if last.read or rows.stored:
            yield from self._elements(last, self._results(last), ())
        yield from self._row_results()
        if self.is_shared:
            yield "__syncthreads();  // the next row writes what others may still read"

    # Passes -----------------------------------------------------------------------------

    def _reducing(self, each: Pass) -> Iterator[str]:
        for number in each.reductions:
            kind = self._type(number)
            yield f"{kind} r{number} = {kind}::none();"
        chunked = not self.rows.one_pass
        # Sums of chunks are added to one another, which keeps rounding errors small.
        into = "c" if chunked else "r"
        takes = [
            f"{into}{n}.take(t{self.body.steps[n].args[0]}, k + j);" for n in each.reductions
        ]  # fmt: skip
        inside = [f"    {line}" for line in takes]
        body = ["UNROLL for (int j = 0; j < VECTOR; ++j) {", *self._computed(each), *inside, "}"]
        yield from self._elements(each, body, each.reductions if chunked else ())
        yield from self._merged(each.reductions)
        for number in each.reductions:
            kind = value_type(self.body.steps[number].dtype)
            yield f"const {kind} t{number} = static_cast<{kind}>(r{number}.result());"
        yield from self._statements(each.after)

    def _elements(
        self, each: Pass, body: Iterable[str], parts: Sequence[int]
    ) -> Iterator[str]:  # fmt: skip
        """The loops of a pass around what is done with a vector."""
        inner: list[str] = []
        if not self.rows.one_pass:
            inner += self._loads(self._operands(each), "base + ")
        for number in parts:
            kind = self._type(number)
            inner.append(f"{kind} c{number} = {kind}::none();")
        inner += self._vectors(body, "" if self.rows.one_pass else "base + ")
        inner += [f"r{number}.merge(c{number});" for number in parts]
        vector = f"{self.block.vector}"
        found = [line.replace("VECTOR", vector) for line in inner]
        if self.rows.one_pass:
            yield from found
            return
        yield f"for ({self.index} base = 0; base < length; base += {self.block.chunk}) {{"
        yield from _within(found)
        yield "}"

    def _vectors(self, body: Iterable[str], base: str) -> Iterator[str]:
        block = self.block
        yield f"UNROLL for (int v = 0; v < {block.per_thread}; ++v) {{"
        yield f"    const {self.index} k = {base}(v * {block.lanes} + lane) * {block.vector};"
        if not self.is_full:
            yield "    if (k >= length) continue;"
        yield from _within(body)
        yield "}"

    def _computed(self, each: Pass) -> Iterator[str]:
        """The steps of a pass for element j of vector v."""
        place = f"v * {self.block.vector} + j" if self.block.vector > 1 else "v"
        if any(self._is_coordinate(self.body.steps[n]) for n in each.steps):
            yield f"    const i32 {coordinate(-1)} = i32(k + j);"
        for number in each.read:
            if number in each.taken:
                kind = value_type(self.body.steps[number].dtype)
                yield f"    const {kind} t{number} = k{number}[{place}];"
            else:
                yield from _within(self._statements([number]))
            if number in each.kept:
                yield f"    k{number}[{place}] = t{number};"

    def _results(self, last: Pass) -> Iterator[str]:
        """What the last pass does with a vector."""
        rows = self.rows
        for n in rows.late:
            kind = element_type(rows.reads[n].dtype)
            yield f"const Vector<{kind}, VECTOR> a{n} = {self._gathered(n)};"
        for n in rows.stored:
            yield f"Vector<{element_type(rows.writes[n].dtype)}, VECTOR> b{n};"
        yield "UNROLL for (int j = 0; j < VECTOR; ++j) {"
        yield from self._computed(last)
        for n in rows.stored:
            kind = element_type(rows.writes[n].dtype)
            yield f"    b{n}.set(j, narrow<{kind}>(t{self.body.results[n]}));"
        yield "}"
        for n in rows.stored:
            number = len(rows.reads) + n
            form = f"scatter<VECTOR, {rows.piece(number)}>"
            step = self._step(number)
            yield f"if (exists) {form}({self._address(f'y{n}', number)}, {step}, b{n});"

    def _row_results(self) -> Iterator[str]:
        """Results with one element a row."""
        rows = self.rows
        single = [n for n in range(len(rows.writes)) if n not in rows.stored]
        if not single:
            return
        if any(not rows.varies(n) for n in range(len(rows.reads))):
            yield "__syncthreads();  // a result may lie over what all lanes have read"
        yield "if (exists && lane == 0) {"
        for n in single:
            kind, place = element_type(rows.writes[n].dtype), rows.place[len(rows.reads) + n]
            yield f"    y{n}[at[{place}]] = narrow<{kind}>(t{self.body.results[n]});"
        yield "}"

    # Parts ------------------------------------------------------------------------------

    def _operands(self, each: Pass) -> list[int]:
        """The operands that a pass reads element by element."""
        loads = (self.body.steps[n] for n in each.steps)
        return sorted({int(s.value or 0) for s in loads if s.function == "load"})

    def _loads(self, operands: Sequence[int], base: str = "") -> Iterator[str]:
        """All loads are under way before the first value is needed."""
        block = self.block
        for n in operands:
            kind = element_type(self.rows.reads[n].dtype)
            yield f"Vector<{kind}, {block.vector}> a{n}[{block.per_thread}];"
        if operands:
            yield from self._vectors((f"a{n}[v] = {self._gathered(n)};" for n in operands), base)

    def _gathered(self, operand: int) -> str:
        form = f"gather<{self.block.vector}, {self.rows.piece(operand)}>"
        return f"{form}({self._address(f'x{operand}', operand)}, {self._step(operand)})"

    def _statements(self, numbers: Sequence[int]) -> Iterator[str]:
        return statements(self.body, numbers, self._loaded)

    def _loaded(self, operand: int) -> str:
        if self.rows.varies(operand):
            return f"a{operand}{'' if operand in self.rows.late else '[v]'}.get(j)"
        return f"x{operand}[at[{self.rows.place[operand]}]]"

    def _merged(self, reductions: Sequence[int]) -> Iterator[str]:
        """Each lane's part of a row becomes the whole."""
        block = self.block
        if not self.is_shared:
            if block.lanes > 1:
                yield from (f"merge_lanes<{block.lanes}>(r{number});" for number in reductions)
            return
        for number in reductions:
            if block.columns:
                yield f"s{number}[threadIdx.x] = r{number};"
            else:
                yield f"put_warp(r{number}, s{number});"
        yield "__syncthreads();"
        form = f"merged_warps<{self.warps}>"
        if block.columns:
            form = f"merged_column<{block.columns}, {block.lanes}>"
        yield from (f"r{number} = {form}(s{number});" for number in reductions)

    def _entries(self) -> int:
        return self.block.threads if self.block.columns else self.warps

    def _type(self, number: int) -> str:
        """The C++ type of a reduction."""
        step = self.body.steps[number]
        source = self.body.steps[step.args[0]].dtype
        kind = value_type(source)
        if source in (DType.I8, DType.U8, DType.BOOL):
            kind = "i32"
        template = "Place" if "arg" in step.function else "Fold"
        return f"{template}<{kind}, {_OPERATIONS[step.function]}>"

    def _is_coordinate(self, step: Step) -> bool:
        return step.function == "index" and step.value == -1

    def _address(self, name: str, number: int) -> str:
        step = self._step(number)
        along = {"0": "", "1": " + k"}.get(step, f" + k * {step}")
        return f"{name} + at[{self.rows.place[number]}]{along}"

    def _step(self, number: int) -> str:
        step = self.rows.along[number]
        return str(step) if step in (0, 1) else f"steps.step[{self.rows.steps.index(step)}]"
