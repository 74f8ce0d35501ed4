"""docs/hip.md: its Python runs, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hip_lab import ROOT, Lab

from graphexec.cli.app import app

PAGE = (ROOT / "docs" / "hip.md").read_text(encoding="utf-8")


def test_its_python_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    with lab.nothing_left():
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
            exec(compile(block, "docs/hip.md", "exec"), names)
        names.clear()  # pinned arrays are freed when they are dropped


def test_its_variables_exist() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder, ending in (("graphexec", "*.py"), ("tests/hip_emulator", "*.cpp"))
        for path in (ROOT / folder).rglob(ending)
    )
    for name in re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE):
        assert name in sources or name in ("kernels", "hip_on_cuda", "hip_emulator"), name


def test_its_options_exist() -> None:
    text = CliRunner().invoke(app, ["run", "--help"]).output
    for option in re.findall(r"(?<![-|])(--[a-z]+)", PAGE):
        assert option in text, option


def test_its_messages_are_graphexecs() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "graphexec").rglob("*.py")
    )
    flat = re.sub(r'"\s*\n\s*f?"', "", sources)
    table = PAGE.split("## When something is wrong")[1].split("\n## ")[0]
    for row in re.findall(r"^\| (?!symptom|--)([^|]+) \|", table, re.MULTILINE):
        for message in re.findall(r"`([^`]+)`", row):
            words = re.sub(r" \(hip.*", "", message)
            assert words in flat, message


def test_the_page_is_linked_files_only() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(ROOT) / "docs" / target).exists()
