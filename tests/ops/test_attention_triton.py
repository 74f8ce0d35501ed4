"""The Triton kernels of attention: numbers in Triton's interpreter, compiled without a GPU.

Gluon, in which the kernel for Hopper is written, has no interpreter: its numbers are checked on a
GPU (tests/runtime/test_attention_on_a_gpu.py)."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attention_cases import arrays, assert_close, exact
from exact import Array
from hardware import HALVES, Chip
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.errors import ExecutionError
from graphexec.base.tensor import DType, View
from graphexec.ir.program import Gpu, Scalar, TritonKernel, TritonLaunch
from graphexec.machine.variants import variants
from graphexec.ops.attention.portable import ALTERNATIVES, CONFIGURATIONS, OTHERS
from graphexec.planning.pipeline import Compiled, plan_graph
from graphexec.runtime.hip import triton as hip_triton

pytest.importorskip("triton", reason="pip install 'graphexec[fused]'")

GPUS = {
    "sm_90": Gpu("sm_90", 32, 132),
    "sm_80": Gpu("sm_80", 32, 108),
    "gfx942": Gpu("gfx942:sramecc+:xnack-", 64, 304),
    "gfx90a": Gpu("gfx90a", 64, 104),
    "gfx1100": Gpu("gfx1100", 32, 96),
}
SHARED = dict.fromkeys(GPUS, 64 << 10) | {"sm_90": 227 << 10, "sm_80": 163 << 10}


@dataclass
class Case:
    """Operands and attributes of an attention, and the GPU of its configuration."""

    arrays: dict[str, Array]
    attrs: dict[str, Any] = field(default_factory=dict)
    gpu: str = "sm_90"
    in_parts: bool = False

    @property
    def dtype(self) -> str:
        return "f16" if self.arrays["q"].dtype == np.float16 else "bf16"

    def compiled(self) -> Compiled:
        names = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64",
                 "bool": "bool"}  # fmt: skip
        graph = gx.Graph("g")
        for name, array in self.arrays.items():
            graph.input(name, array.shape, names[array.dtype.name])
        graph.output(y=graph.attention(**{n: n for n in self.arrays}, **self.attrs, name="y"))
        chip = Chip(attention=HALVES, programs=132 if self.in_parts else 0)
        return plan_graph(graph, device="hip", hardware=chip, resident=True)

    def kernels(self) -> list[TritonKernel]:
        works = [command.work for command in self.compiled().program.commands]
        assert len(works) == 1 + self.in_parts
        return [work for work in works if isinstance(work, TritonKernel)]

    def kernel(self) -> TritonKernel:
        (kernel,) = self.kernels()
        return kernel

    def job(self) -> tuple[list[TritonKernel], Gpu, dict[str, Array]]:
        """The arguments of the interpreter: all storages as bytes, NaN except the inputs."""
        storages = {name: np.full(storage.nbytes, 0xFF, np.uint8)
                    for name, storage in self.compiled().program.storages.items()}  # fmt: skip
        for name, array in self.arrays.items():
            storages[f"in.{name}"] = np.frombuffer(array.tobytes(), np.uint8).copy()
        # What NumPy does instead cannot be pickled, and is not needed.
        kernels = [replace(kernel, compute=None) for kernel in self.kernels()]  # type: ignore[arg-type]
        return kernels, GPUS[self.gpu], storages


def interpret(cases: list[Case]) -> list[Array]:
    """The results of all cases, from one process with Triton's interpreter."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_interpreter.py"))],
        input=pickle.dumps([case.job() for case in cases]), capture_output=True, check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found = []
    for case, storages in zip(cases, pickle.loads(done.stdout), strict=True):
        result = case.compiled().program.outputs["y"]
        found.append(storages["out.y"].view(result.dtype.numpy()).reshape(result.shape))
    return found


def check(*cases: Case) -> None:
    for case, found in zip(cases, interpret(list(cases)), strict=True):
        coarse = case.dtype  # a result in f32 is of weights that were rounded to it
        expected = exact(case.arrays, case.attrs)
        assert_close(found.astype(DType(coarse).numpy()), expected, coarse)


