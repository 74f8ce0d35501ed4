"""graphexec run --trace, and plan --trace that shows it."""

import json

CPU = ("--device", "cpu")


def test_a_run_is_traced_and_shown(invoke, graph, tmp_path):
    target = tmp_path / "run.json"
    done = invoke("run", graph(), *CPU, "--trace", target)
    assert done.exit_code == 0, done.stderr
    assert "when not measured" in done.stderr
    assert json.loads(target.read_text())["otherData"]["graph"] == "tiny"
    page = tmp_path / "page.html"
    done = invoke("plan", graph(), *CPU, "--trace", target, "-o", page)
    assert done.exit_code == 0, done.stderr
    assert "Run: predicted and measured" in page.read_text()


def test_a_trace_of_something_else(invoke, graph, tmp_path):
    target = tmp_path / "run.json"
    invoke("run", graph(), *CPU, "--trace", target)
    other = graph(("name: tiny", "name: other"), name="other.yaml")
    done = invoke("plan", other, *CPU, "--trace", target, "-o", tmp_path / "page.html")
    assert done.exit_code == 2
    assert "a trace of another plan" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_trace_that_is_not_there_or_cannot_be_written(invoke, graph, tmp_path):
    page = tmp_path / "page.html"
    done = invoke("plan", graph(), *CPU, "--trace", tmp_path / "none.json", "-o", page)
    assert done.exit_code == 2
    assert "cannot read" in done.stderr
    done = invoke("run", graph(), *CPU, "--trace", tmp_path / "none" / "run.json")
    assert done.exit_code == 2
    assert "cannot write" in done.stderr


def test_a_trace_is_for_pages(invoke, graph, tmp_path):
    done = invoke("plan", graph(), *CPU, "--trace", "run.json", "-o", tmp_path / "plan.mmd")
    assert done.exit_code == 2
    assert "write .html" in done.stderr
