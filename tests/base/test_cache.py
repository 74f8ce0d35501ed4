"""Entries on disk: found again, never taken when damaged or of another user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphexec.base import cache as cache_module
from graphexec.base.cache import (
    Cache,
    CacheError,
    UntrustedFolder,
    cache_folder,
    fingerprint,
    read_private,
)

PAYLOAD = b"\x7fELF, and more\0"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "deep" / "kind")


@pytest.fixture
def entry(cache: Cache) -> Path:
    return cache.write("entry", PAYLOAD)


def make_foreign(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file or folder belong to another user."""
    if os.geteuid() == 0:
        os.chown(path, 1, -1)
    else:
        owner, real = path.stat().st_ino, cache_module._distrust
        other = "it belongs to another user"
        monkeypatch.setattr(
            cache_module, "_distrust", lambda s: other if s.st_ino == owner else real(s)
        )


# Sound entries --------------------------------------------------------------------------------


def test_what_is_written_is_read(cache: Cache) -> None:
    assert cache.read("entry") is None
    before = os.umask(0)
    try:
        path = cache.write("entry", PAYLOAD)
    finally:
        os.umask(before)
    assert cache.read("entry") == PAYLOAD
    assert path.read_bytes().startswith(PAYLOAD)  # as loaders of libraries want it
    assert path.stat().st_mode & 0o777 == 0o600
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert list(cache.folder.iterdir()) == [path]


def test_an_entry_is_made_once_or_anew(cache: Cache) -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return PAYLOAD

    paths = {cache.keep("entry", make) for _ in range(3)}
    assert len(made) == len(paths) == 1
    assert cache.keep("entry", make, anew=True) in paths
    assert len(made) == 2


def test_reading_makes_no_folder(cache: Cache) -> None:
    assert cache.read("entry") is None
    assert not cache.folder.parent.exists()


@given(st.lists(st.text() | st.binary(), max_size=4), st.lists(st.text() | st.binary(), max_size=4))
def test_fingerprints_tell_parts_apart(one: list[str | bytes], other: list[str | bytes]) -> None:
    as_bytes = [[p.encode() if isinstance(p, str) else p for p in parts] for parts in (one, other)]
    assert (fingerprint(*one) == fingerprint(*other)) == (as_bytes[0] == as_bytes[1])
    assert fingerprint("a", "b") != fingerprint("ab") != fingerprint("", "ab")


# Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(0, len(PAYLOAD) + cache_module._SEAL.size, 3))
def test_a_flipped_bit_is_seen(place: int, cache: Cache, entry: Path) -> None:
    data = bytearray(entry.read_bytes())
    data[place] ^= 1
    entry.write_bytes(data)
    assert cache.read("entry") is None


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:30], lambda data: data[:-1], lambda data: data[1:],
    lambda data: data + b"x", lambda data: data + data, lambda data: b"\x7fELF" * 100,
])  # fmt: skip
def test_other_lengths_are_seen(
    damage: Callable[[bytes], bytes], cache: Cache, entry: Path
) -> None:
    entry.write_bytes(damage(entry.read_bytes()))
    assert cache.read("entry") is None
    assert cache.keep("entry", lambda: PAYLOAD) == entry
    assert cache.read("entry") == PAYLOAD


def test_an_entry_under_another_name_is_not_taken(cache: Cache, entry: Path) -> None:
    entry.rename(entry.with_name("other"))
    assert cache.read("other") is None


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(kind: str, cache: Cache, entry: Path) -> None:
    entry.unlink()
    if kind == "folder":
        entry.mkdir()
    elif kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to("/dev/zero")
    assert cache.read("entry") is None
    if kind != "folder":
        assert cache.keep("entry", lambda: PAYLOAD) == entry
        assert cache.read("entry") == PAYLOAD
    else:
        with pytest.raises(CacheError, match=r"Is a directory|cannot be used"):
            cache.keep("entry", lambda: PAYLOAD)


