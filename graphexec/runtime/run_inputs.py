"""Inputs and outputs of a run: checks and conversions of the inputs, and the outputs as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphexec.base.diagnostics import Diagnostic, did_you_mean
from graphexec.base.errors import DataError
from graphexec.base.tensor import Array, DType, TensorType, View
from graphexec.runtime.device_array import (
    DeviceArray,
    NotTaken,
    host_array,
    is_device_array,
    shape_of,
)
from graphexec.runtime.pinned import is_pinned

if TYPE_CHECKING:
    from graphexec.runtime.device import Session

Types = Mapping[str, TensorType]
Shape = tuple[int, ...]


class Ports:
    """Inputs or outputs of a plan by name, as arrays on the host. Computed once: a run of a small
    graph takes little longer than reading the type of each array."""

    def __init__(self, types: Types, views: Mapping[str, View]) -> None:
        self._expected = [(n, t.shape, t.dtype.numpy()) for n, t in types.items()]
        self._places = [
            (n, v.storage, *v.byte_range(), v.dtype.numpy(), v.shape) for n, v in views.items()
        ]
        self.storages = tuple(dict.fromkeys(v.storage for v in views.values()))

    def are(self, inputs: Mapping[str, Array]) -> bool:
        """Whether `inputs` are these, all ordinary arrays that need no error and no conversion."""
        if len(inputs) != len(self._expected):
            return False
        for name, shape, dtype in self._expected:
            array = inputs.get(name)
            if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype:
                return False
            if is_pinned(array):
                return False
        return True

    def put(self, session: Session, arrays: Mapping[str, Array | DeviceArray], lent: bool) -> None:
        """Fill the buffers of the inputs before the next `issue`. Arrays in device memory may lie
        in these buffers, so they are read first."""
        there = {storage: array for name, storage, *_ in self._places
                 if isinstance(array := arrays[name], DeviceArray)}  # fmt: skip
        if there:
            session.take(there)
        puts = [(storage, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
                for name, storage, *_ in self._places
                if not isinstance(array := arrays[name], DeviceArray)]  # fmt: skip
        # One that lies in another's buffer is copied before that is filled.
        apart = [(storage, session.apart(storage, array)) for storage, array in puts]
        for storage, array in apart:
            session.put(storage, array, lent)

    def get(self, session: Session) -> dict[str, Array]:
        """The outputs of the last run of `session`, as arrays that the caller owns."""
        bytes_of = {storage: session.get(storage) for storage in self.storages}
        found: dict[str, Array] = {}
        seen = set()
        for name, storage, low, high, dtype, shape in self._places:
            tensor = bytes_of[storage][low:high].view(dtype).reshape(shape)
            found[name] = tensor.copy() if storage in seen else tensor
            seen.add(storage)
        return found


def checked(inputs: Mapping[str, Array], types: Types) -> dict[str, Array]:
    """The arrays of `inputs`, each of the right dtype; DataError with every mistake.

    Arrays in device memory are passed on unchanged.
    """
    mistakes = [
        Diagnostic(f"there is no input '{name}'", help=did_you_mean(str(name), types))
        for name in inputs
        if name not in types
    ]
    arrays = {}
    for name, type in types.items():
        if name not in inputs:
            mistakes.append(Diagnostic(f"input '{name}' ({type}) is missing"))
            continue
        given = inputs[name]
        if is_device_array(given):
            arrays[name] = given
            continue
        try:
            arrays[name] = array = host_array(given)
        except NotTaken as exc:
            mistakes.append(Diagnostic(f"input '{name}' ({type}) cannot be taken: {exc}"))
            continue
        if array.dtype != type.dtype.numpy():
            help = _conversion(name, array.dtype, type.dtype)
            mistakes.append(_wrong_type(name, type, array.dtype, array.shape, help))
    if mistakes:
        raise DataError(mistakes)
    return arrays


def _conversion(name: str, found: np.dtype[Any], wanted: DType) -> str:
    """What turns an array into one of the dtype that is wanted."""
    target = "ml_dtypes.bfloat16" if wanted is DType.BF16 else f"'{wanted.numpy().name}'"
    bits = found.itemsize == wanted.itemsize and found.kind in "uV"
    if bits and wanted.is_float:  # how bits are kept
        return f"if it holds the bits of {wanted}: {name}.view({target})"
    return f"convert it: {name}.astype({target})"


def no_port(name: str, ports: Iterable[str]) -> DataError:
    """The error for a name that is neither an input nor an output."""
    known = list(ports)
    help = did_you_mean(str(name), known) or f"there are {', '.join(known)}"
    return DataError([Diagnostic(f"there is no input or output '{name}'", help=help)])


def at_least_one(what: str, number: int) -> None:
    """Raise DataError unless an argument is an integer of at least 1."""
    if not isinstance(number, (int, np.integer)) or number < 1:
        kind = "" if isinstance(number, (int, np.integer)) else "an integer of "
        raise DataError([Diagnostic(f"{what} must be {kind}at least 1, not {number!r}")])


def shapes_of(arrays: Mapping[str, Array]) -> dict[str, Shape]:
    """The shapes of the arrays, without those of unknown shape."""
    shapes = {n: shape_of(a) if is_device_array(a) else a.shape for n, a in arrays.items()}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def accepted(
    session: Session, arrays: Mapping[str, Array], types: Types
) -> dict[str, Array | DeviceArray]:
    """The same arrays, with those in device memory accepted by `session`.

    DataError with all that it does not accept, or that are of another type.
    """
    found: dict[str, Array | DeviceArray] = {}
    mistakes = []
    for name, array in arrays.items():
        found[name] = array
        if not is_device_array(array):
            continue
        try:
            found[name] = taken = session.accept(array)
        except NotTaken as exc:
            mistakes.append(Diagnostic(f"input '{name}' cannot be taken: {exc}"))
            continue
        type, wanted = taken.type, types[name]
        if (type.shape, type.dtype) != (wanted.shape, wanted.dtype):
            mistakes.append(_wrong_type(name, wanted, type.dtype, type.shape))
    if mistakes:
        raise DataError(mistakes)
    return found


def _wrong_type(
    name: str, type: TensorType, dtype: object, shape: Shape, help: str = ""
) -> Diagnostic:
    found = f"{dtype}[{', '.join(map(str, shape))}]"
    return Diagnostic(f"input '{name}' must be {type}, found {found}", help=help)