# Numbers --------------------------------------------------------------------------------------

both = pytest.mark.parametrize("dtype", ["f16", "bf16"])


@both
@pytest.mark.parametrize("gpu", GPUS)
def test_head_sizes(gpu: str, dtype: str) -> None:
    heads = (16, 32, 64, 128, 256, 1, 40, 80, 96, 200)
    check(*(Case(arrays(dtype, (40, d), (70, d)), {}, gpu) for d in heads))
    check(*(Case(arrays(dtype, (20, d), (40, d), (40, 48)), {}, gpu) for d in heads[:4]))
    check(Case(arrays(dtype, (20, 16), (40, 16), (40, 130)), {"causal": True}, gpu))


@both
@pytest.mark.parametrize("attrs", [{}, {"causal": True}, {"scale": -0.5}, {"scale": 0}])
def test_lengths(attrs: dict[str, Any], dtype: str) -> None:
    """One query, one key, multiples of a block and not, fewer and more queries than keys."""
    lengths = [(1, 1), (1, 300), (300, 1), (128, 256), (129, 255), (16, 16), (250, 40), (40, 250)]
    check(*(Case(arrays(dtype, (m, 16), (n, 16)), attrs) for m, n in lengths))


@both
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_large_logits(scale: float, causal: bool, dtype: str) -> None:
    attrs = {"scale": scale, "causal": causal}
    check(*(Case(arrays(dtype, (2, 70, 64), (2, 90, 64), large=large), attrs)
            for large in (30, 1000)))  # fmt: skip


@both
@pytest.mark.parametrize("causal", [False, True])
def test_masks(causal: bool, dtype: str) -> None:
    """Broadcast in every way, of every dtype, and hiding all keys of some queries."""
    attrs, shapes = {"causal": causal}, ((2, 3), 70, 90)
    (b, h), m, n = shapes
    masks = [(b, h, m, n), (h, 1, n), (b, 1, m, 1), (n,), ()]
    q, k = (b, h, m, 32), (b, h, n, 32)
    check(*(Case(arrays(dtype, q, k, mask=mask), attrs) for mask in masks))
    check(*(Case(arrays(dtype, (m, 16), (n, 16), mask=(m, n), mask_dtype=t), attrs)
            for t in ("f16", "bf16", "f64")))  # fmt: skip
    hidden = arrays(dtype, (m, 16), (n, 16)) | {"mask": np.full((), -np.inf, np.float32)}
    check(Case(hidden, attrs), Case(arrays(dtype, (256, 16), (256, 16), mask=(256, 256)), attrs))


@both
def test_batches_and_transposed_operands(dtype: str) -> None:
    flags = {"trans_q": True, "trans_k": True, "trans_v": True}
    check(
        Case(arrays(dtype, (2, 2, 3, 20, 16), (2, 2, 1, 30, 16))),
        Case(arrays(dtype, (20, 16), (5, 30, 16))),
        Case(arrays(dtype, (3, 1, 20, 16), (4, 30, 16), (30, 16))),
        Case(arrays(dtype, (2, 16, 20), (2, 16, 30), (2, 24, 30)), flags),
        Case(arrays(dtype, (20, 16), (30, 16)), {"out_dtype": "f32"}),
    )


