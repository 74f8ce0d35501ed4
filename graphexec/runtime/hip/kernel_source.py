"""A kernel's source as one text without includes, and its preprocessor definitions.

`#include "name"` is replaced by the file. It is searched beside the including file, beside the
kernel, and in the kit of the ops, where `device.h` is. An include that is not found is left to
the compiler. Each file is included once.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from graphexec.base.reading import read_file
from graphexec.ir.program import Kernel

_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')
_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")
_SHARED = tuple(
    Path(folder) / "kit" for folder in importlib.import_module("graphexec.ops").__path__
)


def self_contained(kernel: Kernel) -> str:
    """The text to compile for `kernel`. Raises OSError if its source cannot be read."""
    # Not as options: those would also apply to the compiler's own headers.
    lines = [f"#define {name} {value}" for name, value in kernel.defines]
    home = kernel.source.parent
    if kernel.text:
        found = _inlined(kernel.text, kernel.source, home, set())
    else:
        found = _lines(kernel.source, home, set())
    return "\n".join([*lines, *found]) + "\n"


def _lines(path: Path, home: Path, seen: set[Path]) -> Iterator[str]:
    seen.add(path)
    yield from _inlined(read_file(path).decode(), path, home, seen)


def _inlined(text: str, path: Path, home: Path, seen: set[Path]) -> Iterator[str]:
    yield f'#line 1 "{path.name}"'
    for number, line in enumerate(text.splitlines(), start=1):
        if _ONCE.match(line):
            yield ""
            continue
        included = _INCLUDE.match(line)
        found = included and _find(included[1], path.parent, home)
        if not found:
            yield line
            continue
        if found not in seen:
            yield from _lines(found, home, seen)
        yield f'#line {number + 1} "{path.name}"'


def _find(name: str, *folders: Path) -> Path | None:
    places = [folder / name for folder in (*folders, *_SHARED)]
    return next((place.resolve() for place in places if place.is_file()), None)
