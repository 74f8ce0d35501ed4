"""How many keys a mask leaves: those after the last that any query sees are not read.

So a decoder whose cache is half empty reads half of it. A mask of which the last key is seen by
any query is not looked at further.
"""

from __future__ import annotations

import numpy as np

from graphexec.base.tensor import Array

_WHOLE = 64  # keys are counted in groups, so that few numbers of them occur


def keys_seen(mask: Array) -> int:
    """The keys up to the last that a query sees, at least one, rounded up; all if that is most."""
    keys = int(mask.shape[-1])
    once = mask[tuple(0 if step == 0 else slice(None) for step in mask.strides[:-1])]
    nothing = False if once.dtype.kind in "bu" else -np.inf
    if not (once[..., -1] == nothing).all():
        return keys
    seen = (once.reshape(-1, keys) != nothing).any(0)
    last = int(seen.nonzero()[0][-1]) + 1 if seen.any() else 1
    return min(keys, -(-last // _WHOLE) * _WHOLE)
