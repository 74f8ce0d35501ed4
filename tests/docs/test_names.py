"""Every path, file and module that the documentation names exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (".", "docs", "graphs", "tests/hip_emulator")
    for page in (ROOT / folder).glob("*.md")
)
FOLDERS = "graphexec|ops|docs|tests|graphs|scripts|benchmarks"
SOURCES = {path.name for f in FOLDERS.split("|") for path in (ROOT / f).rglob("*.*")}

ELSEWHERE = {
    "benchmarks/challenging": "a folder of MiniMalloc's repository",
    "benchmarks/asplos2024": "a folder of MiniMalloc's repository",
}
NO_MODULES = {"graphexec.ops.NAME": "any op", "graphexec.fish": "a file of shell completions"}


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def paths(text: str) -> set[str]:
    """Paths below the folders of the repository, such as graphexec/ir/plan.py."""
    found = re.findall(rf"(?<![\w/.~$+-])(?:{FOLDERS})/[\w./*-]*", text)
    return {path.rstrip(".-") for path in found} - set(ELSEWHERE)


def sources(text: str) -> set[str]:
    """Names of source files without a folder, such as plan.py."""
    return set(re.findall(r"(?<![\w/.-])\w+\.(?:py|hip|cpp)\b", text))


def modules(text: str) -> set[str]:
    """Dotted names in the package, such as graphexec.ir.op.Op."""
    found = re.findall(r"(?<![\w./-])graphexec(?:\.[A-Za-z_]\w*)+", text)
    return set(found) - set(NO_MODULES)


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_names_exists(page):
    text = text_of(page)
    assert [p for p in sorted(paths(text)) if not any(ROOT.glob(p.rstrip("/")))] == []
    assert sorted(sources(text) - SOURCES) == []
    assert [name for name in sorted(modules(text)) if not exists(name)] == []


def test_a_name_that_does_not_exist_is_found():
    text = "`graphexec/pipeline.py`, `pipelines.py`, `graphexec.pipeline`, `graphexec.ir.op.Opp`"
    assert paths(text) == {"graphexec/pipeline.py"}
    assert not (ROOT / "graphexec/pipeline.py").exists()
    assert sources(text) == {"pipelines.py"}
    assert modules(text) == {"graphexec.pipeline", "graphexec.ir.op.Opp"}
    assert not any(map(exists, modules(text)))


def test_the_layout_lists_every_folder_of_the_package():
    layout = text_of(Path("docs/design.md")).split("## Layout")[1].split("```")[1]
    listed = re.findall(r"^  (\w+)/ ", layout, re.MULTILINE)
    kept = {path.parent.name for path in (ROOT / "graphexec").glob("*/__init__.py")}
    assert set(listed) == kept
