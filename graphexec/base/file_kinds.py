"""The kind of a file, by its first bytes or its keys, for messages about a wrong file."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class FileKind:
    """A kind of file: its name in messages, and its use."""

    name: str
    use: str

    def instead_of(self, expected: str) -> str:
        """The message."""
        return f"this is {self.name}, not {expected}"


_DRAWN = "graphexec plan -o writes such files; check the graph or the plan they were made from"
_ARRAYS = FileKind(
    "a file of arrays",
    "graphexec run GRAPH -i takes inputs from such files, and a graph names those of its weights",
)
_TENSORS = FileKind("a file of tensors", "a graph names such files under `weights`")
_PICTURE = FileKind("a picture", _DRAWN)
_PAGE = FileKind("a page for browsers", _DRAWN)
_BEGINNINGS = (
    (b"pk\x03\x04", _ARRAYS),  # .npz, a ZIP archive of .npy
    (b"\x93numpy", _ARRAYS),
    (b"\x89png\r\n", _PICTURE),
    (b"<svg", _PICTURE),
    (b"digraph", _PICTURE),
    (b"<!doctype html", _PAGE),
    (b"<html", _PAGE),
)
_BY_KEY = {
    "plan_version": FileKind(
        "a plan",
        "graphexec check and graphexec plan read plans, from files whose names end in .json",
    ),
    "profile_version": FileKind(
        "a profile of measured times", "graphexec plan GRAPH --costs FILE plans with it"
    ),
    "bench_version": FileKind(
        "what graphexec bench --json prints",
        "graphexec bench GRAPH --baseline FILE compares with it",
    ),
    "traceEvents": FileKind(
        "the trace of a run",
        "graphexec plan GRAPH --trace FILE draws it, and https://ui.perfetto.dev shows it",
    ),
    "weight_map": FileKind(
        "the index of a sharded model", "a graph names such files as the `file` of its weights"
    ),
    "nodes": FileKind("a graph", "a graph's file has a name that does not end in .json"),
    "$schema": FileKind("a JSON Schema", "editors check graphs with it"),
}


def kind_of_bytes(data: bytes) -> FileKind | None:
    """The kind of a file that is no graph, by its beginning; None if unknown."""
    start = data[:64].lstrip().lower()
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    # safetensors: the length of the header in 8 bytes, little-endian, then the header, in JSON.
    header = int.from_bytes(data[:8], "little")
    return _TENSORS if data[8:10] == b'{"' and 2 <= header < 1 << 32 else None


def kind_of_keys(keys: Container[str], expected: str) -> FileKind | None:
    """The kind of a document by its top-level keys; None if unknown, or if it has the key
    `expected` of the wanted kind."""
    if expected in keys:
        return None
    return next((kind for key, kind in _BY_KEY.items() if key in keys), None)
