"""docs/hip.md: its Python runs, and what it names exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hip_emulator import build
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


def test_its_commands_run(emulated: Lab) -> None:
    """All of them on the emulator, also those that it shows for a GPU; but for the selftest, which
    is run by its own tests."""
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    script, selftests = re.subn(r"^graphexec selftest --device hip\b", "true", script, flags=re.M)
    assert selftests == 2
    folder = build.build()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, capture_output=True, text=True,
        check=False, env={
            **os.environ, "GRAPHEXEC_HIP_LIBRARY_PATH": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_variables_exist() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder, ending in (("graphexec", "*.py"), ("tests/hip_emulator", "*.cpp"))
        for path in (ROOT / folder).rglob(ending)
    )
    for name in re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE):
        assert name in sources or name in ("kernels", "hip_on_cuda", "hip_emulator"), name


def test_its_options_exist() -> None:
    text = "".join(CliRunner().invoke(app, [c, "--help"]).output for c in ("run", "bench"))
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
