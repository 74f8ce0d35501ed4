"""Arrays given to a run and saved after it: `-i` and `-o` of the command line.

An input is `NAME=file.npy`, `all.npz` with one array for each name, or made: `NAME=randn:SEED`,
`NAME=randint:LOW:HIGH:SEED` (integers from LOW on and below HIGH, for every dtype), `NAME=zeros`,
`NAME=ones`, `NAME=full:VALUE`, or `NAME=arange` (0, 1, 2 … in row-major order, cast to the dtype).
Nothing is unpickled. The header (dtype, byte order, shape, number of bytes)
is checked before the body is read. An input of dtype bf16 is read from ml_dtypes.bfloat16, from
2-byte void (as NumPy saves it), from uint16 bits, and from float32 values that bf16 holds exactly.
Outputs of dtype bf16 are saved as float32, which holds them exactly and which every tool reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np

from graphexec.base.atomic_file import Writer, check_file, write_files
from graphexec.base.diagnostics import Diagnostic, did_you_mean
from graphexec.base.errors import DataError
from graphexec.base.npy import NpyError, NpyFile, NpzFile
from graphexec.base.tensor import Array, DType, TensorType
from graphexec.formats.made_inputs import drawn, made


@dataclass(frozen=True)
class _Given:
    """One array for one input: its origin in words, and a function that reads it."""

    name: str
    origin: str
    get: Callable[[TensorType], Array]


def read_inputs(
    specs: Sequence[str], inputs: Mapping[str, TensorType], seed: int = 0
) -> tuple[dict[str, Array], list[str]]:
    """The array of every input, in their order, and the names of inputs without a spec.

    Inputs without a spec are drawn, and depend on `seed` and the name: floats from a normal
    distribution, integers and bools 0 or 1, which are indices of most tensors and masks.
    Arrays are C-contiguous and of exactly the input's shape and dtype. Raises DataError with
    every mistake found.
    """
    with ExitStack() as opened:
        return _read_inputs(specs, inputs, seed, opened)


def _read_inputs(
    specs: Sequence[str], inputs: Mapping[str, TensorType], seed: int, opened: ExitStack
) -> tuple[dict[str, Array], list[str]]:
    mistakes: list[Diagnostic] = []
    given: dict[str, _Given] = {}
    for spec in specs:
        try:
            for item in _understand(spec, inputs, opened):
                if item.name not in inputs:
                    mistakes.append(_unknown(item, inputs))
                elif item.name in given:
                    first = given[item.name].origin
                    text = f"input '{item.name}' is given twice: by {first} and by {item.origin}"
                    mistakes.append(Diagnostic(text))
                else:
                    given[item.name] = item
        except NpyError as exc:
            mistakes.append(exc.diagnostic())
    absent = [name for name in inputs if name not in given]
    arrays = {}
    for name, type in inputs.items():
        get = given[name].get if name in given else partial(drawn, name, seed)
        try:
            # After a mistake, only look for more mistakes.
            if not mistakes or name in given:
                arrays[name] = get(type)
        except NpyError as exc:
            mistakes.append(exc.diagnostic(f"input '{name}': "))
        except MemoryError:
            mistakes.append(Diagnostic(f"input '{name}' ({type}) does not fit into memory"))
    if mistakes:
        raise DataError(mistakes)
    return arrays, absent


def _understand(spec: str, inputs: Mapping[str, TensorType], opened: ExitStack) -> Iterator[_Given]:
    """The arrays a spec gives; NpyError when it gives none."""
    name, equals, value = spec.partition("=")
    if not equals or (name not in inputs and os.path.isfile(spec)):
        yield from _archive(spec, opened)
    elif (get := made(spec, name, value)) is not None:
        yield _Given(name, f"'{spec}'", get)
    elif value.lower().endswith(".npz"):
        raise NpyError(f"'{spec}': an .npz file gives arrays by their own names",
                       help=f"leave out the name: -i {value}")  # fmt: skip
    elif not value:
        raise NpyError(f"'{spec}' names no file", help=f"-i {name}=x.npy or -i {name}=randn:0")
    else:
        yield _Given(name, f"'{spec}'", partial(NpyFile(Path(value)).fetch, None))


def _archive(spec: str, opened: ExitStack) -> Iterator[_Given]:
    path = Path(spec)
    if path.suffix.lower() == ".npy":
        raise NpyError(f"'{spec}' does not say which input it is",
                       help=f"-i NAME={spec}")  # fmt: skip
    if path.suffix.lower() != ".npz":
        raise NpyError(f"'{spec}' is not an input",
                       help="-i NAME=x.npy, -i all.npz, -i NAME=randn:SEED, "
                            "randint:LOW:HIGH:SEED, zeros, ones, full:V or arange")  # fmt: skip
    archive = opened.enter_context(closing(NpzFile(path)))
    if not archive.keys:
        raise NpyError(f"'{spec}' holds no array", help="leave it out to draw the inputs")
    for key in archive.keys:
        yield _Given(key, f"'{spec}'", partial(archive.fetch, key))


def _unknown(item: _Given, inputs: Mapping[str, TensorType]) -> Diagnostic:
    known = ", ".join(f"'{n}'" for n in inputs) or "none"
    return Diagnostic(
        f"{item.origin} gives '{item.name}', which is not an input of the graph",
        notes=(f"its inputs are {known}",),
        help=did_you_mean(item.name, inputs),
    )


# Saving ---------------------------------------------------------------------------------


def check_writable(path: Path) -> None:
    """Raise DataError unless outputs could be saved at `path` now; writes nothing.

    `path` is an .npz file, or a folder for one .npy an output. A folder whose name has no ending is
    made if its parent is there.
    """
    if path.suffix.lower() == ".npz":
        check_file(path)
    elif path.suffix.lower() == ".npy" and not os.path.isdir(path):
        raise DataError([Diagnostic(f"outputs cannot be saved in one .npy file: '{path}'",
                                    help="name an .npz file or a folder")])  # fmt: skip
    elif os.path.exists(path) and not os.path.isdir(path):
        raise DataError([Diagnostic(f"cannot write into '{path}': it is not a folder",
                                    help="name an .npz file or a folder")])  # fmt: skip
    elif path.suffix and not os.path.isdir(path):
        raise DataError([Diagnostic(f"outputs cannot be saved as {path.suffix}: '{path}'",
                                    help="name an .npz file or a folder; make a folder of this "
                                    "name first if it is one")])  # fmt: skip
    else:
        check_file(path / "output.npy" if os.path.isdir(path) else path)


def write_outputs(
    path: Path, outputs: Mapping[str, Array], others: Mapping[Path, Writer] | None = None
) -> None:
    """Save arrays by name in an .npz file, or one .npy each in a folder, and the `others`: all
    files or none.

    bf16 is saved as float32. Raises DataError when it cannot be done.
    """
    arrays = {name: storable(array) for name, array in outputs.items()}
    files = dict(others or {})
    if path.suffix.lower() == ".npz":
        write_files({**files, path: partial(_write_npz, arrays)})
        return
    for name, array in arrays.items():
        files[path / f"{name}.npy"] = partial(_write_npy, array)
    write_files(files, folder=path)


def write_archive(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays of NumPy's own dtypes by name to an .npz file. Raises DataError."""
    write_files({path: partial(_write_npz, arrays)})


def npz_bytes(outputs: Mapping[str, Array]) -> bytes:
    """The .npz file of arrays by name, for standard output; bf16 as float32."""
    stream = BytesIO()
    _write_npz({name: storable(array) for name, array in outputs.items()}, stream)
    return stream.getvalue()


def storable(array: Array) -> Array:
    """The array in a dtype of NumPy's own with the same values."""
    return array.astype(np.float32) if array.dtype == DType.BF16.numpy() else array


def _write_npy(array: Array, stream: BinaryIO) -> None:
    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def _write_npz(arrays: Mapping[str, Array], stream: BinaryIO) -> None:
    # Not np.savez: an output may be called "file" or "allow_pickle".
    with ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_npy(array, member)  # type: ignore[arg-type]
