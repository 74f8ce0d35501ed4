"""Compiled kernels on disk: found again, never trusted when damaged, and no error when unusable."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel_cases import cases
from kernel_harness import Harness

import graphexec.base.cache
from graphexec.base.cache import CacheWarning
from graphexec.base.errors import ExecutionError
from graphexec.ir.program import Kernel
from graphexec.runtime.hip import kernel_cache as hip_kernel_cache
from graphexec.runtime.hip.kernel_cache import KernelCache
from graphexec.runtime.hip.kernel_source import self_contained
from graphexec.runtime.hip.status import HipError


@dataclass
class FakeHip:
    """Bindings to a HIP whose compiler counts, and gives back what it was given."""

    runtime: str = "7.2.0"
    fails: bool = False
    compiled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.platform = SimpleNamespace(name="fake", runtime_version=self.runtime)
        self.kernels = self

    def version(self) -> tuple[int, int]:
        return 9, 0

    def properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(warp_size=64, multiprocessors=104)

    def compile(self, source: str, name: str, options: Sequence[str]) -> bytes:
        if self.fails:
            raise HipError("hiprtcCompileProgram", 6, "ERROR", "no good\nx.hip:3: error: what?")
        self.compiled.append(name)
        return f"{options}\n{source}".encode()


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts as a process that has compiled nothing."""
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hip_kernel_cache, "_in_process", {})


@pytest.fixture
def hip() -> FakeHip:
    return FakeHip()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return kernel_of(tmp_path, "// nothing\n")


def kernel_of(folder: Path, text: str, *defines: tuple[str, str]) -> Kernel:
    source = folder / "mine.hip"
    source.write_text(text)
    return Kernel(source, "mine", (), (1, 1, 1), (1, 1, 1), lambda arrays, parallel: None,
                  defines=defines)  # fmt: skip


def cache(hip: Any, folder: Path, architecture: str = "gfx90a") -> KernelCache:
    return KernelCache(hip, architecture, folder=folder / "cache")


def entry(folder: Path) -> Path:
    (path,) = (folder / "cache").glob("*.kernel")
    return path


# The text that is compiled ---------------------------------------------------------------


def test_includes_are_replaced_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "near.h").write_text('#pragma once\n#include "device.h"\nint near;\n')
    kernel = kernel_of(
        tmp_path, '#include "near.h"\n# include "near.h"\n#include "far.h"\nint mine;\n',
        ("X_TYPE", "f16"),
    )  # fmt: skip
    text = self_contained(kernel)
    assert text.startswith('#define X_TYPE f16\n#line 1 "mine.hip"\n#line 1 "near.h"\n')
    assert text.count("struct bf16 {") == 1
    assert text.count("int near;") == 1
    assert text.endswith('#line 3 "mine.hip"\n#include "far.h"\nint mine;\n')
    assert "pragma once" not in text


# Hits and misses -------------------------------------------------------------------------


def test_a_kernel_is_compiled_once_a_process(hip: FakeHip, kernel: Kernel, tmp_path: Path) -> None:
    codes = {cache(hip, tmp_path).code(kernel) for _ in range(3)}
    assert len(codes) == len(hip.compiled) == 1


