"""What `graphexec import` writes: a model as YAML to read and change, its weights beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from graphexec.base.atomic_file import Writer, text_writer, write_files
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError
from graphexec.base.expressions import names_in
from graphexec.frontend.expand import expand
from graphexec.frontend.weight_paths import WeightError
from graphexec.frontend.weights import WeightFiles
from graphexec.frontend.yaml.write import to_yaml
from graphexec.ir.graph import Graph
from graphexec.ir.typed import TypedWeight

Step = Callable[[int, int], None]
"""Told how many bytes of weights are written, of how many."""


def write_imported(
    graph: Graph, folder: Path, source: str, progress: Step = lambda done, all: None
) -> list[Path]:
    """Write NAME.yaml and, for a graph with weights, NAME.safetensors into `folder`.

    Loading the YAML gives an equal graph, but for the name of the file of weights. Weights are
    copied one at a time. Existing files are replaced, both or none. Returns what was written.
    Raises DataError.
    """
    stem = re.sub(r"[^\w.\-]+", "_", graph.name).strip(".") or "model"
    written: dict[Path, Writer] = {}
    with WeightFiles() as files:
        own, flat = graph.with_dims(), expand(graph)
        own.weight_dtype = None
        if flat.weights:
            own.weight_file = f"{stem}.safetensors"
            found = _found(flat, files)
            written[folder / own.weight_file] = lambda out: _write(out, found, files, progress)
        else:
            own.weight_file = None
        text = f"{_heading(graph, source)}{to_yaml(own)}"
        path = folder / f"{stem}.yaml"
        write_files({**written, path: text_writer(text)}, folder)
    return [path, *written]


def _heading(graph: Graph, source: str) -> str:
    shown = source if source.isprintable() else repr(source)
    shapes = [item.shape for item in graph.inputs.values()]
    shapes += [item.shape for item in graph.states.values()]
    sizes = {name for shape in shapes for extent in shape for name in names_in(str(extent))}
    dims = " ".join(f"-D {name}={graph.dims[name]}" for name in graph.dims if name in sizes)
    lines = [f"# Imported from {shown} by `graphexec import`."]
    if graph.source is not None:
        lines += takewhile(lambda line: line.startswith("#"), graph.source.text.splitlines())
    if dims:
        lines.append(f"# Sizes are set when it is run: {dims}")
    return "".join(f"{line}\n" for line in lines)


def _found(graph: Graph, files: WeightFiles) -> dict[str, TypedWeight]:
    """Each weight of a graph without blocks, by its key in the new file.

    Raises DataError with all that fail.
    """
    found: dict[str, TypedWeight] = {}
    problems: list[Diagnostic] = []
    for weight in graph.weights.values():
        file = weight.file or graph.weight_file or ""
        key = None if weight.key is None else graph.weight_prefix + weight.key
        try:
            item = files.find(graph.folder, graph.weight_root, file, key, None)
            found[key or weight.name] = item.weight(graph.weight_dtype)
        except WeightError as exc:
            problems.append(Diagnostic(f"weight '{weight.name}': {exc}", help=exc.help))
    if problems:
        raise DataError(problems)
    return found


def _write(
    out: BinaryIO, found: Mapping[str, TypedWeight], files: WeightFiles, progress: Step
) -> None:
    """A .safetensors file: the length of a JSON header, the header, the arrays in its order."""
    header: dict[str, Any] = {}
    end = 0
    for key, item in found.items():
        begin, end = end, end + item.type.nbytes
        kind, shape = item.type.dtype.value.upper(), list(item.type.shape)
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    out.write(len(text).to_bytes(8, "little") + text)
    done = 0
    for weight in found.values():
        try:
            for piece in files.pieces(weight):
                out.write(piece.reshape(-1).view("u1").data)
                done += piece.nbytes
                progress(done, end)
        except WeightError as exc:
            raise DataError([Diagnostic(str(exc), help=exc.help)]) from exc
