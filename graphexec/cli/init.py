"""graphexec init: a commented example to start from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

_GRAPH = """\
# yaml-language-server: $schema=graphexec.schema.json
# (The line above lets editors complete and check this file.)
#
#   graphexec check graph.yaml              is it right, and free of races?
#   graphexec run graph.yaml                run it, with inputs drawn at random
#   graphexec run graph.yaml -D S=256       ... with another size
#   graphexec plan graph.yaml -o plan.html  see what runs where, and why
version: 1
name: attention

# Sizes, to be used in shapes below; -D NAME=N on the command line changes one.
dims: {B: 2, H: 8, S: 128, D: 64}

# Numbers computed from them.
consts: {scale: D ** -0.5}

# Tensors you give when you run the graph. Dtypes: f16, bf16, f32, f64, i8, u8, i32, i64, bool.
inputs:
  q: {shape: [B, H, S, D], dtype: f16}
  k: {shape: [B, H, S, D], dtype: f16}
  v: {shape: [B, H, S, D], dtype: f16}

# The name of a node is that of the tensor it makes. The order of nodes does not matter: order and
# streams follow from the tensors that each node reads. `graphexec ops` lists the ops.
nodes:
  scores: {op: gemm, a: q, b: k, trans_b: true, alpha: scale}
  probs:  {op: softmax, x: scores, axis: -1}
  ctx:    {op: gemm, a: probs, b: v}

# The outputs, by name.
outputs: {out: ctx}
"""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write an example graph with comments into DIR, and the schema for your editor beside it.

    Nothing that is there already is overwritten.
    """
    from graphexec.base.atomic_file import text_writer, write_files
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.base.errors import DataError
    from graphexec.frontend.schema import schema
    from graphexec.ir.registry import load_ops

    texts = {
        folder / "graph.yaml": _GRAPH,
        folder / "graphexec.schema.json": json.dumps(schema(load_ops(())), indent=1) + "\n",
    }
    there = [path for path in texts if os.path.lexists(path)]
    if there:
        raise DataError([Diagnostic(f"'{path}' is there already") for path in there])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        message = f"cannot make the folder '{folder}': {exc.strerror or exc}"
        raise DataError([Diagnostic(message)]) from exc
    write_files({path: text_writer(text) for path, text in texts.items()})
    click.echo(f"{folder / 'graph.yaml'}\ntry: graphexec run {folder / 'graph.yaml'}")
