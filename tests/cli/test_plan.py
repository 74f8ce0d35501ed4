"""graphexec plan: formats, files, and plans of others."""

import json

import pytest

CPU = ("--device", "cpu")


def test_text_is_the_default(invoke, graph):
    done = invoke("plan", graph(), *CPU)
    assert done.exit_code == 0
    assert done.stdout.startswith("plan tiny on cpu · N=4 · ")
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("format", "start"), [
    ("text", "plan tiny"), ("json", "{"), ("dot", "digraph"),
])  # fmt: skip
def test_formats(invoke, graph, format, start):
    assert invoke("plan", graph(), *CPU, "--format", format).stdout.startswith(start)


@pytest.mark.parametrize(("ending", "start"), [
    ("txt", "plan tiny"), ("json", "{"), ("dot", "digraph"), ("gv", "digraph"),
])  # fmt: skip
def test_the_ending_of_the_file_tells_the_format(invoke, graph, tmp_path, ending, start):
    target = tmp_path / f"plan.{ending}"
    done = invoke("plan", graph(), *CPU, "-o", target)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert target.read_text().startswith(start)
    assert target.read_text().endswith("\n")


def test_format_wins_over_the_ending(invoke, graph, tmp_path):
    invoke("plan", graph(), *CPU, "-o", tmp_path / "plan.txt", "--format", "json")
    assert json.loads((tmp_path / "plan.txt").read_text())["graph"] == "tiny"


def test_an_unknown_ending_says_which_are_known(invoke, graph, tmp_path):
    done = invoke("plan", graph(), "-o", tmp_path / "plan.jpeg")
    assert done.exit_code == 2
    assert ".txt, .json, .dot, .gv" in done.stderr
    assert not (tmp_path / "plan.jpeg").exists()


def test_an_unwritable_file(invoke, graph, tmp_path):
    done = invoke("plan", graph(), "-o", tmp_path / "none" / "plan.txt")
    assert done.exit_code == 2
    assert "cannot write" in done.stderr


def test_streams_and_dims(invoke, graph):
    found = json.loads(
        invoke("plan", graph(), *CPU, "--format", "json", "--streams", "1", "-D", "N=32").stdout
    )
    assert len(found["streams"]) == 1
    assert found["dims"] == {"N": 32}


def test_a_plan_for_a_device_that_is_not_here(invoke, graph):
    done = invoke("plan", graph(), "--device", "hip", "--format", "json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["device"] == "hip"


def test_a_plan_file_is_shown_as_it_is_also_with_races(invoke, racy):
    for format, start in (("text", "plan tiny"), ("dot", "digraph")):
        done = invoke("plan", racy, "--format", format)
        assert done.exit_code == 0
        assert done.stdout.startswith(start)


@pytest.mark.parametrize("view", ["plan", "memory", "graph"])
def test_text_of_a_refuted_plan_says_so_and_so_does_a_warning(invoke, racy, view):
    judged = json.loads(invoke("check", racy, "--json").stdout)["files"][0]["hazards"]
    done = invoke("plan", racy, "--view", view)
    assert f"✗ refuted: {len(judged)} hazard" in done.stdout
    assert judged[0]["message"] in done.stdout
    assert "\x1b" not in done.stdout
    assert f"warning: {racy}: this plan is refuted: {len(judged)} hazard" in done.stderr
    assert done.exit_code == 0


def test_a_plan_without_hazards_is_not_warned_of(invoke, graph, tmp_path):
    invoke("plan", graph(), *CPU, "-o", tmp_path / "plan.json")
    done = invoke("plan", tmp_path / "plan.json")
    assert "hazard" not in done.output
    assert done.stderr == ""


def test_json_is_a_fixed_point(invoke, graph, tmp_path):
    invoke("plan", graph(), *CPU, "-o", tmp_path / "plan.json")
    again = invoke("plan", tmp_path / "plan.json", "--format", "json")
    assert again.stdout == (tmp_path / "plan.json").read_text()


# Pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "ending", "start"), [
    ("plan", "svg", b"<svg"), ("plan", "png", b"\x89PNG"), ("plan", "mmd", b"flowchart LR"),
    ("graph", "svg", b"<svg"), ("graph", "dot", b"digraph"), ("graph", "mmd", b"flowchart TD"),
    ("graph", "json", b"{"), ("graph", "png", b"\x89PNG"),
    ("graph", "txt", b"tiny: "), ("memory", "svg", b"<svg"), ("memory", "png", b"\x89PNG"),
    ("memory", "txt", b"memory of tiny"), ("memory", "json", b"{"),
])  # fmt: skip
def test_views(invoke, graph, tmp_path, view, ending, start):
    target = tmp_path / f"plan.{ending}"
    done = invoke("plan", graph(), *CPU, "--view", view, "-o", target)
    assert done.exit_code == 0, done.stderr
    assert target.read_bytes().startswith(start)


