"""Libraries made by the system's C compiler: once, for this CPU; and every failure."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

import pytest

from graphexec.base import host_compiler
from graphexec.base.cache import Cache
from graphexec.base.host_compiler import (
    NATIVE,
    HostCompilerError,
    compile_library,
    find_compiler,
    load_library,
    shared_library,
)

FLAGS = ("-O1",)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A C file, and a folder for its libraries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "answer.c"
    path.write_text("int answer(void) { return 41; }\n")
    return path


@pytest.fixture
def compiler(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes its arguments to its output, and the log of its calls."""
    script, log = source.with_name("compiler"), source.with_name("calls")
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {log}\n'
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo built > "$2"; shift; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    return log


def made(log: Path) -> int:
    return log.read_text().count(" -o ") if log.exists() else 0


def test_the_code_is_that_of_the_source(source: Path) -> None:
    try:
        find_compiler()
    except HostCompilerError as error:
        pytest.skip(f"a C compiler is needed: {error}")
    assert ctypes.CDLL(str(shared_library(source, (*FLAGS, NATIVE)))).answer() == 41
    source.write_text("int answer(void) { return 42; }\n")
    assert ctypes.CDLL(str(shared_library(source, (*FLAGS, NATIVE)))).answer() == 42


def test_it_is_compiled_once(source: Path, compiler: Path) -> None:
    library = shared_library(source, FLAGS)
    assert shared_library(source, FLAGS) == library
    assert made(compiler) == 1
    assert list(library.parent.iterdir()) == [library]


