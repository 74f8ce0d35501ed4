"""Weight files (.npy, .npz, .safetensors, also sharded, .gguf, .onnx). They are never unpickled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graphexec.base.reading import open_file
from graphexec.base.tensor import Array, DType, TensorType
from graphexec.frontend.shards import ENDING, Index, is_index, read_index
from graphexec.frontend.weight_paths import FileError, WeightError, located
from graphexec.frontend.yaml.problems import suggestion
from graphexec.ir.typed import TypedWeight

if TYPE_CHECKING:
    import numpy as np


_MOST_OPEN = 64  # files at a time
_PIECE = 1 << 22  # elements at a time, where an array is not wanted whole
_MOST_SUGGESTED = 100


@dataclass(frozen=True)
class Found:
    """What a weight file's header says; `path` and `key` are of the array, also in a shard."""

    path: Path
    key: str | None
    shape: tuple[int, ...]
    dtype: DType

    def weight(self, dtype: str | None) -> TypedWeight:
        """The weight; floats are converted to `dtype`, if it is given, when it is read."""
        if dtype is None or not self.dtype.is_float or self.dtype == dtype:
            return TypedWeight(TensorType(self.shape, self.dtype), self.path, self.key)
        type = TensorType(self.shape, DType(dtype))
        return TypedWeight(type, self.path, self.key, stored=self.dtype)


class WeightFiles:
    """Weight files while they are read: each stays open for the next of its arrays.

    A context manager; leaving it closes the files.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, _File] = OrderedDict()  # the one used last stands last
        self._paths: dict[tuple[Path, Path, str], Path] = {}
        self._indexes: dict[Path, Index | FileError] = {}
        self._suggested = 0

    def __enter__(self) -> WeightFiles:
        return self

    def __exit__(self, *error: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def find(
        self, folder: Path, root: Path | None, file: str, key: str | None, dtype: DType | None
    ) -> Found:
        """Read the header of a weight; WeightError when it is missing, outside `root`, or unusable.

        `root` defaults to `folder`; symbolic links are followed before the check. `dtype` is
        asserted; with bf16, 2-byte void and uint16 data (as NumPy saves bf16) is read as bf16.
        """
        root = root or folder
        path = self._located(folder, root, file)
        if is_index(path):
            index = self._index(path)
            key = _chosen(path, index, key, self._suggest)
            assert key is not None  # an index has keys
            path = self._located((folder / file).parent, root, index.shard(key))
            index.check(key, path, self._opened(path).keys)
        opened = self._opened(path)
        key = _chosen(path, opened, key, self._suggest)
        with _as_error(WeightError):
            shape, stored = opened.describe(key)
        return Found(path, key, _extents(shape), _meaning(stored, dtype))

    def names(self, folder: Path, file: str) -> Collection[str]:
        """What the arrays of a file, or of an index's shards, are called. Raises WeightError."""
        path = self._located(folder, folder, file)
        return self._index(path).keys if is_index(path) else self._opened(path).keys

    def read(self, weight: TypedWeight) -> Array:
        """The elements of a weight as a C-contiguous array of its dtype."""
        import numpy as np

        from graphexec.base.casts import cast

        opened = self._opened(weight.path)
        stored = replace(weight.whole.type, dtype=weight.stored or weight.type.dtype)
        with _as_error(WeightError):
            array = opened.fetch(_chosen(weight.path, opened, weight.key, self._suggest), stored)
        if weight.part is not None:
            ends = zip(weight.part.begin, weight.type.shape, strict=True)
            array = array[tuple(slice(low, low + extent) for low, extent in ends)]
        return np.asarray(cast(array, weight.type.dtype.numpy()), order="C")  # [] stays []

    def pieces(self, weight: TypedWeight) -> Iterator[Array]:
        """What `read` gives, in order and one after another, of files that can be read so."""
        from graphexec.base.casts import cast

        opened = self._opened(weight.path)
        if weight.part is not None or not isinstance(opened, _InPieces):
            yield self.read(weight)
            return
        stored = replace(weight.type, dtype=weight.stored or weight.type.dtype)
        with _as_error(WeightError):
            key = _chosen(weight.path, opened, weight.key, self._suggest)
            for piece in opened.pieces(key, stored):
                yield cast(piece, weight.type.dtype.numpy())

    def _suggest(self, key: str, names: Collection[str]) -> str:
        """What may be meant by a missing key: where thousands are missing, of the first ones."""
        self._suggested += 1
        return suggestion(key, names) if self._suggested <= _MOST_SUGGESTED else ""

    def _located(self, folder: Path, root: Path, file: str) -> Path:
        place = folder, root, file
        if place not in self._paths:
            self._paths[place] = located(folder, root, file)
        return self._paths[place]

    def _index(self, path: Path) -> Index:
        if path not in self._indexes:
            try:
                self._indexes[path] = read_index(path)
            except FileError as exc:
                self._indexes[path] = exc  # it is large, and every weight asks for it
        found = self._indexes[path]
        if isinstance(found, FileError):
            raise found
        return found

    def _opened(self, path: Path) -> _File:
        found = self._open.pop(path, None)
        if found is None:
            with _as_error(FileError):
                found = _open(path)
        self._open[path] = found
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        return found


class _File(Protocol):
    """An open weights file. `keys` names its arrays; an .npy file has none."""

    @property
    def keys(self) -> Collection[str]: ...

    def describe(self, key: str | None, /) -> tuple[tuple[int, ...], np.dtype[Any]]: ...

    def fetch(self, key: str | None, type: TensorType, /) -> Array: ...

    def close(self) -> None: ...


@runtime_checkable
class _InPieces(_File, Protocol):
    """One whose arrays need not be in memory whole."""

    def pieces(self, key: str | None, type: TensorType, /) -> Iterator[Array]: ...


def _open(path: Path) -> _File:
    from graphexec.base.npy import NpyFile, NpzFile

    kinds: dict[str, Callable[[Path], _File]] = {
        ".npy": NpyFile, ".npz": NpzFile, ".safetensors": _Safetensors, ".onnx": _onnx,
        ".gguf": _gguf,
    }  # fmt: skip
    if path.suffix not in kinds:
        raise WeightError(
            f"weights file '{path.name}' has an unknown ending",
            help=f"known are {', '.join(kinds)} and {ENDING}",
        )
    return kinds[path.suffix](path)


def _onnx(path: Path) -> _File:
    from graphexec.frontend.onnx.weights import OnnxWeights

    return OnnxWeights(path)


def _gguf(path: Path) -> _File:
    from graphexec.frontend.pretrained.gguf import GgufWeights

    return GgufWeights(path)


class _Safetensors:
    """.safetensors files, by the package of that name."""

    def __init__(self, path: Path) -> None:
        try:
            from safetensors import safe_open
        except ImportError:
            raise WeightError(
                "reading .safetensors needs another package",
                help="pip install 'graphexec[safetensors]'",
            ) from None
        self._path = path
        with self._reading(), ExitStack() as stack:
            # safe_open opens the path itself, and would wait for a pipe that took its place.
            stack.enter_context(open_file(path))
            self._archive = stack.enter_context(safe_open(path, "numpy"))
            self.keys = dict.fromkeys(self._archive.keys())
            self._closing = stack.pop_all()

    def describe(self, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._reading():
            tensor = self._archive.get_slice(key)
            return tuple(tensor.get_shape()), _safetensors_dtype(str(tensor.get_dtype()))

    def fetch(self, key: str | None, type: TensorType) -> Array:
        import numpy as np

        with self._reading():
            array = np.asarray(self._archive.get_tensor(key), order="C")
        if array.shape != type.shape or array.dtype != type.dtype.numpy():
            raise WeightError(f"weights file '{self._path}' changed while it was in use")
        return array

    def pieces(self, key: str | None, type: TensorType) -> Iterator[Array]:
        import numpy as np

        step = _PIECE // prod(type.shape[1:]) or 1
        if type.elements <= _PIECE or self.describe(key) != (type.shape, type.dtype.numpy()):
            yield self.fetch(key, type)
            return
        with self._reading():
            tensor = self._archive.get_slice(key)
            for begin in range(0, type.shape[0], step):
                end = min(begin + step, type.shape[0])
                yield np.asarray(tensor[begin:end], order="C")

    def close(self) -> None:
        self._closing.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (SafetensorError, OSError) as exc:
            raise WeightError(f"cannot read '{self._path}': {exc}") from exc


@contextmanager
def _as_error(kind: type[WeightError]) -> Iterator[None]:
    from graphexec.base.npy import NpyError

    try:
        yield
    except NpyError as exc:
        raise kind(str(exc), help=exc.help) from exc
    except WeightError as exc:
        if isinstance(exc, kind):
            raise
        raise kind(str(exc), exc.field, exc.help) from exc


def _safetensors_dtype(name: str) -> np.dtype[Any]:
    known = {str(dtype).upper(): dtype for dtype in DType}  # F16, BF16, … U8, I64, BOOL
    if name not in known:
        raise _unsupported(name)
    return known[name].numpy()


def _unsupported(name: str, help: str = f"known are {', '.join(DType)}") -> WeightError:
    return WeightError(f"the stored array has elements of type {name}", help=help)


def _chosen(
    path: Path, file: _File | Index, key: str | None, suggest: Callable[[str, Collection[str]], str]
) -> str | None:
    names = file.keys
    if path.suffix == ".npy":
        if key is not None:
            raise WeightError(f"'{path.name}' holds one array; leave out `key`", "key")
        return None
    if key in names:
        return key
    if key is None and len(names) == 1:
        return next(iter(names))
    listed = ", ".join(f"'{n}'" for n in islice(names, 8)) + (", …" if len(names) > 8 else "")
    if key is None:
        raise WeightError(f"'{path.name}' holds several arrays: {listed}", help="choose by `key`")
    raise WeightError(
        f"there is no array '{key}' in '{path.name}'; it holds {listed}", "key",
        help=suggest(key, names),
    )  # fmt: skip


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
                                  help=f"state {dtype} or nothing, and cast it by a node: "
                                  f"{{op: copy, x: …, dtype: {asserted}}}")  # fmt: skip
            return dtype
    if raw_bf16:
        raise _unsupported(stored.name, "`dtype: bf16` reads 2-byte data as bf16")
    raise _unsupported(stored.name)
