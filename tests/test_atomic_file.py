"""Files appear whole or not at all; what is no file is written to and stays what it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from graphexec.atomic_file import check_file, write_files, write_text
from graphexec.errors import DataError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_text(path, "first")
    write_text(path, "second")
    assert path.read_text() == "second"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    def fail(stream: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left"):
        write_files({tmp_path / "a": lambda stream: stream.write(b"a"), tmp_path / "b": fail})
    assert os.listdir(tmp_path) == []


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.svg"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    check_file(pipe)
    write_text(pipe, "<svg/>")
    reader.join(60)
    assert found == ["<svg/>"]
    assert pipe.is_fifo()


def test_a_device_stays_one() -> None:
    null = Path("/dev/null")
    check_file(null)
    write_text(null, "nothing")
    assert null.is_char_device()