@both
def test_few_queries_and_many_keys_are_computed_in_parts(dtype: str) -> None:
    """Parts that are empty, that see nothing, and grouped single queries as rows of one."""
    causal = {"causal": True}
    check(
        Case(arrays(dtype, (3, 1, 32), (3, 1024, 32)), causal, in_parts=True),
        Case(arrays(dtype, (2, 4, 1, 16), (2, 1, 2000, 16)), causal, "gfx942", True),
        Case(arrays(dtype, (2, 70, 16), (1025, 16), (1025, 40)), causal, in_parts=True),
        Case(arrays(dtype, (8, 1, 16), (8, 2049, 16)), {}, in_parts=True),
        Case(arrays(dtype, (2, 5, 16), (2, 4100, 16)), causal, in_parts=True),
        Case(arrays(dtype, (2, 1100, 16), (1024, 16)), causal, in_parts=True),
        Case(arrays(dtype, (5, 16), (5000, 16), mask=(5, 5000)), {}, in_parts=True),
        Case(arrays(dtype, (2, 3, 1, 16), (2, 1, 1030, 16), mask=(2, 3, 1, 1030)), {},
             in_parts=True),
        Case(arrays(dtype, (2, 9, 80), (2, 1300, 80), large=30), {"scale": 1.0}, in_parts=True),
        Case(arrays(dtype, (9, 16), (1300, 16)), {"out_dtype": "f32", "scale": -1.0},
             in_parts=True),
        Case(arrays(dtype, (16, 9), (16, 1300)),
             {"trans_q": True, "trans_k": True, "trans_v": True}, in_parts=True),
    )  # fmt: skip
    hidden = arrays(dtype, (3, 16), (1300, 16)) | {"mask": np.full((), -np.inf, np.float32)}
    check(Case(hidden, in_parts=True))


@st.composite
def cases(choose: st.DrawFn) -> Case:
    dtype = choose(st.sampled_from(["f16", "bf16"]))
    m, n = choose(st.integers(1, 150)), choose(st.integers(1, 150))
    d, dv = choose(st.integers(1, 70)), choose(st.integers(1, 70))
    batch = choose(st.lists(st.integers(1, 3), max_size=3))
    shared = [choose(st.sampled_from([1, e])) for e in batch]
    mask = None
    if choose(st.booleans()):
        mask = tuple(choose(st.sampled_from([1, e])) for e in (*batch, m, n))
        mask = mask[choose(st.integers(0, len(mask))) :]
    given = arrays(dtype, (*batch, m, d), (*shared, n, d), (*shared, n, dv), mask,
                   large=choose(st.sampled_from([1.0, 30.0])),
                   seed=choose(st.integers(0, 99)))  # fmt: skip
    attrs = {"causal": choose(st.booleans())}
    if choose(st.booleans()):
        attrs["scale"] = choose(st.sampled_from([1.0, -0.25]))
    return Case(given, attrs, choose(st.sampled_from(list(GPUS))))


@settings(max_examples=8, deadline=None)
@given(st.lists(cases(), min_size=4, max_size=4))
def test_any_call(drawn: list[Case]) -> None:
    check(*drawn)


# Compiled -------------------------------------------------------------------------------------


def shape_of(d: int, dv: int | None = None, m: int = 512, n: int = 512, **more: Any) -> Case:
    batch = more.get("batch", (2, 8))
    given = {"q": (*batch, m, d), "k": (*batch, n, d), "v": (*batch, n, dv or d)}
    types = {name: np.zeros(shape, more.get("dtype", np.float16)) for name, shape in given.items()}
    if more.get("mask"):
        types["mask"] = np.zeros((m, n), np.float32)
    attrs = {"causal": more.get("causal", False)}
    return Case(types, attrs, in_parts=more.get("in_parts", False))


VARIANTS = {
    "plain": shape_of(64),
    "causal": shape_of(128, causal=True),
    "bf16": shape_of(128, dtype=DType.BF16.numpy()),
    "largest": shape_of(256, causal=True),
    "masked": shape_of(64, mask=True),
    "masked largest": shape_of(256, mask=True, causal=True),
    "odd": shape_of(80, 48, m=1, n=777),
    "smallest": shape_of(16, m=100, n=50, causal=True),
    "decoding": shape_of(128, m=1, n=4096, in_parts=True),
    "in parts": shape_of(80, m=40, n=3000, batch=(3,), in_parts=True, causal=True, mask=True),
    "in many parts": shape_of(256, m=16, n=20000, batch=(1,), in_parts=True),
    "ones": shape_of(1, m=1, n=1, batch=(1, 1), causal=True, mask=True),
}
HOPPER = {
    "plain": shape_of(128, m=1024, batch=(2, 16)),
    "causal": shape_of(64, m=1000, n=1001, batch=(2, 16), causal=True),
    "bf16": shape_of(64, m=1024, batch=(32,), dtype=DType.BF16.numpy()),
    "one entry": shape_of(128, m=132 * 128, n=4096, batch=(1, 1), causal=False),
    "one entry, causal": shape_of(64, m=132 * 128, n=132 * 128, batch=(), causal=True),
    "in pairs": shape_of(64, m=300, n=700, batch=(4, 66), causal=True),
    "one key": shape_of(128, m=128, n=1, batch=(12, 12)),
    "not a whole tile": shape_of(64, m=200, n=300, batch=(12, 12), causal=True),
}