def test_a_view_without_that_format_says_which_it_has(invoke, graph, tmp_path):
    done = invoke("plan", graph(), *CPU, "--view", "memory", "-o", tmp_path / "plan.dot")
    assert done.exit_code == 2
    assert "it can as text, json, svg, png" in done.stderr
    assert list(tmp_path.glob("plan*")) == []


def test_the_most_boxes_and_the_colours_can_be_chosen(invoke, graph, tmp_path):
    for color in ("op", "cost"):
        done = invoke("plan", graph(), *CPU, "--color", color, "--max-nodes", "2",
                      "-o", tmp_path / "plan.svg")  # fmt: skip
        assert done.exit_code == 0
        assert "drawn as" in (tmp_path / "plan.svg").read_text()
    assert invoke("plan", graph(), "--max-nodes", "0").exit_code == 2


@pytest.mark.parametrize(("options", "says"), [
    (["--color", "op"], "--view plan as text has none"),
    (["--color", "op", "--view", "memory", "--format", "json"], "has none"),
    (["--color", "op", "--view", "graph", "--format", "mermaid"], "--view graph as mermaid"),
    (["--color", "cost", "--view", "graph", "--format", "svg"], "is coloured by op"),
    (["--max-nodes", "3"], "--max-nodes is for pictures"),
    (["--max-nodes", "3", "--view", "memory"], "--view memory as text shows everything"),
    (["--max-nodes", "3", "--trace", "run.json", "--format", "svg"], "of a measured run"),
])  # fmt: skip
def test_an_option_without_a_use_is_refused(invoke, graph, options, says):
    done = invoke("plan", graph(), *CPU, *options)
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())


@pytest.mark.parametrize("format", ["dot", "mermaid", "svg"])
def test_every_picture_honours_colours_and_the_most_boxes(invoke, graph, format):
    def draw(*options):
        done = invoke("plan", graph(), *CPU, "--format", format, *options)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    assert len({draw(), draw("--color", "op"), draw("--color", "cost")}) == 3
    assert len(draw("--max-nodes", "1")) < len(draw())


def test_a_measured_run_is_drawn_under_the_prediction(invoke, graph, tmp_path):
    trace = tmp_path / "run.json"
    assert invoke("run", graph(), *CPU, "--trace", trace).exit_code == 0
    for ending, start in (("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!doctype html>")):
        target = tmp_path / f"plan.{ending}"
        done = invoke("plan", graph(), *CPU, "--trace", trace, "-o", target)
        assert done.exit_code == 0, done.stderr
        assert target.read_bytes().startswith(start)
    assert "predicted above, measured below" in (tmp_path / "plan.svg").read_text()
    for wrong in (["-o", tmp_path / "plan.dot"], ["--view", "memory", "-o", tmp_path / "m.svg"]):
        done = invoke("plan", graph(), *CPU, "--trace", trace, *wrong)
        assert done.exit_code == 2
        assert "write .html, .svg or .png" in " ".join(done.stderr.split())


def test_a_racy_plan_is_drawn_with_the_race_in_red(invoke, racy, tmp_path):
    done = invoke("plan", racy, "-o", tmp_path / "racy.svg")
    assert done.exit_code == 0
    assert 'class="rx"' in (tmp_path / "racy.svg").read_text()
    assert "race" in invoke("plan", racy, "--format", "dot").stdout
