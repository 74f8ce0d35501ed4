"""load: YAML, or a model → Graph.

Guarantees: every name resolves; there is no cycle; every key, op, operand and attribute exists and
has a value of its kind; every expression has a value; dims are positive. All independent mistakes
come in one GraphError, in the order of the file, each with its line and column. Warnings are in
`graph.warnings`.
Left to later stages: whether shapes and dtypes fit together, and all access to weight files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from graphexec.base.collector import collector_paused
from graphexec.base.diagnostics import Diagnostic, Source, did_you_mean
from graphexec.base.errors import GraphError
from graphexec.base.reading import open_file
from graphexec.frontend.expand import expand
from graphexec.frontend.sources import is_onnx, is_pretrained
from graphexec.frontend.yaml.blocks import BlockReaders
from graphexec.frontend.yaml.document import Document
from graphexec.frontend.yaml.ranks import read_ranks
from graphexec.frontend.yaml.tensors import TensorReader
from graphexec.frontend.yaml.text import MAX_BYTES, decode
from graphexec.frontend.yaml.tree import compose
from graphexec.frontend.yaml.variables import read_consts, read_dims
from graphexec.frontend.yaml.whole import note_cycles, unused
from graphexec.ir.graph import Graph
from graphexec.ir.op import Op

AnyPath = str | os.PathLike[str]

MODEL_DTYPES = ("f32", "f16", "bf16")
"""What the weights and states of a GGUF file or a folder of Hugging Face can be."""


def load(
    path: AnyPath,
    dims: Mapping[str, int] | None = None,
    ops: Mapping[str, Op] | None = None,
    weight_root: AnyPath | None = None,
    dtype: str | None = None,
) -> Graph:
    """The graph in the YAML file at `path`, or of the model there: an ONNX or a GGUF file, or a
    folder of Hugging Face.

    A graph without `name:` has the name of the file. `dims` replace the file's values; `ops` are
    the known ops (by default all built-in and installed ones). Weight files must lie inside
    `weight_root` (by default the folder of `path`). `dtype` (f16, bf16 or f32, by default f32) is
    that of the weights and states of a GGUF file or a folder.
    Raises GraphError.
    """
    if not isinstance(path, str | os.PathLike):
        raise GraphError([Diagnostic(f"a path is wanted, not {path!r:.60}")])
    shown = os.fspath(path)
    if is_pretrained(shown):
        from graphexec.frontend.pretrained.load import text_of

        folder = Path(shown) if os.path.isdir(shown) else Path(shown).parent
        source = Source(shown, text_of(Path(shown), _checked(dtype or "f32")))
        return _graph(source, dims, ops, weight_root, folder, "model")
    if dtype is not None:
        message = f"'{shown}' has its own types: a dtype is for GGUF files and folders"
        help = "in YAML, weight_dtype is the type of the weights"
        raise GraphError([Diagnostic(message, help=help)])
    if is_onnx(shown):
        from graphexec.frontend.onnx.load import load_onnx

        return load_onnx(shown, dims, ops)
    source = decode(_read(shown), shown)
    stem = Path(shown).stem
    name = stem if stem.isprintable() else "graph"
    return _graph(source, dims, ops, weight_root, Path(shown).parent, name)


def loads(
    text: str,
    path: str = "<text>",
    dims: Mapping[str, int] | None = None,
    ops: Mapping[str, Op] | None = None,
    weight_root: AnyPath | None = None,
    folder: AnyPath | None = None,
) -> Graph:
    """The graph in a text; messages call it `path`. Weight files are relative to `folder`."""
    if not isinstance(text, str):
        raise GraphError([Diagnostic(f"a text is wanted, not {text!r:.60}")])
    source = Source(path, text.removeprefix("\ufeff"))
    return _graph(source, dims, ops, weight_root, Path(folder or "."), "graph")


def _graph(
    source: Source, dims: Mapping[str, int] | None, ops: Mapping[str, Op] | None,
    weight_root: AnyPath | None, folder: Path, name: str,
) -> Graph:  # fmt: skip
    with collector_paused():
        root, problems = compose(source)
        doc = Document(source)
        doc.problems.extend(problems)
        doc.open(root)
        graph, flat = _read_graph(doc, dims, ops, folder, weight_root, name)
        if doc.problems:
            raise GraphError(doc.problems.diagnostics())
        graph.warnings.extend(unused(graph, flat))
    return graph


def _read_graph(
    doc: Document, dims: Mapping[str, int] | None, ops: Mapping[str, Op] | None, folder: Path,
    weight_root: AnyPath | None, name: str,
) -> tuple[Graph, Graph]:  # fmt: skip
    """The graph, and the same without blocks."""
    graph = Graph(
        doc.name(default=name), ops=ops, folder=folder, source=doc.source,
        weight_root=None if weight_root is None else Path(weight_root),
    )  # fmt: skip
    read_dims(doc, graph, dims or {})
    read_consts(doc, graph)
    read_ranks(doc, graph)
    blocks = BlockReaders(doc, graph)
    tensors = TensorReader(doc, graph, blocks.readers)
    tensors.declare()
    blocks.read(tensors)
    tensors.read()
    graph.warnings.extend([*blocks.cut_short(), *tensors.expressions.cut_short()])
    if not tensors.used:
        note_cycles(doc, graph, tensors.needs)
    elif not doc.problems:
        return graph, _expanded(doc, graph)
    return graph, graph


def _expanded(doc: Document, graph: Graph) -> Graph:
    """The graph without blocks; what is wrong where they are used is noted."""
    try:
        flat = expand(graph)
    except GraphError as exc:
        doc.problems.extend(exc.diagnostics)
        return graph
    needs = {n.name: (*n.operands.values(), *n.after) for n in flat.nodes.values()}
    note_cycles(doc, flat, needs)
    return flat


def _checked(dtype: str) -> str:
    if dtype not in MODEL_DTYPES:
        message = f"a model cannot have the dtype {dtype!r:.60}"
        raise GraphError([Diagnostic(message, help=f"known: {', '.join(MODEL_DTYPES)}")])
    return dtype


def _read(path: str) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as exc:
        message = f"cannot read '{path}': {exc.strerror}"
        raise GraphError([Diagnostic(message, help=_similar_file(path))]) from exc


def _similar_file(path: str) -> str:
    folder, name = os.path.split(path)
    if os.path.exists(path):
        return ""
    try:
        return did_you_mean(name, sorted(os.listdir(folder or "."))[:1000])
    except (OSError, ValueError):
        return ""
