"""Long work reports its progress."""

from graphexec.base.progress import listening, tracked


def test_parts_are_told_as_they_are_done():
    said = []
    with listening(lambda *part: said.append(part)):
        assert list(tracked("reading", "ab", 2)) == ["a", "b"]
    assert said == [("reading", 0, 2), ("reading", 1, 2), ("reading", 2, 2)]


def test_nothing_is_told_when_nobody_listens():
    said = []
    with listening(lambda *part: said.append(part)):
        pass
    assert list(tracked("reading", "ab", 2)) == ["a", "b"]
    assert said == []


def test_no_parts_are_done_at_once():
    said = []
    with listening(lambda *part: said.append(part)):
        assert list(tracked("reading", "", 0)) == []
    assert said == [("reading", 0, 0)]
