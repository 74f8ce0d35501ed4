"""graphexec check: graphs and plan files, proved, refuted, or wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from graph_files import FILES
from safetensors.numpy import save_file

from graphexec.cli.app import app

DIAMOND = next(path for path in FILES if path.stem == "diamond")


def test_all_example_graphs(invoke):
    done = invoke("check", *FILES)
    assert done.exit_code == 0
    assert done.stderr == ""
    for line, path in zip(done.stdout.splitlines(), FILES, strict=True):
        assert line.startswith(f"{path}: ok: ")
        assert line.endswith("proved free of races")


def test_the_summary_counts(invoke, graph):
    done = invoke("check", graph(), "--streams", "1")
    assert done.stdout.endswith(
        "ok: 2 nodes, 5 launches on 1 stream, 0 waits, proved free of races\n"
    )


def test_a_plan_file_is_proved(invoke, graph, tmp_path):
    assert invoke("plan", graph(), "--device", "cpu", "-o", tmp_path / "plan.json").exit_code == 0
    done = invoke("check", tmp_path / "plan.json")
    assert done.exit_code == 0
    assert "launches on" in done.stdout
    assert "proved free of races" in done.stdout


def test_a_racy_plan_file_is_refuted(invoke, racy):
    done = invoke("check", racy)
    assert done.exit_code == 1
    assert f"{racy}: refuted: " in done.stdout
    assert f"error: {racy}: RAW hazard: " in done.stderr


def test_all_mistakes_of_all_files(invoke, graph, racy, tmp_path):
    (tmp_path / "bad.json").write_text('{"plan_version": 1')
    wrong = graph(("op: gemm", "op: gem"), ("x: xw", "x: xww"), name="wrong.yaml")
    done = invoke("check", graph(), wrong, racy, tmp_path / "bad.json", tmp_path / "none.yaml")
    assert done.exit_code == 2
    verdicts = [line.split(": ")[1] for line in done.stdout.splitlines()]
    assert verdicts == ["ok", "wrong", "refuted", "wrong", "wrong"]
    assert "did you mean 'gemm'?" in done.stderr
    assert "did you mean 'xw'?" in done.stderr
    assert "bad.json" in done.stderr
    assert "none.yaml" in done.stderr


def test_json(invoke, graph, racy):
    wrong = graph(("op: gemm", "op: gem"), name="wrong.yaml")
    done = invoke("check", "--json", graph(), wrong, racy)
    assert done.exit_code == 2
    assert done.stderr == ""
    fine, bad, race = json.loads(done.stdout)["files"]
    assert fine["ok"]
    assert (fine["graph"], fine["nodes"]) == ("tiny", 2)
    assert bad["diagnostics"][0]["line"] == 8
    assert "gem" in bad["diagnostics"][0]["message"]
    assert not race["ok"]
    hazard = next(h for h in race["hazards"] if h["kind"] == "RAW")
    assert hazard["second"]["node"] == "join.d2h"
    assert hazard["range"][0] == "arena"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"null", b"{}", b"[" * 100_000])
def test_a_malformed_plan_file(invoke, tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    done = invoke("check", tmp_path / "plan.json")
    assert done.exit_code == 2
    assert "plan.json" in done.stderr
    assert "internal error" not in done.stderr


TOLD = {
    "out.npz": "this is a file of arrays, not a graph",
    "x.npy": "this is a file of arrays, not a graph",
    "w.safetensors": "this is a file of tensors, not a graph",
    "trace.json": "this is the trace of a run, not a plan",
    "trace.txt": "this is the trace of a run, not a graph",
    "bench.json": "this is what graphexec bench --json prints, not a plan",
    "profile.json": "this is a profile of measured times, not a plan",
    "schema.json": "this is a JSON Schema, not a plan",
    "m.safetensors.index.json": "this is the index of a sharded model, not a plan",
    "graph.json": "this is a graph, not a plan",
    "plan.txt": "this is a plan, not a graph",
    "plan.html": "this is a page for browsers, not a graph",
    "plan.svg": "this is a picture, not a graph",
    "plan.png": "this is a picture, not a graph",
    "plan.dot": "this is a picture, not a graph",
}
HELPS = {
    "out.npz": "graphexec run GRAPH -i", "w.safetensors": "`weights`", "trace.json": "--trace FILE",
    "bench.json": "--baseline FILE", "profile.json": "--costs FILE", "plan.txt": "end in .json",
    "plan.svg": "graphexec plan -o writes such files", "m.safetensors.index.json": "`file`",
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with a file of every kind, each by the command that writes it."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "graph.json").write_text(json.dumps(yaml.safe_load(DIAMOND.read_text())))

    def make(command: str, *args: object, **environment: str) -> str:
        arguments = [command, DIAMOND, "--device", "cpu", *args]
        done = CliRunner(env=environment).invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    make("run", "-o", folder / "out.npz", "--trace", folder / "trace.json")
    make("run", "--trace", folder / "trace.txt")
    (folder / "bench.json").write_text(make("bench", "-n", "1", "--json"))
    make("tune", "--budget", "600", GRAPHEXEC_PROFILES=str(folder / "kept"))
    (kept,) = (folder / "kept").iterdir()
    kept.rename(folder / "profile.json")
    (folder / "plan.txt").write_text(make("plan", "--format", "json"))
    for ending in ("html", "svg", "png", "dot"):
        make("plan", "-o", folder / f"plan.{ending}")
    (folder / "schema.json").write_text(CliRunner().invoke(app, ["schema"]).stdout)
    np.save(folder / "x.npy", np.ones(3))
    save_file({"w": np.ones(3)}, folder / "w.safetensors")
    index = json.dumps({"metadata": {}, "weight_map": {"w": "w.safetensors"}})
    (folder / "m.safetensors.index.json").write_text(index)
    return folder


@pytest.mark.parametrize("name", TOLD)
def test_a_file_of_another_kind_is_told_by_its_name_and_its_use(invoke, written, name):
    done = invoke("check", written / name)
    assert done.exit_code == 2
    assert done.stderr.count("error: ") == 1
    assert done.stderr.startswith(f"error: {TOLD[name]}\n  --> {written / name}")
    assert HELPS.get(name, "help: ") in done.stderr
    expected = (
        TOLD[name].replace("not a plan", "not a graph") if name != "graph.json" else "diamond"
    )
    done = invoke("run", written / name, "--device", "cpu")
    assert expected in done.output


def test_a_file_of_another_kind_is_no_profile(invoke, written, graph):
    done = invoke("plan", graph(), "--costs", written / "trace.json")
    assert done.exit_code == 2
    assert "this is the trace of a run, not a profile of measured times" in done.stderr


def test_a_graph_is_not_taken_for_another_kind(invoke, graph):
    """The version alone identifies the file."""
    for key in ("traceEvents", "$schema"):
        done = invoke("check", graph(("name: tiny", f"{key}: tiny")))
        assert f"the graph has no key '{key}'" in done.stderr
    done = invoke("check", graph(("version: 1\n", "")))
    assert "the key 'version' is missing" in done.stderr


def test_no_file_is_wrong_usage(invoke):
    assert invoke("check").exit_code == 2


def test_an_unused_node_is_a_warning(invoke, graph):
    done = invoke("check", graph(("outputs", "  idle: {op: softmax, x: x}\noutputs")))
    assert done.exit_code == 0
    assert "(1 warning)" in done.stdout
    assert "idle" in done.stderr


def test_every_mistake_of_weights_at_once(invoke, tmp_path):
    """A missing shard at the file, a missing key at the weight, a type where it is stated."""
    save_file({"l.a": np.ones(3, np.float32)}, tmp_path / "m-1.safetensors")
    shards = {"l.a": "m-1.safetensors", "l.b": "m-2.safetensors"}
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "g.yaml").write_text(
        f"version: 1\nfile: {index.name}\nprefix: l.\nweights:\n  a: {{key: a, dtype: f16}}\n"
        "  b: b\n  c: c\noutputs: [a, b, c]\n"
    )
    done = invoke("check", tmp_path / "g.yaml")
    assert done.exit_code == 2
    places = [line.rpartition("g.yaml:")[2] for line in done.stderr.splitlines() if "-->" in line]
    assert places == ["5:22", "2:7", "7:6"]
    assert "the stored array is f32, stated is f16" in done.stderr
    assert "{op: copy, x: …, dtype: f16}" in done.stderr
    assert "there is no weights file 'm-2.safetensors' in" in done.stderr
    assert "there is no array 'l.c' in 'm.safetensors.index.json'" in done.stderr
    save_file({"l.b": np.ones(3, np.float32), "l.c": np.ones(1)}, tmp_path / "m-2.safetensors")
    index.write_text(json.dumps({"weight_map": {**shards, "l.c": "m-2.safetensors"}}))
    text = (tmp_path / "g.yaml").read_text().replace("f16", "f32")
    (tmp_path / "g.yaml").write_text(text)
    assert invoke("check", tmp_path / "g.yaml").exit_code == 0
