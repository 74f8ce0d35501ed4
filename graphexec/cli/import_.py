"""graphexec import: a model as YAML and weights."""

from __future__ import annotations

from pathlib import Path

import click

from graphexec.cli.completion import GraphFile
from graphexec.cli.options import Loader, loader_options
from graphexec.cli.progress import Progress
from graphexec.cli.report import note


@click.command("import")
@click.argument("file", metavar="SOURCE", type=GraphFile())
@click.option("-o", "--output", "folder", metavar="DIR", default=".", show_default=True,
              type=click.Path(file_okay=False, path_type=Path),
              help="Where the files are written; it is made if it is not there.")  # fmt: skip
@loader_options
def import_(file: str, folder: Path, loader: Loader) -> None:
    """Write the model SOURCE as YAML, its weights beside it.

    SOURCE is an .onnx or a .gguf file, or a folder of Hugging Face: config.json, and weights in
    .safetensors. The YAML keeps the names of the model and its dims, whose sizes -D sets. Files of
    these names that are there already are replaced. (Other commands take SOURCE, too, and write
    nothing.)
    """
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.base.errors import GraphError
    from graphexec.frontend.expand import expand
    from graphexec.frontend.imported import write_imported
    from graphexec.frontend.sources import MODELS, is_onnx, is_pretrained

    if not (is_onnx(file) or is_pretrained(file)):
        message = f"'{file}' is not a model that can be imported"
        raise GraphError([Diagnostic(message, help=f"models are {MODELS}")])
    progress = Progress()
    with progress.step(f"reading {file}"):
        graph = loader.load(file)
    with progress.step(f"writing to {folder}"):
        written = write_imported(graph, folder, Path(file).name)
    for path in written:
        click.echo(path)
    flat = expand(graph)
    note(f"{len(flat.nodes)} nodes, {len(flat.weights)} weights")
