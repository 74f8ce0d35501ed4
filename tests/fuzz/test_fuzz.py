"""Files with mistakes: an error of the user's or none, in bounded time. A longer run is
benchmarks/fuzz.py, which also bounds memory; what it found lies minimised in corpus/."""

from __future__ import annotations

import signal
import time
import warnings
from pathlib import Path

import fuzz
import numpy as np
import pytest
from fuzz_inputs import made
from fuzz_targets import TARGETS, Target, judge

import graphexec as gx

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
SECONDS = 2.2  # a target; of a slow machine fewer inputs
HANG = 10.0
SEED = 13


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_right_is_read(name):
    target = TARGETS[name]
    assert judge(target, target.seeds()[0]) == ""


@pytest.mark.parametrize("name", TARGETS)
def test_files_with_mistakes(name):
    began = time.monotonic()
    for number in range(2000):
        if time.monotonic() - began > SECONDS:
            break
        assert_in_order(TARGETS[name], made(TARGETS[name], SEED, number))
    assert number > 20


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once(path):
    assert_in_order(TARGETS[path.parent.name], path.read_bytes())


def assert_in_order(target: Target, data: bytes) -> None:
    began = time.monotonic()
    fault = judge(target, data)
    assert fault == "", f"{data[:2000]!r}\n{fault}"
    assert time.monotonic() - began < HANG


def test_inputs_are_the_same_for_a_seed():
    target = TARGETS["npz"]
    assert made(target, 1, 2) == made(target, 1, 2) != made(target, 1, 3)


def test_the_corpus_is_of_known_targets():
    assert {path.parent.name for path in FOUND} <= TARGETS.keys()
    assert FOUND


def fails(error: Exception) -> Target:
    def use(data: bytes) -> None:
        raise error

    return Target(lambda: [b""], use)


@pytest.mark.parametrize("error", [
    OverflowError("int too large"), KeyError("tried"), MemoryError(), RecursionError(),
    gx.InternalError("broken"),
])  # fmt: skip
def test_foreign_exceptions_are_faults(error):
    assert "Traceback" in judge(fails(error), b"")


def test_warnings_of_libraries_and_raw_messages_are_faults():
    warn = Target(lambda: [b""], lambda data: warnings.warn("x", RuntimeWarning, stacklevel=1))
    assert "RuntimeWarning" in judge(warn, b"")
    assert "overflow" in judge(Target(list, lambda data: np.float32(1e38) * np.float32(10)), b"")


def test_what_is_found_is_made_small(monkeypatch):
    def use(data: bytes) -> None:
        if b"a" in data and b"b" in data:
            raise OverflowError("too large")

    monkeypatch.setitem(TARGETS, "odd", Target(lambda: [b""], use))
    told = fuzz.fault("odd", b"xxaxxxxbx")
    assert fuzz.kind_of(told).startswith("OverflowError")
    assert fuzz.minimised("odd", b"xxaxxxxbx" * 9, fuzz.kind_of(told)) in (b"ab", b"ba")
    assert fuzz.fault("odd", b"a") == ""


def test_a_hang_is_found(monkeypatch):
    def use(data: bytes) -> None:
        while True:
            pass

    monkeypatch.setitem(TARGETS, "odd", Target(lambda: [b""], use))
    monkeypatch.setattr(fuzz, "HANG", 1)
    usual = signal.signal(signal.SIGALRM, fuzz.hanging)
    try:
        assert fuzz.kind_of(fuzz.fault("odd", b"")).startswith("hang")
    finally:
        signal.signal(signal.SIGALRM, usual)


def test_a_mistake_of_the_user_is_none():
    with pytest.raises(gx.GraphError) as caught:
        gx.Plan.from_json("")
    assert judge(fails(caught.value), b"") == ""
