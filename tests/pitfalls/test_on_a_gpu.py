"""docs/pitfalls.md on a GPU: a kernel that spins keeps stream 1 busy, and every program is wrong.

Not collected unless `GRAPHEXEC_HIP_LIBRARY_PATH` names the libraries of a real device.
"""

from __future__ import annotations

from typing import Any

import pytest
from hip_lab import MODES, Lab
from test_pitfalls import CURES, PITFALLS, SHARED, TITLES, given, is_right, program

import graphexec as gx
from graphexec.runtime.hip.device import Mode

CYCLES = 10**9  # about half a second
SPIN = f"""
SPIN = b'''extern "C" __global__ void spin() {{
    const long long start = clock64();
    while (clock64() - start < {CYCLES}) {{}}
}}'''


def busy(stream):
    ok(hip.hipModuleLaunchKernel(SPINNING, 1, 1, 1, 1, 1, 1, 0, stream, None, ()))


SOURCE, kept = SPIN, SOURCE
SPINNING = ok(hip.hipModuleGetFunction(ok(hip.hipModuleLoadData(compiled())), b"spin"))
SOURCE = kept
"""


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab = Lab.open()
    if lab.emulator is not None:
        pytest.skip("needs a GPU")
    return lab


@pytest.fixture
def names(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in (*SHARED, SPIN):
        exec(compile(text, "docs/pitfalls.md", "exec"), found)
    return found


def delayed(names: dict[str, Any], title: str) -> None:
    """From now on the program's first command on stream 1 is late; for bytes that are used again
    too early, their last reader is."""
    softmax, order, busy = names["softmax"], names["order"], names["busy"]

    def late_softmax(g: Any, x: Any, y: Any, stream: Any) -> None:
        if stream is g.s1:
            busy(stream)
        softmax(g, x, y, stream)

    def late_after(before: Any, after: Any) -> None:
        order(before, after)
        busy(before)

    if title.startswith("Bytes"):
        names["order"] = late_after
    else:
        names["softmax"] = late_softmax


@pytest.mark.parametrize("title", TITLES)
def test_the_program_is_wrong(names: dict[str, Any], title: str) -> None:
    run = program(PITFALLS[title], names)
    run(*given())  # the libraries load what they load lazily
    delayed(names, title)
    assert [is_right(title, run(*given())) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("title", TITLES)
def test_with_the_line_it_lacks_it_is_right(names: dict[str, Any], title: str) -> None:
    (cures,) = (cures for start, cures in CURES.items() if title.startswith(start))
    run = program(PITFALLS[title], names, *cures)
    delayed(names, title)
    assert is_right(title, run(*given()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("title", TITLES)
def test_the_yaml_never_is(lab: Lab, title: str, mode: Mode) -> None:
    x, w = given()
    with lab.compile(gx.loads(PITFALLS[title].yaml), mode, 2) as exe:
        assert all(is_right(title, exe.run(x=x, w=w)) for _ in range(100))
