"""Files are written whole or not at all; pipes and devices are written to and not replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from graphexec.base import atomic_file
from graphexec.base.atomic_file import (
    check_file,
    scratch_folder,
    text_writer,
    write_files,
    write_private,
)
from graphexec.base.errors import DataError


def write_text(path: Path, text: str) -> None:
    write_files({path: text_writer(text)})


def contents(folder: Path) -> dict[str, str | None]:
    """The text of every file in a folder, by name; None for a folder in it."""
    return {p.name: None if p.is_dir() else p.read_text() for p in sorted(folder.iterdir())}


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


# Several files: all or none -------------------------------------------------------------------


@pytest.fixture
def several(tmp_path: Path) -> dict[Path, atomic_file.Writer]:
    """Three files to write, of which b is there already."""
    (tmp_path / "b").write_text("old")
    return {tmp_path / name: text_writer("new") for name in "abc"}


def test_several_files_are_written(several: dict[Path, atomic_file.Writer], tmp_path: Path) -> None:
    write_files(several)
    assert contents(tmp_path) == dict.fromkeys("abc", "new")


def test_a_folder_in_place_of_one_leaves_all(
    several: dict[Path, atomic_file.Writer], tmp_path: Path
) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"cannot write '.*c': it is a directory"):
        write_files(several)
    assert contents(tmp_path) == {"b": "old", "c": None}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("error", [OSError(16, "Device or resource busy"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", range(3))
def test_what_was_replaced_is_put_back(
    several: dict[Path, atomic_file.Writer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    failing: int, error: BaseException, links: bool,
) -> None:  # fmt: skip
    """When a later one cannot be renamed, also where the file system has no hard links."""
    rename, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing + 1:
            raise error
        rename(source, target)

    def no_links(*paths: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", replace)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises((DataError, KeyboardInterrupt)):
        write_files(several)
    assert calls[failing].name == "abc"[failing]
    assert contents(tmp_path) == {"b": "old"}


def test_a_folder_is_made_for_the_files_or_not(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    with pytest.raises(DataError, match=r"cannot write '.*a/b'.*"):
        write_files({folder / "a": text_writer("a"), folder / "a/b": text_writer("b")}, folder)
    assert not folder.exists()
    write_files({folder / "a": text_writer("a")}, folder)
    assert contents(folder) == {"a": "a"}
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write '.*file'"):
        write_files({}, tmp_path / "file")


@pytest.mark.parametrize(("name", "reason"), [
    ("a\0b", "null"), ("a" * 300, "name too long"), ("loop", "symbolic links"),
    ("none/a", "No such file"),
])  # fmt: skip
def test_paths_that_cannot_be(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for write in (check_file, lambda path: write_text(path, "new")):
        with pytest.raises(DataError, match=f"cannot write '.*{reason}"):
            write(tmp_path / name)
    assert os.listdir(tmp_path) == ["loop"]


# What is planted ------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [
    write_text, lambda path, text: write_private(path, text.encode()),
    lambda path, text: check_file(path),
])  # fmt: skip
def test_a_link_planted_for_the_unfinished_file_is_not_followed(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its name were guessed."""
    victim, folder = tmp_path / "victim", tmp_path / "shared"
    victim.write_text("precious")
    folder.mkdir()
    monkeypatch.setattr(atomic_file, "token_hex", lambda count: "guessed")
    (folder / ".guessed.part").symlink_to(victim)
    with pytest.raises((DataError, OSError), match="exists"):
        write(folder / "out", "new")
    assert victim.read_text() == "precious"
    assert not (folder / "out").exists()


def test_names_of_unfinished_files_cannot_be_foreseen(tmp_path: Path) -> None:
    seen: set[str] = set()
    for _ in range(20):
        write_files({tmp_path / "out": lambda stream: seen.update(os.listdir(tmp_path))})
    assert len(seen - {"out"}) == 20


def test_a_private_file_is_its_users_alone_and_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    path = tmp_path / "entry"
    path.symlink_to(tmp_path / "victim")
    before = os.umask(0)
    try:
        write_private(path, b"new")
    finally:
        os.umask(before)
    assert path.lstat().st_mode & 0o777777 == 0o100600
    assert contents(tmp_path) == {"entry": "new", "victim": "precious"}


# Signals --------------------------------------------------------------------------------------

UNFINISHED = """
import os, signal, sys
from pathlib import Path
from graphexec.base import atomic_file
from graphexec.cli import interrupt
interrupt.watch()
folder, how = Path(sys.argv[1]), sys.argv[2]

def wait(stream):
    if how == "stuck":  # in a call that no signal interrupts, as one in a library
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    reader, writer = os.pipe()
    print("writing", flush=True)
    os.read(reader, 1)

try:
    with atomic_file.scratch_folder() as scratch:
        (scratch / "object.o").touch()
        path = folder / "d" / "b.npy"
        write_files = atomic_file.write_files
        write_files({folder / "a.npy": lambda stream: None, path: wait}, folder / "d")
except KeyboardInterrupt:
    os._exit(interrupt.say())
"""


@pytest.mark.parametrize("how", ["waiting", "stuck"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(number: signal.Signals, how: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("old")
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", UNFINISHED, str(tmp_path), how], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.rglob("*.part"))) == 2
        assert len(list(tmp_path.rglob("*.o"))) == 1
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said in (b"interrupted\n", b"terminated\n")
    assert (said == b"terminated\n") == (number == signal.SIGTERM)
    assert contents(tmp_path) == {"a.npy": "old", "tmp": None}
    assert contents(tmp_path / "tmp") == {}


def test_a_scratch_folder_is_removed_with_what_is_in_it() -> None:
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").touch()
    assert not folder.exists()


# What is no file, and what is protected -------------------------------------------------------


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
new = atomic_file.text_writer("new")
for write in (atomic_file.check_file, lambda path: atomic_file.write_files({path: new})):
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
        assert as_a_user() == [f"error: cannot write '{asked}': it is write-protected"] * 2
        for write in (check_file, lambda place: write_text(place, "new")):
            with pytest.raises(DataError, match="it is write-protected"):  # root may, but does not
                write(asked)
        assert path.read_text() == "old"
        path.chmod(0o666)
        assert as_a_user() == ["written"] * 2
        assert path.read_text() == "new"
        assert sorted(os.listdir(folder)) == sorted({"out.npz", asked.name})
