"""fold-copies: readers read a permuted, sliced or reshaped copy from its operand, by strides.

A copy becomes a strided window on its operand, and moves no bytes, when

1. it neither casts nor changes memory, is in device memory, and strides can express it
   (Op.window); copies of copies compose;
2. it is no output, and has no `after` edge, to it or from it;
3. every reader accepts the window (Op.accepts): a GEMM where it is a BLAS matrix with a leading
   dimension, aligned as well as the copy would be; a softmax whose rows stay rows; another copy,
   unless that is free now and would not be any more; any op where the window is dense;
4. where a GEMM then needs arrays of pointers, because no single stride walks its batch axes, the
   saved copy takes longer by the cost model than the GEMM loses. On a device that runs all batches
   equally fast it loses nothing.

The operand's bytes live as long as the readers need them.
"""

from __future__ import annotations

from graphexec.graph.rewrites.windows import with_windows
from graphexec.graph.rewriting import GraphRewrite

REWRITE = GraphRewrite(
    "fold-copies",
    "lets readers take a permuted, sliced or reshaped copy as strides, so that no bytes move",
    with_windows,
    lengthens=True,
)
