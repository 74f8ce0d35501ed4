"""Ranges around launches, as a profiler's library hears of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hip_lab import ROOT, Lab, example, inputs_of

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.runtime.hip import markers
from graphexec.runtime.hip.device import HipDevice, Mode
from graphexec.runtime.hip.markers import Markers
from graphexec.runtime.hip.on_cuda import HipOnCudaError, build, find_cuda

pytestmark = pytest.mark.hip

# What rocprof loads in ROCTX's place: it writes down what it hears.
RECORDER = r"""
#include <stdio.h>
#include <stdlib.h>
static void line(const char *what, const char *text) {
    FILE *file = fopen(getenv("HEARD"), "a");
    fprintf(file, "%s %s\n", what, text);
    fclose(file);
}
int roctxRangePushA(const char *text) { line("push", text); return 0; }
int roctxRangePop(void) { line("pop", ""); return 0; }
"""

# What a profiler gives NVTX: the functions it calls from then on.
INJECTION = r"""
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
static int push(const char *text) {
    FILE *file = fopen(getenv("HEARD"), "a");
    fprintf(file, "push %s\n", text);
    fclose(file);
    return 0;
}
static int pop(void) {
    FILE *file = fopen(getenv("HEARD"), "a");
    fputs("pop \n", file);
    fclose(file);
    return 0;
}
int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get) {
    const NvtxExportTableCallbacks *table = get(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable functions;
    unsigned size;
    table->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &functions, &size);
    *functions[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)push;
    *functions[NVTX_CBID_CORE_RangePop] = (NvtxFunctionPointer)pop;
    return 1;
}
"""


def compiled(source: str, target: Path, *options: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", target, *options]
    subprocess.run(command, input=source, text=True, check=True)
    return target


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with what a ROCTX heard, which `Markers` finds from here on."""
    monkeypatch.setenv("HEARD", str(tmp_path / "heard"))
    library = compiled(RECORDER, tmp_path / "recorder.so")
    monkeypatch.setattr(markers, "LIBRARIES", (str(library),))
    return tmp_path / "heard"


def ranges(heard: Path) -> list[str]:
    """The texts of the ranges, each closed before the next is opened."""
    lines = heard.read_text().splitlines()
    heard.write_text("")
    assert [line.split()[0] for line in lines] == ["push", "pop"] * (len(lines) // 2)
    return [line.removeprefix("push ") for line in lines[::2]]


@pytest.mark.parametrize("mode", ["stream", "graph"])
def test_every_launch_has_a_range(lab: Lab, heard: Path, mode: Mode) -> None:
    device = HipDevice(mode=mode, markers=True)
    with lab.nothing_left(), gx.compile(example("diamond"), device=device, streams=3) as exe:
        launches = [f"{i.node} ({i.command}) on stream {i.stream}"
                    for i in exe.plan.instructions if isinstance(i, Launch)]  # fmt: skip
        # A graph is captured after a run that warms up; from then on a run is one launch of it.
        opening = ranges(heard) if mode == "graph" else []
        assert opening == (launches * 2 if mode == "graph" else [])
        exe.run(**inputs_of(exe))
        exe.run(**inputs_of(exe))
        once = ["replay diamond"] if mode == "graph" else launches
        assert ranges(heard) == once * 2


def test_nothing_is_marked_unasked(lab: Lab, heard: Path) -> None:
    with lab.compile("diamond") as exe:
        exe.run(**inputs_of(exe))
    assert not heard.exists()


def test_the_command_line(lab: Lab, heard: Path) -> None:
    from click.testing import CliRunner

    from graphexec.cli.app import app

    file = str(ROOT / "graphs" / "diamond.yaml")
    done = CliRunner().invoke(app, ["run", file, "--device", "hip", "--markers"])
    assert done.exit_code == 0, done.output
    assert "replay diamond" in ranges(heard)
    done = CliRunner().invoke(app, ["run", file, "--device", "cpu", "--markers"])
    assert done.exit_code == 0
    assert "note: --markers is for GPUs; the cpu device has none" in done.output


def test_without_the_library_the_message_says_what_to_install(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markers, "LIBRARIES", ("libnothing-of-this-name",))
    with (
        lab.nothing_left(),
        pytest.raises(gx.DeviceUnavailable, match="neither libnothing-of-this-name can be"),
        gx.compile(example("diamond"), device=HipDevice(markers=True)),
    ):
        pass


def test_a_name_with_a_null_byte_does_not_end_a_range(heard: Path) -> None:
    Markers("/nowhere/libamdhip64.so").around("a\0b", lambda: None)()
    assert ranges(heard) == ["a b"]


def test_a_range_ends_where_the_launch_fails(heard: Path) -> None:
    def fails() -> None:
        raise gx.ExecutionError("no")

    with pytest.raises(gx.ExecutionError):
        Markers("/nowhere/libamdhip64.so").around("x", fails)()
    assert ranges(heard) == ["x"]


def test_over_cuda_the_ranges_are_nvtx_s(tmp_path: Path) -> None:
    """With the library a profiler injects, in a process of its own: NVTX looks for it once."""
    try:
        toolkit = find_cuda()
    except HipOnCudaError as error:
        pytest.skip(str(error))
    if toolkit.nvtx is None:
        pytest.skip("needs NVTX: pip install nvidia-nvtx")
    folder = build(tmp_path / "cache")
    profiler = compiled(INJECTION, tmp_path / "profiler.so", f"-I{toolkit.nvtx}")
    code = ("import sys; from graphexec.runtime.hip.markers import Markers; "
            "Markers(sys.argv[1]).around('scores (gemm)', lambda: None)()")  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", code, folder / "libamdhip64.so"], check=True,
        env={"HEARD": str(tmp_path / "heard"), "NVTX_INJECTION64_PATH": str(profiler)},
    )  # fmt: skip
    assert ranges(tmp_path / "heard") == ["scores (gemm)"]
