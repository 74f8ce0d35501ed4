"""What ops are made with: the contract of an op, accesses, launches, and whole pointwise ops.

docs/adding-an-op.md shows how. Kernels include `device.h`, which lies here.
"""

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.op import (
    FLOATS,
    Attribute,
    Attrs,
    Call,
    Command,
    Gemm,
    In,
    InOut,
    Kernel,
    Memcpy,
    Op,
    Operand,
    OpError,
    Out,
)
from graphexec.ir.program import Parallel, Scalar, TritonKernel, TritonLaunch
from graphexec.ops.kit.launch import accumulated, integers, launch
from graphexec.ops.kit.pointwise import pointwise
from graphexec.ops.kit.strides import axes, collapse, index_type, pieces, power_of_two

__all__ = [
    "FLOATS", "Attribute", "Attrs", "Call", "Command", "DType", "Gemm", "In", "InOut", "Kernel",
    "Memcpy", "Op", "OpError", "Operand", "Out", "Parallel", "Scalar", "TensorType", "TritonKernel",
    "TritonLaunch", "View", "accumulated", "axes", "collapse", "index_type", "integers", "launch",
    "pieces", "pointwise", "power_of_two",
]  # fmt: skip
