"""Profiles that are kept: found for what they were measured for, and for nothing else."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import graphexec as gx
from graphexec.base.cache import CacheWarning
from graphexec.base.errors import DataError, GraphError
from graphexec.ir.plan import Launch, Plan
from graphexec.ir.typed import TypedGraph
from graphexec.machine.costs import Measured, signature
from graphexec.machine.hardware import Machine
from graphexec.planning import profile_cache
from graphexec.planning.pipeline import alternative_plans, plan_graph
from graphexec.planning.profile import MeasuredSchedule, Profile, load, loads, schedule_key
from graphexec.planning.scheduling import ONE_STREAM
from graphexec.tools.explain import explain
from graphexec.views.text import to_text

HERE = Machine("gfx000", {"graphexec": "1", "numpy": "2"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


def branches(size: int = 16, name: str = "branches", backwards: bool = False) -> gx.Graph:
    g = gx.Graph(name, dims={"N": size})
    x = g.input("x", ("N", "N"), "f32")
    names = ["left", "right"]
    for node in reversed(names) if backwards else names:
        g.gemm(x, x, name=node, alpha=1.0 if node == "left" else 2.0)
    g.output(out=g.gemm("left", "right", name="join"))
    return g


def typed(graph: gx.Graph) -> TypedGraph:
    return plan_graph(graph).graph


def measured(graph: gx.Graph, microseconds: float = 5.0) -> Profile:
    compiled = plan_graph(graph)
    commands = {signature(c): Measured(microseconds) for c in compiled.program.commands}
    return Profile(
        HERE.architecture, commands, graph=graph.name, versions=HERE.versions,
        signature=profile_cache.signature(compiled.graph),
    )  # fmt: skip


def kept(graph: gx.Graph, profile: Profile | None = None) -> Path:
    return profile_cache.keep(typed(graph), HERE, profile or measured(graph))


def found(graph: gx.Graph, machine: Machine = HERE) -> profile_cache.Kept | None:
    return profile_cache.find(typed(graph), lambda: machine)


# Finding --------------------------------------------------------------------------------------


def test_what_is_kept_is_found(folder: Path) -> None:
    profile = measured(branches())
    path = kept(branches(), profile)
    assert path.parent == folder
    assert path.name.startswith("branches-")
    assert found(branches()) == profile_cache.Kept(path, profile)
    assert [p.name for p in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("there", ["", "profiles", "profiles/deeper"])
def test_asking_whether_a_profile_could_be_kept_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "profiles" / "deeper"))
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    profile_cache.check_keepable(typed(branches()), HERE)
    assert sorted(tmp_path.rglob("*")) == before
    assert kept(branches()).is_file()


@pytest.mark.parametrize("place", ["file", "file/profiles", "broken", "broken/profiles", "/proc",
                                   "/proc/profiles/deeper"])  # fmt: skip
def test_a_place_where_no_profile_could_be_kept_is_said_as_keeping_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "none" / "none")
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / place))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"cannot (make the folder|write) '.*" + place) as asked:
        profile_cache.check_keepable(typed(branches()), HERE)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(DataError) as keeping:
        kept(branches())
    assert str(asked.value).split("':")[0] == str(keeping.value).split("':")[0]


def test_the_order_of_the_nodes_does_not_matter(folder: Path) -> None:
    kept(branches())
    assert found(branches(backwards=True)) is not None


@pytest.mark.parametrize("other", [branches(32), branches(name="others")])
def test_other_graphs_have_none(folder: Path, other: gx.Graph) -> None:
    kept(branches())
    assert found(other) is None


def test_an_attribute_makes_another_graph(folder: Path) -> None:
    kept(branches())
    g = branches()
    g.output(more=g.gemm("left", "left", alpha=3.0))
    assert found(g) is None


@pytest.mark.parametrize("other", [
    replace(HERE, architecture="gfx001"),
    replace(HERE, versions={"graphexec": "2", "numpy": "2"}),
])  # fmt: skip
def test_other_machines_have_none(folder: Path, other: Machine) -> None:
    kept(branches())
    assert found(branches(), other) is None


def test_the_machine_is_not_asked_where_nothing_is_kept(folder: Path) -> None:
    def machine() -> Machine:
        raise AssertionError("asked")

    assert profile_cache.find(typed(branches()), machine) is None
    kept(branches(name="others"))
    assert profile_cache.find(typed(branches()), machine) is None


def test_where_profiles_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHEXEC_PROFILES")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert profile_cache.folder() == Path("/somewhere/graphexec/profiles")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert profile_cache.folder() == Path("/home/me/.cache/graphexec/profiles")


@pytest.mark.parametrize("damage", [
    lambda text: "",
    lambda text: text[: len(text) // 2],
    lambda text: text.replace('"profile_version": 1', '"profile_version": 7'),
    lambda text: "[" * 100_000,
    lambda text: '{"profile_version": 1, "commands": {"a": -1}}',
    lambda text: text.replace("gfx000", "gfx001"),
    lambda text: text.replace('"numpy": "2"', '"numpy": "3"'),
    lambda text: text.replace('"signature": "', '"signature": "0'),
])  # fmt: skip
def test_what_is_no_profile_is_ignored_by_name(folder: Path, damage) -> None:
    path = kept(branches())
    path.write_text(damage(path.read_text()))
    with pytest.warns(CacheWarning) as caught:
        assert found(branches()) is None
    assert str(path) in str(caught[0].message)
    assert len(caught) == 1


def test_bytes_that_are_no_text_are_ignored(folder: Path) -> None:
    kept(branches()).write_bytes(b"\xff\xfe\x00")
    with pytest.warns(CacheWarning, match="not UTF-8"):
        assert found(branches()) is None


@pytest.mark.parametrize(("spoil", "reason"), [
    (lambda path: path.chmod(0o664), "others may write to it"),
    (lambda path: os.chown(path, 1, -1), "it belongs to another user"),
    (lambda path: (path.unlink(), os.mkfifo(path)), "it is a pipe, not a file"),
    (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "it is a device, not a file"),
])  # fmt: skip
def test_what_is_not_the_users_own_file_is_ignored_by_name(folder: Path, spoil, reason) -> None:
    path = kept(branches())
    assert path.stat().st_mode & 0o777 == 0o600
    if "another user" in reason and os.geteuid() != 0:
        pytest.skip("only root may give files away")
    spoil(path)
    with pytest.warns(CacheWarning, match=f"'{path}' is not used: {reason}"):
        assert found(branches()) is None


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot"):
        kept(branches())
    assert found(branches()) is None


# Using ----------------------------------------------------------------------------------------


def kept_for_the_cpu(graph: gx.Graph, **changes: object) -> Path:
    machine = gx.CpuDevice().machine()
    profile = replace(
        measured(graph), device=machine.architecture, versions=machine.versions, **changes
    )
    return profile_cache.keep(typed(graph), machine, profile)


def test_compile_uses_what_is_kept_and_says_so(folder: Path) -> None:
    path = kept_for_the_cpu(branches())
    with gx.compile(branches(), device="cpu") as exe:
        assert exe.plan.stats.costs == f"profile {path.name}"
        assert f"profile {path.name}" in str(exe.plan)
    with gx.compile(branches(), device="cpu", use_profile=False) as exe:
        assert exe.plan.stats.costs == "cpu model"
    with gx.compile(branches(32), device="cpu") as exe:
        assert exe.plan.stats.costs == "cpu model"
    assert gx.make_plan(branches()).stats.costs == "cpu model"


def test_costs_that_are_given_win(folder: Path, tmp_path: Path) -> None:
    kept_for_the_cpu(branches())
    mine = tmp_path / "mine.json"
    mine.write_text(measured(branches(), 70.0).to_json())
    with gx.compile(branches(), device="cpu", costs=mine) as exe:
        assert exe.plan.stats.costs == str(mine)


def test_damage_does_not_stop_a_run(folder: Path) -> None:
    kept_for_the_cpu(branches()).write_text("{")
    with pytest.warns(CacheWarning), gx.compile(branches(), device="cpu") as exe:
        assert exe.plan.stats.costs == "cpu model"


def test_one_profile_one_plan(folder: Path) -> None:
    kept_for_the_cpu(branches(), constants={"start": 3.0, "launch": 2.0, "wait": 1.0})
    plans = set()
    for _ in range(3):
        with gx.compile(branches(), device="cpu") as exe:
            plans.add(exe.plan.to_json())
    assert len(plans) == 1


def test_inputs_of_other_sizes_find_their_own(folder: Path) -> None:
    import numpy as np

    kept_for_the_cpu(branches())
    path = kept_for_the_cpu(branches(24))
    with gx.compile(branches(), device="cpu") as exe:
        exe.run(x=np.zeros((24, 24), np.float32))
        (other,) = exe._resized._kept.values()
        assert other.plan.stats.costs == f"profile {path.name}"


def test_times_constants_and_the_schedule_of_a_profile_are_used() -> None:
    graph, key = branches(), schedule_key(4, False)
    measurements = {"start": 30.0, "launch": 2.0, "wait": 0.5, "fork": 0.5}
    profile = replace(measured(graph), constants=measurements)
    free = plan_graph(graph, costs=profile)
    assert len(free.plan.streams) > 1
    last = max(end for _, end in free.bound.prediction.spans.values())
    assert free.plan.stats.predicted_ns == round(1000 * last)
    assert min(start for start, _ in free.bound.prediction.spans.values()) >= 30.0
    # What was measured is not in the portable plan: the planner's answer shows it.
    assert "µs  " not in str(free.plan).partition("buffer")[0]
    assert f"–{last:.1f}" in to_text(free.plan, known=free.bound.prediction)
    told = replace(profile, schedules={key: MeasuredSchedule("one stream", {"one stream": 1.0})})
    assert len(plan_graph(graph, costs=told).plan.streams) == 1
    assert plan_graph(graph, costs=told).plan.stats.schedule == "one stream"
    assert len(plan_graph(graph, costs=told, streams=8).plan.streams) > 1
    gone = replace(profile, schedules={key: MeasuredSchedule("no longer there", {})})
    assert plan_graph(graph, costs=gone).plan == free.plan


def test_one_stream_that_was_the_fastest_of_many_is_so_of_few() -> None:
    """What `explain` says of a further stream follows from the measured plans."""
    graph = branches()
    profile = replace(measured(graph), constants={"launch": 2.0, "wait": 0.5, "fork": 0.5})
    tried = {ONE_STREAM: 387.9, "exhaustive": 538.8}
    told = replace(profile, schedules={schedule_key(4, False): MeasuredSchedule(ONE_STREAM, tried)})
    for streams in (2, 3, 4):
        assert len(plan_graph(graph, costs=told, streams=streams).plan.streams) == 1
    for streams in (5, "auto"):
        assert len(plan_graph(graph, costs=told, streams=streams).plan.streams) > 1
    assert len(plan_graph(graph, costs=told, streams=2, resident=True).plan.streams) > 1
    more = plan_graph(graph, costs=told, streams=2)
    words = explain(plan_graph(graph, costs=told), more=more)
    assert "Measured: 387.9 µs (one stream), 538.8 µs (exhaustive)." in words
    assert "One stream would take 387.9 µs (1.00 × as long)." in words
    assert "A further stream would bring nothing." in words
    kept = replace(told, schedules={schedule_key(4, False): MeasuredSchedule("exhaustive", {
        ONE_STREAM: 500.0, "exhaustive": 400.0})})  # fmt: skip
    assert "One stream would take 500 µs (1.25 × as long)." in explain(
        plan_graph(graph, costs=kept)
    )


def test_one_stream_means_the_program_that_is_best_on_one() -> None:
    """Three products of one shape are a batch there; on four streams they run side by side."""
    graph = gx.load(Path(__file__).parents[2] / "graphs/multi_head_attention.yaml")
    profile = Profile("", {}, {"wait": 0.2, "launch": 1.0, "start": 4.0})

    def plan(streams: int, costs: Profile = profile) -> Plan:
        return plan_graph(graph, device="hip", streams=streams, resident=True, costs=costs).plan

    assert plan(4).instructions != plan(1).instructions
    assert [len(i.nodes) for i in plan(4).instructions if isinstance(i, Launch) and i.nodes] == []
    one = MeasuredSchedule(ONE_STREAM, {ONE_STREAM: 1.0})
    told = replace(profile, schedules={schedule_key(4, True): one})
    assert plan(4, told).instructions == plan(1).instructions
    *_, last = alternative_plans(
        graph, 3, streams=4, device="hip", resident=True, costs=profile
    )  # fmt: skip
    assert last.plan.instructions == plan(1).instructions


def test_a_share_that_was_measured_decides_whether_streams_pay() -> None:
    graph = branches()
    alone = measured(graph, 1000.0)
    for share, streams in ((0.1, 2), (1.0, 1)):
        commands = {k: Measured(m.us, share) for k, m in alone.commands.items()
                    if k.startswith("gemm")}  # fmt: skip
        profile = Profile("x", commands, {"launch": 0.0})
        compiled = plan_graph(graph, costs=profile, resident=True)
        assert len(compiled.plan.streams) == streams


# The format -----------------------------------------------------------------------------------

FULL = Profile(
    "gfx942", {"gemm: a": Measured(2.5, 0.5, 2, {"0": 3.0, "2": 2.5}), "softmax": Measured(7.0)},
    {"start": 5.0, "launch": 0.75, "wait": 1.25},
    {schedule_key("auto", True): MeasuredSchedule("heft", {"heft": 10.0, "one stream": 11.0})},
    "attention", "0123", {"graphexec": "1"},
)  # fmt: skip


def test_profiles_are_written_and_read_back() -> None:
    assert loads(FULL.to_json()) == FULL
    assert json.loads(FULL.to_json())["commands"]["softmax"] == 7.0
    assert FULL.algorithms == {"gemm: a": 1}
    assert FULL.measured("auto", True).best == "heft"
    assert FULL.measured("auto", False) is None


@pytest.mark.parametrize(("change", "message"), [
    ({"commands": {"a": {"share": 1}}}, "commands.a: the key 'us' is missing"),
    ({"commands": {"a": {"us": 1, "share": 0}}}, "commands.a.share: expected a share"),
    ({"commands": {"a": {"us": 1, "share": True}}}, "commands.a.share: expected a share"),
    ({"commands": {"a": {"us": 1, "choice": -1}}}, "choice: expected an integer of at least 0"),
    ({"commands": {"a": {"us": 1, "tried": {"0": "x"}}}}, "tried[\"0\"]: expected a number"),
    ({"constants": {"launch": -1}}, "constants.launch: a time cannot be negative"),
    ({"constants": []}, "constants: expected an object"),
    ({"schedules": {"4": "heft"}}, "schedules[\"4\"]: expected an object"),
    ({"schedules": {"4": {"best": 4, "tried": {}}}}, "best: expected a string"),
    ({"versions": {"numpy": 2}}, "versions.numpy: expected a string"),
])  # fmt: skip
def test_what_is_wrong_is_said(change: dict[str, object], message: str) -> None:
    document = {"profile_version": 1, "commands": {}} | change
    with pytest.raises(GraphError) as caught:
        loads(json.dumps(document), "p.json")
    assert message in str(caught.value)


def test_unknown_keys_and_constants_are_ignored() -> None:
    text = '{"profile_version": 1, "commands": {}, "more": 1, "constants": {"flops": 1, "wait": 2}}'
    assert loads(text).constants == {"wait": 2.0}


def test_a_profile_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(FULL.to_json())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path / "p.json") == FULL