# Of others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_an_entry_that_others_may_write_is_made_anew(mode: int, cache: Cache, entry: Path) -> None:
    entry.chmod(mode)
    assert cache.read("entry") is None
    with pytest.raises(PermissionError, match="others may write to it"):
        read_private(entry)
    cache.keep("entry", lambda: PAYLOAD)
    assert entry.stat().st_mode & 0o777 == 0o600
    assert cache.read("entry") == PAYLOAD


def test_an_entry_of_another_user_is_made_anew(
    cache: Cache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_foreign(entry, monkeypatch)
    assert cache.read("entry") is None
    with pytest.raises(PermissionError, match="belongs to another user"):
        read_private(entry)
    cache.keep("entry", lambda: PAYLOAD)
    assert cache.read("entry") == PAYLOAD
    assert entry.stat().st_uid == os.geteuid()


def test_a_link_to_what_others_may_write_is_not_followed(
    cache: Cache, entry: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    entry.rename(elsewhere)
    elsewhere.chmod(0o666)
    entry.symlink_to(elsewhere)
    assert cache.read("entry") is None
    cache.keep("entry", lambda: b"new")
    assert not entry.is_symlink()
    assert elsewhere.read_bytes().startswith(PAYLOAD)


@pytest.mark.parametrize("mode", [0o720, 0o702, None])
def test_a_folder_of_others_is_not_used(
    mode: int | None, cache: Cache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode is None:
        make_foreign(cache.folder, monkeypatch)
    else:
        cache.folder.chmod(mode)
    before = entry.read_bytes()
    reason = r"others may write to it \(chmod go-w /.*kind\)" if mode else "another user"
    for use in (lambda: cache.read("entry"), lambda: cache.write("entry", b""), cache.make,
                lambda: cache.keep("entry", lambda: b"")):  # fmt: skip
        with pytest.raises(UntrustedFolder, match=f"kind is not used: .*{reason}"):
            use()
    assert entry.read_bytes() == before


# Folders --------------------------------------------------------------------------------------


def test_where_entries_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("kernels") == tmp_path / "graphexec" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("kernels") == tmp_path / ".cache" / "graphexec" / "kernels"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(CacheError, match="set XDG_CACHE_HOME"):
        Cache(cache_folder("kernels"))


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "kind").write_text("in the way")
    cache = Cache(tmp_path / "kind")
    assert cache.read("entry") is None
    with pytest.raises(CacheError, match=r"the cache folder .* cannot be used"):
        cache.write("entry", PAYLOAD)
    assert (tmp_path / "kind").read_text() == "in the way"


@pytest.mark.parametrize("call", ["open", "replace"])
def test_a_full_disk_leaves_what_was_there(
    call: str, cache: Cache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(CacheError, match="No space left"):
            cache.write("entry", b"new")
    assert cache.read("entry") == PAYLOAD
    assert list(cache.folder.iterdir()) == [entry]


def test_an_interrupt_leaves_what_was_there(
    cache: Cache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.write("entry", b"new")
    assert cache.read("entry") == PAYLOAD
    assert list(cache.folder.iterdir()) == [entry]


WRITER = """
import sys
from pathlib import Path
from graphexec.base.cache import Cache
cache, me = Cache(Path(sys.argv[1])), sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
for i in range(300):
    cache.write("entry", me * 4096)
    found = cache.read("entry")
    assert found in (b"a" * 4096, b"b" * 4096), found
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "kind"
    runs = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), me],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for me in "ab"
    ]  # fmt: skip
    for run in runs:
        assert run.stdout
        run.stdout.readline()
    for run in runs:
        assert run.stdin
        run.stdin.write(b"go\n")
        run.stdin.flush()
    for run in runs:
        run.communicate(timeout=120)
    assert [run.returncode for run in runs] == [0, 0]
    assert [p.name for p in folder.iterdir()] == ["entry"]
