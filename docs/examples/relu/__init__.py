"""The worked example of docs/adding-an-op.md: an op of one's own."""

from pathlib import Path

import numpy as np

from graphexec.base.tensor import TensorType
from graphexec.ir.op import Op, Operand
from graphexec.ir.program import Kernel, Scalar


class Relu(Op):
    name = "relu"
    doc = "max(x, 0), element by element."
    operands = (Operand("x", "any tensor in device memory"),)

    def infer(self, types, attrs):
        return TensorType(types["x"].shape, types["x"].dtype)

    def reference(self, arrays, attrs, type):
        return np.maximum(arrays["x"], 0.0)

    def lower(self, call):
        x, count = call.operands["x"], call.out.elements
        kernel = Kernel(
            source=Path(__file__).with_name("relu.hip"),
            entry="relu",
            args=(x, call.out, Scalar("i64", count)),
            grid=(-(-count // 256), 1, 1),
            block=(256, 1, 1),
            compute=lambda arrays, parallel: np.maximum(arrays[0], 0, out=arrays[1]),
            defines=(("T", x.dtype.value),),
        )
        return [call.command("relu", kernel, reads=[x], writes=[call.out])]


OP = Relu()
