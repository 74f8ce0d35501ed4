"""The files of graphs/ that a fresh clone can run.

`minilm.yaml` is none of them: scripts/make_minilm has to write its weights first. Its tests are in
tests/test_minilm.py.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "graphs"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "minilm")
STEMS = [path.stem for path in FILES]
