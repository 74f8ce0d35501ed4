"""Ranges around launches for profilers: --markers.

They use ROCTX, which rocprof reads. On NVIDIA GPUs, HIP over CUDA builds a library of the same name
on NVTX, which Nsight Systems reads. Ranges are on the host: each spans the call that issues a
launch, and profilers map it to the launched work. In graph mode the launches are issued once, when
the plan is captured, and each run is one more range.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from graphexec.base.errors import DeviceUnavailable
from graphexec.ir.plan import Launch, Plan

Step = Callable[[], object]

LIBRARIES = ("librocprofiler-sdk-roctx.so", "libroctx64.so")


class Markers:
    """ROCTX, to put ranges around steps."""

    def __init__(self, runtime: str) -> None:
        """Find it beside the HIP runtime, given by its path, or on the system's search path.

        Raises DeviceUnavailable."""
        library = next(_libraries(Path(runtime).parent), None)
        if library is None:
            raise DeviceUnavailable(
                f"--markers needs ROCTX, and neither {' nor '.join(LIBRARIES)} can be loaded: "
                "install rocprofiler-sdk-roctx or roctracer of ROCm; on an NVIDIA GPU "
                "pip install nvidia-nvtx"
            )
        self._push, self._pop = library.roctxRangePushA, library.roctxRangePop
        self._push.argtypes, self._pop.argtypes = [ctypes.c_char_p], []

    def around(self, text: str, step: Step) -> Step:
        """The step in a range called `text`."""
        push, pop, name = self._push, self._pop, text.replace("\0", " ").encode()

        def marked() -> object:
            push(name)
            try:
                return step()
            finally:
                pop()

        return marked

    def around_launches(self, plan: Plan, steps: Sequence[Step]) -> list[Step]:
        """Steps of the instructions of `plan`, each launch in a range named after its node."""
        return [
            self.around(f"{i.node} ({i.command}) on stream {i.stream}", step)
            if isinstance(i, Launch) else step
            for i, step in zip(plan.instructions, steps, strict=True)
        ]  # fmt: skip


def _libraries(folder: Path) -> Iterator[ctypes.CDLL]:
    for place in (str(folder / "{}"), "{}"):
        for name in LIBRARIES:
            try:
                library = ctypes.CDLL(place.format(name))
            except OSError:
                continue
            if hasattr(library, "roctxRangePushA"):
                yield library
