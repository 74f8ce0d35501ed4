"""Files and folders that are models, not YAML, by their endings."""

from __future__ import annotations

import os

MODELS = ".onnx and .gguf files, and folders of Hugging Face (config.json and .safetensors)"


def is_onnx(path: str) -> bool:
    """Whether a file is an ONNX model."""
    return path.lower().endswith(".onnx")


def is_pretrained(path: str) -> bool:
    """Whether it is a GGUF file, or a folder."""
    return path.lower().endswith(".gguf") or os.path.isdir(path)