def test_it_is_compiled_anew_for_another_cpu_source_compiler_or_flags(
    source: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {shared_library(source, FLAGS), shared_library(source, ("-O2",))}
    with monkeypatch.context() as patch:
        patch.setattr(host_compiler, "_cpu", lambda: "another")
        found.add(shared_library(source, FLAGS))
    with monkeypatch.context() as patch:
        patch.setenv("CC", f"{compiler.with_name('compiler')} -flag")
        found.add(shared_library(source, FLAGS))
    script = compiler.with_name("compiler")
    script.write_text(script.read_text().replace("#!/bin/sh\n", "#!/bin/sh\necho version 2\n"))
    found.add(shared_library(source, FLAGS))
    source.write_text("int answer(void) { return 42; }\n")
    found.add(shared_library(source, FLAGS))
    assert len(found) == made(compiler) == 6


def test_a_cpu_is_told_by_its_model_and_features(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The key must not contain what differs between cores or changes over time."""
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(host_compiler, "CPUINFO", cpuinfo)

    def cpu(**lines: str) -> str:
        lines = {"model name": "A", "flags": "avx2", "cpu MHz": "1000", **lines}
        text = "".join(f"{name}\t: {value}\n" for name, value in lines.items())
        cpuinfo.write_text(f"processor\t: 0\n{text}\nprocessor\t: 1\n{text}")
        return host_compiler._cpu()

    assert cpu() == cpu(**{"cpu MHz": "2000"})
    assert len({cpu(), cpu(flags="avx2 avx512f"), cpu(**{"model name": "B"})}) == 3
    cpuinfo.unlink()
    assert host_compiler._cpu()


def test_what_the_compiler_complains_about_is_passed_on(
    source: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = source.with_name("scratch")
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    script = compiler.with_name("compiler")
    script.write_text("#!/bin/sh\n[ $1 = --version ] || { echo what is this >&2; exit 1; }\n")
    with pytest.raises(HostCompilerError, match="what is this"):
        shared_library(source, FLAGS)
    assert not any((source.parent / "cache").rglob("*.so"))
    assert not list(scratch.iterdir())


def test_no_compiler(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(HostCompilerError, match=r"named by \$CC, /nowhere/cc, was not found"):
        shared_library(source, FLAGS)
    monkeypatch.delenv("CC")
    monkeypatch.setattr(host_compiler.shutil, "which", lambda name: None)
    with pytest.raises(HostCompilerError, match="no C compiler was found"):
        shared_library(source, FLAGS)


def test_a_folder_that_cannot_be_used(source: Path, compiler: Path) -> None:
    (source.parent / "cache").touch()
    with pytest.raises(HostCompilerError, match=r"the cache folder .* cannot be used"):
        shared_library(source, FLAGS)
    assert made(compiler) == 0


def test_a_user_without_a_home(
    source: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_compiler, "cache_folder", lambda kind: None)
    with pytest.raises(HostCompilerError, match=r"no home .* set XDG_CACHE_HOME"):
        shared_library(source, FLAGS)


@pytest.mark.parametrize("size", [0, 3, 60, -1])
def test_a_damaged_library_is_compiled_anew(size: int, source: Path, compiler: Path) -> None:
    """Empty, cut, or with a changed byte: loading it might end the process."""
    library = shared_library(source, FLAGS)
    sound = library.read_bytes()
    library.write_bytes(sound[:size] if size >= 0 else b"B" + sound[1:])
    assert shared_library(source, FLAGS).read_bytes() == sound
    assert made(compiler) == 2


def answer(code: ctypes.CDLL) -> int:
    return int(code.answer())


@pytest.fixture
def real_compiler(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that keeps a log of its calls."""
    try:
        command = find_compiler()
    except HostCompilerError as error:
        pytest.skip(f"a C compiler is needed: {error}")
    script, log = source.with_name("compiler"), source.with_name("calls")
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {" ".join(command)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    return log


@pytest.mark.parametrize("other", ["no library", "int question(void) { return 0; }"])
def test_a_library_of_no_use_is_compiled_anew(
    other: str, source: Path, real_compiler: Path, tmp_path: Path
) -> None:
    """An undamaged file that is no library, or lacks a function."""
    library = shared_library(source, FLAGS)
    code = other.encode()
    if other != "no library":
        (tmp_path / "other.c").write_text(other)
        code = compile_library([*find_compiler(), "-shared", "-fPIC", str(tmp_path / "other.c")])
    Cache(library.parent).write(library.name, code)
    before = made(real_compiler)
    assert load_library(source, FLAGS, answer) == 41
    assert load_library(source, FLAGS, answer) == 41
    assert made(real_compiler) == before + 1


def test_a_change_of_an_included_file_compiles_anew(source: Path, real_compiler: Path) -> None:
    included = source.with_name("answer.h")
    source.write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    for number in (41, 42, 41):
        included.write_text(f"#define ANSWER {number}\n")
        assert load_library(source, FLAGS, answer) == number
    assert made(real_compiler) == 2


@pytest.mark.parametrize("text", [None, "int question(void) { return 0; }\n"])
def test_a_compiler_that_makes_nothing_of_use_is_asked_twice(
    text: str | None, source: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        source.write_text(text)
        compiler.with_name("compiler").write_text(
            f'#!/bin/sh\necho "$@" >> {compiler}\nexec cc "$@"\n'
        )
    with pytest.raises(HostCompilerError, match="of no use"):
        load_library(source, FLAGS, answer)
    assert made(compiler) == 2


@pytest.mark.parametrize("told", ["'", "cc 'x", "\udcff"])
def test_a_name_that_is_no_command(
    told: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", told)
    with pytest.raises(HostCompilerError, match=r"\$CC"):
        shared_library(source, FLAGS)


def test_a_compiler_need_not_speak_utf_8(
    source: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = compiler.with_name("compiler")
    text = script.read_text()
    script.write_text(
        text.replace("#!/bin/sh\n", "#!/bin/sh\nprintf '\\377'; printf '\\376' >&2\n")
    )
    monkeypatch.setenv("CC", f"{script} \udcff")
    assert shared_library(source, FLAGS).is_file()
    script.write_text("#!/bin/sh\nprintf 'bad \\377' >&2\nexit 1\n")
    with pytest.raises(HostCompilerError, match="bad \ufffd"):
        shared_library(source, FLAGS)


def test_a_compiler_that_hangs_is_ended_with_what_it_started(
    source: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, script = source.with_name("pipe"), compiler.with_name("compiler")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    script.write_text(f"#!/bin/sh\nexec 3>{pipe}\necho started >&3\nsleep 1000 &\nwait\n")
    monkeypatch.setattr(host_compiler, "TIMEOUT", 1.0)
    with pytest.raises(HostCompilerError, match="took more than 1 s"):
        shared_library(source, FLAGS)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == b"started\n"  # up to the end: nobody has it open any more


def test_what_others_may_write_is_not_loaded(source: Path, compiler: Path) -> None:
    library = shared_library(source, FLAGS)
    library.write_text("theirs")
    library.chmod(0o666)
    assert shared_library(source, FLAGS).read_bytes().startswith(b"built")
    assert made(compiler) == 2
    library.parent.chmod(0o777)
    with pytest.raises(HostCompilerError, match=r"others may write to it \(chmod go-w "):
        shared_library(source, FLAGS)
    assert made(compiler) == 2


def test_a_generous_umask_lets_nobody_else_write(source: Path, compiler: Path) -> None:
    before = os.umask(0)
    try:
        library = shared_library(source, FLAGS)
        assert shared_library(source, FLAGS) == library
    finally:
        os.umask(before)
    assert made(compiler) == 1
