"""explain --json and plan --json: the facts of the text as a document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GRAPHS = Path(__file__).parents[2] / "graphs"
CPU = ("--device", "cpu", "--no-profile", "--streams", "3")


@pytest.mark.parametrize("name", ["diamond", "attention", "parallel_branches"])
def test_explain_as_json_says_what_the_text_says(invoke: Callable[..., Any], name: str) -> None:
    file = GRAPHS / f"{name}.yaml"
    text = invoke("explain", file, *CPU).stdout
    found = json.loads(invoke("explain", file, *CPU, "--json").stdout)
    assert f"{name}: {found['commands']} commands on {found['streams']} stream" in text
    time = found["time"]
    assert f"predicted {time['predicted']:.4g} µs by the {time['costs']}" in text
    assert f"One stream would take {time['one_stream']:.4g} µs" in text
    assert f"Waits: {len(found['waits'])} for" in text
    for wait in found["waits"][:12]:
        assert f"{wait['command']} waits for {wait['for']}: {wait['why']}." in text
    for rewrite in found["rewrites"]:
        assert f"{rewrite['name']}: {rewrite['text']}." in text
    assert time["bounds"]["best"] <= time["predicted"]
    assert found["memory"]["lower_bound"] <= found["memory"]["arena_bytes"]


def test_explain_of_a_node_as_json(invoke: Callable[..., Any]) -> None:
    file = GRAPHS / "diamond.yaml"
    found = json.loads(invoke("explain", file, "join", *CPU, "--json").stdout)
    assert (found["graph"], found["node"]) == ("diamond", "join")
    assert found["lines"] == invoke("explain", file, "join", *CPU).stdout.splitlines()


def test_plan_as_json_is_the_plan_file(invoke: Callable[..., Any], tmp_path: Path) -> None:
    file = GRAPHS / "diamond.yaml"
    shown = invoke("plan", file, *CPU, "--json").stdout
    assert shown == invoke("plan", file, *CPU, "--format", "json").stdout
    (tmp_path / "p.json").write_text(shown)
    assert invoke("check", tmp_path / "p.json").exit_code == 0
    done = invoke("plan", file, *CPU, "--json", "--format", "svg")
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr
