"""The index of a sharded model, `*.safetensors.index.json`: in which file each of its arrays is.

    {"metadata": {...}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}

Shards lie beside their index. Whether they do, and inside the folder that weights may be in, is
checked when an array is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphexec.base.reading import read_file
from graphexec.frontend.weight_paths import FileError, WeightError

ENDING = ".safetensors.index.json"
_MAX_BYTES = 32 << 20  # 150,000 arrays take 15 MB


@dataclass(frozen=True)
class Index:
    """The arrays of a sharded model, and in which file each is."""

    path: Path
    keys: dict[str, str]

    def shard(self, key: str) -> str:
        """The name of the file that holds an array, beside the index; FileError if it is none."""
        name = self.keys[key]
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise FileError(
                f"'{self.path.name}' names a shard '{name}'",
                help="a shard is a .safetensors file in the folder of its index",
            )
        return name

    def check(self, key: str, path: Path, held: Collection[str]) -> None:
        """WeightError when the file at `path`, which holds the arrays `held`, lacks `key`."""
        if key not in held:
            raise WeightError(
                f"there is no array '{key}' in '{path.name}', where '{self.path.name}' says it is",
                "key", help="index and shards are not of one model, or damaged",
            )  # fmt: skip


def is_index(path: Path) -> bool:
    """Whether a file is an index, by its name."""
    return path.name.endswith(ENDING)


def read_index(path: Path) -> Index:
    """The index in a file. FileError when it is damaged, or larger than 32 MiB."""
    try:
        document = json.loads(read_file(path, _MAX_BYTES), object_pairs_hook=_object)
    except OSError as exc:
        raise FileError(f"cannot read '{path}': {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:  # also what is not UTF-8
        reason = "it is nested too deeply" if isinstance(exc, RecursionError) else exc
        raise FileError(f"'{path}' is damaged: {reason}") from exc
    shards = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(shards, dict):
        raise _no_index(path, "it has no object 'weight_map'")
    for key, shard in shards.items():
        if not isinstance(shard, str):
            raise _no_index(path, f"the file of '{key}' is not a text")
    if not shards:
        raise _no_index(path, "it names no arrays")
    return Index(path, shards)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key '{name}' is in it twice")
        found[name] = value
    return found


def _no_index(path: Path, reason: str) -> FileError:
    return FileError(
        f"'{path}' is no index of shards: {reason}",
        help='{"weight_map": {"name of an array": "name of a file"}}',
    )
