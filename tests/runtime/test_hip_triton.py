"""Launching what Triton compiles: arguments, threads, shared and scratch memory, and the cache.

The emulator runs no machine code of a GPU. So a HIP kernel stands in for the compiled one, with the
parameters that Triton leaves it; all else is the real thing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hip_lab import MODES, Lab, assert_right, calls, inputs_of

import graphexec as gx
from graphexec.base.errors import ExecutionError
from graphexec.ir.program import Gpu, TritonKernel, Work
from graphexec.machine.support import Facts, Support
from graphexec.planning.pipeline import plan_graph
from graphexec.runtime.device import FallbackWarning
from graphexec.runtime.hip import kernel_cache as hip_kernel_cache
from graphexec.runtime.hip import triton as hip_triton
from graphexec.runtime.hip.bindings import load
from graphexec.runtime.hip.device import HipDevice, Mode
from graphexec.runtime.hip.triton import TritonBinary
from graphexec.tools.explain import explain

if importlib.util.find_spec("triton") is None:
    pytest.skip("pip install 'graphexec[fused]'", allow_module_level=True)

STAND_IN = """
extern "C" __global__ void stand_in(
    const _Float16* q, const _Float16* k, const _Float16* v, _Float16* out, float scale,
    float headroom,
    int M, int N, int batch, long long q_batch, int q_m, long long k_batch, int k_n,
    long long v_batch, int v_n, long long out_batch, int out_m, int* scratch, int* profile) {
    extern __shared__ float scores[];
    const int blocks = gridDim.x / batch, rows = (M + blocks - 1) / blocks;
    const int entry = blockIdx.x / blocks, first = blockIdx.x % blocks * rows;
    int* mine = scratch + blockIdx.x * (SCRATCH / sizeof(int));
    for (int i = 0; i < SCRATCH / sizeof(int); ++i) mine[i] = M;  // there is that much
    if (profile || threadIdx.x || blockDim.x != THREADS) return;
    for (int row = first; row < first + rows && row < M; ++row) {
        const _Float16* query = q + entry * q_batch + row * q_m;
        float top = -1e30f, total = 0;
        for (int key = 0; key < N; ++key) {
            float z = 0;
            for (int d = 0; d < HEAD; ++d)
                z += float(query[d]) * float(k[entry * k_batch + key * k_n + d]);
            scores[key] = z * scale;
            top = scores[key] > top ? scores[key] : top;
        }
        for (int key = 0; key < N; ++key) total += scores[key] = expf(scores[key] - top);
        for (int d = 0; d < HEAD; ++d) {
            float sum = 0;
            for (int key = 0; key < N; ++key)
                sum += scores[key] * float(v[entry * v_batch + key * v_n + d]);
            out[entry * out_batch + row * out_m + d] = _Float16(sum / total);
        }
    }
}
"""
THREADS, SCRATCH, SHARED, HEAD = 96, 256, 60_000, 8


@dataclass(frozen=True)
class Capable(HipDevice):
    """A device on which Triton kernels run."""

    def support(self, work: Work) -> Support:
        if isinstance(work, TritonKernel):
            return hip_kernel_cache.support(self._bindings(), self.index, work)
        return super().support(work)

    def facts(self) -> Facts:
        return Facts(programs=0)


@dataclass
class StandIn:
    """Compiles the HIP kernel instead of the Triton source; counts."""

    shared: int = SHARED
    fails: bool = False
    compiled: list[str] = field(default_factory=list)

    def __call__(self, kernel: TritonKernel, gpu: Gpu) -> TritonBinary:
        if self.fails:
            message = "the Triton kernel 'attention' does not compile: no good"
            raise ExecutionError(message)
        self.compiled.append(kernel.entry)
        defines = {"THREADS": THREADS, "SCRATCH": SCRATCH, "HEAD": HEAD}
        text = "".join(f"#define {name} {value}\n" for name, value in defines.items()) + STAND_IN
        code = load().kernels.compile("#include <hip/hip_runtime.h>\n" + text, "stand_in.hip")
        return TritonBinary(code, "stand_in", THREADS, self.shared, SCRATCH)


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, emulated: Lab) -> StandIn:
    compiler = StandIn()
    monkeypatch.setattr(hip_triton, "compile_kernel", compiler)
    monkeypatch.setattr(hip_kernel_cache, "_in_process", {})
    monkeypatch.setattr(hip_kernel_cache, "_answers", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return compiler


def attention(length: int = 150, dtype: str = "f16", heads: int = 3) -> gx.Graph:
    g = gx.Graph("attention")
    q, k, v = (g.input(n, (2, heads, m, HEAD), dtype)
               for n, m in (("q", length), ("k", 70), ("v", 70)))  # fmt: skip
    scores = g.gemm(q, k, trans_b=True, alpha=0.4, name="scores")
    g.output(out=g.gemm(g.softmax(scores, name="probs"), v, name="ctx"))
    return g


def labels(exe: Any) -> list[str]:
    return [c.label for c in exe._compiled.program.commands if c.label != "memcpy"]


@pytest.mark.parametrize("mode", MODES)
def test_one_command_and_right_numbers(mode: Mode, triton: StandIn, emulated: Lab) -> None:
    with gx.compile(attention(), device=Capable(mode=mode)) as exe:
        assert labels(exe) == ["attention"]
        inputs = inputs_of(exe)
        for _ in range(3):
            assert_right(exe, inputs, exe.run(**inputs))
    assert triton.compiled == ["attention"]


def test_how_it_is_launched(triton: StandIn, emulated: Lab) -> None:
    emulated.emulator.trace()
    with gx.compile(attention(), device=Capable(mode="stream")) as exe:
        exe.run(**inputs_of(exe))
    made = calls(emulated.emulator)
    launch = next(c for c in made if c.name == "hipModuleLaunchKernel")
    blocks = -(-150 // 64) * 6  # 64 queries a block on an architecture without rows of its own
    assert launch.arguments[1:8] == (str(blocks), "1", "1", str(THREADS), "1", "1", str(SHARED))
    asked = [c for c in made if c.name == "hipFuncSetAttribute"]
    assert [c.arguments[-1] for c in asked] == 2 * [str(SHARED)]  # asked about it, and loading it
    assert f"{SCRATCH * blocks}" in {c.arguments[-1] for c in made if c.name == "hipMalloc"}


def test_little_shared_memory_is_not_asked_for(triton: StandIn, emulated: Lab) -> None:
    triton.shared = 48 << 10
    emulated.emulator.trace()
    with gx.compile(attention(), device=Capable()) as exe:
        exe.run(**inputs_of(exe))
    made = {call.name for call in calls(emulated.emulator)}
    assert "hipModuleLaunchKernel" in made
    assert "hipFuncSetAttribute" not in made


def test_nothing_is_left(triton: StandIn, emulated: Lab) -> None:
    with emulated.nothing_left(), gx.compile(attention(), device=Capable()) as exe:
        exe.run(**inputs_of(exe))


def test_compiled_once_and_kept(
    triton: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer queries share the code; a damaged entry is compiled anew."""

    def run(length: int = 150) -> None:
        with gx.compile(attention(length), device=Capable()) as exe:
            inputs = inputs_of(exe)
            assert_right(exe, inputs, exe.run(**inputs))

    run()
    run(174)
    assert len(triton.compiled) == 1
    monkeypatch.setattr(hip_kernel_cache, "_in_process", {})
    run()
    assert len(triton.compiled) == 1
    (entry,) = tmp_path.rglob("*.kernel")
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(hip_kernel_cache, "_in_process", {})
    run()
    assert len(triton.compiled) == 2


