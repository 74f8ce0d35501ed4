"""Shared by tests of the HIP device: the device, example graphs, and the emulator's lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import STEMS
from hip_emulator.emulator import Emulator, LiveCounts
from kernel_harness import Harness

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.formats.arrays import read_inputs
from graphexec.runtime.executable import Executable
from graphexec.runtime.hip import products
from graphexec.runtime.hip import resources as hip_resources
from graphexec.runtime.hip.device import HipDevice, HipSession, Mode
from graphexec.tools.evaluate import evaluate
from graphexec.tools.judge import grain

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).parents[2]
GRAPHS = STEMS
MODES: tuple[Mode, ...] = ("stream", "graph")


class Lab:
    """The device under test; `emulator` is None on a real one."""

    def __init__(self, emulator: Emulator | None) -> None:
        self._emulator = emulator

    @staticmethod
    def open() -> Lab:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ROCM_PATH", "")  # the emulator sets it, which is not for subprocesses
            return Lab(Harness.open().emulator)

    def reset(self) -> None:
        if self._emulator is not None:
            self._emulator.reset()
            hip_resources._abandoned.clear()  # the emulator gives out their handles again
            products._why_no_algorithm.cache_clear()  # what a test made fail is asked anew

    @property
    def emulator(self) -> Any:
        """The emulator; a test that needs it asks for the fixture `emulated`."""
        return self._emulator

    def seed(self, seed: int) -> None:
        if self._emulator is not None:
            self._emulator.set_seed(seed)

    def live(self) -> LiveCounts | None:
        return None if self._emulator is None else self._emulator.live()

    def compile(
        self, graph: gx.Graph | str, mode: Mode = "graph", streams: int = 4, **options: Any
    ) -> Executable:
        graph = example(graph) if isinstance(graph, str) else graph
        return gx.compile(graph, device=HipDevice(mode=mode), streams=streams, **options)

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """Everything created in the `with` block is destroyed in it."""
        before = self.live()
        yield
        assert self.live() == before


def session_of(exe: Executable) -> HipSession:
    assert isinstance(exe.session, HipSession)
    return exe.session


def example(name: str) -> gx.Graph:
    return gx.load(ROOT / "graphs" / f"{name}.yaml")


def inputs_of(exe: Executable, seed: int = 0) -> dict[str, Array]:
    return read_inputs((), exe.inputs, seed)[0]


def bits(outputs: Mapping[str, Array]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in outputs.items()}


def assert_right(
    exe: Executable, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> None:
    """Outputs are those of an unplanned evaluation in float64, as near as their dtypes allow."""
    exact = evaluate(exe.graph, inputs)
    coarsest = max((grain(t.dtype) for t in exe.graph.types().values()), default=0.0)
    assert outputs.keys() == exe.graph.outputs.keys()
    for name, tensor in exe.graph.outputs.items():
        expected = exact[tensor]
        error = np.linalg.norm(outputs[name].astype(np.float64) - expected)
        limit = 4 * coarsest * np.linalg.norm(expected)
        assert error <= limit, f"output '{name}' is off by {error:.3g}, {limit:.3g} is allowed"


def small(dtype: str = "f32", size: int = 24, name: str = "small") -> gx.Graph:
    """gemm and softmax on two branches that join."""
    g = gx.Graph(name, dims={"N": size})
    x, w = g.input("x", ("N", "N"), dtype), g.input("w", ("N", "N"), dtype)
    left, right = g.gemm(x, w, name="left"), g.softmax(x, name="right")
    g.output(out=g.gemm(left, right, alpha=0.25, name="join"))
    return g


# The emulator's lines -------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A line of the call trace."""

    name: str
    arguments: tuple[str, ...]
    status: str

    @staticmethod
    def of(line: str) -> Call:
        found = re.fullmatch(r"(\w+)\((.*)\) -> (\w+)", line)
        assert found, line
        return Call(found[1], tuple(found[2].split(",")), found[3])


def calls(emulator: Emulator) -> list[Call]:
    """The calls since the last time."""
    return [Call.of(line) for line in emulator.calls()]


def dtype_of(array: Array) -> DType:
    return next(d for d in DType if d.numpy() == array.dtype)
