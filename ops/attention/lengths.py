"""Which keys a query sees where their number is known on the device: as a mask.

    key j is seen iff j < length, and if causal, j ≤ p, and with a window W, j > p - W,
    where p = start + i for query i of M, and start is length - M unless it is given

length is cut to the number of keys. A map computes what is added to the scores: 0 for keys that are
seen, -inf for others, and the mask of the user where there is one. Queries that see the same keys
share a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphexec.base.grammar import parse
from graphexec.base.tensor import Array, TensorType, View
from graphexec.ir.expression import with_numbers
from graphexec.ir.op import Attrs, Call, Types
from graphexec.ir.op_error import OpError
from graphexec.ir.program import Command
from graphexec.ops.kit.generate import generated
from graphexec.ops.map.compile import compiled

NAMES = ("length", "at", "start")


def needs_mask(given: Mapping[str, Any], attrs: Attrs) -> bool:
    """Whether `causal` and the mask do not say it all. `given` are the operands."""
    return attrs.get("window") is not None or any(name in given for name in NAMES)


def check(types: Types, attrs: Attrs, result: TensorType) -> None:
    """OpError where lengths do not fit."""
    for name in NAMES:
        type = types.get(name)
        if type is None:
            continue
        batch = len(result.shape) > 2
        if type.shape != () and not (batch and type.shape == result.shape[:1]):
            each = f" or [{result.shape[0]}], one for each entry of axis 0" if batch else ""
            raise OpError(f"{name} has the shape []{each}, found {list(type.shape)}", name)
    if "length" in types and "at" in types:
        raise OpError("length and at say the same: length is at + M", "at", help="leave one out")
    window = attrs.get("window")
    if window is not None and window < 1:
        raise OpError(f"a window has at least one key, found {window}", "window")
    softcap = attrs.get("softcap")
    if softcap is not None and softcap <= 0:
        raise OpError(f"softcap is above 0, found {softcap}", "softcap")


@dataclass(frozen=True)
class Sizes:
    """Queries, keys, and the axes of the scores."""

    queries: int
    keys: int
    rank: int


def mask_of(call: Call, sizes: Sizes) -> tuple[View, list[Command]]:
    """What is added to the scores of the call, and the command that computes it, unless another
    call has: the layers of a decoder see the same keys."""
    given = {n: call.operands[n] for n in ("mask", *NAMES) if n in call.operands}
    text = expression(given, call.attrs, sizes)
    mask = given.get("mask")
    dtype = call.types["q"].dtype
    if mask is not None and mask.dtype.is_float:
        dtype = mask.dtype
    views = {n: v if n == "mask" else spread(v, sizes.rank) for n, v in given.items()}
    shape = _shape(views, call.attrs, sizes)
    key = "seen", text, tuple(views.items()), shape, dtype
    may_share = not (mask is not None and mask.dtype.is_float)
    if may_share and key in call.shared:
        return call.shared[key], []
    out = call.scratch("seen", TensorType(shape, dtype))
    names = tuple(views)
    tree = with_numbers(parse(text), names, {})
    body = compiled(tree, names, tuple(v.dtype for v in views.values()), sizes.rank, dtype)
    if may_share:
        call.shared[key] = out
    return out, [generated(call, "mask", body, list(views.values()), [out])]


def expression(given: Mapping[str, Any], attrs: Attrs, sizes: Sizes) -> str:
    """What is added to the scores, over the operands and the places of the scores."""
    key, query = f"index({sizes.rank - 1})", f"index({sizes.rank - 2})"
    length = "length" if "length" in given else f"(at + {sizes.queries})" if "at" in given else ""
    seen = [f"{key} < {length}"] if length else []
    cut = f"min({length}, {sizes.keys})" if length else f"{sizes.keys}"
    place = f"(start + {query})" if "start" in given else f"({cut} - {sizes.queries} + {query})"
    if attrs["causal"]:
        seen.append(f"{key} <= {place}")
    if attrs.get("window") is not None:
        seen.append(f"{key} > {place} - {attrs['window']}")
    mask = given.get("mask")
    is_float = mask is not None and mask.dtype.is_float
    if mask is not None and not is_float:
        seen.append("mask")
    added = "mask" if is_float else "0.0"
    return f"where({' and '.join(seen)}, {added}, -inf)" if seen else added


def seen_by_numpy(arrays: Mapping[str, Array], attrs: Attrs, sizes: Sizes) -> Array:
    """Which keys each query sees, of a shape that broadcasts to that of the scores."""
    key, query = np.arange(sizes.keys), np.arange(sizes.queries)[:, None]
    wide = {n: np.asarray(arrays[n]).astype(np.int64) for n in NAMES if n in arrays}
    spread = {n: a.reshape(a.shape + (1,) * (sizes.rank - a.ndim)) if a.ndim else a
              for n, a in wide.items()}  # fmt: skip
    length = spread.get("length", np.asarray(sizes.keys))
    if "at" in spread:
        length = spread["at"] + sizes.queries
    seen = np.asarray(key < length)
    length = np.minimum(length, sizes.keys)
    place = spread.get("start", length - sizes.queries) + query
    if attrs["causal"]:
        seen = seen & (key <= place)
    if attrs.get("window") is not None:
        seen = seen & (key > place - attrs["window"])
    mask = arrays.get("mask")
    if mask is not None and mask.dtype.kind == "b":
        seen = seen & mask
    return seen


def spread(view: View, rank: int) -> View:
    """One element for each entry of axis 0, as a view of all axes."""
    if not view.shape:
        return view
    return view.reshape((*view.shape, *(1,) * (rank - 1)))


def _shape(views: Mapping[str, View], attrs: Attrs, sizes: Sizes) -> tuple[int, ...]:
    """The least shape that has what differs: all axes, the extents that are needed."""
    moving = attrs["causal"] or attrs.get("window") is not None
    shape = [*(1,) * (sizes.rank - 2), sizes.queries if moving else 1, sizes.keys]
    for view in views.values():
        extents = (*(1,) * (sizes.rank - len(view.shape)), *view.shape)
        shape = [max(pair) for pair in zip(shape, extents, strict=True)]
    return tuple(shape)
