"""The files of graphs/ that a fresh clone can run.

Some need weights first, which scripts/make_minilm and scripts/make_decoder write. Their tests are
in tests/test_minilm.py and tests/test_language_model.py.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "graphs"
WITHOUT_WEIGHTS = ("llama", "minilm", "smollm2")
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem not in WITHOUT_WEIGHTS)
STEMS = [path.stem for path in FILES]
