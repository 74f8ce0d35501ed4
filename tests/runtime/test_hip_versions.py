"""The HIP device with the version of hip-python that is not installed: a smaller set of tests."""

from __future__ import annotations

import json
from pathlib import Path

from graph_files import STEMS
from test_hip_bindings import (
    emulator,  # noqa: F401
    installed_version,
    other_interpreter,  # noqa: F401
    run,
)

HERE = Path(__file__).parent
SCRIPT = f"""
    import json, sys, types, warnings
    ops = types.ModuleType("graphexec.ops")  # where an installed graphexec has them
    ops.__path__ = [{str(HERE.parents[1] / "ops")!r}]
    sys.modules["graphexec.ops"] = ops
    sys.path[:0] = [{str(HERE.parent)!r}, {str(HERE)!r}, {str(HERE.parents[1] / "benchmarks")!r}]
    from hip_lab import *
    import graphexec as gx
    from graphexec.runtime.hip.device import CaptureWarning
    from graphexec.runtime.hip.bindings import load

    lab = Lab.open()
    from hip_emulator.emulator import Emulator
    emulator = Emulator.load()
    done = []
    for name in GRAPHS:
        for mode in MODES:
            for streams in (1, 3):
                with lab.nothing_left(), lab.compile(name, mode, streams) as exe:
                    assert session_of(exe).mode == mode, session_of(exe).fallback
                    inputs, found = inputs_of(exe), []
                    for seed in range(3):
                        emulator.set_seed(seed)
                        found.append(bits(exe.run(**inputs)))
                    assert found[1:] == found[:1] * 2
                    assert_right(exe, inputs, exe.run(**inputs))
                    assert [bits(o) for o in exe.map([inputs] * 3)] == found
        done.append(name)

    emulator.fail("hipblasGemmEx:2=6")
    with lab.compile(small(), "stream", 2) as exe:
        try:
            exe.run(**inputs_of(exe))
        except gx.ExecutionError as exc:
            failure = str(exc)
        emulator.fail("")
        assert_right(exe, inputs_of(exe), exe.run(**inputs_of(exe)))
    emulator.fail("hipStreamBeginCapture:1=900")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lab.compile(small(), "graph", 2).close()
    assert [w for w in caught if w.category is CaptureWarning]
    emulator.fail("")
    with lab.compile(small(), resident=True) as exe:
        exe.run(**inputs_of(exe))
        exe.replay()
    print(json.dumps([load().platform.hip_python_version, done, failure]))
"""


def test_the_other_version(other_interpreter: Path, emulator: Path) -> None:  # noqa: F811
    output = run(other_interpreter, SCRIPT, GRAPHEXEC_HIP_LIBRARY_PATH=str(emulator))
    version, done, failure = json.loads(output.splitlines()[-1])
    assert version.split(".")[0] == {"10": "7", "7": "10"}[installed_version()]
    assert done == STEMS
    assert "hipblasGemmEx failed: HIPBLAS_STATUS_INTERNAL_ERROR (6): an internal error" in failure
