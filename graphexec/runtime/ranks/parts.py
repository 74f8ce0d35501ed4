"""Tensors of which each rank has a part, put together and taken apart on the host."""

from __future__ import annotations

import numpy as np

from graphexec.base.tensor import Array
from graphexec.ir.typed import Part
from graphexec.runtime.ranks.collectives import Communication
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.transport import open_transport


class Assembly:
    """What puts parts together. All ranks call `whole`, in the same order of calls."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._everyone: Communication | None = None

    def whole(self, array: Array, part: Part) -> Array:
        """The whole tensor of which `array` is this rank's part. Raises RankFailed."""
        if self._everyone is None:
            transport = open_transport(self._group)
            self._everyone = Communication(transport, range(self._group.ranks), "states")
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        everything = np.empty((self._group.ranks, raw.size), np.uint8)
        begins = self._group.gather(list(part.begin))
        self._everyone.all_gather(raw, everything)
        found = np.empty(part.shape, array.dtype)
        for begin, one in zip(begins, everything, strict=True):
            taken(found, begin, array.shape)[...] = one.view(array.dtype).reshape(array.shape)
        return found


def taken(whole: Array, begin: tuple[int, ...] | list[int], shape: tuple[int, ...]) -> Array:
    """The part of this shape that begins there, as a view."""
    ends = zip(begin, shape, strict=True)
    found: Array = whole[tuple(slice(low, low + extent) for low, extent in ends)]
    return found
