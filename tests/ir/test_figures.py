"""Figures of plans: those that can be counted are, and stale ones are told and not drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from graph_files import FILES

import graphexec as gx
from graphexec.cli.app import app
from graphexec.cli.drawing import Drawing, write
from graphexec.ir.figures import counted, figures, stale
from graphexec.ir.plan import Stats
from graphexec.machine.costs import GPU
from graphexec.proof import find_hazards


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_counted_is_what_the_planner_says(path: Path, streams: int) -> None:
    plan = gx.make_plan(gx.load(path), streams=streams)
    said = plan.stats
    assert said is not None
    assert counted(plan) == Stats(said.streams, said.waits, said.events, said.arena_bytes)
    assert stale(plan) == []
    assert figures(plan) is said
    assert figures(replace(plan, stats=None)) == counted(plan)


@pytest.fixture(scope="module")
def plan() -> gx.Plan:
    return gx.make_plan(gx.load(FILES[0].with_name("diamond.yaml")), streams=3, costs=GPU)


def without(plan: gx.Plan, *keys: str) -> str:
    document = json.loads(plan.to_json())
    for key in keys:
        del document["stats"][key]
    return json.dumps(document)


def test_any_figure_may_be_left_out(plan: gx.Plan) -> None:
    assert plan.stats is not None
    keys = json.loads(plan.to_json())["stats"]
    for key in keys:
        read = gx.Plan.from_json(without(plan, key))
        assert find_hazards(read) == stale(read) == []
        assert getattr(read.stats, key) == getattr(counted(plan), key)
    assert gx.Plan.from_json(without(plan, *keys)).stats == counted(plan)


def test_pictures_of_a_plan_without_figures_have_what_is_counted(plan: gx.Plan) -> None:
    document = json.loads(plan.to_json())
    del document["stats"]
    drawing = Drawing(gx.Plan.from_json(json.dumps(document)))
    text = str(write("plan", "text", drawing))
    waits, events = counted(plan).waits, counted(plan).events
    assert f"{waits} dependency waits · {events} events\narena " in text
    assert "lower bound" not in text
    for view, format in (("plan", "svg"), ("plan", "dot"), ("memory", "svg")):
        shown = str(write(view, format, drawing))  # type: ignore[arg-type]
        assert "arena " in shown
        assert "lower bound" not in shown


def edited(plan: gx.Plan, **figures_: Any) -> str:
    document = json.loads(plan.to_json())
    document["stats"] |= figures_
    return json.dumps(document)


@pytest.mark.parametrize(("wrong", "told"), [
    ({"streams": 7}, "streams is 7, but the plan has 3"),
    ({"waits": 90}, "waits is 90, but the plan has"),
    ({"events": 90}, "events is 90, but the plan has"),
    ({"arena_bytes": 12345}, "arena_bytes is 12345, but the plan has"),
    ({"arena_lower_bound": 10**15}, "arena_lower_bound 1000000000000000 is above arena_bytes"),
    ({"makespan_lower_bound_ns": 10**15}, "is above predicted_ns"),
])  # fmt: skip
def test_stale_figures_are_told_and_not_drawn(
    plan: gx.Plan, tmp_path: Path, wrong: dict[str, int], told: str
) -> None:
    (tmp_path / "plan.json").write_text(edited(plan, **wrong))
    checked = invoke("check", tmp_path / "plan.json")
    assert checked.exit_code == 0
    assert told in checked.stderr
    assert "proved free of races (1 warning)" in checked.stdout
    drawn = invoke("plan", tmp_path / "plan.json")
    assert drawn.exit_code == 0
    assert told in drawn.stderr
    assert "lower bound" not in drawn.stdout


def test_a_plan_whose_wait_was_taken_out_has_stale_figures(plan: gx.Plan) -> None:
    document = json.loads(plan.to_json())
    waits = [i for i in document["instructions"] if i.get("role") == "dependency"]
    document["instructions"].remove(waits[0])
    (told,) = stale(gx.Plan.from_json(json.dumps(document)))
    assert told == (
        f"the figures are of another plan: waits is {len(waits)}, but the plan has {len(waits) - 1}"
    )


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])
