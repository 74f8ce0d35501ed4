"""Which of these tests run: those on a GPU only where one is named."""

from __future__ import annotations

import os

collect_ignore = [] if "GRAPHEXEC_HIP_LIBRARY_PATH" in os.environ else ["test_on_a_gpu.py"]
