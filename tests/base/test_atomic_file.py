"""Files are written whole or not at all; pipes and devices are written to and not replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from graphexec.base.atomic_file import check_file, write_files, write_text
from graphexec.base.errors import DataError


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


AS_A_USER = """
import os, sys
from pathlib import Path
from graphexec.base import atomic_file, diagnostics, errors
if os.getuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
for write in (atomic_file.check_file, lambda path: atomic_file.write_text(path, "new")):
    try:
        write(Path(sys.argv[1]))
        print("written")
    except errors.DataError as exc:
        print(exc)
"""


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_that_its_owner_has_protected_is_not_replaced(linked: bool) -> None:
    """A writable folder would be enough to replace the file; it must not be."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.npz"
        path.write_text("old")
        os.chmod(folder, 0o777)
        asked = path.with_name("link") if linked else path
        if linked:
            asked.symlink_to(path)

        def as_a_user() -> list[str]:
            command = [sys.executable, "-c", AS_A_USER, str(asked)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return done.stdout.splitlines()

        path.chmod(0o444)
        assert as_a_user() == [
            f"error: cannot write '{file}': it is write-protected" for file in (asked, path)
        ]
        for write in (check_file, lambda place: write_text(place, "new")):
            with pytest.raises(DataError, match="it is write-protected"):  # root may, but does not
                write(asked)
        assert path.read_text() == "old"
        path.chmod(0o666)
        assert as_a_user() == ["written"] * 2
        assert path.read_text() == "new"
        assert sorted(os.listdir(folder)) == sorted({"out.npz", asked.name})
