"""Ranks: processes that run one graph together, and the groups of them that meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class Communicator:
    """Ranks that meet, by their numbers in the world, in order. The id is the mesh axis along which
    they lie and the number of the group, such as "tp0"."""

    id: str
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank whose program or plan this is, how many there are, and how they are laid out.

    Coordinates in the mesh are row-major, the last axis fastest. The groups of an axis are numbered
    in the order of their lowest ranks.
    """

    rank: int
    ranks: int
    mesh: Mapping[str, int]
    communicators: tuple[Communicator, ...]

    @staticmethod
    def of(rank: int, mesh: Mapping[str, int]) -> Ranks:
        """A rank in a mesh, with a communicator for each group of each axis."""
        count, stride = prod(mesh.values()), 1
        groups: list[Communicator] = []
        for axis, extent in reversed(list(mesh.items())):
            lowest = [r for r in range(count) if r // stride % extent == 0]
            groups[:0] = [
                Communicator(f"{axis}{n}", tuple(low + stride * i for i in range(extent)))
                for n, low in enumerate(lowest)
            ]
            stride *= extent
        return Ranks(rank, count, dict(mesh), tuple(groups))

    def communicator(self, axis: str) -> Communicator:
        """The group of this rank along an axis of the mesh."""
        place = list(self.mesh).index(axis)
        before = sum(self.ranks // n for n in list(self.mesh.values())[:place])
        groups = self.communicators[before : before + self.ranks // self.mesh[axis]]
        return next(group for group in groups if self.rank in group.ranks)

    def place(self, axis: str) -> int:
        """The coordinate of this rank along an axis of the mesh."""
        return self.communicator(axis).ranks.index(self.rank)