@pytest.mark.parametrize("how", ["does not compile", "shared memory"])
def test_what_cannot_be_had_is_planned_without(how: str, triton: StandIn, emulated: Lab) -> None:
    if how == "shared memory":
        triton.shared = 1 << 20
    else:
        triton.fails = True
    with pytest.warns(FallbackWarning, match=rf"planned without a kernel: .*{how}"):
        exe = gx.compile(attention(), device=Capable())
    with exe:
        assert labels(exe) == ["gemm", "softmax", "gemm"]
        assert how in explain(exe._compiled, "ctx")
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_what_else_it_can_do_is_kept(triton: StandIn, emulated: Lab) -> None:
    """A product goes on adding its bias when the attention of the graph does not compile."""

    g = attention()
    x, bias = g.input("x", (8, 8), "f16"), g.input("bias", (8,), "f16")
    g.output(y=g.gemm(x, x, bias=bias))
    triton.fails = True
    with pytest.warns(FallbackWarning, match="planned without a kernel"):
        exe = gx.compile(g, device=Capable())
    with exe:
        assert sorted(labels(exe)) == ["gemm", "gemm", "gemm", "softmax"]
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_so_are_other_sizes(triton: StandIn, emulated: Lab) -> None:
    """A kernel that does not compile for one size does not affect other sizes."""
    g = gx.Graph("attention", dims={"S": 20})
    q, k, v = (g.input(name, (2, 3, "S", HEAD), "f16") for name in "qkv")
    g.output(out=g.attention(q, k, v, name="ctx"))
    with gx.compile(g, device=Capable()) as exe:
        assert labels(exe) == ["attention"]
        triton.fails = True
        longer = {name: np.ones((2, 3, 40, HEAD), np.float16) for name in "qkv"}
        with pytest.warns(FallbackWarning, match="planned without a kernel"):
            found = exe.run(**longer)["out"]
        assert np.allclose(found, 1, atol=2e-3)


