"""graphexec compare: right, wrong, and by how much."""

import json
import re

ATTENTION = "graphs/attention.yaml"

CPU = ("--device", "cpu")


def test_a_right_result(invoke, graph):
    done = invoke("compare", graph(), *CPU)
    assert done.exit_code == 0
    assert done.stdout.startswith("tiny on cpu, against float64\n")
    assert "all within tolerance" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith("ok")] == [
        "out", "xw", "p"]  # fmt: skip


def test_a_tolerance_that_no_float_meets(invoke, graph):
    done = invoke("compare", graph(), *CPU, "--tolerance", "0")
    assert done.exit_code == 1
    assert "out of tolerance; the first node that is: 'xw'" in done.stdout
    assert "OUT" in done.stdout
    assert re.search(r"element \[\d+, \d+\] of 'xw' is .+, but should be .+, give or take",
                     done.stdout)  # fmt: skip


def test_json(invoke, graph):
    found = json.loads(invoke("compare", graph(), *CPU, "--json", "-i", "x=randn:3").stdout)
    assert found["ok"]
    assert found["first_bad"] is None
    assert [row["name"] for row in found["nodes"]] == ["xw", "p"]
    assert found["outputs"][0].keys() == {
        "name", "op", "dtype", "max_abs", "relative", "tolerance", "ok", "worst"}  # fmt: skip
    assert found["nodes"][0]["worst"].keys() == {"index", "found", "expected", "bound"}


def test_a_result_that_is_nan_is_out_of_tolerance(invoke, graph):
    path = graph(("op: gemm, a: x, b: w", "op: gemm, a: x, b: w, alpha: 1e38"))
    done = invoke("compare", path, *CPU, "--json", "-D", "N=16")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["ok"] is False


def test_nodes_that_were_not_computed_are_not_in_the_table(invoke):
    done = invoke("compare", ATTENTION, *CPU)
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith("ok")] == [
        "out", "ctx"]  # fmt: skip
    assert (
        "\nnot compared, as no command computes them:\n"
        "  scores, probs: computed as part of ctx\n" in done.stdout
    )
    unfused = invoke("compare", ATTENTION, *CPU, "--no-rewrite", "all").stdout
    assert "not compared" not in unfused
    assert len([line for line in unfused.splitlines() if line.endswith("ok")]) == 4


def test_json_names_what_was_not_computed(invoke):
    found = json.loads(invoke("compare", ATTENTION, *CPU, "--json").stdout)
    assert [row["name"] for row in found["nodes"]] == ["ctx"]
    assert found["not_computed"] == [
        {"name": "scores", "op": "gemm", "how": "part of", "by": ["ctx"]},
        {"name": "probs", "op": "softmax", "how": "part of", "by": ["ctx"]},
    ]
