"""The second example of docs/adding-an-op.md: rows, with a kernel of its own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphexec.ops.kit import Attribute, In, Op, Operand, Out, accumulated, integers, launch


class Rms(Op):
    name = "rms"
    doc = "x / sqrt(mean(x²) + eps) · weight along the last axis."
    operands = (Operand("x", shape="(…, N)"), Operand("weight", shape="(N,)", dtype="x"))
    attributes = (Attribute("eps", "number", 1e-5, "added to the mean"),)
    result = "(…, N)"

    def reference(self, arrays, attrs, type):
        return rms(arrays["x"], arrays["weight"], attrs["eps"])

    def lower(self, call):
        x, weight = call.operands["x"], call.operands["weight"]
        rows = Rows(float(call.attrs["eps"]))
        return [call.kernel("rms", rows, In(x), In(weight), Out(call.out))]


def rms(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


@dataclass(frozen=True)
class Rows:
    """The kernel over x, weight and the result."""

    eps: float

    def __call__(self, x, weight, out):
        length = out.shape[-1]
        rows = out.elements // length
        args = (x, weight, out, *integers(rows, length), accumulated(self.eps, x.dtype))
        defines = {"T": x.dtype}
        source = Path(__file__).with_name("rms.hip")
        return launch(source, "rms", args, -(-rows // 8), 256, defines, self.on_cpu)

    def on_cpu(self, arrays, parallel):
        x, weight, out = arrays
        wide = np.float64 if x.dtype == np.float64 else np.float32
        rows, results = x.reshape(-1, x.shape[-1]), out.reshape(-1, x.shape[-1])

        def body(low, high):
            results[low:high] = rms(rows[low:high].astype(wide), weight.astype(wide), self.eps)

        parallel(len(rows), body)


OP = Rms()
