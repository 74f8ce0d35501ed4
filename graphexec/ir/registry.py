"""The known ops: built-in ones, those of installed packages, and those in folders of the user.

An op is a package with an attribute OP, an instance of graphexec.ir.op.Op.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.ir.names import NAME, RESERVED
from graphexec.ir.op import Attribute, Op
from graphexec.ir.op_fault import frames, told
from graphexec.ir.operand import Operand

_GUIDE = "docs/adding-an-op.md shows one"

OWN_OPS = "ops of your own are known by --ops DIR, in Python by ops=load_ops(DIR)"
"""The help for an op that nobody knows."""


@cache
def known_ops() -> dict[str, Op]:
    """Built-in ops and those installed under the entry point group `graphexec.ops`, by name."""
    installed = [_op_of(_installed(entry)) for entry in entry_points(group="graphexec.ops")]
    return _by_name([*_built_in(), *installed])


def _installed(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (Exception, SystemExit) as exc:
        raise _failed(f"importing the installed op '{entry.value}'", exc) from exc


def _built_in() -> list[Op]:
    """The ops in folders of graphexec.ops that bind OP. Other folders, such as the kit, are used by
    ops."""
    folders = importlib.import_module("graphexec.ops").__path__
    names = sorted(module.name for module in iter_modules(folders) if module.ispkg)
    modules = [importlib.import_module(f"graphexec.ops.{name}") for name in names]
    return [_op_of(module) for module in modules if hasattr(module, "OP")]


def load_ops(folders: str | Path | Iterable[str | Path]) -> dict[str, Op]:
    """All known ops and those in `folders`: each is an op's folder, or a folder of them.

    The result is what `load` and `Graph` take as `ops`. Runs the Python code found there. Raises
    GraphError when a folder holds no op or its code fails, or when two ops share a name.
    """
    found: list[Op] = []
    for place in [folders] if isinstance(folders, str | Path) else folders:
        folder = Path(place)
        inits = _inits(folder)
        if not inits:
            raise _mistake(
                f"no op in folder '{folder}'",
                help="an op is a folder with an __init__.py that binds OP (docs/adding-an-op.md)",
            )
        found += [_op_of(_import_file(init)) for init in inits]
    return _by_name([*known_ops().values(), *found])


def _inits(folder: Path) -> list[Path]:
    """The module of an op's folder, or of each in a folder of them."""
    own = folder / "__init__.py"
    try:
        return [own] if os.path.isfile(own) else sorted(folder.glob("*/__init__.py"))
    except OSError as exc:
        raise _mistake(f"cannot read the folder '{folder}': {exc.strerror}") from exc


def _import_file(init: Path) -> ModuleType:
    # Folders of one name are different packages, each with helper modules of its own.
    digest = hashlib.sha256(str(init.resolve()).encode()).hexdigest()[:16]
    name = f"graphexec_user_op_{digest}"
    spec = importlib.util.spec_from_file_location(name, init)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:  # whatever the user's code raises is reported as theirs
        raise _failed(f"importing op '{init}'", exc) from exc
    return module


def _op_of(module: ModuleType | Op) -> Op:
    where = getattr(module, "__file__", repr(module))
    op = module if isinstance(module, Op) else getattr(module, "OP", None)
    if not isinstance(op, Op):
        raise _mistake(
            f"'{where}' binds no OP",
            help="OP = YourOp(), an instance of a graphexec.ir.op.Op subclass",
        )
    missing = [f"`{f}`" for f in ("name", "doc", "operands") if not hasattr(op, f)]
    if missing:
        raise _mistake(f"the op in '{where}' has no {', '.join(missing)}", help=_GUIDE)
    for name, kind in (("name", str), ("doc", str), ("operands", Operand),
                       ("attributes", Attribute)):  # fmt: skip
        if not _consists_of(getattr(op, name), kind):
            wanted = "a string" if kind is str else f"a tuple of {kind.__name__}"
            raise _mistake(f"the op in '{where}': `{name}` is not {wanted}", help=_GUIDE)
    if not NAME.match(op.name):
        raise _mistake(f"the op in '{where}': '{op.name}' is not a name", help=_GUIDE)
    if op.name in RESERVED:
        raise _mistake(
            f"the op in '{where}' cannot be called '{op.name}': graphs have a method of that name"
        )
    return op


def _consists_of(value: object, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str)
    return isinstance(value, tuple) and all(isinstance(item, kind) for item in value)


def _by_name(ops: Iterable[Op]) -> dict[str, Op]:
    named: dict[str, Op] = {}
    for op in ops:
        if op.name in named:
            raise _mistake(f"two ops are called '{op.name}'")
        named[op.name] = op
    return named


def _failed(what: str, exc: BaseException) -> GraphError:
    return _mistake(f"{what} failed: {told(exc)}", notes=frames(exc.__traceback__))


def _mistake(message: str, **more: Any) -> GraphError:
    return GraphError([Diagnostic(message, **more)])
