"""The documentation: every command in it runs, references are up to date, the site builds."""

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import graphexec as gx
from graphexec.ir.op import Kind
from graphexec.ir.registry import load_ops

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(p.name for p in DOCS.glob("*.md"))


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: what follows the language, and the text."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    lines = (line for _, text in blocks(page, "console") for line in text.splitlines())
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture
def folder(tmp_path) -> Path:
    """The files of a reader: the examples, and those that pages tell to save."""
    weights = shutil.ignore_patterns("*.safetensors")  # a fresh clone has none
    shutil.copytree(ROOT / "graphs", tmp_path / "graphs", ignore=weights)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(DOCS / "examples", tmp_path / "docs" / "examples")
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)])
def test_every_command_runs(page, folder):
    for _, text in blocks(page, "yaml"):
        if title := re.match(r"# (\S+\.yaml)\n", text):
            (folder / title[1]).write_text(text)
    run_all(commands(page), folder)


def run_all(lines: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GRAPHEXEC_PROFILES": str(folder / "profiles")}
    for command in lines:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, timeout=120,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_every_command_of_the_readme_runs(folder):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("graphexec ")]
    assert len(ours) > 10
    run_all(ours, folder)


def test_the_python_of_the_readme_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rng = np.random.default_rng(0)
    scope = {name: rng.standard_normal((2, 8, 256, 64)).astype(np.float16) for name in "qkv"}
    exec(first, scope)
    assert np.asarray(scope["out"]).shape == (2, 8, 256, 64)
    exec(second, scope)
    built = gx.make_plan(scope["g"])
    assert gx.find_hazards(built) == []
    assert len(built.instructions) > 5


def test_the_python_of_the_quickstart_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    subprocess.run([Path(sys.executable).with_name("graphexec"), "init", "first"], check=True)
    scope: dict[str, object] = {}
    for _, text in blocks("index.md", "python"):
        exec(text, scope)
    assert np.asarray(scope["out"]).shape == (2, 8, 64, 64)


@pytest.mark.parametrize(("number", "name"), [(0, "relu"), (1, "rms")])
def test_the_example_op_is_the_one_that_is_shown(number, name):
    shown = blocks("adding-an-op.md", "python")[number][1].split("\n", 1)[1]
    kept = (DOCS / "examples" / name / "__init__.py").read_text().split("\n", 2)[2]
    assert kept == shown


def test_the_example_kernel_is_the_one_that_is_shown():
    ((_, shown),) = blocks("adding-an-op.md", r"c\+\+")
    assert shown == (DOCS / "examples" / "rms" / "rms.hip").read_text()


def test_the_kinds_of_attributes_are_listed():
    text = (DOCS / "adding-an-op.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) >= set(get_args(Kind))


def test_examples_of_ops_use_public_paths():
    for path in (DOCS / "examples").rglob("*.py"):
        found = re.findall(r"(?:from|import) (graphexec\S*)", path.read_text(encoding="utf-8"))
        assert set(found) <= {"graphexec", "graphexec.ops.kit"}, path


def test_the_example_op_is_right():
    graph = gx.load(DOCS / "examples" / "relu.yaml", ops=load_ops((DOCS / "examples" / "relu",)))
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((64, 32), "f4"), rng.standard_normal((32, 16), "f4")
    with gx.compile(graph, device="cpu") as exe:
        np.testing.assert_allclose(
            exe.run(x=x, w=w)["y"], np.maximum(x @ w, 0), rtol=1e-4, atol=1e-4
        )


def test_the_second_example_is_right_on_the_cpu():
    graph = gx.load(DOCS / "examples" / "rms.yaml", ops=load_ops((DOCS / "examples",)))
    x, g = (np.random.default_rng(0).standard_normal(n).astype("f2") for n in ((64, 32), (32,)))
    device = gx.CpuDevice(check_access=True, poison=True)
    assert gx.compare(graph, {"x": x, "g": g}, device=device).ok


def script(name: str):
    """A script of the folder `scripts`, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_picture_is_drawn_by_the_script_and_shown(tmp_path):
    script("make_pictures").draw(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    pages = "".join((DOCS / page).read_text("utf-8") for page in PAGES)
    shown = set(re.findall(r"\(images/([^)]+)\)", pages))
    assert drawn | {"page-light.png", "page-dark.png"} == shown
    assert shown == {path.name for path in (DOCS / "images").iterdir()}


@pytest.mark.parametrize("page", ["ops", "api"])
def test_the_references_are_up_to_date(page):
    written = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert getattr(script("make_reference"), page)() == written, "run scripts/make_reference"


def test_the_walkthrough_is_up_to_date():
    written = (DOCS / "how-a-graph-becomes-a-run.md").read_text(encoding="utf-8")
    assert script("make_walkthrough").filled(written) == written, "run scripts/make_walkthrough"
    folders = {path.parent.name for path in Path(gx.__file__).parent.glob("*/__init__.py")}
    assert folders == folders & set(re.findall(r"`(\w+)/", written))


def test_the_site_builds_without_a_warning(tmp_path):
    mkdocs = Path(sys.executable).with_name("mkdocs")
    if not mkdocs.exists():
        pytest.skip("needs MkDocs: pip install 'graphexec[docs]'")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for path in pages:
        assert "```" not in path.read_text(encoding="utf-8"), f"{path.name}: a block that is none"