_COMPILED: dict[Any, tuple[hip_triton.TritonBinary, str]] = {}


def compiled(kernel: TritonKernel, gpu: str) -> tuple[hip_triton.TritonBinary, str]:
    """What Triton makes of the kernel, and its PTX ("" for AMD); once for all tests that ask."""
    key = hip_triton.identity(kernel, GPUS[gpu])
    if key not in _COMPILED:
        import triton

        texts: list[str] = []
        plain = triton.compile

        def compile(*args: Any, **options: Any) -> Any:
            made = plain(*args, **options)
            texts.append(made.asm.get("ptx", ""))
            return made

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(triton, "compile", compile)
            binary = hip_triton.compile_kernel(kernel, GPUS[gpu])
        _COMPILED[key] = binary, texts[0]
    return _COMPILED[key]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("gpu", GPUS)
def test_it_compiles(gpu: str, variant: str) -> None:
    for kernel in VARIANTS[variant].kernels():
        made, _ = compiled(kernel, gpu)
        assert made.code.startswith(b"\x7fELF")
        assert made.name == kernel.entry
        assert made.threads % GPUS[gpu].warp_size == 0
        assert made.shared_bytes <= SHARED[gpu]
        assert hip_triton.TritonBinary.from_bytes(made.to_bytes()) == made


@pytest.mark.parametrize("variant", HOPPER)
def test_the_kernel_for_hopper_compiles(variant: str, tmp_path: Path) -> None:
    """The code fits a multiprocessor, with all accumulators in registers."""
    case, gpu = HOPPER[variant], GPUS["sm_90"]
    kernel = case.kernel()
    assert kernel.on(gpu).source.name == "flash_hopper.py"
    made, ptx = compiled(kernel, "sm_90")
    assert (made.threads, made.shared_bytes <= SHARED["sm_90"]) == (384, True)
    assert made.scratch_bytes == 3 * 128  # descriptors, of a program
    assert "cp.async.bulk.tensor.5d" in ptx
    assert "STACK:0 " in resources(made.code, tmp_path / "code")


def resources(code: bytes, path: Path) -> str:
    """The resources of compiled code by NVIDIA's tool: registers, stack, shared memory."""
    import triton

    path.write_bytes(code)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return subprocess.run([tool, "-res-usage", path], check=True, capture_output=True,
                          text=True).stdout  # fmt: skip


def test_where_the_kernel_for_hopper_is_used() -> None:
    gpu = GPUS["sm_90"]

    def used(case: Case, gpu: Gpu = gpu) -> bool:
        return case.kernel().on(gpu).source.name == "flash_hopper.py"

    many = {"m": 1024, "batch": (2, 16)}
    assert used(shape_of(128, **many))
    assert not used(shape_of(128, **many), GPUS["sm_80"])
    assert not used(shape_of(128, **many), GPUS["gfx942"])
    assert not used(shape_of(128, **many), Gpu("sm_90", 32, 300)), "fewer tiles than processors"
    assert not used(shape_of(128, m=127, batch=(12, 12))), "tiles would be padded"
    assert not used(shape_of(80, **many))
    assert not used(shape_of(128, 64, **many))
    assert not used(shape_of(64, mask=True, m=512, n=512, batch=(2, 40)))
    assert not used(shape_of(64, m=1024, n=512, batch=(2, 16), causal=True)), "rows see nothing"
    assert used(shape_of(64, m=1024, n=512, batch=(2, 16)))
    negative = shape_of(128, **many)
    negative.attrs["scale"] = -1.0
    assert not used(negative)
    negative.attrs["scale"] = 1e-46  # 0 in f32
    assert not used(negative)


