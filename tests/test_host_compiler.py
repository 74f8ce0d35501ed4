"""Libraries that the system's C compiler makes: once, for this CPU, and what may go wrong."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from graphexec import host_compiler
from graphexec.host_compiler import NATIVE, HostCompilerError, find_compiler, shared_library

FLAGS = ("-O1",)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A C file, and a folder of its own for what is made of it."""
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
    """What differs from core to core or from moment to moment is no part of it."""
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


def test_what_the_compiler_complains_about_is_passed_on(source: Path, compiler: Path) -> None:
    script = compiler.with_name("compiler")
    script.write_text("#!/bin/sh\n[ $1 = --version ] || { echo what is this >&2; exit 1; }\n")
    with pytest.raises(HostCompilerError, match="what is this"):
        shared_library(source, FLAGS)
    assert not any((source.parent / "cache").rglob("*.so"))
    assert not any((source.parent / "cache").rglob(".building*"))


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
    with pytest.raises(HostCompilerError, match="no folder to build in"):
        shared_library(source, FLAGS)
