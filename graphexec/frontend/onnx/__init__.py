"""ONNX models to a Graph."""