def test_grouped_heads_stored_by_rows_have_three_batch_axes() -> None:
    graph = gx.Graph("g")
    views = {}
    for name, group in (("q", 4), ("k", 1), ("v", 1)):
        x = graph.input(name, (2, 512, 8, group, 64), "f16")
        views[name] = graph.copy(x, permute=[0, 2, 3, 1, 4])
    graph.output(y=graph.attention(**views, name="y"))
    compiled = plan_graph(graph, device="hip", hardware=Chip(attention=HALVES), resident=True)
    (command,) = compiled.program.commands
    launch = command.work.on(GPUS["sm_90"])
    assert launch.source.name == "flash_hopper.py"
    assert [a.value for a in launch.args[6:11]] == [512, 512, 2, 8, 4]
    made = hip_triton.compile_kernel(command.work, GPUS["sm_90"])
    assert made.scratch_bytes == 3 * 128


def test_few_tiles_are_smaller() -> None:
    """Smaller blocks, so that more multiprocessors have one."""

    def rows(case: Case) -> object:
        return case.kernel().on(GPUS["sm_90"]).constants["BLOCK_M"]

    assert rows(shape_of(128, m=2048, n=512, batch=(4,))) == 64  # 128 tiles of these
    assert rows(shape_of(96, m=2048, n=512, batch=(5,))) == 128  # 160
    assert rows(shape_of(96, m=2048, n=512, batch=(5,), mask=True)) == 64


def test_a_program_walks_tiles() -> None:
    gpu = GPUS["sm_90"]
    orders = {name: case.kernel().on(gpu).constants["ORDER"] for name, case in HOPPER.items()}
    assert {name for name, order in orders.items() if order == "causal pairs"} == {"in pairs"}
    assert {name for name, order in orders.items() if order == "causal"} == {
        "causal", "one entry, causal", "not a whole tile",
    }  # fmt: skip
    assert HOPPER["plain"].kernel().on(gpu).grid == (132, 1, 1)
    assert HOPPER["one key"].kernel().on(gpu).grid == (132, 1, 1)
    assert VARIANTS["plain"].kernel().on(gpu).grid == (8 * 16, 1, 1)


@pytest.mark.parametrize("gpu", ["sm_90", "gfx942", "gfx1100"])
def test_what_tune_tries(gpu: str) -> None:
    """Other kernels, each of which compiles to other code."""
    graph = gx.Graph("g")
    q, k = graph.input("q", (4, 512, 64), "f16"), graph.input("k", (4, 512, 64), "f16")
    graph.output(y=graph.attention(q, k, k, name="y"))
    compiled = plan_graph(graph, device="hip", hardware=Chip(attention=HALVES), resident=True)
    (command,) = compiled.program.commands
    hopper, *others = variants(command)
    assert len(others) == ALTERNATIVES
    launches = [kernel.on(GPUS[gpu]) for kernel in (command.work, *others)]
    settings = [(str(launch.constants), str(launch.options)) for launch in launches]
    assert len(set(settings)) >= ALTERNATIVES  # the usual one may be among the others
    for kernel in others:
        made = hip_triton.compile_kernel(kernel, GPUS[gpu])
        assert made.shared_bytes <= SHARED[gpu]
    if gpu == "sm_90":
        assert hopper.on(GPUS[gpu]).grid == (16, 1, 1)
    else:  # a profile of another GPU may name it
        assert hopper.on(GPUS[gpu]) == launches[0]


def test_every_configuration_is_known() -> None:
    assert {len(others) for others in OTHERS.values()} == {ALTERNATIVES}
    assert set(OTHERS) == set(CONFIGURATIONS)
    for table in CONFIGURATIONS.values():
        heads = (16, 32, 64, 128, 256)
        assert set(table) == {(d, causal) for d in heads for causal in (False, True)}


def test_loads_are_wide_and_pipelined() -> None:
    """Without the hints at multiples of 16, elements would be loaded one by one."""
    _, found = compiled(VARIANTS["plain"].kernel(), "sm_90")
    assert re.search(r"cp\.async\.\w+\.shared\.global .*, 0x10", found)
    assert "wgmma.mma_async" in found
    assert re.search(r"st\.global\.v4\.b32", found)
    assert not re.search(r"ld\.global\.b16", found)


