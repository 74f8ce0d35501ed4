"""graphexec init: what it writes works, and nothing is overwritten."""

import json


def test_the_example_is_right_and_runs(invoke, tmp_path):
    done = invoke("init", tmp_path / "new")
    assert done.exit_code == 0, done.stderr
    graph = tmp_path / "new" / "graph.yaml"
    assert graph.read_text().startswith("# yaml-language-server: $schema=graphexec.schema.json")
    assert invoke("check", graph).stdout.endswith("proved free of races\n")
    assert invoke("run", graph, "--device", "cpu", "-D", "S=16").exit_code == 0


def test_the_schema_is_the_one_that_is_published(invoke, tmp_path):
    invoke("init", tmp_path)
    written = json.loads((tmp_path / "graphexec.schema.json").read_text())
    assert written == json.loads(invoke("schema").stdout)


def test_nothing_is_overwritten(invoke, tmp_path):
    (tmp_path / "graph.yaml").write_text("mine")
    done = invoke("init", tmp_path)
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert (tmp_path / "graph.yaml").read_text() == "mine"
    assert not (tmp_path / "graphexec.schema.json").exists()


def test_a_folder_that_cannot_be_made(invoke, tmp_path):
    (tmp_path / "file").write_text("")
    done = invoke("init", tmp_path / "file" / "new")
    assert done.exit_code == 2
    assert "cannot make the folder" in done.stderr
