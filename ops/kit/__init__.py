"""The kit for ops: the contract of an op, accesses, launches, and whole pointwise ops.

docs/adding-an-op.md shows its use. Kernels include `device.h`, which lies here.
"""

from graphexec.base.tensor import Array, DType, TensorType, View
from graphexec.ir.op import (
    FLOATS,
    Arrays,
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
    Types,
    Views,
)
from graphexec.ir.program import Parallel, Scalar, TritonKernel, TritonLaunch
from graphexec.ops.kit.launch import accumulated, integers, launch
from graphexec.ops.kit.pointwise import pointwise
from graphexec.ops.kit.strides import axes, collapse, index_type, pieces, power_of_two

__all__ = [
    "FLOATS", "Array", "Arrays", "Attribute", "Attrs", "Call", "Command", "DType", "Gemm", "In",
    "InOut", "Kernel", "Memcpy", "Op", "OpError", "Operand", "Out", "Parallel", "Scalar",
    "TensorType", "TritonKernel", "TritonLaunch", "Types", "View", "Views", "accumulated", "axes",
    "collapse", "index_type", "integers", "launch", "pieces", "pointwise", "power_of_two",
]  # fmt: skip