def test_one_that_fails_costs_no_other_its_kernel(
    triton: StandIn, emulated: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two attentions of one graph, of which the causal one does not compile."""

    def compile_kernel(kernel: TritonKernel, gpu: Gpu) -> TritonBinary:
        if kernel.on(gpu).constants["CAUSAL"]:
            raise ExecutionError("the Triton kernel 'attention' does not compile: no good")
        return triton(kernel, gpu)

    monkeypatch.setattr(hip_triton, "compile_kernel", compile_kernel)
    g = attention()
    q, k, v = (g.input(f"{name}2", (2, 3, 70, HEAD), "f16") for name in "qkv")
    probs = g.softmax(g.gemm(q, k, trans_b=True), causal=True)
    g.output(other=g.gemm(probs, v))
    with pytest.warns(FallbackWarning, match="planned without a kernel") as told:
        exe = gx.compile(g, device=Capable())
    with exe:
        assert len(told) == 1
        assert sorted(labels(exe)) == ["attention", "causal softmax", "gemm", "gemm"]
        assert plan_graph(g, device="hip", hardware=Capable()).plan == exe.plan
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_what_is_known_once_is_not_tried_again(triton: StandIn, emulated: Lab) -> None:
    triton.fails = True
    with pytest.warns(FallbackWarning, match="planned without a kernel"):
        gx.compile(attention(), device=Capable()).close()
    triton.fails = False
    gx.compile(attention(), device=Capable()).close()  # a warning would be an error
    assert triton.compiled == []


def test_tune_measures_what_is_planned_instead(
    triton: StandIn, emulated: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "profiles"))
    triton.fails = True
    with pytest.warns(FallbackWarning, match="planned without a kernel") as told:
        tuned = gx.tune(attention(40), Capable(), seconds=60)
    assert len(told) == 1
    kinds = {key.split(":")[0].split()[0] for key in tuned.profile.commands}
    assert {"gemm", "softmax"} <= kinds
    assert "attention" not in kinds
    assert not tuned.failed
    assert set(tuned.profile.schedules) == {"4 streams", "4 streams, resident"}


def test_the_emulator_has_no_triton(emulated: Lab) -> None:
    with gx.compile(attention(), device="hip") as exe:
        assert "runs no Triton" in explain(exe._compiled, "ctx")
        assert labels(exe) == ["gemm", "softmax", "gemm"]


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("attrs", [{}, {"causal": True}, {"out_dtype": "f32"}])
def test_the_op_runs_without_triton(attrs: Mapping[str, Any], dtype: str, lab: Lab) -> None:
    g = gx.Graph("attention")
    q, k, v = (g.input(n, (2, b, m, 16), dtype)
               for n, b, m in (("q", 3, 20), ("k", 1, 33), ("v", 1, 33)))  # fmt: skip
    mask = g.input("mask", (20, 33), "f32")
    g.output(out=g.attention(q, k, v, mask=mask, **attrs))
    with lab.compile(g) as exe:
        inputs = inputs_of(exe)
        inputs["mask"][np.random.default_rng(1).random((20, 33)) < 0.3] = -np.inf
        assert_right(exe, inputs, exe.run(**inputs))
