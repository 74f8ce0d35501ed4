"""Inputs of the fuzzers: right files with mistakes in them, the same for a seed and a number."""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zipfile
from random import Random
from typing import Any

from fuzz_targets import Target

NUMBERS = (0, 1, -1, 2, 255, 65536, 2**31, 2**32 - 1, 2**63 - 1, 2**63, -(2**63), 10**400, 0.5,
           -0.0, 1e-320, 5e-324, 1e12, 1e15, 1e308, -1e308, float("inf"), float("nan"))  # fmt: skip
TEXTS = (
    "",
    "x",
    "0",
    "\x1b[2J",
    "\n",
    "\u202e",
    "\ud800",
    "a" * 300,
    "\0",
    "../x",
    "'",
    '"',
    "é",
    "~",
)
VALUES = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [0], {"": 0})
TOKENS = tuple(
    t.encode("utf-8", "surrogatepass")
    for t in (
        *TEXTS, *map(str, NUMBERS), ": ", "- ", "{", "}", "[", "]", "&a ", "*a", "!!int ", "!x ",
        "<<: ", "? ", "| ", "> ", "%YAML 1.1\n", "---\n", "...\n", "# ", "\t", "\r", "\u2028",
        "\ufeff", "(", ")", "-" * 90, "((((((((", "[[[[[[[[", "{a: " * 40, "1e400", "0x", "0o7",
        ".inf", ".nan", "null", "true", "** 9 ** 9", "// 0", "% 0", "min(", "S", "D ** -0.5", "<f4",
        "|O", "shape", "descr", "True", "L", ",", "'''", "\\", "\\N{", "f16",
        "gemm", "out", "\xff",
    )
)  # fmt: skip


def made(target: Target, seed: int, number: int) -> bytes:
    """Input `number` of a seed."""
    random = Random(f"{seed} {number}")
    data = random.choice(_seeds(target))
    how = random.random()
    if how < 0.5 and (document := _json(data)) is not None:
        for _ in range(random.choice((1, 1, 2, 5))):
            document = _with_mistake(document, random)
        return json.dumps(document).encode("utf-8", "replace")
    if how < 0.4 and data[:2] == b"PK":
        return _zipped(data, random)
    damage = _reworded if how < 0.7 else _damaged
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        data = damage(data, random)
    if data[8:9] == b"{" and random.random() < 0.9:  # safetensors: the length of the header
        data = (data.rfind(b"}") - 7).to_bytes(8, "little", signed=True) + data[8:]
    return data


_KNOWN: dict[int, list[bytes]] = {}


def _seeds(target: Target) -> list[bytes]:
    if id(target) not in _KNOWN:
        _KNOWN[id(target)] = target.seeds()
    return _KNOWN[id(target)]


def _damaged(data: bytes, random: Random) -> bytes:
    """The bytes with one mistake, as often in their first part, which says what follows."""
    most = len(data) if random.random() < 0.5 else min(len(data), 160)
    low = random.randrange(most + 1)
    high = min(len(data), low + random.choice((0, 1, 1, 2, 4, 8, 40, 400)))
    match random.randrange(7):
        case 0:
            changed = bytes(b ^ 1 << random.randrange(8) for b in data[low:high])
            return data[:low] + changed + data[high:]
        case 1:
            return data[:low] + data[high:]
        case 2:
            return data[:high] + data[low:high] * random.choice((1, 2, 50)) + data[high:]
        case 3:
            return data[:low]
        case 4:
            other = random.randrange(len(data) + 1)
            return data[:low] + data[other : other + high - low] + data[high:]
        case 5:
            width = random.choice(["<B", "<H", "<I", "<Q", ">I"])
            number = random.choice((0, 1, 127, 128, 2**16, 2**31, 2**40, 2**64 - 1, len(data)))
            packed = struct.pack(width, number & (1 << 8 * struct.calcsize(width)) - 1)
            return data[:low] + packed + data[low + len(packed) :]
        case _:
            return data[:low] + random.choice(TOKENS) + data[high:]


_WORD = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?|[A-Za-z_][A-Za-z0-9_]*")


def _reworded(data: bytes, random: Random) -> bytes:
    """The text with one of its words or numbers replaced, by another of its own as a rule."""
    words = list(_WORD.finditer(data[:20_000]))
    if not words:
        return _damaged(data, random)
    old, new = random.choice(words), random.choice(words)[0]
    if random.random() < 0.5:
        new = random.choice((*TOKENS, b"0", b"1", b"2", b"9" * 18, b"-" + new, new * 2))
    return data[: old.start()] + new + data[old.end() :]


def _zipped(data: bytes, random: Random) -> bytes:
    """The archive with a mistake in its members, which its checksums cover."""
    stream = io.BytesIO()
    with (
        warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w") as new,
    ):  # fmt: skip
        warnings.simplefilter("ignore")  # of two members of one name
        for name in old.namelist():
            body = _damaged(old.read(name), random)
            method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
            odd = random.choice(("x.npy", "y.npy", "b.npy", "a\x1b.npy", "../x.npy", "x"))
            new.writestr(name if random.random() < 0.8 else odd, body, method)
    return stream.getvalue()


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _with_mistake(document: Any, random: Random) -> Any:
    """The document with one member replaced, left out, added or repeated."""
    if isinstance(document, int | float) and random.random() < 0.7:
        return random.choice((*NUMBERS, document + 1, document - 1, document * 2, document // 2))
    if not isinstance(document, dict | list) or not document or random.random() < 0.02:
        return random.choice(VALUES)
    if isinstance(document, dict):
        key = random.choice(list(document))
        if random.random() < 0.1:
            return _changed_key(dict(document), key, random)
        return {**document, key: _with_mistake(document[key], random)}
    place = random.randrange(len(document))
    items = list(document)
    match random.randrange(12):
        case 0:
            del items[place]
        case 1:
            items.insert(random.randrange(len(items)), items[place])
        case 2:
            other = random.randrange(len(items))
            items[place], items[other] = items[other], items[place]
        case _:
            items[place] = _with_mistake(items[place], random)
    return items


def _changed_key(document: dict[str, Any], key: str, random: Random) -> dict[str, Any]:
    value = document.pop(key)
    if random.random() < 0.5:
        document[random.choice(TEXTS)] = value
    return document
