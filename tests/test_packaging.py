"""The sdist and the wheel hold everything, and work outside the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OLDEST_SETUPTOOLS = 77

BUILD = "import os, sys; os.chdir(sys.argv[1]); from setuptools import build_meta as b; "


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_venv(folder: Path, site: Path | None = None) -> Path:
    """A bare virtual environment that sees the packages in `site`, but no editable install."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    if site is not None:
        own = Path(
            run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )
        # Paths in a .pth file are searched, the .pth files there are not run.
        (own / "others.pth").write_text(f"{site}\n")
    return python


def pip(python: Path, *arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install",
        "--quiet", *arguments)  # fmt: skip


def builder(folder: Path) -> Path:
    """A Python with a setuptools that is new enough: this one's, or a fresh one."""
    try:
        if int(version("setuptools").split(".")[0]) >= OLDEST_SETUPTOOLS:
            return Path(sys.executable)
    except PackageNotFoundError:
        pass
    python = make_venv(folder / "build-env")
    pip(python, f"setuptools>={OLDEST_SETUPTOOLS}")
    return python


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel), built from a copy of the sources; the wheel from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*")
    shutil.copytree(ROOT, source, ignore=ignore)
    python = builder(folder)
    run(python, "-c", BUILD + "b.build_sdist(sys.argv[2])", source, folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(python, "-c", BUILD + "b.build_wheel(sys.argv[2])", unpacked, folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def sources(folder: Path, *endings: str) -> set[str]:
    return {
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.suffix in endings and "__pycache__" not in p.parts
    }


ENDINGS = (".py", ".hip", ".h", ".c", ".cpp", ".typed", ".json")


def expected() -> set[str]:
    found = {f"graphexec/{name}" for name in sources(ROOT / "graphexec", *ENDINGS)}
    found |= {"graphexec/py.typed"}
    found |= {f"graphexec/views/page.{ending}" for ending in ("html", "css", "js")}
    return found | {f"graphexec/ops/{name}" for name in sources(ROOT / "ops", *ENDINGS)}


def test_the_wheel_holds_every_module_and_kernel(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    assert expected() - names == set()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "graphexec",
        built[1].stem.split("-py3")[0] + ".dist-info",
    }
    assert {"graphexec/ops/copy/copy.hip", "graphexec/ops/kit/device.h",
            "graphexec/ops/attention/flash.c", "graphexec/runtime/cpu/product.c",
            "graphexec/runtime/hip/on_cuda/hip.c"} <= names  # fmt: skip


def test_the_sdist_holds_what_the_wheel_is_made_of(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    in_tree = {n.replace("graphexec/ops/", "ops/") for n in expected()}
    assert in_tree - names == set()
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names


def test_the_wheel_runs_outside_the_checkout(built: tuple[Path, Path], tmp_path: Path) -> None:
    python = make_venv(tmp_path / "env", Path(sysconfig.get_path("purelib")))
    pip(python, "--no-deps", "--no-index", built[1])
    command = python.with_name("graphexec")
    away = tmp_path / "away"
    away.mkdir()
    for name in ("attention.yaml", "multi_head_attention.yaml", "multi_head_attention.npz"):
        shutil.copy(ROOT / "graphs" / name, away)
    where = run(python, "-c", "import graphexec; print(graphexec.__file__)", cwd=away).strip()
    assert Path(where).is_relative_to(tmp_path / "env")
    from graphexec import __version__

    assert __version__ in run(command, "--version", cwd=away)
    shown = run(
        command, "run", "attention.yaml", "--device", "cpu", "-D", "S=16", "-o", "out.npz", cwd=away
    )
    assert "out" in shown
    assert (away / "out.npz").is_file()
    run(command, "run", "multi_head_attention.yaml", "--device", "cpu", "--json", cwd=away)
    run(command, "check", "attention.yaml", cwd=away)
    assert "softmax" in run(command, "ops", cwd=away)
