"""A model file without the elements of its weights.

An .onnx file is one protobuf message. Reading it whole would hold the weights twice, so this walks
through the fields that lead to them (Model.graph = 7, Graph.initializer = 5, Tensor.raw_data = 9),
copies everything else, and keeps where the elements are. Wire format:
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

_GRAPH, _INITIALIZER, _RAW, _NAME = 7, 5, 9, 8
_LENGTH = 2  # the wire type of what states its length
_FIXED = {1: 8, 5: 4}
_KEPT = 1024  # elements of so many bytes stay where they are

Buffer: TypeAlias = bytes | mmap.mmap


class Damaged(ValueError):
    """The bytes are no protobuf message."""


@dataclass(frozen=True)
class Place:
    """Where the elements of a weight are in the file."""

    offset: int
    length: int


def skeleton(data: Buffer) -> tuple[bytes, dict[str, Place]]:
    """The message without large elements, and their places by the weights' names."""
    places: dict[str, Place] = {}
    return _model(data, places), places


def _model(data: Buffer, places: dict[str, Place]) -> bytes:
    out = bytearray()
    for field, start, at, end in _fields(data, 0, len(data)):
        if field == _GRAPH:
            out += _framed(_GRAPH, _graph(data, at, end, places))
        else:
            out += data[start:end]
    return bytes(out)


def _graph(data: Buffer, at: int, end: int, places: dict[str, Place]) -> bytes:
    out = bytearray()
    for field, start, inner, stop in _fields(data, at, end):
        if field == _INITIALIZER and stop - inner > _KEPT:
            out += _framed(_INITIALIZER, _tensor(data, inner, stop, places))
        else:
            out += data[start:stop]
    return bytes(out)


def _tensor(data: Buffer, at: int, end: int, places: dict[str, Place]) -> bytes:
    out, name, place = bytearray(), "", None
    for field, start, inner, stop in _fields(data, at, end):
        if field == _RAW and stop - inner > _KEPT:
            place = Place(inner, stop - inner)
            continue
        if field == _NAME:
            name = data[inner:stop].decode("utf-8", "replace")
        out += data[start:stop]
    if place is not None:
        places[name] = place
    return bytes(out)


def _fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, start of the field, start of its value, end."""
    while at < end:
        start = at
        key, at = _varint(data, at, end)
        kind, stop = key & 7, at
        if kind == 0:
            _, stop = _varint(data, at, end)
        elif kind == _LENGTH:
            length, at = _varint(data, at, end)
            stop = at + length
        elif kind in _FIXED:
            stop = at + _FIXED[kind]
        else:
            raise Damaged(f"byte {start} begins no field")
        if stop > end:
            raise Damaged(f"a field that begins at byte {start} ends after its message")
        yield key >> 3, start, at, stop
        at = stop


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Damaged(f"a number that ends at byte {at} is cut off")


def _framed(field: int, message: bytes) -> bytes:
    return _number(field << 3 | _LENGTH) + _number(len(message)) + message


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
