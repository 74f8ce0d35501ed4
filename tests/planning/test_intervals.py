"""Intervals on one stream, as other allocators publish them: read from CSV, and placed."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from random import Random

import intervals
import pytest

from graphexec.planning.allocation.arena import place

SMALL = """\
id,lower,upper,size
a,0,2,4
b,2,5,4
c,0,5,2
d,4,6,6
"""


def file_of(folder: Path, text: str) -> Path:
    path = folder / "small.12.csv"
    path.write_text(text)
    return path


def test_buffers_live_up_to_but_not_at_their_end(tmp_path):
    path = file_of(tmp_path, SMALL)
    assert intervals.capacity(path) == 12
    items = {next(iter(item.at)): item for item in intervals.read(path)}
    assert list(items) == ["a", "c", "b", "d"]  # in order of first access
    assert items["a"].ends_before(items["b"])
    assert not items["b"].ends_before(items["d"])
    found = place(list(items.values()))
    assert found.bytes == found.lower_bound == 12  # b, c and d live at 4


def test_other_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the columns are"):
        intervals.read(file_of(tmp_path, "name,from,to\na,0,1\n"))


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_intervals_cut_from_a_full_arena_are_packed_within_a_quarter(seed):
    """A rectangle of time × bytes, cut at random: packed without a gap it takes 1000."""
    random, pieces = Random(seed), [(0, 1000, 0, 1000)]
    while len(pieces) < 100:
        start, end, low, high = pieces.pop(random.randrange(len(pieces)))
        if random.random() < 0.5 and end - start > 1:
            cut = random.randrange(start + 1, end)
            pieces += [(start, cut, low, high), (cut, end, low, high)]
        elif high - low > 1:
            cut = random.randrange(low + 1, high)
            pieces += [(start, end, low, cut), (start, end, cut, high)]
        else:
            pieces.append((start, end, low, high))
    items = sorted(
        (intervals.item(str(i), start, end, high - low)
         for i, (start, end, low, high) in enumerate(pieces)),
        key=lambda item: item.first,
    )  # fmt: skip
    found = place(items)
    assert found.lower_bound == 1000
    assert 1000 <= found.bytes <= 1250
    for one, two in combinations(range(len(items)), 2):
        if items[one].first <= items[two].last and items[two].first <= items[one].last:
            low, high = sorted((one, two), key=lambda i: found.offsets[i])
            assert found.offsets[low] + items[low].size <= found.offsets[high]
