"""graphexec check: graphs and plan files, proved, refuted, or wrong."""

import json
from pathlib import Path

import pytest

GRAPHS = sorted((Path(__file__).parents[2] / "graphs").glob("*.yaml"))


def test_all_example_graphs(invoke):
    done = invoke("check", *GRAPHS)
    assert done.exit_code == 0
    assert done.stderr == ""
    for line, path in zip(done.stdout.splitlines(), GRAPHS, strict=True):
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
    assert hazard["second"]["node"] == "out"
    assert hazard["range"][0] == "arena"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"null", b"{}", b"[" * 100_000])
def test_a_malformed_plan_file(invoke, tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    done = invoke("check", tmp_path / "plan.json")
    assert done.exit_code == 2
    assert "plan.json" in done.stderr
    assert "internal error" not in done.stderr


def test_no_file_is_wrong_usage(invoke):
    assert invoke("check").exit_code == 2


def test_an_unused_node_is_a_warning(invoke, graph):
    done = invoke("check", graph(("outputs", "  idle: {op: softmax, x: x}\noutputs")))
    assert done.exit_code == 0
    assert "(1 warning)" in done.stdout
    assert "idle" in done.stderr
