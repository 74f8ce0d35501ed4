"""Weight files (.npy, .npz, .safetensors) inside the graph's folder. They are never unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphexec.base.diagnostics import did_you_mean
from graphexec.base.reading import open_file
from graphexec.base.tensor import DType, TensorType

if TYPE_CHECKING:
    import numpy as np

    from graphexec.ir.typed import TypedWeight


class WeightError(Exception):
    """A weight cannot be read; `field` is the YAML key that is wrong."""

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
    """Read the header of a weight; WeightError when it is missing, outside `root`, or unusable.

    `root` defaults to `folder`; symbolic links are followed before the check. `dtype` is
    asserted; with bf16, 2-byte void and uint16 data (as NumPy saves bf16) is read as bf16.
    """
    try:
        path = (folder / file).resolve()
    except (OSError, ValueError, RuntimeError) as exc:
        raise WeightError(f"weights file {file!r} cannot be looked up: {exc}") from exc
    allowed = (root or folder).resolve()
    if not path.is_relative_to(allowed):
        raise WeightError(
            f"weights file '{file}' lies outside '{allowed}'",
            help="keep weights beside the YAML file, or allow another folder with --weights-root",
        )
    _check_readable(path, file, folder)
    shape, stored = _READERS[_suffix(path)].describe(path, key)
    return Found(path, _extents(shape), _meaning(stored, dtype))


def _check_readable(path: Path, file: str, folder: Path) -> None:
    """Raise WeightError unless `path` is a regular file that may be read."""
    try:
        open_file(path).close()
    except (FileNotFoundError, NotADirectoryError) as exc:
        text = f"there is no weights file '{file}' in '{folder.resolve()}'"
        raise WeightError(text) from exc
    except OSError as exc:
        raise WeightError(f"cannot read the weights file '{file}': {exc.strerror}") from exc


def read_weight(weight: TypedWeight) -> np.ndarray[Any, Any]:
    """The elements of a weight as a C-contiguous array of its dtype."""
    return _READERS[_suffix(weight.path)].fetch(weight.path, weight.key, weight.type)


def _suffix(path: Path) -> str:
    if path.suffix not in _READERS:
        raise WeightError(
            f"weights file '{path.name}' has an unknown ending",
            help=f"known are {', '.join(_READERS)}",
        )
    return path.suffix


class _NumPy:
    """.npy and .npz files."""

    def __init__(self, several: bool) -> None:
        self.several = several

    def describe(self, path: Path, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        from graphexec.base import npy

        with _as_weight_error(npy.NpyError):
            return npy.describe(path, self._member(path, key))

    def fetch(self, path: Path, key: str | None, type: TensorType) -> np.ndarray[Any, Any]:
        from graphexec.base import npy

        with _as_weight_error(npy.NpyError):
            return npy.fetch(path, self._member(path, key), type)

    def _member(self, path: Path, key: str | None) -> str | None:
        from graphexec.base import npy

        if self.several:
            return _chosen(path, npy.members(path), key)
        if key is not None:
            raise WeightError(f"'{path.name}' holds one array; leave out `key`", "key")
        return None


class _Safetensors:
    """.safetensors files, by the package of that name."""

    def describe(self, path: Path, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._opened(path, key) as tensor:
            return tuple(tensor.get_shape()), _safetensors_dtype(tensor.get_dtype())

    def fetch(self, path: Path, key: str | None, type: TensorType) -> np.ndarray[Any, Any]:
        import numpy as np

        with self._opened(path, key) as tensor:
            array = np.ascontiguousarray(tensor[...])
        if array.shape != type.shape or array.dtype != type.dtype.numpy():
            raise WeightError(f"weights file '{path}' changed while it was in use")
        return array

    @contextmanager
    def _opened(self, path: Path, key: str | None) -> Iterator[Any]:
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise WeightError(
                "reading .safetensors needs another package",
                help="pip install 'graphexec[safetensors]'",
            ) from None
        try:
            # safe_open opens the path itself, and would wait for a pipe that took its place.
            with open_file(path), safe_open(path, "numpy") as archive:
                yield archive.get_slice(_chosen(path, list(archive.keys()), key))
        except (SafetensorError, OSError) as exc:
            raise WeightError(f"cannot read '{path}': {exc}") from exc


@contextmanager
def _as_weight_error(*foreign: type[Exception]) -> Iterator[None]:
    try:
        yield
    except foreign as exc:
        raise WeightError(str(exc), help=getattr(exc, "help", "")) from exc


def _safetensors_dtype(name: str) -> np.dtype[Any]:
    import numpy as np

    known = {"F16": DType.F16, "BF16": DType.BF16, "F32": DType.F32, "F64": DType.F64}
    return known[name].numpy() if name in known else np.dtype(np.void)


_READERS: dict[str, _NumPy | _Safetensors] = {
    ".npy": _NumPy(several=False),
    ".npz": _NumPy(several=True),
    ".safetensors": _Safetensors(),
}


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
    """The dtype of stored elements; WeightError when it is unsupported, or not `asserted`."""
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