def test_and_once_in_all(
    hip: FakeHip, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache(hip, tmp_path).code(kernel)
    forget(monkeypatch)
    assert cache(hip, tmp_path).code(kernel) == first
    assert len(hip.compiled) == 1
    assert entry(tmp_path) == cache(hip, tmp_path).path(kernel)


def test_what_code_depends_on_is_in_its_name(
    hip: FakeHip, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        cache(hip, tmp_path).path(kernel),
        cache(hip, tmp_path, "gfx1030").path(kernel),
        cache(FakeHip(runtime="7.3.0"), tmp_path).path(kernel),
        cache(hip, tmp_path).path(replace(kernel, defines=(("A", "1"),))),
        cache(hip, tmp_path).path(kernel_of(tmp_path, "// something\n")),
    ]
    monkeypatch.setattr("graphexec.runtime.hip.kernel_cache.__version__", "0.0.0")
    paths.append(cache(hip, tmp_path).path(kernel))
    assert len(set(paths)) == len(paths)


def test_a_changed_header_is_another_kernel(hip: FakeHip, tmp_path: Path) -> None:
    kernel = kernel_of(tmp_path, '#include "near.h"\n')
    paths = set()
    for text in ("int a;", "int b;"):
        (tmp_path / "near.h").write_text(text)
        paths.add(cache(hip, tmp_path).path(kernel))
    assert len(paths) == 2


# Damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["a bit", "theirs", "a pipe"])
def test_an_entry_that_is_not_as_it_was_kept_is_compiled_anew(
    hip: FakeHip, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    whole = cache(hip, tmp_path).code(kernel)
    path = entry(tmp_path)
    kept = path.read_bytes()
    if damage == "a bit":
        path.write_bytes(bytes([kept[0] ^ 1]) + kept[1:])
    elif damage == "theirs":
        path.chmod(0o666)
    else:
        path.unlink()
        os.mkfifo(path)
    forget(monkeypatch)
    assert cache(hip, tmp_path).code(kernel) == whole
    assert len(hip.compiled) == 2
    assert entry(tmp_path).read_bytes() == kept


# Folders that cannot be used -------------------------------------------------------------


def test_a_file_in_place_of_the_folder(hip: FakeHip, kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert cache(hip, tmp_path).code(kernel)
    assert (tmp_path / "cache").read_text() == "in the way"


def test_a_folder_without_permission(
    hip: FakeHip, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:  # root would be let in
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(graphexec.base.cache, "write_private", denied)
    assert cache(hip, tmp_path).code(kernel)
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_that_others_may_write_is_warned_of(
    hip: FakeHip, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache(hip, tmp_path).code(kernel)
    (tmp_path / "cache").chmod(0o777)
    forget(monkeypatch)
    with pytest.warns(CacheWarning, match=r"compiled anew .* others may write to it"):
        theirs = cache(hip, tmp_path)
    assert theirs.code(kernel)
    assert theirs.path(kernel) is None
    assert len(hip.compiled) == 2


def test_a_user_without_a_home(
    hip: FakeHip, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert KernelCache(hip, "gfx90a").code(kernel)  # type: ignore[arg-type]
    assert KernelCache(hip, "gfx90a").path(kernel) is None  # type: ignore[arg-type]


# Errors ----------------------------------------------------------------------------------


def test_a_compile_error_names_the_kernel_and_has_the_log(tmp_path: Path) -> None:
    kernel = kernel_of(tmp_path, "", ("X_TYPE", "f16"))
    with pytest.raises(ExecutionError) as error:
        cache(FakeHip(fails=True), tmp_path).code(kernel)
    for part in ("'mine'", str(kernel.source), "X_TYPE=f16", "x.hip:3: error: what?"):
        assert part in str(error.value)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_missing_source_is_an_execution_error(
    hip: FakeHip, kernel: Kernel, tmp_path: Path
) -> None:
    kernel.source.unlink()
    with pytest.raises(ExecutionError, match=r"'mine' cannot be read: .*mine\.hip"):
        cache(hip, tmp_path).code(kernel)


# Several at once -------------------------------------------------------------------------


def test_kernels_are_compiled_side_by_side(
    hip: FakeHip, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    meeting = threading.Barrier(2, timeout=30)
    compile = hip.compile

    def together(source: str, name: str, options: Sequence[str]) -> bytes:
        meeting.wait()
        return compile(source, name, options)

    hip.compile = together  # type: ignore[method-assign]
    both = [replace(kernel, defines=(("A", value),)) for value in "12"]
    cache(hip, tmp_path).compile([*both, *both])
    assert len(hip.compiled) == 2


def test_two_processes_at_once(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from test_hip_kernel_cache import FakeHip, kernel_of
        from graphexec.runtime.hip.kernel_cache import KernelCache
        folder = Path(sys.argv[1])
        cache = KernelCache(FakeHip(), "gfx90a", folder=folder / "cache")
        kernels = [kernel_of(folder, "", ("A", str(i))) for i in range(200)]
        print("ready", flush=True)
        sys.stdin.readline()
        for kernel in kernels:
            assert f"#define A {kernel.defines[0][1]}\\n".encode() in cache.code(kernel)
        """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    runs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout
        run.stdout.readline()
    for run in runs:
        run.communicate(b"go\n", timeout=120)
    assert [run.returncode for run in runs] == [0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 200


# The genuine bindings --------------------------------------------------------------------


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness.open()


def test_entries_load_into_the_device(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = [k for case in cases()[:4] for k in case.apply().kernels]
    harness.cache(tmp_path).compile(kernels)
    forget(monkeypatch)
    monkeypatch.setattr(type(harness.hip.kernels), "compile", None)  # nothing is left to compile
    with ExitStack() as owned:
        again = harness.cache(tmp_path)
        assert all(again.function(kernel, owned) for kernel in kernels)


def test_the_compilers_log_names_the_line(harness: Harness, tmp_path: Path) -> None:
    kernel = kernel_of(tmp_path, '#include "device.h"\n\nint f() { return nonsense; }\n')
    with pytest.raises(ExecutionError, match=r"mine\.hip[:(]3\b(.|\n)*nonsense"):
        harness.cache(tmp_path).code(kernel)
