"""Faults of ops that are not graphexec's own: what they raise, and results of a wrong type.

Whatever calls a method of such an op gets a GraphError that names the op, its file, the method and
the lines of the user's code. The built-in ops are left alone: their faults are graphexec's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from traceback import extract_tb
from types import TracebackType
from typing import Any, ClassVar, Protocol, get_args

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError, GraphexecError
from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.op_error import OpError
from graphexec.ir.program import Command, Cost, NoKernel, Work

BUILT_IN = "graphexec."
_PACKAGE = str(Path(__file__).parents[1])
_GUIDE = "docs/adding-an-op.md shows the methods of an op"
_MOST_FRAMES = 8


class Faulty(Protocol):
    """What is told of an op: its name, and the file that defines it."""

    name: ClassVar[str]

    @property
    def source(self) -> str:
        """The file."""


def guard(cls: type) -> None:
    """Make every method that the class defines report its faults as the op's."""
    for name, (wanted, right) in _RESULTS.items():
        inherited = name not in vars(cls)
        if inherited and name != "infer":  # the default of `infer` reads what the op declares
            continue
        setattr(cls, name, _guarded(name, getattr(cls, name), wanted, right))


def no_method(op: Faulty, name: str, purpose: str) -> GraphError:
    """The error for a method that the op does not have."""
    return _fault(op, f"has no method {name}, which {purpose}")


def told(exc: BaseException) -> str:
    """An exception in one line; its own text may fail."""
    try:
        text = str(exc)
    except BaseException as another:  # `__str__` is the user's, too
        text = f"(its text is not known: __str__ raised {type(another).__name__})"
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def frames(trace: TracebackType | None) -> tuple[str, ...]:
    """The lines outside of graphexec that led to an exception, the nearest last."""
    found = [f for f in extract_tb(trace) if not f.filename.startswith((_PACKAGE, "<frozen"))]
    return tuple(
        f"{f.filename}:{f.lineno}, in {f.name}{f': {f.line}' if f.line else ''}"
        for f in found[-_MOST_FRAMES:]
    )


def remade(make: Callable[..., Any], views: Sequence[View]) -> Any:
    """`make(*views)`, which a user may have written for other views than those of a batch."""
    if make.__module__.startswith(BUILT_IN):
        return make(*views)
    try:
        return make(*views)
    except (NoKernel, GraphexecError, MemoryError):
        raise
    except (Exception, SystemExit) as exc:
        name = getattr(make, "__qualname__", type(make).__qualname__)
        shapes = ", ".join(f"{view.dtype}{list(view.shape)}" for view in views)
        message = f"{name}(), which makes a kernel, raised {told(exc)} for {shapes}"
        help = "views have a further leading axis in a batch; `--no-rewrite batch` makes none"
        notes = frames(exc.__traceback__)
        raise GraphError([Diagnostic(message, notes=notes, help=help)]) from exc


def _guarded(
    name: str, method: Callable[..., Any], wanted: str, right: Callable[..., bool]
) -> Callable[..., Any]:
    @wraps(method)
    def called(self: Faulty, *args: Any, **more: Any) -> Any:
        try:
            found = method(self, *args, **more)
        except (OpError, GraphexecError, MemoryError):
            raise
        except (Exception, SystemExit) as exc:
            what = f"{name}() raised {told(exc)}{_node(args)}"
            raise _fault(self, what, frames(exc.__traceback__)) from exc
        if not right(found, *args):
            what = f"{name}() returned {_described(found)}{_node(args)}; {wanted} is expected"
            raise _fault(self, what)
        return found

    return called


def _fault(op: Faulty, what: str, notes: tuple[str, ...] = ()) -> GraphError:
    notes = (f"the op is {op.source}", *notes)
    return GraphError([Diagnostic(f"op '{op.name}': {what}", notes=notes, help=_GUIDE)])


def _node(args: tuple[Any, ...]) -> str:
    """Which node it is about, where that is known: `lower` gets a call."""
    node = getattr(args[0], "node", None) if args else None
    return f" for node '{node}'" if isinstance(node, str) else ""


def _described(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        kinds = dict.fromkeys(type(v).__name__ for v in value)
        return f"a {type(value).__name__} of {' and '.join(kinds) or 'nothing'}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__name__} {value.dtype}{list(value.shape)}"
    return f"a {type(value).__name__}"


# What each method returns; the value first, then the arguments of the call.


def _is_type(found: object, *args: object) -> bool:
    if not isinstance(found, TensorType) or not isinstance(found.shape, tuple):
        return False
    extents = all(isinstance(e, int) and e >= 1 for e in found.shape)
    return extents and isinstance(found.dtype, DType) and found.space in ("device", "host")


def _is_count(found: object, *args: object) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= 0


def _is_cost(found: object, *args: object) -> bool:
    return isinstance(found, Cost) and _is_count(found.flops) and _is_count(found.bytes)


def _is_array(found: Any, arrays: object, attrs: object, type: TensorType) -> bool:
    return hasattr(found, "dtype") and getattr(found, "shape", None) == type.shape


def _is_error(found: Any, operands: object, attrs: object, type: TensorType, exact: object) -> bool:
    return found is None or _is_array(found, operands, attrs, type)


def _is_view(found: object, *args: object) -> bool:
    return found is None or isinstance(found, View)


def _is_operand(found: object, types: Mapping[str, TensorType], *args: object) -> bool:
    return found is None or (isinstance(found, str) and found in types)


def _are_commands(found: object, *args: object) -> bool:
    return isinstance(found, list | tuple) and all(map(_is_command, found))


def _is_command(found: object) -> bool:
    if not isinstance(found, Command):
        return False
    views = (*found.reads, *found.writes)
    work = isinstance(found.work, get_args(Work))
    return work and _is_cost(found.cost) and all(isinstance(view, View) for view in views)


_RESULTS: Mapping[str, tuple[str, Callable[..., bool]]] = {
    "infer": ("a TensorType of positive extents and a DType", _is_type),
    "flops": ("a number of operations", _is_count),
    "cost": ("a Cost of whole numbers", _is_cost),
    "ignores": ("a collection of operands", lambda found, *_: hasattr(found, "__contains__")),
    "indexes": ("a mapping from operands to extents", lambda found, *_: isinstance(found, Mapping)),
    "reference": ("an array of the result's shape", _is_array),
    "error": ("an array of the result's shape or None", _is_error),
    "view": ("a View or None", _is_view),
    "window": ("a View or None", _is_view),
    "parts": ("a mapping from operands to Views", lambda found, *_: isinstance(found, Mapping)),
    "accepts": ("True or False", lambda found, *_: isinstance(found, bool)),
    "with_dtype": ("attributes or None", lambda a, *_: a is None or isinstance(a, Mapping)),
    "overwrites": ("the name of an operand or None", _is_operand),
    "lower": ("a list of commands", _are_commands),
}
