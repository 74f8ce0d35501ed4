"""check_access: whether each command touches the bytes that it declares, and no others.

Every command runs by itself, four times on the same memory. The bytes that it does not declare to
read are left as they are, then filled with one pattern, then with another:

1. bytes that it does not declare to write must keep their values;
2. bytes that it writes must come out the same.

A command that breaks a rule is an AccessError. In the last of the four runs nothing is filled; the
run continues with its results. Bytes that a strided view steps over count as declared.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from graphexec.base.errors import AccessError
from graphexec.base.tensor import Array
from graphexec.ir.plan import Launch, Plan, Range
from graphexec.ir.program import Kernel, TritonKernel, Work

Contents = dict[str, Array]

NANS, NUMBERS = 0xFF, 0x3C  # NaN and a number in every dtype of floats


class Bytes(Protocol):
    """The buffers of a session while nothing runs, as uint8."""

    def read(self, buffer: str) -> Array:
        """A copy of a buffer."""
        ...

    def write(self, buffer: str, content: Array) -> None:
        """Replace what is in a buffer."""
        ...


class AccessCheck:
    """Runs the commands of a plan, one at a time."""

    def __init__(self, plan: Plan, memory: Bytes) -> None:
        self._plan, self._memory = plan, memory
        self._sizes = {buffer.id: buffer.bytes for buffer in plan.buffers}
        self._one_at_a_time = threading.Lock()

    def run(self, launch: Launch, work: Work, perform: Callable[[], object]) -> None:
        """Do what `perform`, which waits for its end, does for a launch. Raises AccessError."""
        with self._one_at_a_time:
            trial = _Trial(self, launch, work, perform)
            try:
                trial.check()
            finally:
                self.restore(trial.before)
            perform()

    def contents(self) -> Contents:
        """All bytes of all buffers."""
        return {buffer: self._memory.read(buffer) for buffer in self._sizes}

    def restore(self, contents: Contents) -> None:
        """Put all bytes back."""
        for buffer, content in contents.items():
            self._memory.write(buffer, content)

    def marked(self, ranges: Sequence[Range]) -> Contents:
        """For each buffer a mask of the bytes that are in one of the ranges."""
        marks = {buffer: np.zeros(size, dtype=bool) for buffer, size in self._sizes.items()}
        for r in ranges:
            marks[r.buffer][r.low : r.high] = True
        return marks

    def tensors(self) -> Iterator[tuple[str, Range]]:
        """The named tensors and where they lie."""
        for t in self._plan.tensors:
            yield t.name, t.range


class _Trial:
    """One launch, and the contents of memory before it."""

    def __init__(
        self, owner: AccessCheck, launch: Launch, work: Work, perform: Callable[[], object]
    ) -> None:
        self.owner, self.launch, self.work, self.perform = owner, launch, work, perform
        self.before = owner.contents()
        self.read, self.written = owner.marked(launch.reads), owner.marked(launch.writes)
        self.only_written = {b: self.written[b] & ~self.read[b] for b in self.before}
        self.undeclared = {b: ~(self.written[b] | self.read[b]) for b in self.before}

    def check(self) -> None:
        """AccessError if the launch touches what it does not declare."""
        plain = self.after(None, NANS)
        if self.differs(plain, self.after(NANS, NANS)):
            raise self.error("reads", self.culprit(plain))
        other = self.after(NUMBERS, NUMBERS)
        if self.differs(plain, other):
            raise self.error("reads", self.culprit(plain) or "its own result")

    def after(self, undeclared: int | None, unread: int, only: Range | None = None) -> Contents:
        """What is in memory after a run, before which bytes that the launch does not declare, and
        those that it does not declare to read, are filled. `only` limits the former."""
        filled = {buffer: content.copy() for buffer, content in self.before.items()}
        for buffer, content in filled.items():
            content[self.only_written[buffer]] = unread
            if undeclared is not None:
                place = self.undeclared[buffer]
                if only is not None:
                    place = place & self.owner.marked([only])[buffer]
                content[place] = undeclared
        self.owner.restore(filled)
        self.perform()
        found = self.owner.contents()
        for buffer, content in found.items():
            changed = np.flatnonzero((content != filled[buffer]) & ~self.written[buffer])
            if changed.size:
                raise self.error("writes", self.named(buffer, int(changed[0])))
        return found

    def differs(self, one: Contents, other: Contents) -> bool:
        """Whether what was written differs; bytes that kept both fillings were not written."""
        for buffer, written in self.written.items():
            a, b = one[buffer], other[buffer]
            kept = self.only_written[buffer] & (a == NANS) & (b == NUMBERS)
            if (written & (a != b) & ~kept).any():
                return True
        return False

    def culprit(self, plain: Contents) -> str:
        """The undeclared tensor that the result depends on; "" if there is none."""
        for name, place in self.owner.tensors():
            for filling in (NANS, NUMBERS):
                if self.differs(plain, self.after(filling, NANS, place)):
                    return f"'{name}'"
        return ""

    def named(self, buffer: str, byte: int) -> str:
        """What lies at a byte of a buffer."""
        names = [f"'{name}'" for name, r in self.owner.tensors()
                 if r.buffer == buffer and r.low <= byte < r.high]  # fmt: skip
        return " or ".join([*names, f"byte {byte} of buffer '{buffer}'"][: len(names) or 1])

    def error(self, does: str, what: str) -> AccessError:
        """The command, its file, and its undeclared access."""
        declare = "In or InOut" if does == "reads" else "Out or InOut"
        return AccessError(
            f"command '{self.launch.command}' of {files(self.work)} {does} "
            f"{what or 'bytes'}, which it does not declare to; state {declare} where its kernel is "
            "called",
            self.launch.title,
        )


def files(work: Work) -> str:
    """The files of a kernel: its source for GPUs, and the Python of its CPU half."""
    if not isinstance(work, Kernel | TritonKernel):
        return "graphexec"
    compute: Any = work.compute
    while isinstance(compute, partial):  # of the kit: the op's own function is an argument
        compute = compute.keywords.get("function", compute.func)
    try:
        python = inspect.getfile(compute if inspect.isroutine(compute) else type(compute))
    except (OSError, TypeError):
        python = ""
    source = str(work.source) if isinstance(work, Kernel) else ""
    return " and ".join(dict.fromkeys(file for file in (source, python) if file))