def test_the_parameters_that_are_passed_are_those_of_the_compiled_kernel() -> None:
    cases = (*VARIANTS.values(), *HOPPER.values())
    for kernel in (kernel for case in cases for kernel in case.kernels()):
        _, text = compiled(kernel, "sm_90")
        params = re.findall(r"\.param \.(\w+)", text[: text.index(".reqntid")])
        types = [{"View": "u64", "i32": "u32", "i64": "u64", "f32": "f32"}[
            a.type if isinstance(a, Scalar) else "View"
        ] for a in hip_triton.passed(kernel.on(GPUS["sm_90"]).args)]  # fmt: skip
        assert params == [*types, "u64", "u64"]  # and two pointers to scratch memory


def test_triton_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    hip_triton.compile_kernel(VARIANTS["smallest"].kernel(), GPUS["gfx90a"])
    assert not list(tmp_path.iterdir())


def test_what_the_code_depends_on() -> None:
    kernel = VARIANTS["plain"].kernel()
    same = VARIANTS["plain"].kernel()
    identity = partial(hip_triton.identity, kernel)
    assert identity(GPUS["sm_90"]) == hip_triton.identity(same, GPUS["sm_90"])
    assert identity(GPUS["sm_90"]) != identity(GPUS["gfx942"])
    others = [hip_triton.identity(kernel, GPUS["sm_90"])
              for case in VARIANTS.values() for kernel in case.kernels()]  # fmt: skip
    assert len(set(others)) == len(others) > len(VARIANTS)
    # Other lengths of the same kind share it: they are parameters.
    longer = shape_of(64, m=1024, n=2048).kernel()
    assert identity(GPUS["sm_90"]) == hip_triton.identity(longer, GPUS["sm_90"])


def test_mistakes_in_a_kernel_are_told(tmp_path: Path) -> None:
    source = tmp_path / "wrong.py"
    source.write_text(
        "import triton\nimport triton.language as tl\n\n\n@triton.jit\ndef attention(x):\n"
        "    tl.store(x, tl.nothing(1))\n"
    )
    kernel = VARIANTS["plain"].kernel()

    def given(count: int) -> TritonKernel:
        def configure(views: tuple[View, ...], gpu: Gpu) -> TritonLaunch:
            launch = kernel.on(gpu)
            return replace(launch, source=source, args=launch.args[:count])

        return replace(kernel, configure=configure)

    with pytest.raises(
        ExecutionError, match=r"'attention' of .*wrong.py for sm_90 does not compile"
    ):
        hip_triton.compile_kernel(given(1), GPUS["sm_90"])
    with pytest.raises(ExecutionError, match="2 arguments too many"):
        hip_triton.compile_kernel(given(3), GPUS["sm_90"])


@pytest.mark.parametrize(("version", "reason"), [
    (None, "Triton is not installed"),
    ("3.5.1", r"Triton 3\.5\.1 is installed, but 3\.6 is needed"),
])  # fmt: skip
def test_why_not(
    version: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    assert hip_triton.why_not() == ""
    if version is None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    else:
        monkeypatch.setattr(hip_triton, "version", lambda: version)
    kernel = VARIANTS["plain"].kernel()
    with pytest.raises(ExecutionError, match=reason):
        hip_triton.identity(kernel, GPUS["sm_90"])


def test_a_kernel_that_is_cached_needs_no_triton() -> None:
    """Importing it takes as long as loading a plan."""
    program = """
import sys
import graphexec as gx
from graphexec.ir.program import Gpu, TritonKernel
from graphexec.runtime.hip.triton import identity
from graphexec.planning.pipeline import plan_graph
from graphexec.machine.support import YES, Facts
class Chip:
    def support(self, work): return YES
    def facts(self): return Facts()
plan = plan_graph(gx.load("graphs/attention.yaml"), device="hip", hardware=Chip())
kernels = [c.work for c in plan.program.commands if isinstance(c.work, TritonKernel)]
assert len(kernels) == 1
assert identity(kernels[0], Gpu("sm_90", 32, 132))
assert "triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
