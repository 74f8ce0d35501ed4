"""Files of users: what is no regular file, or is too large, is refused at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from graphexec.base.errors import GraphError
from graphexec.base.reading import read_file, read_text


def test_a_file_is_read_whole_through_links_too(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"\xef\xbb\xbfabc")
    link.symlink_to(path)
    assert read_file(link, 6) == b"\xef\xbb\xbfabc"
    assert read_text(link) == "abc"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


def listening(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    return str(folder / "socket")


@pytest.mark.parametrize(("make", "reason"), [
    (pipe, "it is a pipe, not a file"),
    (lambda folder: "/dev/zero", "it is a device, not a file"),
    (listening, "No such device or address"),
    (str, "Is a directory"),
    (lambda folder: f"{folder}/none", "No such file"),
    (lambda folder: "a\0b", "null"),
    (lambda folder: "a" * 300, "name too long"),
])  # fmt: skip
def test_what_is_no_file_is_refused_without_waiting(make, reason: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=reason):
        read_file(path)
    with pytest.raises(GraphError, match=rf"cannot read the plan '.*{reason}"):
        read_text(path, "the plan ")
    assert len(os.listdir("/proc/self/fd")) == before


def test_size_is_limited_also_where_it_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    assert len(read_file(path, 11)) == 11
    with pytest.raises(OSError, match="larger than"):
        read_file(path, 10)
    assert os.stat("/proc/self/maps").st_size == 0
    with pytest.raises(OSError, match="larger than"):
        read_file("/proc/self/maps", 10)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(GraphError, match="is not UTF-8 text"):
        read_text(tmp_path / "file")
