"""The worked example of docs/adding-an-op.md: an op of one's own."""

import numpy as np

from graphexec.ops.kit import pointwise

OP = pointwise("relu", c="x < 0 ? 0 : x", numpy=lambda x: np.maximum(x, 0))
