"""Work grows like its size: counted in lines of Python, as time depends on the machine."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from growing import SHAPES, Work

SMALL, LARGE = 600, 2400  # both beyond the sizes up to which more is tried
MOST = (LARGE / SMALL) ** 1.15


def lines(work: Work) -> int:
    """How many lines of the package and the libraries in Python `work` runs."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", SHAPES)
def test_no_shape_takes_the_square_of_its_size(name: str) -> None:
    SHAPES[name](4)()  # imports
    small, large = (lines(SHAPES[name](size)) for size in (SMALL, LARGE))
    assert large < MOST * small, f"{small:,} lines for {SMALL}, {large:,} for {LARGE}"
