"""Files that are models, not YAML, by their endings."""

from __future__ import annotations


def is_onnx(path: str) -> bool:
    """Whether a file is an ONNX model."""
    return path.lower().endswith(".onnx")
