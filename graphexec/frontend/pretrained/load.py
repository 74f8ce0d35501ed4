"""text_of: a GGUF file or a folder of Hugging Face → YAML, whose weights stay where they are."""

from __future__ import annotations

from pathlib import Path

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.frontend.pretrained.bert import Bert
from graphexec.frontend.pretrained.decoder import Decoder
from graphexec.frontend.pretrained.folder import CONFIG, read_folder
from graphexec.frontend.pretrained.gguf import GgufWeights
from graphexec.frontend.pretrained.metadata import read_decoder
from graphexec.frontend.weight_paths import FileError


def text_of(path: Path, dtype: str) -> str:
    """The YAML of the model at `path`, with weights and states in `dtype`. Raises GraphError."""
    model: Decoder | Bert
    if path.is_dir():
        if not (path / CONFIG).is_file():
            message = f"'{path}' is a folder without a {CONFIG}, so no model of Hugging Face"
            raise GraphError([Diagnostic(message, help="or name a file: .yaml, .onnx, .gguf")])
        model = read_folder(path)
    else:
        try:
            file = GgufWeights(path)
        except FileError as exc:
            raise GraphError([Diagnostic(str(exc), help=exc.help)]) from exc
        model = read_decoder(path, file.header)
    return model.text(dtype)
