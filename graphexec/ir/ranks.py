"""Ranks: processes that run one graph together, and the groups of them that meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
