"""Finding CUDA and building the HIP libraries on top of it, with and without CUDA at hand."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hip_signatures import hip_python, used_names

from graphexec.runtime.hip import on_cuda as hip_on_cuda
from graphexec.runtime.hip.on_cuda import HipOnCudaError, build, find_cuda

# hip-python asks for hipGetDeviceProperties under the name of its structure's layout.
SYMBOLS = {"hipGetDeviceProperties": "hipGetDevicePropertiesR0600"}


def make_toolkit(root: Path, major: int, without: tuple[str, ...] = ()) -> Path:
    """A folder that looks like a CUDA toolkit, every file empty but the one with the version."""
    include, lib = root / "targets" / "x86_64-linux" / "include", root / "lib64"
    for name in hip_on_cuda.HEADERS:
        if name not in without:
            (include / name).parent.mkdir(parents=True, exist_ok=True)
            (include / name).write_text(f"#define CUDA_VERSION {major}020\n")
    lib.mkdir(parents=True, exist_ok=True)
    for name in hip_on_cuda.CUDA_LIBRARIES:
        if name not in without:
            (lib / f"{name}.so.{major}").touch()
    return root


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the machine's own CUDA, except for what `$CUDA_HOME` and `$CUDA_PATH` name."""
    for variable in ("CUDA_HOME", "CUDA_PATH", "CC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(hip_on_cuda, "LOCAL", tmp_path / "nowhere")
    monkeypatch.setattr(hip_on_cuda, "SYSTEM_FOLDERS", ())
    monkeypatch.setattr(hip_on_cuda.shutil, "which", lambda name: None)
    monkeypatch.setattr(hip_on_cuda.sys, "path", [])


@pytest.fixture
def compiler(only: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A compiler that writes its arguments to its output, and the log of its calls."""
    log, script = tmp_path / "calls", tmp_path / "compiler"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {log}\n'
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo built > "$2"; shift; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setattr(hip_on_cuda.shutil, "which", lambda name: name if "/" in name else None)
    return log


def test_no_cuda_at_all(only: None) -> None:
    with pytest.raises(HipOnCudaError, match="no CUDA 12 or newer was found"):
        find_cuda()


def test_a_toolkit_is_found_by_variable(
    only: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_toolkit(tmp_path / "cuda", 13)
    monkeypatch.setenv("CUDA_HOME", str(root))
    toolkit = find_cuda()
    assert toolkit.major == 13
    assert toolkit.include_dirs == (root / "targets" / "x86_64-linux" / "include",)
    assert toolkit.libcublas == root / "lib64" / "libcublas.so.13"
    assert toolkit.libcuda is None


def test_missing_pieces_are_named(
    only: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_toolkit(tmp_path / "cuda", 13, without=("cublas_v2.h", "libnvrtc"))
    monkeypatch.setenv("CUDA_HOME", str(root))
    with pytest.raises(HipOnCudaError) as caught:
        find_cuda()
    assert str(caught.value) == (
        "CUDA 13 lacks the header cublas_v2.h (pip install nvidia-cublas), libnvrtc.so.13"
    )


def test_pip_packages_complete_a_toolkit_of_their_major_version(
    only: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_toolkit(tmp_path / "cuda", 13, without=("cublas_v2.h", "cublasLt.h", "libcublas"))
    site = tmp_path / "site-packages"
    for folder in ("include", "lib"):
        (site / "nvidia" / "cu13" / folder).mkdir(parents=True)
    for path in ("include/cublas_v2.h", "include/cublasLt.h", "lib/libcublas.so.13"):
        (site / "nvidia" / "cu13" / path).touch()
    monkeypatch.setenv("CUDA_HOME", str(root))
    monkeypatch.setattr(hip_on_cuda.sys, "path", [str(site)])
    toolkit = find_cuda()
    assert toolkit.libcublas == site / "nvidia" / "cu13" / "lib" / "libcublas.so.13"
    assert toolkit.libcudart == root / "lib64" / "libcudart.so.13"
    assert len(toolkit.include_dirs) == 2


def test_an_incomplete_version_gives_way_to_a_complete_one(
    only: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "a", 13, without=("libcublas",))))
    monkeypatch.setenv("CUDA_PATH", str(make_toolkit(tmp_path / "b", 12)))
    assert find_cuda().major == 12


def test_no_compiler(only: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "cuda", 13)))
    with pytest.raises(HipOnCudaError, match="no C compiler was found"):
        build(tmp_path / "cache")
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(HipOnCudaError, match=r"named by \$CC, /nowhere/cc, was not found"):
        build(tmp_path / "cache")


def test_a_build_is_kept_until_something_changes(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "cuda", 13)))
    cache = tmp_path / "cache"
    folder = build(cache)
    assert {path.name for path in folder.iterdir()} == set(hip_on_cuda.LIBRARIES)
    compiled = compiler.read_text().count(" -o ")
    assert compiled == 4
    assert build(cache) == folder
    assert compiler.read_text().count(" -o ") == compiled
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "other", 13)))
    assert build(cache) != folder
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".so"}


def test_what_the_compiler_says_is_passed_on(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "cuda", 13)))
    script = compiler.with_name("compiler")
    script.write_text("#!/bin/sh\n[ $1 = --version ] || { echo no such header >&2; exit 1; }\n")
    with pytest.raises(HipOnCudaError, match="no such header"):
        build(tmp_path / "cache")
    assert not any((tmp_path / "cache").rglob("*.so"))


def test_a_damaged_build_is_made_anew(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "cuda", 13)))
    cache = tmp_path / "cache"
    folder = build(cache)

    def libraries() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in build(cache).iterdir()}

    sound = libraries()
    (folder / "libhiprtc.so").write_bytes(sound["libhiprtc.so"][:-1])
    assert libraries() == sound
    (folder / "libhipblas.so").unlink()
    assert libraries() == sound
    (folder / "libhiprtc.so").chmod(0o666)  # others may have written it
    assert libraries() == sound
    assert (folder / "libhiprtc.so").stat().st_mode & 0o777 == 0o600
    assert list(cache.iterdir()) == [folder]


@pytest.mark.parametrize("what", ["cache", "folder"])
def test_a_build_that_others_may_write_is_not_loaded(
    what: str, compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "cuda", 13)))
    folder = build(tmp_path / "cache")
    (folder if what == "folder" else folder.parent).chmod(0o770)
    with pytest.raises(HipOnCudaError, match="others may write to it"):
        build(tmp_path / "cache")


def test_every_function_graphexec_calls_is_exported() -> None:
    sources = "".join(path.read_text() for path in hip_on_cuda.SOURCES.glob("*.c"))
    exported = set(re.findall(r"^EXPORT [^(]*?(\w+)\(", sources, re.MULTILINE))
    modules = hip_python()
    used = {name: getattr(modules.get(module), name, None) for _, module, name, _ in used_names()}
    called = {name for name, function in used.items() if inspect.isroutine(function)}
    called |= {"hipGraphGetNodes", "hipGraphGetEdges"}  # called without hip-python
    assert len(called) > 60
    assert not {SYMBOLS.get(name, name) for name in called} - exported


LOAD = """
import ctypes, sys
runtime, *others = [ctypes.CDLL(path) for path in sys.argv[1:]]
version = ctypes.c_int()
assert runtime.hipRuntimeGetVersion(ctypes.byref(version)) == 0
print(version.value)
"""


def test_the_libraries_build_and_load_without_a_gpu(tmp_path: Path) -> None:
    try:
        find_cuda()
    except HipOnCudaError as error:
        pytest.skip(str(error))
    folder = build(tmp_path)
    libraries = [str(folder / name) for name in hip_on_cuda.LIBRARIES]
    # In a process of its own: the emulator's libraries have the same names.
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *libraries], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 12000
