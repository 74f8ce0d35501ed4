"""benchmarks/tuned.py runs, and counts what it says."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_it_runs_on_the_cpu(tmp_path):
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "tuned.py", "--device", "cpu", "--quick", "--only",
         "3 chains", "--budget", "600", "--json", found],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "| 3 chains of 2 GEMMs of 64 |" in done.stdout
    document = json.loads(found.read_text())
    assert len(document["points"]) >= 2
    assert all(p["predicted"] > 0 and p["measured"] > 0 for p in document["points"])
    assert len(document["gains"]) == 1


def test_pairs_are_of_one_graph_and_apart(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("tuned", BENCHMARKS / "tuned.py")
    tuned = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tuned", tuned)
    spec.loader.exec_module(tuned)

    def point(graph, predicted, measured):
        return tuned.Point(graph, "", 1, predicted, measured)

    right = [point("a", 10.0, 20.0), point("a", 9.0, 10.0)]
    wrong = [point("b", 10.0, 20.0), point("b", 11.0, 10.0)]
    near = [point("c", 10.0, 20.0), point("c", 11.0, 19.9)]
    assert tuned.agreement(right) == (1, 1)
    assert tuned.agreement(wrong) == (0, 1)
    assert tuned.agreement(near) == (0, 0)
    assert tuned.agreement(right + wrong + near) == (1, 2)
    assert right[0].error == 0.5
