"""Weight files: .npy, .npz and .safetensors, found inside the graph's folder, never unpickled."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from graphexec.diagnostics import did_you_mean
from graphexec.tensor import DType

if TYPE_CHECKING:
    import numpy as np

    from graphexec.typed import TypedWeight


class WeightError(Exception):
    """A weight cannot be had; `field` is the YAML key to blame."""

    def __init__(self, message: str, field: str = "file", help: str = "") -> None:
        super().__init__(message)
        self.field, self.help = field, help


@dataclass(frozen=True)
class Found:
    """What a weight file's header says."""

    path: Path
    shape: tuple[int, ...]
    dtype: DType


def find_weight(
    folder: Path, root: Path | None, file: str, key: str | None, dtype: DType | None
) -> Found:
    """Read the header of a weight; WeightError when it is missing, outside `root`, or unfit.

    `root` defaults to `folder`; symbolic links are followed before the check. `dtype` is
    asserted, and gives 2-byte void and uint16 data (bf16 as NumPy saves it) its meaning.
    """
    path = (folder / file).resolve()
    allowed = (root or folder).resolve()
    if not path.is_relative_to(allowed):
        raise WeightError(
            f"weights file '{file}' lies outside '{allowed}'",
            help="keep weights beside the YAML file, or allow another folder with --weights-root",
        )
    if not path.is_file():
        raise WeightError(f"there is no weights file '{file}' in '{folder.resolve()}'")
    try:
        shape, stored = _READERS[_suffix(path)](path, key, False)
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise WeightError(f"cannot read weights file '{file}': {exc}") from exc
    return Found(path, _extents(shape), _meaning(stored, dtype))


def read_weight(weight: TypedWeight) -> np.ndarray[Any, Any]:
    """The elements of a weight as a C-contiguous array of its dtype."""
    import numpy as np

    try:
        array = _READERS[_suffix(weight.path)](weight.path, weight.key, True)
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise WeightError(f"cannot read weights file '{weight.path}': {exc}") from exc
    wanted = weight.type.dtype.numpy()
    array = np.ascontiguousarray(array)
    array = array if array.dtype == wanted else array.view(wanted)
    if array.shape != weight.type.shape:
        raise WeightError(f"weights file '{weight.path}' changed while it was in use")
    return array


def _suffix(path: Path) -> str:
    if path.suffix not in _READERS:
        raise WeightError(
            f"weights file '{path.name}' has an unknown ending",
            help=f"known are {', '.join(_READERS)}",
        )
    return path.suffix


def _read_npy(path: Path, key: str | None, body: bool) -> Any:
    if key is not None:
        raise WeightError(f"'{path.name}' holds one array; leave out `key`", "key")
    with path.open("rb") as stream:
        header = _npy_header(stream, path.stat().st_size)
    return _load_npy(path) if body else header


def _load_npy(stream: Any) -> Any:
    import numpy as np

    return np.load(stream, allow_pickle=False)


def _npy_header(stream: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype; ValueError for pickled data and for fewer bytes than promised."""
    from math import prod

    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are never loaded")
    needed = stream.tell() + prod(shape) * dtype.itemsize
    if size < needed:
        raise ValueError(f"it is truncated: {size} bytes of {needed}")
    return shape, dtype


def _read_npz(path: Path, key: str | None, body: bool) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist()]
        member = f"{_chosen(path, names, key)}.npy"
        with archive.open(member) as stream:
            if body:
                return _load_npy(stream)
            return _npy_header(stream, archive.getinfo(member).file_size)  # type: ignore[arg-type]


def _read_safetensors(path: Path, key: str | None, body: bool) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise WeightError(
            "reading .safetensors needs another package",
            help="pip install 'graphexec[safetensors]'",
        ) from None
    try:
        with safe_open(path, framework="numpy") as archive:
            tensor = archive.get_slice(_chosen(path, list(archive.keys()), key))
            if body:
                return tensor[...]
            return tuple(tensor.get_shape()), _safetensors_dtype(tensor.get_dtype())
    except SafetensorError as exc:
        raise ValueError(str(exc)) from exc


def _safetensors_dtype(name: str) -> np.dtype[Any]:
    import numpy as np

    known = {"F16": DType.F16, "BF16": DType.BF16, "F32": DType.F32, "F64": DType.F64}
    return known[name].numpy() if name in known else np.dtype(np.void)


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}


def _chosen(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    listed = ", ".join(f"'{n}'" for n in names[:8]) + (", …" if len(names) > 8 else "")
    if key is None:
        raise WeightError(f"'{path.name}' holds several arrays: {listed}", help="choose by `key`")
    if key not in names:
        raise WeightError(
            f"there is no array '{key}' in '{path.name}'; it holds {listed}", "key",
            help=did_you_mean(key, names),
        )  # fmt: skip
    return key


def _extents(shape: tuple[int, ...]) -> tuple[int, ...]:
    if any(extent < 1 for extent in shape):
        raise WeightError(f"the stored array is empty: shape {list(shape)}")
    return tuple(int(e) for e in shape)


def _meaning(stored: np.dtype[Any], asserted: DType | None) -> DType:
    """The dtype of stored elements; WeightError when it is none of ours, or not `asserted`."""
    if stored.byteorder == ">":
        raise WeightError(f"the stored array is big-endian ({stored.str})",
                          help="save it with array.astype(array.dtype.newbyteorder('<'))")  # fmt: skip
    raw_bf16 = stored.str in ("|V2", "<u2")
    for dtype in DType:
        if stored == dtype.numpy() or (raw_bf16 and dtype is asserted is DType.BF16):
            if asserted not in (None, dtype):
                raise WeightError(f"the stored array is {dtype}, stated is {asserted}", "dtype",
                                  help="a copy node with dtype casts")  # fmt: skip
            return dtype
    raise WeightError(
        f"the stored array has elements of type {stored}",
        help="`dtype: bf16` reads 2-byte data as bf16" if raw_bf16 else "f16, bf16, f32 or f64",
    )


__all__ = ["Found", "WeightError", "find_weight", "read_weight"]
