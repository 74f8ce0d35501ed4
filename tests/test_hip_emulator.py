"""The HIP emulator, driven through the genuine hip-python wheel.

The programs here are written by hand, right ones and racy ones: the right ones must give right
numbers under every schedule, the racy ones wrong numbers.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hip_emulator import build
from hip_emulator.emulator import Emulator

try:
    build.find_compiler()
except build.BuildError as error:
    pytest.skip(str(error), allow_module_level=True)

try:  # hip-python 10
    from rocm.bindings import hip, hipblas, hiprtc
except ImportError:  # hip-python 7, or none
    hip = pytest.importorskip("hip.hip", reason="needs hip-python[libraries]")
    hipblas = pytest.importorskip("hip.hipblas")
    hiprtc = pytest.importorskip("hip.hiprtc")

try:
    from rocm.bindings import hipblaslt
except ImportError:
    hipblaslt = None

Array = np.ndarray[Any, np.dtype[Any]]

SEEDS = range(8)
KERNELS = (build.SOURCES / "test_kernels.hip").read_bytes()
OLD_WHEEL = not hip.__name__.startswith("rocm")  # hip-python 7

Error = hip.hipError_t
Kind = hip.hipMemcpyKind
Mode = hip.hipStreamCaptureMode
Type = hip.hipDataType
Rtc = hiprtc.hiprtcResult
Status = hipblas.hipblasStatus_t
Compute = hipblas.hipblasComputeType_t
ALGO = hipblas.hipblasGemmAlgo_t.HIPBLAS_GEMM_DEFAULT
N = hipblas.hipblasOperation_t.HIPBLAS_OP_N
T = hipblas.hipblasOperation_t.HIPBLAS_OP_T
NON_BLOCKING = hip.hipStreamNonBlocking
BLOCKING = 0


# ---- a little vocabulary ------------------------------------------------------------------


@pytest.fixture(scope="session")
def loaded() -> Emulator:
    return Emulator.load()


@pytest.fixture
def emulator(loaded: Emulator) -> Iterator[Emulator]:
    loaded.reset()
    yield loaded
    loaded.reset()


pytestmark = pytest.mark.usefixtures("emulator")


def ok(result: tuple[Any, ...]) -> Any:
    """The values of a successful call: none, one, or a tuple."""
    status, *values = result
    assert int(status) == 0, status
    return values[0] if len(values) == 1 else tuple(values)


def status_of(result: tuple[Any, ...]) -> Any:
    return result[0]


def text_of(value: Any) -> str:
    """Texts are str in hip-python 10, bytes in 7."""
    return value.decode() if isinstance(value, bytes) else str(value)


def stream(flags: int = NON_BLOCKING) -> Any:
    return ok(hip.hipStreamCreateWithFlags(flags))


def event(flags: int = hip.hipEventDisableTiming) -> Any:
    return ok(hip.hipEventCreateWithFlags(flags))


def order(before: Any, after: Any) -> None:
    """Later work on `after` comes after all work on `before` so far."""
    mark = event()
    ok(hip.hipEventRecord(mark, before))
    ok(hip.hipStreamWaitEvent(after, mark, 0))


def device(nbytes: int) -> Any:
    return ok(hip.hipMalloc(nbytes))


def at(pointer: Any, offset: int = 0) -> int:
    return int(pointer) + offset


def pinned(shape: int | tuple[int, ...], dtype: Any = np.float32) -> Array:
    """An array in pinned host memory."""
    empty = np.empty(shape, dtype)
    pointer = ok(hip.hipHostMalloc(max(empty.nbytes, 1), 0))
    memory = (ctypes.c_char * empty.nbytes).from_address(int(pointer))
    return np.frombuffer(memory, dtype).reshape(shape)


def address(array: Array) -> int:
    return int(array.ctypes.data)


def upload(array: Array) -> Any:
    pointer = device(max(array.nbytes, 1))
    ok(hip.hipMemcpy(pointer, address(array), array.nbytes, Kind.hipMemcpyHostToDevice))
    return pointer


def download(pointer: Any, shape: Any, dtype: Any = np.float32) -> Array:
    result = np.empty(shape, dtype)
    ok(hip.hipMemcpy(address(result), pointer, result.nbytes, Kind.hipMemcpyDeviceToHost))
    return result


def to_device(pointer: Any, array: Array, on: Any) -> None:
    ok(hip.hipMemcpyAsync(pointer, address(array), array.nbytes, Kind.hipMemcpyHostToDevice, on))


def to_host(array: Array, pointer: Any, on: Any) -> None:
    ok(hip.hipMemcpyAsync(address(array), pointer, array.nbytes, Kind.hipMemcpyDeviceToHost, on))


def compile_source(
    source: bytes, options: Sequence[bytes] = (), names: Sequence[bytes] = ()
) -> Any:
    """(result, code, log)"""
    program = ok(hiprtc.hiprtcCreateProgram(source, b"test.hip", 0, None, None))
    for name in names:
        ok(hiprtc.hiprtcAddNameExpression(program, name))
    result = status_of(hiprtc.hiprtcCompileProgram(program, len(options), list(options)))
    log = bytearray(ok(hiprtc.hiprtcGetProgramLogSize(program)))
    ok(hiprtc.hiprtcGetProgramLog(program, log))
    code = bytearray()
    if result == Rtc.HIPRTC_SUCCESS:
        code = bytearray(ok(hiprtc.hiprtcGetCodeSize(program)))
        ok(hiprtc.hiprtcGetCode(program, code))
    ok(hiprtc.hiprtcDestroyProgram(program.createRef()))
    return result, bytes(code), log.rstrip(b"\0").decode()


@cache
def kernels_for(wavefront: int) -> bytes:
    """The code of the test kernels; the emulator must have that wavefront size."""
    result, code, log = compile_source(KERNELS, names=[b"fill<float>"])
    assert result == Rtc.HIPRTC_SUCCESS, log
    return bytes(code)


class Kernels:
    """The test kernels, loaded."""

    def __init__(self, wavefront: int = 64) -> None:
        self.module = ok(hip.hipModuleLoadData(kernels_for(wavefront)))

    def function(self, name: str) -> Any:
        return ok(hip.hipModuleGetFunction(self.module, name.encode()))

    def __call__(
        self,
        name: str,
        on: Any,
        *arguments: Any,
        blocks: Any = 1,
        threads: Any = 64,
        shared: int = 0,
    ) -> None:
        grid = blocks if isinstance(blocks, tuple) else (blocks, 1, 1)
        block = threads if isinstance(threads, tuple) else (threads, 1, 1)
        ok(
            hip.hipModuleLaunchKernel(
                self.function(name), *grid, *block, shared, on, None, arguments
            )
        )


@pytest.fixture
def kernels(emulator: Emulator) -> Kernels:
    return Kernels()


def i32(value: int) -> ctypes.c_int:
    return ctypes.c_int(value)


def f32(value: float) -> ctypes.c_float:
    return ctypes.c_float(value)


# ---- building ------------------------------------------------------------------------------


def test_building_again_reuses_the_libraries() -> None:
    folder = build.build()
    assert folder == build.build()
    assert {path.name for path in folder.iterdir()} == {
        "libamdhip64.so",
        "libhiprtc.so",
        "libhipblas.so",
        "libhipblaslt.so",
        "librccl.so",
    }


def test_a_missing_compiler_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler not found, install g") as caught:
        build.build()
    assert "\n" not in str(caught.value)


# ---- the device and its errors -------------------------------------------------------------


def test_the_device_says_what_it_is(emulator: Emulator) -> None:
    emulator.set_memory(1 << 30)
    if OLD_WHEEL:
        properties = hip.hipDeviceProp_t()
        ok(hip.hipGetDeviceProperties(properties, 0))
    else:
        properties = ok(hip.hipGetDeviceProperties(0))
    assert text_of(properties.name) == "graphexec HIP emulator"
    assert text_of(properties.gcnArchName) == "emulator"
    assert properties.warpSize == 64
    assert properties.totalGlobalMem == 1 << 30
    assert properties.maxThreadsPerBlock == 1024
    assert properties.sharedMemPerBlock == 65536
    assert list(properties.maxThreadsDim) == [1024, 1024, 1024]
    assert ok(hip.hipGetDeviceCount()) == 1
    assert ok(hip.hipDeviceTotalMem(0)) == 1 << 30
    attribute = hip.hipDeviceAttribute_t
    for name, value in {
        "WarpSize": 64,
        "MaxThreadsPerBlock": 1024,
        "MaxSharedMemoryPerBlock": 65536,
        "MultiprocessorCount": 4,
    }.items():
        key = getattr(attribute, f"hipDeviceAttribute{name}")
        assert ok(hip.hipDeviceGetAttribute(key, 0)) == value


def test_only_device_0_exists() -> None:
    ok(hip.hipInit(0))
    ok(hip.hipSetDevice(0))
    assert ok(hip.hipGetDevice()) == 0
    assert status_of(hip.hipSetDevice(1)) == Error.hipErrorInvalidDevice


def test_the_last_error_stays_until_it_is_read() -> None:
    assert status_of(hip.hipSetDevice(7)) == Error.hipErrorInvalidDevice
    ok(hip.hipSetDevice(0))
    assert status_of(hip.hipPeekAtLastError()) == Error.hipErrorInvalidDevice
    assert status_of(hip.hipGetLastError()) == Error.hipErrorInvalidDevice
    assert status_of(hip.hipGetLastError()) == Error.hipSuccess


def test_the_last_error_belongs_to_its_thread() -> None:
    hip.hipSetDevice(7)
    seen = []
    other = threading.Thread(target=lambda: seen.append(status_of(hip.hipGetLastError())))
    other.start()
    other.join()
    assert seen == [Error.hipSuccess]
    assert status_of(hip.hipGetLastError()) == Error.hipErrorInvalidDevice


def test_not_ready_is_no_error() -> None:
    on = stream()
    ok(hip.hipMemsetAsync(device(4), 0, 4, on))
    while status_of(hip.hipStreamQuery(on)) == Error.hipErrorNotReady:
        pass
    assert status_of(hip.hipGetLastError()) == Error.hipSuccess


def test_errors_have_names_and_texts() -> None:
    name, text = (
        ok(call(Error.hipErrorOutOfMemory)) for call in (hip.hipGetErrorName, hip.hipGetErrorString)
    )
    assert (bytes(name), bytes(text)) == (b"hipErrorOutOfMemory", b"out of memory")
    status = hipblas.hipblasStatusToString(Status.HIPBLAS_STATUS_NOT_SUPPORTED)
    assert b"HIPBLAS_STATUS_NOT_SUPPORTED" in bytes(status[-1])


# ---- memory --------------------------------------------------------------------------------


def test_new_memory_holds_nan() -> None:
    assert np.isnan(download(device(64), 16)).all()
    assert np.isnan(pinned(16)).all()


def test_memory_runs_out(emulator: Emulator) -> None:
    emulator.set_memory(1000)
    first = device(600)
    assert ok(hip.hipMemGetInfo()) == (400, 1000)
    status, pointer = hip.hipMalloc(401)
    assert (status, pointer) == (Error.hipErrorOutOfMemory, None)
    ok(hip.hipFree(first))
    assert ok(hip.hipMemGetInfo()) == (1000, 1000)
    device(1000)


def test_only_what_was_allocated_is_freed_and_once() -> None:
    memory = device(64)
    host = pinned(4)
    assert status_of(hip.hipFree(at(memory, 4))) == Error.hipErrorInvalidValue
    assert status_of(hip.hipFree(address(host))) == Error.hipErrorInvalidValue
    assert status_of(hip.hipHostFree(memory)) == Error.hipErrorInvalidValue
    ok(hip.hipFree(memory))
    assert status_of(hip.hipFree(memory)) == Error.hipErrorInvalidValue
    ok(hip.hipHostFree(address(host)))
    ok(hip.hipFree(None))


def test_freeing_waits_for_the_device() -> None:
    on = stream()
    memory = upload(np.arange(4, dtype=np.float32))
    result = pinned(4)
    to_host(result, memory, on)
    ok(hip.hipFree(memory))
    assert result.tolist() == [0, 1, 2, 3]


def test_stream_ordered_free() -> None:
    on = stream()
    memory = ok(hip.hipMallocAsync(16, on))
    ok(hip.hipMemsetAsync(memory, 0, 16, on))
    result = pinned(4)
    to_host(result, memory, on)
    ok(hip.hipFreeAsync(memory, on))
    assert status_of(hip.hipFree(memory)) == Error.hipErrorInvalidValue
    ok(hip.hipStreamSynchronize(on))
    assert result.tolist() == [0, 0, 0, 0]
    assert status_of(hip.hipMemsetAsync(memory, 0, 16, on)) == Error.hipErrorInvalidValue


@pytest.mark.parametrize(
    ("to", "source", "kind"),
    [
        ("pageable", "pageable", Kind.hipMemcpyHostToDevice),
        ("pinned", "pageable", Kind.hipMemcpyHostToDevice),
        ("device", "device", Kind.hipMemcpyHostToDevice),
        ("device", "device", Kind.hipMemcpyDeviceToHost),
        ("device", "pageable", Kind.hipMemcpyDeviceToDevice),
        ("pageable", "pinned", Kind.hipMemcpyDeviceToHost),
        ("past the end", "pageable", Kind.hipMemcpyHostToDevice),
        ("pageable", "past the end", Kind.hipMemcpyDeviceToHost),
        ("past the pinned end", "device", Kind.hipMemcpyDeviceToHost),
        ("freed", "pageable", Kind.hipMemcpyDefault),
    ],
)
def test_a_copy_must_be_what_it_claims(to: str, source: str, kind: Any) -> None:
    host, locked, memory, freed = np.zeros(4, np.float32), pinned(4), device(16), device(16)
    ok(hip.hipFree(freed))
    places = {
        "pageable": address(host),
        "pinned": address(locked),
        "device": at(memory),
        "past the end": at(memory, 4),
        "past the pinned end": address(locked) + 4,
        "freed": at(freed),
    }
    on = stream()
    for call in (hip.hipMemcpy, hip.hipMemcpyAsync):
        arguments = (places[to], places[source], 16, kind)
        extra = (on,) if call is hip.hipMemcpyAsync else ()
        assert status_of(call(*arguments, *extra)) == Error.hipErrorInvalidValue


def test_fills_need_memory_that_hip_gave_out() -> None:
    host, memory, on = np.zeros(4, np.float32), device(16), stream()
    assert status_of(hip.hipMemsetAsync(address(host), 0, 16, on)) == Error.hipErrorInvalidValue
    assert status_of(hip.hipMemsetAsync(memory, 0, 17, on)) == Error.hipErrorInvalidValue
    ok(hip.hipMemset(memory, 0, 16))
    assert download(memory, 4).tolist() == [0, 0, 0, 0]
    ok(hip.hipMemsetD32Async(memory, 7, 4, on))
    ok(hip.hipStreamSynchronize(on))
    assert download(memory, 4, np.int32).tolist() == [7, 7, 7, 7]


def test_default_copies_find_their_direction() -> None:
    memory = upload(np.arange(4, dtype=np.float32))
    other, host = device(16), np.empty(4, np.float32)
    ok(hip.hipMemcpy(other, memory, 16, Kind.hipMemcpyDefault))
    ok(hip.hipMemcpy(address(host), other, 16, Kind.hipMemcpyDefault))
    assert host.tolist() == [0, 1, 2, 3]


def test_pointers_are_told_apart() -> None:
    memory, locked, host = device(16), pinned(4), np.zeros(4)

    def kind_of(pointer: int) -> int:
        if OLD_WHEEL:
            attributes = hip.hipPointerAttribute_t()
            ok(hip.hipPointerGetAttributes(attributes, pointer))
        else:
            attributes = ok(hip.hipPointerGetAttributes(pointer))
        return int(attributes.type)

    memory_type = hip.hipMemoryType
    assert kind_of(at(memory, 8)) == memory_type.hipMemoryTypeDevice
    assert kind_of(address(locked)) == memory_type.hipMemoryTypeHost
    assert kind_of(address(host)) == memory_type.hipMemoryTypeUnregistered
    size = ctypes.c_size_t()
    attribute = hip.hipPointer_attribute.HIP_POINTER_ATTRIBUTE_RANGE_SIZE
    ok(hip.hipPointerGetAttribute(ctypes.addressof(size), attribute, memory))
    assert size.value == 16


# ---- streams: right programs are right, racy ones are wrong ---------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stream_runs_in_order(emulator: Emulator, kernels: Kernels, seed: int) -> None:
    emulator.set_seed(seed)
    on, result = stream(), pinned(100)
    memory = device(400)
    result[:] = 5
    to_device(memory, result, on)
    for _ in range(3):
        kernels("increment", on, memory, i32(100), blocks=2)
    to_host(result, memory, on)
    ok(hip.hipStreamSynchronize(on))
    assert (result == 8).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_there_before_the_wait(emulator: Emulator, kernels: Kernels, seed: int) -> None:
    emulator.set_seed(seed)
    on, result, memory = stream(), pinned(64), device(256)
    ok(hip.hipMemsetAsync(memory, 0, 256, on))
    to_host(result, memory, on)
    assert np.isnan(result).all()
    ok(hip.hipStreamSynchronize(on))
    assert (result == 0).all()


def read_after_write(kernels: Kernels, *, ordered: bool) -> Array:
    """A producer and a consumer on two streams; 1 everywhere when right."""
    producer, consumer = stream(), stream()
    x, y, result = device(256), device(256), pinned(64)
    ok(hip.hipMemset(x, 0, 256))
    ok(hip.hipDeviceSynchronize())
    kernels("increment", producer, x, i32(64))
    if ordered:
        order(producer, consumer)
    kernels("scale", consumer, x, y, f32(1), i32(64))
    to_host(result, y, consumer)
    ok(hip.hipStreamSynchronize(consumer))
    ok(hip.hipStreamSynchronize(producer))
    return result


def write_after_read(kernels: Kernels, *, ordered: bool) -> Array:
    """A reader, and a writer that reuses its input; 1 everywhere when right."""
    reader, writer = stream(), stream()
    x, y, result = device(256), device(256), pinned(64)
    ok(hip.hipMemsetD32Async(x, int(np.float32(1).view(np.int32)), 64, None))
    ok(hip.hipDeviceSynchronize())
    kernels("scale", reader, x, y, f32(1), i32(64))
    if ordered:
        order(reader, writer)
    ok(hip.hipMemsetAsync(x, 0, 256, writer))
    order(writer, reader)
    to_host(result, y, reader)
    ok(hip.hipStreamSynchronize(reader))
    return result


def host_read(kernels: Kernels, *, ordered: bool) -> Array:
    """The host waits for the wrong stream, or the right one."""
    on, other, x, result = stream(), stream(), device(256), pinned(64)
    ok(hip.hipMemsetD32Async(x, int(np.float32(1).view(np.int32)), 64, on))
    to_host(result, x, on)
    ok(hip.hipMemsetAsync(device(4), 0, 4, other))
    ok(hip.hipStreamSynchronize(on if ordered else other))
    return result.copy()


def blas_stream(kernels: Kernels, *, ordered: bool) -> Array:
    """hipBLAS left on the NULL stream between two copies on another; 1 everywhere when right."""
    on, handle = stream(), ok(hipblas.hipblasCreate())
    a, b, host, result = device(256), device(256), pinned((8, 8)), pinned(64)
    if ordered:
        ok(hipblas.hipblasSetStream(handle, on))
    host[:] = np.eye(8)
    to_device(a, host, on)
    gemm(handle, (8, 8, 8), (a, a, b))
    kernels("add", on, a, b, a, i32(64))
    kernels("scale", on, a, a, f32(0.5), i32(64))
    to_host(result, a, on)
    ok(hip.hipStreamSynchronize(on))
    return np.diag(result.reshape(8, 8))


PROGRAMS = [read_after_write, write_after_read, host_read, blas_stream]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_ordered_programs_are_right(
    emulator: Emulator, kernels: Kernels, program: Any, seed: int
) -> None:
    emulator.set_seed(seed)
    assert (program(kernels, ordered=True) == 1).all()


@pytest.mark.parametrize("program", PROGRAMS)
def test_racy_programs_are_wrong(emulator: Emulator, program: Any) -> None:
    wrong = 0
    for seed in SEEDS:
        emulator.reset()
        emulator.set_seed(seed)
        wrong += not (program(Kernels(), ordered=False) == 1).all()
        if seed == 0:
            assert wrong == 1, "the default seed does not show the race"
    assert wrong >= len(SEEDS) // 2


@pytest.mark.parametrize("program", PROGRAMS)
def test_eager_execution_hides_the_races(
    emulator: Emulator, kernels: Kernels, program: Any
) -> None:
    emulator.set_schedule("eager")
    assert (program(kernels, ordered=False) == 1).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("flags", [BLOCKING, NON_BLOCKING])
def test_the_null_stream_orders_itself_with_blocking_streams_only(
    emulator: Emulator, kernels: Kernels, flags: int, seed: int
) -> None:
    emulator.set_seed(seed)
    one, two, memory, result = stream(flags), stream(flags), device(256), pinned(64)
    ok(hip.hipMemsetAsync(memory, 0, 256, one))
    kernels("increment", None, memory, i32(64))
    kernels("scale", two, memory, memory, f32(3), i32(64))
    to_host(result, memory, two)
    ok(hip.hipStreamSynchronize(two))
    right = bool((result == 3).all())
    assert right or flags == NON_BLOCKING
    if flags == NON_BLOCKING and seed == 0:
        assert not right


def test_work_of_a_destroyed_stream_still_runs(kernels: Kernels) -> None:
    on, memory = stream(BLOCKING), device(256)
    ok(hip.hipMemsetAsync(memory, 0, 256, on))
    ok(hip.hipStreamDestroy(on))
    assert (download(memory, 64) == 0).all()  # the NULL stream comes after blocking streams
    assert status_of(hip.hipStreamSynchronize(on)) == Error.hipErrorInvalidHandle


def test_pageable_sources_are_read_at_the_call_and_pinned_ones_later() -> None:
    on, memory = stream(), device(16)
    pageable, locked = np.ones(4, np.float32), pinned(4)
    to_device(memory, pageable, on)
    pageable[:] = 2
    ok(hip.hipStreamSynchronize(on))
    assert (download(memory, 4) == 1).all()
    locked[:] = 1
    to_device(memory, locked, on)
    locked[:] = 2
    ok(hip.hipStreamSynchronize(on))
    assert (download(memory, 4) == 2).all()


def test_copies_to_pageable_memory_wait() -> None:
    on, memory, result = stream(), device(16), np.empty(4, np.float32)
    ok(hip.hipMemsetAsync(memory, 0, 16, on))
    to_host(result, memory, on)
    assert (result == 0).all()


def test_polling_ends(kernels: Kernels) -> None:
    on, memory = stream(), device(256)
    for _ in range(10):
        kernels("increment", on, memory, i32(64))
    assert status_of(hip.hipStreamQuery(on)) == Error.hipErrorNotReady
    queries = 1
    while status_of(hip.hipStreamQuery(on)) == Error.hipErrorNotReady:
        queries += 1
    assert queries >= 10


def test_streams_are_checked() -> None:
    assert status_of(hip.hipStreamCreateWithFlags(2)) == Error.hipErrorInvalidValue
    on = ok(hip.hipStreamCreateWithPriority(NON_BLOCKING, -5))
    assert ok(hip.hipStreamGetPriority(on)) == -1
    assert ok(hip.hipStreamGetFlags(on)) == NON_BLOCKING
    assert status_of(hip.hipStreamSynchronize(0x1234)) == Error.hipErrorInvalidHandle


def test_host_functions_run_in_stream_order() -> None:
    on, result, memory, seen = stream(), pinned(4), device(16), []
    callback_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    callback = callback_type(lambda _: seen.append(result.tolist()))
    ok(hip.hipMemsetAsync(memory, 0, 16, on))
    to_host(result, memory, on)
    pointer = ctypes.cast(callback, ctypes.c_void_p).value
    runtime = ctypes.PyDLL("libamdhip64.so") if OLD_WHEEL else ctypes.CDLL("libamdhip64.so")
    runtime.hipLaunchHostFunc.argtypes = [ctypes.c_void_p] * 3
    assert runtime.hipLaunchHostFunc(int(on), pointer, None) == 0
    ok(hip.hipStreamSynchronize(on))
    assert seen == [[0, 0, 0, 0]]


# ---- events --------------------------------------------------------------------------------


def test_waiting_for_a_never_recorded_event_does_nothing() -> None:
    mark, on = event(), stream()
    ok(hip.hipStreamWaitEvent(on, mark, 0))
    ok(hip.hipEventSynchronize(mark))
    ok(hip.hipEventQuery(mark))
    ok(hip.hipStreamSynchronize(on))


def test_a_wait_means_the_record_before_it(emulator: Emulator, kernels: Kernels) -> None:
    one, two, mark, memory = stream(), stream(), event(), device(256)
    ok(hip.hipMemsetAsync(memory, 0, 256, one))
    ok(hip.hipEventRecord(mark, one))
    ok(hip.hipStreamWaitEvent(two, mark, 0))
    kernels("increment", one, memory, i32(64))
    ok(hip.hipEventRecord(mark, one))  # does not move the wait
    emulator.trace()
    ok(hip.hipStreamSynchronize(two))
    assert not any("increment" in line for line in emulator.executed())
    ok(hip.hipEventSynchronize(mark))
    assert any("increment" in line for line in emulator.executed())


def test_timing_events_measure_and_others_do_not() -> None:
    on, start, stop, untimed = stream(), event(0), event(0), event()
    ok(hip.hipEventRecord(start, on))
    ok(hip.hipMemsetAsync(device(4), 0, 4, on))
    ok(hip.hipEventRecord(stop, on))
    ok(hip.hipEventRecord(untimed, on))
    assert status_of(hip.hipEventElapsedTime(start, stop)) == Error.hipErrorNotReady
    ok(hip.hipEventSynchronize(stop))
    assert ok(hip.hipEventElapsedTime(start, stop)) >= 0
    assert status_of(hip.hipEventElapsedTime(start, untimed)) == Error.hipErrorInvalidHandle


def test_event_flags_are_checked() -> None:
    for flags in (0x100, hip.hipEventInterprocess, 0x40000000 | 0x80000000):
        assert status_of(hip.hipEventCreateWithFlags(flags)) == Error.hipErrorInvalidValue
    ok(hip.hipEventCreateWithFlags(0x80000000 | hip.hipEventDisableTiming))
    assert status_of(hip.hipStreamWaitEvent(stream(), event(), 2)) == Error.hipErrorInvalidValue
    mark = event()
    ok(hip.hipEventDestroy(mark))
    assert status_of(hip.hipEventRecord(mark, None)) == Error.hipErrorInvalidHandle


# ---- capture and graphs --------------------------------------------------------------------


def begin(on: Any, mode: Any = Mode.hipStreamCaptureModeThreadLocal) -> None:
    ok(hip.hipStreamBeginCapture(on, mode))


def end(on: Any) -> Any:
    return ok(hip.hipStreamEndCapture(on))


def instantiate(graph: Any) -> Any:
    return ok(hip.hipGraphInstantiateWithFlags(graph, 0))


def replay(graph: Any, on: Any) -> None:
    ok(hip.hipGraphLaunch(instantiate(graph), on))
    ok(hip.hipStreamSynchronize(on))


def graph_shape(graph: Any) -> tuple[list[int], int]:
    """The nodes' types and the number of edges.

    Through ctypes: the wheel passes an array of one and an uninitialised capacity.
    """
    runtime = ctypes.CDLL("libamdhip64.so")
    handle, count = ctypes.c_void_p(int(graph)), ctypes.c_size_t()
    assert runtime.hipGraphGetEdges(handle, None, None, ctypes.byref(count)) == 0
    edges = count.value
    assert runtime.hipGraphGetNodes(handle, None, ctypes.byref(count)) == 0
    nodes = (ctypes.c_void_p * count.value)()
    assert runtime.hipGraphGetNodes(handle, nodes, ctypes.byref(count)) == 0
    return [int(ok(hip.hipGraphNodeGetType(node))) for node in nodes], edges


def diamond(kernels: Kernels, one: Any, two: Any, x: Any, *, ordered: bool = True) -> Any:
    """x = 0; y = x + 1 on `two`; x = x + 1 on `one`; x = x + y: 2 when right."""
    y = device(256)
    begin(one)
    ok(hip.hipMemsetAsync(x, 0, 256, one))
    order(one, two)
    ok(hip.hipMemcpyAsync(y, x, 256, Kind.hipMemcpyDeviceToDevice, two))
    if ordered:
        order(two, one)
    kernels("increment", one, x, i32(64))
    kernels("increment", two, y, i32(64))
    order(two, one)
    kernels("add", one, x, y, x, i32(64))
    return end(one)


@pytest.mark.parametrize("seed", SEEDS)
def test_captured_forks_and_joins_replay_right(
    emulator: Emulator, kernels: Kernels, seed: int
) -> None:
    emulator.set_seed(seed)
    one, two, x = stream(), stream(), device(256)
    graph = diamond(kernels, one, two, x)
    assert np.isnan(download(x, 64)).all()  # capturing runs nothing
    types, edges = graph_shape(graph)
    assert sorted(types) == [0, 0, 0, 1, 2]  # three kernels, a memcpy, a memset
    assert edges == 6
    replay(graph, one)
    assert (download(x, 64) == 2).all()


def test_a_graph_that_lost_an_edge_goes_wrong(emulator: Emulator) -> None:
    wrong = 0
    for seed in range(16):
        emulator.reset()
        emulator.set_seed(seed)
        one, two, x = stream(), stream(), device(256)
        replay(diamond(Kernels(), one, two, x, ordered=False), one)
        wrong += not (download(x, 64) == 2).all()
    assert wrong > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_launches_of_one_graph_do_not_overlap(
    emulator: Emulator, kernels: Kernels, seed: int
) -> None:
    emulator.set_seed(seed)
    one, two, x = stream(), stream(), device(256)
    ok(hip.hipMemset(x, 0, 256))
    ok(hip.hipDeviceSynchronize())
    begin(one)
    kernels("increment", one, x, i32(64))
    kernels("increment", one, x, i32(64))
    graph = end(one)
    executable = instantiate(graph)
    ok(hip.hipGraphDestroy(graph))
    for on in (one, two, one, two):
        ok(hip.hipGraphLaunch(executable, on))
    ok(hip.hipDeviceSynchronize())
    assert (download(x, 64) == 8).all()


def test_graph_launches_are_ordered_in_their_stream(kernels: Kernels) -> None:
    one, two, x, result = stream(), stream(), device(256), pinned(64)
    graph = diamond(kernels, one, two, x)
    ok(hip.hipGraphLaunch(instantiate(graph), one))
    to_host(result, x, one)
    ok(hip.hipStreamSynchronize(one))
    assert (result == 2).all()


def test_blas_calls_become_kernel_nodes() -> None:
    on, handle, a = stream(), ok(hipblas.hipblasCreate()), upload(np.eye(4, dtype=np.float32))
    out = device(64)
    ok(hipblas.hipblasSetStream(handle, on))
    begin(on)
    gemm(handle, (4, 4, 4), (a, a, out), alpha=3)
    graph = end(on)
    assert graph_shape(graph) == ([0], 0)
    replay(graph, on)
    assert (download(out, (4, 4)) == 3 * np.eye(4)).all()


def test_an_empty_capture_gives_an_empty_graph() -> None:
    on = stream()
    begin(on)
    assert ok(hip.hipStreamIsCapturing(on)).name == "hipStreamCaptureStatusActive"
    graph = end(on)
    assert ok(hip.hipStreamIsCapturing(on)).name == "hipStreamCaptureStatusNone"
    assert graph_shape(graph) == ([], 0)
    replay(graph, on)


def test_unjoined_streams_spoil_the_end() -> None:
    one, two, memory = stream(), stream(), device(4)
    begin(one)
    order(one, two)
    ok(hip.hipMemsetAsync(memory, 0, 4, two))
    status, graph = hip.hipStreamEndCapture(one)
    assert (status, graph) == (Error.hipErrorStreamCaptureUnjoined, None)
    ok(hip.hipMemsetAsync(memory, 0, 4, two))  # both streams are ordinary again
    ok(hip.hipStreamSynchronize(two))


def test_a_fork_without_work_needs_no_join() -> None:
    one, two, memory = stream(), stream(), device(4)
    begin(one)
    ok(hip.hipMemsetAsync(memory, 0, 4, one))
    order(one, two)
    assert graph_shape(end(one)) == ([2], 0)


def test_waiting_for_outside_work_breaks_the_isolation() -> None:
    one, outside, mark = stream(), stream(), event()
    ok(hip.hipEventRecord(mark, outside))
    begin(one)
    assert status_of(hip.hipStreamWaitEvent(one, mark, 0)) == Error.hipErrorStreamCaptureIsolation
    assert status_of(hip.hipStreamEndCapture(one)) == Error.hipErrorStreamCaptureInvalidated


def test_two_captures_cannot_merge() -> None:
    one, two, mark = stream(), stream(), event()
    begin(one)
    begin(two)
    ok(hip.hipEventRecord(mark, one))
    assert status_of(hip.hipStreamWaitEvent(two, mark, 0)) == Error.hipErrorStreamCaptureMerge


@pytest.mark.parametrize(
    "call",
    [
        lambda on, mark, memory: hip.hipStreamSynchronize(on),
        lambda on, mark, memory: hip.hipStreamQuery(on),
        lambda on, mark, memory: hip.hipDeviceSynchronize(),
        lambda on, mark, memory: hip.hipMalloc(4),
        lambda on, mark, memory: hip.hipFree(memory),
        lambda on, mark, memory: hip.hipHostMalloc(4, 0),
        lambda on, mark, memory: hip.hipMemcpy(memory, memory, 4, Kind.hipMemcpyDeviceToDevice),
        lambda on, mark, memory: hip.hipMemset(memory, 0, 4),
        lambda on, mark, memory: hip.hipModuleLoadData(kernels_for(64)),
    ],
)
def test_waiting_and_allocating_spoil_a_capture(call: Any) -> None:
    kernels_for(64)
    on, mark, memory = stream(), event(), device(4)
    begin(on)
    assert status_of(call(on, mark, memory)) == Error.hipErrorStreamCaptureUnsupported
    ok_status = status_of(hip.hipMemsetAsync(memory, 0, 4, on))
    assert ok_status == Error.hipErrorStreamCaptureInvalidated
    assert status_of(hip.hipStreamEndCapture(on)) == Error.hipErrorStreamCaptureInvalidated
    ok(hip.hipMemsetAsync(memory, 0, 4, on))


def test_captured_events_cannot_be_waited_for_by_the_host() -> None:
    on, mark = stream(), event()
    begin(on)
    ok(hip.hipEventRecord(mark, on))
    assert status_of(hip.hipEventQuery(mark)) == Error.hipErrorCapturedEvent
    assert status_of(hip.hipStreamEndCapture(on)) == Error.hipErrorStreamCaptureInvalidated
    assert status_of(hip.hipEventSynchronize(mark)) == Error.hipErrorCapturedEvent
    ok(hip.hipEventRecord(mark, on))
    ok(hip.hipEventSynchronize(mark))


@pytest.mark.parametrize("flags", [BLOCKING, NON_BLOCKING])
def test_the_null_stream_must_keep_away_from_blocking_captures(flags: int) -> None:
    on, memory = stream(flags), device(4)
    begin(on)
    status = status_of(hip.hipMemsetAsync(memory, 0, 4, None))
    if flags == BLOCKING:
        assert status == Error.hipErrorStreamCaptureImplicit
        assert status_of(hip.hipStreamEndCapture(on)) == Error.hipErrorStreamCaptureInvalidated
    else:
        assert status == Error.hipSuccess
        end(on)


def test_the_null_stream_cannot_capture() -> None:
    status = status_of(hip.hipStreamBeginCapture(None, Mode.hipStreamCaptureModeRelaxed))
    assert status == Error.hipErrorStreamCaptureUnsupported


def in_another_thread(call: Any) -> Any:
    seen = []
    thread = threading.Thread(target=lambda: seen.append(call()))
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.parametrize(
    ("mode", "here", "elsewhere"),
    [
        (Mode.hipStreamCaptureModeGlobal, False, False),
        (Mode.hipStreamCaptureModeThreadLocal, False, True),
        (Mode.hipStreamCaptureModeRelaxed, True, True),
    ],
)
def test_capture_modes_say_who_may_allocate(mode: Any, here: bool, elsewhere: bool) -> None:
    def allocation(anywhere: Any) -> bool:
        on = stream()
        begin(on, mode)
        allowed = status_of(anywhere(lambda: hip.hipMalloc(4))) == Error.hipSuccess
        ended = status_of(hip.hipStreamEndCapture(on)) == Error.hipSuccess
        assert ended == allowed
        return allowed

    assert allocation(lambda call: call()) == here
    assert allocation(in_another_thread) == elsewhere


def test_a_capture_ends_where_it_began() -> None:
    one, two = stream(), stream()
    begin(one)
    order(one, two)
    assert status_of(hip.hipStreamEndCapture(two)) == Error.hipErrorStreamCaptureUnmatched
    three = stream()
    begin(three)
    elsewhere = in_another_thread(lambda: status_of(hip.hipStreamEndCapture(three)))
    assert elsewhere == Error.hipErrorStreamCaptureWrongThread
    end(three)
    assert status_of(hip.hipStreamEndCapture(three)) == Error.hipErrorIllegalState


def test_pageable_memory_is_not_captured() -> None:
    on, memory, host = stream(), device(16), np.zeros(4, np.float32)
    begin(on)
    status = status_of(
        hip.hipMemcpyAsync(memory, address(host), 16, Kind.hipMemcpyHostToDevice, on)
    )
    assert status == Error.hipErrorStreamCaptureUnsupported


def test_a_graph_outlives_nothing_it_uses() -> None:
    on, memory = stream(), device(4)
    begin(on)
    ok(hip.hipMemsetAsync(memory, 0, 4, on))
    executable = instantiate(end(on))
    ok(hip.hipFree(memory))
    ok(hip.hipGraphLaunch(executable, on))
    assert status_of(hip.hipStreamSynchronize(on)) == Error.hipErrorIllegalAddress


# ---- hiprtc and modules --------------------------------------------------------------------


def test_compile_errors_are_in_the_log() -> None:
    result, _, log = compile_source(b'extern "C" __global__ void k(float* x) {\n  *x = y;\n}')
    assert result == Rtc.HIPRTC_ERROR_COMPILATION
    assert "test.hip:2" in log
    assert "'y' was not declared" in log


def test_options() -> None:
    source = b'extern "C" __global__ void k(float* x) { *x = VALUE; }'
    options = [
        b"--gpu-architecture=gfx90a",
        b"--offload-arch=emulator",
        b"-DVALUE=3",
        b"-std=c++17",
        b"-O3",
        b"-ffast-math",
        b"-munsafe-fp-atomics",
        b"-mllvm",
        b"-amdgpu-early-inline-all=true",
    ]
    result, code, log = compile_source(source, options)
    assert result == Rtc.HIPRTC_SUCCESS, log
    memory, function = device(4), b"k"
    module = ok(hip.hipModuleLoadData(code))
    launched = ok(hip.hipModuleGetFunction(module, function))
    ok(hip.hipModuleLaunchKernel(launched, 1, 1, 1, 1, 1, 1, 0, None, None, (memory,)))
    assert download(memory, 1) == 3
    result, _, log = compile_source(source, [b"garbage"])
    assert result == Rtc.HIPRTC_ERROR_INVALID_OPTION
    assert "garbage" in log


def test_headers() -> None:
    source = b'#include "answer.h"\nextern "C" __global__ void k(int* x) { *x = answer; }'
    program = ok(
        hiprtc.hiprtcCreateProgram(
            source, b"test.hip", 1, [b"constexpr int answer = 42;"], [b"answer.h"]
        )
    )
    ok(hiprtc.hiprtcCompileProgram(program, 0, None))


def test_damaged_code_is_refused(emulator: Emulator) -> None:
    code = kernels_for(64)
    flipped = bytearray(code)
    flipped[len(code) // 2] ^= 1
    for damaged in (bytes(flipped), b"\x7fELF" + code, bytes(4096), code[:100]):
        status, module = hip.hipModuleLoadData(damaged)
        assert (status, module) == (Error.hipErrorInvalidImage, None)
    emulator.set_wavefront(32)
    assert status_of(hip.hipModuleLoadData(code)) == Error.hipErrorNoBinaryForGpu


def test_functions_are_found_by_symbol(kernels: Kernels) -> None:
    for name in (b"missing", b"mangled", b"fill"):
        status = status_of(hip.hipModuleGetFunction(kernels.module, name))
        assert status == Error.hipErrorNotFound
    memory = device(16)
    kernels("fill<float>", None, memory, f32(2), threads=4)
    assert download(memory, 4).tolist() == [2, 2, 2, 2]


def test_lowered_names() -> None:
    program = ok(hiprtc.hiprtcCreateProgram(KERNELS, b"k", 0, None, None))
    ok(hiprtc.hiprtcAddNameExpression(program, b"fill<int>"))
    ok(hiprtc.hiprtcAddNameExpression(program, b"increment"))
    ok(hiprtc.hiprtcCompileProgram(program, 0, None))
    for name in (b"fill<int>", b"increment"):
        assert bytes(ok(hiprtc.hiprtcGetLoweredName(program, name))) == name


def test_launches_are_checked(kernels: Kernels) -> None:
    x = device(256)
    good = (x, i32(64))

    def launch(
        name: str = "increment",
        grid: Any = (1, 1, 1),
        block: Any = (64, 1, 1),
        shared: int = 0,
        extra: Any = good,
    ) -> Any:
        function = kernels.function(name)
        return status_of(
            hip.hipModuleLaunchKernel(function, *grid, *block, shared, None, None, extra)
        )

    assert launch() == Error.hipSuccess
    assert launch(grid=(0, 1, 1)) == Error.hipErrorInvalidConfiguration
    assert launch(block=(1025, 1, 1)) == Error.hipErrorInvalidConfiguration
    assert launch(block=(64, 64, 1)) == Error.hipErrorInvalidConfiguration
    assert (
        launch("block_sum", block=(512, 1, 1), extra=(x, x)) == Error.hipErrorInvalidConfiguration
    )
    assert launch(shared=65537) == Error.hipErrorInvalidValue
    assert launch(extra=(x,)) == Error.hipErrorInvalidValue
    assert launch(extra=(x, x, x)) == Error.hipErrorInvalidValue
    assert launch(extra=None) == Error.hipErrorInvalidValue


def test_kernel_parameters_may_be_pointed_to(kernels: Kernels) -> None:
    memory = upload(np.zeros(64, np.float32))
    pointer, count = ctypes.c_void_p(at(memory)), i32(64)
    parameters = (ctypes.c_void_p * 2)(ctypes.addressof(pointer), ctypes.addressof(count))
    function = kernels.function("increment")
    ok(
        hip.hipModuleLaunchKernel(
            function, 1, 1, 1, 64, 1, 1, 0, None, ctypes.addressof(parameters), None
        )
    )
    assert (download(memory, 64) == 1).all()


def test_function_attributes_and_occupancy(kernels: Kernels) -> None:
    attribute = hip.hipFunction_attribute
    function = kernels.function("block_sum")

    def value(key: Any) -> int:
        return int(ok(hip.hipFuncGetAttribute(key, function)))

    assert value(attribute.HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK) == 256
    assert value(attribute.HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) > 0
    occupancy = hip.hipModuleOccupancyMaxActiveBlocksPerMultiprocessor
    assert ok(occupancy(function, 256, 0)) == 8
    assert ok(occupancy(function, 512, 0)) == 0
    limit = hip.hipFuncAttribute.hipFuncAttributeMaxDynamicSharedMemorySize
    ok(hip.hipFuncSetAttribute(function, limit, 1024))
    assert (
        status_of(hip.hipFuncSetAttribute(function, limit, 1 << 20)) == Error.hipErrorInvalidValue
    )
    assert value(attribute.HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) == 1024


@pytest.mark.parametrize("what", ["freed", "pageable"])
def test_stray_pointer_arguments_fault(kernels: Kernels, what: str) -> None:
    host, freed = np.zeros(64, np.float32), device(256)
    ok(hip.hipFree(freed))
    on = stream()
    kernels("increment", on, at(freed, 8) if what == "freed" else address(host), i32(1))
    assert status_of(hip.hipStreamSynchronize(on)) == Error.hipErrorIllegalAddress
    # as on the hardware, nothing works any more
    memset = hip.hipMemsetAsync(device(4), 0, 4, on)
    assert status_of(memset) == Error.hipErrorIllegalAddress
    assert host[0] == 0


def test_an_unloaded_module_must_not_be_queued(kernels: Kernels) -> None:
    on = stream()
    kernels("increment", on, device(256), i32(64))
    ok(hip.hipModuleUnload(kernels.module))
    assert status_of(hip.hipStreamSynchronize(on)) == Error.hipErrorIllegalAddress


# ---- kernels -------------------------------------------------------------------------------


@pytest.mark.parametrize("wavefront", [64, 32])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_shuffles_and_barriers_sum_a_block(emulator: Emulator, wavefront: int, seed: int) -> None:
    emulator.set_wavefront(wavefront)
    emulator.set_seed(seed)
    kernels = Kernels(wavefront)
    x = np.arange(4 * 256, dtype=np.float32)
    sums = device(16)
    kernels("block_sum", None, upload(x), sums, blocks=4, threads=256)
    assert (download(sums, 4) == x.reshape(4, 256).sum(axis=1)).all()


@pytest.mark.parametrize("wavefront", [64, 32])
def test_shuffles(emulator: Emulator, wavefront: int) -> None:
    emulator.set_wavefront(wavefront)
    kernels = Kernels(wavefront)
    out = device(wavefront * 32)
    kernels("shuffles", None, out, threads=wavefront)
    lane = np.arange(wavefront)
    last = wavefront - 1
    expected = np.stack(
        [
            np.full(wavefront, 3),
            np.maximum(lane - 1, 0),
            np.where(lane + 2 > last, lane, lane + 2),
            lane ^ 5,
            np.where(lane % 8 == 7, lane, lane + 1),
            lane // 4 * 4 + 1,
            np.full(wavefront, len(range(0, wavefront, 3))),
            np.full(wavefront, 3),
        ],
        axis=1,
    )
    assert (download(out, (wavefront, 8), np.int32) == expected).all()


def test_inactive_lanes_are_left_out(kernels: Kernels) -> None:
    out = device(128 * 4)
    kernels("divergent_shuffle", None, out, threads=128)
    thread = np.arange(128)
    expected = np.where(thread % 64 < 32, thread ^ 1, -1)
    assert (download(out, 128, np.int32) == expected).all()


def test_exited_threads_do_not_hold_up_a_barrier(kernels: Kernels) -> None:
    out = device(4)
    kernels("early_exit", None, out, threads=100)
    assert download(out, 1, np.int32) == 50


def test_dynamic_shared_memory_and_a_missing_barrier(emulator: Emulator, kernels: Kernels) -> None:
    x = np.arange(128, dtype=np.float32)
    source, out = upload(x), device(x.nbytes)
    kernels("reverse", None, source, out, threads=128, shared=512)
    assert (download(out, 128) == x[::-1]).all()
    kernels("reverse_without_barrier", None, source, out, threads=128, shared=512)
    assert not (download(out, 128) == x[::-1]).all()


def test_shared_memory_starts_undefined(kernels: Kernels) -> None:
    out = device(16)
    kernels("read_undefined_shared", None, out, blocks=4, threads=1)
    assert np.isnan(download(out, 4)).all()


def test_writing_past_dynamic_shared_memory_faults(kernels: Kernels) -> None:
    kernels("overflow_shared", None, threads=64, shared=64)
    ok(hip.hipDeviceSynchronize())
    kernels("overflow_shared", None, threads=64, shared=63)
    assert status_of(hip.hipDeviceSynchronize()) == Error.hipErrorIllegalAddress


def test_places_in_three_dimensions(kernels: Kernels) -> None:
    grid, block = (2, 3, 2), (4, 2, 3)
    threads, blocks = int(np.prod(block)), int(np.prod(grid))
    out = device(16 * threads * blocks)
    kernels("places", None, out, blocks=grid, threads=block)
    got = download(out, (blocks, 3, 2, 4, 4), np.int32)
    z, y, x = np.indices((3, 2, 4))
    for number, each in enumerate(got):
        assert (each[..., 0] == x).all()
        assert (each[..., 1] == y).all()
        assert (each[..., 2] == z).all()
        assert (each[..., 3] == number).all()


def test_atomics(kernels: Kernels) -> None:
    cells = upload(np.array([0, -5, 99, 0, 0], np.int32))
    kernels("atomics", None, cells, threads=100)
    total, largest, smallest, bits, first = download(cells, 5, np.int32)
    assert (total, largest, smallest, bits) == (4950, 99, 0, 255)
    assert 1 <= first <= 100


def test_half_conversions_round_to_nearest_even(kernels: Kernels) -> None:
    every_half = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.unique(every_half[np.isfinite(every_half)])
    middles = ((finite[:-1].astype(np.float64) + finite[1:]) / 2).astype(np.float32)
    x = np.concatenate(
        [
            every_half,
            middles,
            np.nextafter(middles, np.float32(np.inf)),
            np.nextafter(middles, np.float32(-np.inf)),
            np.array([65519.996, 65520, 1e30, -1e30, 1e-30, -1e-30], np.float32),
        ]
    )
    out = device(x.nbytes)
    kernels("half_round_trip", None, upload(x), out, i32(x.size), threads=256)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    got = download(out, x.size)
    np.testing.assert_array_equal(got, expected)
    assert (np.signbit(got) == np.signbit(expected))[~np.isnan(x)].all()


class Float4(ctypes.Structure):
    """HIP's float4, which is aligned to 16 bytes: hip-python packs it to 8."""

    _fields_ = (("values", ctypes.c_float * 4),)


def test_arguments_are_unpacked_at_their_natural_alignment(kernels: Kernels) -> None:
    out = device(8)
    vector = Float4((ctypes.c_float * 4)(1000, 2000, 3000, 4000))
    # char at 0, double at 8, short at 16, float4 at 32, pointer at 48
    arguments = (
        ctypes.c_byte(1),
        ctypes.c_double(20),
        ctypes.c_short(300),
        ctypes.c_longlong(0),  # the padding that the packing leaves out
        vector,
        out,
    )
    kernels("mixed_arguments", None, *arguments, threads=1)
    assert download(out, 1, np.float64) == 10321


# ---- hipBLAS -------------------------------------------------------------------------------


def round_bf16(values: Array) -> Array:
    """bf16 bits, to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def encode(values: Array, kind: Any) -> Array:
    if kind == Type.HIP_R_16BF:
        return round_bf16(values)
    return values.astype(NUMPY_TYPES[kind])


def decode(values: Array, kind: Any) -> Array:
    return from_bf16(values) if kind == Type.HIP_R_16BF else values


NUMPY_TYPES = {
    Type.HIP_R_16F: np.float16,
    Type.HIP_R_16BF: np.uint16,
    Type.HIP_R_32F: np.float32,
    Type.HIP_R_64F: np.float64,
}


def gemm_status(
    handle: Any,
    sizes: tuple[int, int, int],
    matrices: tuple[Any, Any, Any],
    *,
    alpha: float = 1,
    beta: float = 0,
    ops: tuple[Any, Any] = (N, N),
    lds: tuple[int, int, int] | None = None,
    types: tuple[Any, Any, Any] = (Type.HIP_R_32F,) * 3,
    compute: Any = Compute.HIPBLAS_COMPUTE_32F,
    batch: tuple[int, tuple[int, int, int]] | None = None,
) -> Any:
    """hipblasGemmEx, or hipblasGemmStridedBatchedEx when there is a (count, strides)."""
    m, n, k = sizes
    lda, ldb, ldc = lds or (m if ops[0] == N else k, k if ops[1] == N else n, m)
    double = compute == Compute.HIPBLAS_COMPUTE_64F
    scalars = np.array([alpha, beta], np.float64 if double else np.float32)
    strides: Sequence[tuple[int, ...]] = [(), (), ()]
    if batch:
        strides = [(stride,) for stride in batch[1]]
    call = hipblas.hipblasGemmStridedBatchedEx if batch else hipblas.hipblasGemmEx
    result = call(
        handle,
        *ops,
        m,
        n,
        k,
        address(scalars),
        matrices[0],
        types[0],
        lda,
        *strides[0],
        matrices[1],
        types[1],
        ldb,
        *strides[1],
        address(scalars) + scalars.itemsize,
        matrices[2],
        types[2],
        ldc,
        *strides[2],
        *((batch[0],) if batch else ()),
        compute,
        ALGO,
    )
    scalars[:] = np.nan  # they are read at the call
    return status_of(result)


def gemm(handle: Any, *arguments: Any, **options: Any) -> None:
    assert gemm_status(handle, *arguments, **options) == Status.HIPBLAS_STATUS_SUCCESS


SUPPORTED = [
    (Type.HIP_R_16F, Type.HIP_R_16F, Compute.HIPBLAS_COMPUTE_32F, 2e-3),
    (Type.HIP_R_16F, Type.HIP_R_32F, Compute.HIPBLAS_COMPUTE_32F, 1e-5),
    (Type.HIP_R_16BF, Type.HIP_R_16BF, Compute.HIPBLAS_COMPUTE_32F, 2e-2),
    (Type.HIP_R_16BF, Type.HIP_R_32F, Compute.HIPBLAS_COMPUTE_32F, 1e-5),
    (Type.HIP_R_32F, Type.HIP_R_32F, Compute.HIPBLAS_COMPUTE_32F, 1e-5),
    (Type.HIP_R_64F, Type.HIP_R_64F, Compute.HIPBLAS_COMPUTE_64F, 1e-13),
]


@pytest.mark.parametrize("ops", [(N, N), (N, T), (T, N), (T, T)])
@pytest.mark.parametrize(("ab", "c", "compute", "tolerance"), SUPPORTED)
def test_batched_products_agree_with_numpy(
    ab: Any, c: Any, compute: Any, tolerance: float, ops: tuple[Any, Any]
) -> None:
    random = np.random.default_rng(1)
    m, n, k, count, pad = 5, 7, 9, 3, 2
    # column-major (rows, cols) is row-major (cols, rows)
    shapes = [
        (k, m + pad) if ops[0] == N else (m, k + pad),
        (n, k + pad) if ops[1] == N else (k, n + pad),
        (n, m + pad),
    ]
    values = [random.standard_normal((count, *shape)) for shape in shapes]
    kinds = (ab, ab, c)
    stored = [encode(value, kind) for value, kind in zip(values, kinds, strict=True)]
    a, b, before = (
        decode(each, kind).astype(np.float64) for each, kind in zip(stored, kinds, strict=True)
    )
    a = a[..., :m].swapaxes(1, 2) if ops[0] == N else a[..., :k]
    b = b[..., :k].swapaxes(1, 2) if ops[1] == N else b[..., :n]
    memory = [upload(each) for each in stored]
    handle, on = ok(hipblas.hipblasCreate()), stream()
    ok(hipblas.hipblasSetStream(handle, on))
    gemm(
        handle,
        (m, n, k),
        tuple(memory),
        alpha=0.5,
        beta=2,
        ops=ops,
        lds=tuple(shape[1] for shape in shapes),
        types=kinds,
        compute=compute,
        batch=(count, tuple(shape[0] * shape[1] for shape in shapes)),
    )
    ok(hip.hipStreamSynchronize(on))
    got = decode(download(memory[2], stored[2].shape, stored[2].dtype), c)
    expected = 0.5 * (a @ b) + 2 * before[..., :m].swapaxes(1, 2)
    np.testing.assert_allclose(
        got[..., :m].swapaxes(1, 2), expected, rtol=tolerance, atol=10 * tolerance
    )
    assert (got[..., m:] == before[..., m:]).all()  # the padding is left alone


@pytest.mark.parametrize(
    ("types", "compute"),
    [
        ((Type.HIP_R_16F, Type.HIP_R_16F, Type.HIP_R_64F), Compute.HIPBLAS_COMPUTE_32F),
        ((Type.HIP_R_16F, Type.HIP_R_16BF, Type.HIP_R_32F), Compute.HIPBLAS_COMPUTE_32F),
        ((Type.HIP_R_32F, Type.HIP_R_32F, Type.HIP_R_16F), Compute.HIPBLAS_COMPUTE_32F),
        ((Type.HIP_R_64F,) * 3, Compute.HIPBLAS_COMPUTE_32F),
        ((Type.HIP_R_32F,) * 3, Compute.HIPBLAS_COMPUTE_64F),
        ((Type.HIP_R_16BF,) * 3, Compute.HIPBLAS_COMPUTE_16F),
        ((Type.HIP_R_8I,) * 3, Compute.HIPBLAS_COMPUTE_32F),
    ],
)
def test_other_types_are_not_supported(types: Any, compute: Any) -> None:
    handle, memory = ok(hipblas.hipblasCreate()), device(64)
    status = gemm_status(handle, (2, 2, 2), (memory,) * 3, types=types, compute=compute)
    assert status == Status.HIPBLAS_STATUS_NOT_SUPPORTED


def test_beta_0_does_not_read_the_output() -> None:
    handle, a = ok(hipblas.hipblasCreate()), upload(np.eye(4, dtype=np.float32))
    out = device(64)  # holds NaN
    gemm(handle, (4, 4, 4), (a, a, out))
    assert (download(out, (4, 4)) == np.eye(4)).all()


def test_an_output_that_is_an_operand_is_garbage() -> None:
    handle, a = ok(hipblas.hipblasCreate()), upload(np.eye(4, dtype=np.float32))
    gemm(handle, (4, 4, 4), (a, a, a))
    assert np.isnan(download(a, (4, 4))).any()


def test_products_are_checked() -> None:
    handle, memory, host = ok(hipblas.hipblasCreate()), device(64), np.zeros(16, np.float32)
    three = (memory,) * 3
    invalid = Status.HIPBLAS_STATUS_INVALID_VALUE
    assert gemm_status(handle, (4, 4, 4), three, lds=(3, 4, 4)) == invalid
    assert gemm_status(handle, (-1, 4, 4), three, lds=(4, 4, 4)) == invalid
    assert gemm_status(handle, (4, 5, 4), three) == invalid  # C is too small
    assert gemm_status(handle, (4, 4, 4), (memory, address(host), memory)) == invalid
    assert gemm_status(0x1234, (4, 4, 4), three) == Status.HIPBLAS_STATUS_NOT_INITIALIZED
    gemm(handle, (0, 4, 4), three, lds=(4, 4, 4))
    gemm(handle, (4, 4, 0), three, lds=(4, 4, 4))
    assert (download(memory, 16) == 0).all()  # an empty sum


def test_handles_know_their_stream() -> None:
    handle, on = ok(hipblas.hipblasCreate()), stream()
    ok(hipblas.hipblasSetStream(handle, on))
    if OLD_WHEEL:
        got = ctypes.c_void_p()
        ok(hipblas.hipblasGetStream(handle, ctypes.addressof(got)))
        assert got.value == int(on)
    else:
        assert int(ok(hipblas.hipblasGetStream(handle))) == int(on)
    ok(hip.hipStreamDestroy(on))
    status = status_of(hipblas.hipblasSetStream(handle, on))
    assert status == Status.HIPBLAS_STATUS_INVALID_VALUE
    ok(hipblas.hipblasDestroy(handle))
    status = status_of(hipblas.hipblasDestroy(handle))
    assert status == Status.HIPBLAS_STATUS_NOT_INITIALIZED


def test_the_workspace_is_written() -> None:
    handle, memory = ok(hipblas.hipblasCreate()), upload(np.zeros((2, 16), np.float32))
    a, workspace = at(memory), at(memory, 64)
    host = np.zeros(4, np.float32)
    status = status_of(hipblas.hipblasSetWorkspace(handle, address(host), 16))
    assert status == Status.HIPBLAS_STATUS_INVALID_VALUE
    ok(hipblas.hipblasSetWorkspace(handle, workspace, 64))
    gemm(handle, (4, 4, 4), (a, a, device(64)))
    zeros, scribbled = download(memory, (2, 16))
    assert (zeros == 0).all()
    assert np.isnan(scribbled).all()


def test_arrays_of_matrices_lie_in_device_memory() -> None:
    handle = ok(hipblas.hipblasCreate())
    matrices = [upload(np.eye(4, dtype=np.float32) * i) for i in (1, 2, 3, 4)]
    outputs = [device(64), device(64)]
    host = [
        np.array([int(each) for each in group], np.uint64)
        for group in (matrices[:2], matrices[2:], outputs)
    ]
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)

    def call(arrays: Sequence[Any]) -> Any:
        pointers = [ctypes.c_void_p(int(array)) for array in arrays]
        kind = Type.HIP_R_32F
        return status_of(
            hipblas.hipblasGemmBatchedEx(
                handle, N, N, 4, 4, 4, address(one), pointers[0], kind, 4, pointers[1], kind, 4,
                address(zero), pointers[2], kind, 4, 2, Compute.HIPBLAS_COMPUTE_32F, ALGO,
            )
        )  # fmt: skip

    assert call([address(each) for each in host]) == Status.HIPBLAS_STATUS_INVALID_VALUE
    assert call([upload(each) for each in host]) == Status.HIPBLAS_STATUS_SUCCESS
    assert (download(outputs[0], (4, 4)) == 3 * np.eye(4)).all()
    assert (download(outputs[1], (4, 4)) == 8 * np.eye(4)).all()


def test_half_scalars_with_half_compute_type() -> None:
    handle, a = ok(hipblas.hipblasCreate()), upload(np.eye(4, dtype=np.float16))
    scalars, out, kind = np.array([3, 0], np.float16), device(32), Type.HIP_R_16F
    ok(
        hipblas.hipblasGemmEx(
            handle, N, N, 4, 4, 4, address(scalars), a, kind, 4, a, kind, 4, address(scalars) + 2,
            out, kind, 4, Compute.HIPBLAS_COMPUTE_16F, ALGO,
        )
    )  # fmt: skip
    assert (download(out, (4, 4), np.float16) == 3 * np.eye(4)).all()


def test_attention(kernels: Kernels) -> None:
    """(1, 8, 128, 64) in f16: two batched products around a softmax, captured and replayed."""
    heads, length, width = 8, 128, 64
    random = np.random.default_rng(2)
    q, k, v = (random.standard_normal((heads, length, width)).astype(np.float16) for _ in range(3))
    on, handle = stream(), ok(hipblas.hipblasCreate())
    ok(hipblas.hipblasSetStream(handle, on))
    dq, dk, dv = upload(q), upload(k), upload(v)
    scores, probabilities = (device(heads * length * length * 2) for _ in range(2))
    context, result = device(q.nbytes), pinned(q.shape, np.float16)
    half = {"types": (Type.HIP_R_16F,) * 3}
    begin(on)
    gemm(
        handle,
        (length, length, width),
        (dk, dq, scores),
        alpha=width**-0.5,
        ops=(T, N),
        batch=(heads, (length * width, length * width, length * length)),
        **half,
    )
    rows = heads * length
    kernels("softmax_half", on, scores, probabilities, i32(length), blocks=rows, threads=128)
    gemm(
        handle,
        (width, length, length),
        (dv, probabilities, context),
        batch=(heads, (length * width, length * length, length * width)),
        **half,
    )
    to_host(result, context, on)
    replay(end(on), on)
    logits = (q.astype(np.float64) @ k.astype(np.float64).swapaxes(1, 2)) * width**-0.5
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    expected = weights / weights.sum(axis=-1, keepdims=True) @ v.astype(np.float64)
    np.testing.assert_allclose(result, expected, atol=4e-3)


# ---- hipBLASLt -----------------------------------------------------------------------------


@pytest.mark.skipif(hipblaslt is None, reason="this wheel has no hipBLASLt")
@pytest.mark.parametrize("epilogue", ["DEFAULT", "BIAS", "RELU_BIAS"])
def test_hipblaslt_adds_a_bias(epilogue: str) -> None:
    m, n, k, count = 6, 5, 7, 2
    random = np.random.default_rng(3)
    a = random.standard_normal((count, m, k)).astype(np.float16)  # column-major (k, m): transposed
    b = random.standard_normal((count, n, k)).astype(np.float16)
    bias = random.standard_normal(m).astype(np.float32)
    da, db, dbias, dd = upload(a), upload(b), upload(bias), device(count * m * n * 2)
    lt = hipblaslt
    handle = ok(lt.hipblasLtCreate())
    desc = ok(lt.hipblasLtMatmulDescCreate(Compute.HIPBLAS_COMPUTE_32F, Type.HIP_R_32F))
    attribute = lt.hipblasLtMatmulDescAttributes_t

    def describe(name: str, value: ctypes._SimpleCData[Any]) -> None:
        key = getattr(attribute, f"HIPBLASLT_MATMUL_DESC_{name}")
        size = ctypes.sizeof(value)
        ok(lt.hipblasLtMatmulDescSetAttribute(desc, key, ctypes.addressof(value), size))

    chosen = getattr(lt.hipblasLtEpilogue_t, f"HIPBLASLT_EPILOGUE_{epilogue}")
    describe("TRANSA", ctypes.c_int32(int(T)))
    describe("EPILOGUE", ctypes.c_uint32(int(chosen)))
    describe("BIAS_POINTER", ctypes.c_void_p(at(dbias)))
    describe("BIAS_DATA_TYPE", ctypes.c_int32(int(Type.HIP_R_32F)))

    def layout(rows: int, cols: int, gap: int = 0) -> Any:
        made = ok(lt.hipblasLtMatrixLayoutCreate(Type.HIP_R_16F, rows, cols, rows + gap))
        key = lt.hipblasLtMatrixLayoutAttribute_t
        for name, value in (
            ("BATCH_COUNT", ctypes.c_int32(count)),
            ("STRIDED_BATCH_OFFSET", ctypes.c_int64(rows * cols)),
        ):
            which = getattr(key, f"HIPBLASLT_MATRIX_LAYOUT_{name}")
            size = ctypes.sizeof(value)
            ok(lt.hipblasLtMatrixLayoutSetAttribute(made, which, ctypes.addressof(value), size))
        return made

    la, lb, ld = layout(k, m), layout(k, n), layout(m, n)
    preference = ok(lt.hipblasLtMatmulPreferenceCreate())
    limit, zero_bytes = (
        lt.hipblasLtMatmulPreferenceAttributes_t.HIPBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
        ctypes.c_uint64(0),
    )
    ok(lt.hipblasLtMatmulPreferenceSetAttribute(preference, limit, ctypes.addressof(zero_bytes), 8))
    results = lt._hipblasLtMatmulHeuristicResult_t()
    found = ok(
        lt.hipblasLtMatmulAlgoGetHeuristic(
            handle, desc, la, lb, ld, ld, preference, 1, int(results)
        )
    )
    assert found == 1
    scalars, on = np.array([2, 0], np.float32), stream()
    ok(
        lt.hipblasLtMatmul(
            handle, desc, address(scalars), da, la, db, lb, address(scalars) + 4, dd, ld, dd, ld,
            int(results), None, 0, on,
        )
    )  # fmt: skip
    ok(hip.hipStreamSynchronize(on))
    expected = 2 * (a.astype(np.float64) @ b.astype(np.float64).swapaxes(1, 2))
    if "BIAS" in epilogue:
        expected += bias[:, None]
    if "RELU" in epilogue:
        expected = np.maximum(expected, 0)
    got = download(dd, (count, n, m), np.float16).swapaxes(1, 2)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)
    status = status_of(
        lt.hipblasLtMatmul(  # beta · C, in place
            handle, desc, address(scalars), da, la, db, lb, address(scalars), dd, layout(m, n, 1),
            dd, ld, int(results), None, 0, on,
        )
    )  # fmt: skip
    assert status == Status.HIPBLAS_STATUS_INVALID_VALUE  # each element would lie at two places


# ---- faults, hanging, traces, counts -------------------------------------------------------


def test_chosen_calls_fail(emulator: Emulator) -> None:
    emulator.fail("hipMalloc:2=2, hipStreamQuery:*=719,hipblasCreate:1=6")
    device(4)
    assert status_of(hip.hipMalloc(4)) == Error.hipErrorOutOfMemory
    device(4)
    for _ in range(3):
        assert status_of(hip.hipStreamQuery(None)) == Error.hipErrorLaunchFailure
    assert status_of(hipblas.hipblasCreate()) == Status.HIPBLAS_STATUS_INTERNAL_ERROR
    assert emulator.live().device_allocations == 2
    emulator.fail("")
    ok(hip.hipStreamQuery(None))


@pytest.mark.parametrize("text", ["hipMalloc", "hipMalloc:1", "hipMalloc:x=1", ":1=1", "a:1=y"])
def test_malformed_faults_are_refused(emulator: Emulator, text: str) -> None:
    with pytest.raises(ValueError, match="not name:call=status"):
        emulator.fail(text)


def test_a_hanging_device_is_never_ready(emulator: Emulator) -> None:
    on, mark = stream(), event()
    ok(hip.hipMemsetAsync(device(4), 0, 4, on))
    ok(hip.hipEventRecord(mark, on))
    with emulator.hang():
        for _ in range(50):
            assert status_of(hip.hipEventQuery(mark)) == Error.hipErrorNotReady
            assert status_of(hip.hipStreamQuery(on)) == Error.hipErrorNotReady
    ok(hip.hipEventSynchronize(mark))


def test_one_stream_hangs(emulator: Emulator) -> None:
    one, two = stream(), stream()
    for on in (one, two):
        ok(hip.hipMemsetAsync(device(4), 0, 4, on))
    with emulator.hang(1):
        ok(hip.hipStreamSynchronize(two))
        assert status_of(hip.hipStreamQuery(one)) == Error.hipErrorNotReady
    ok(hip.hipStreamSynchronize(one))


@pytest.mark.skipif(OLD_WHEEL, reason="hip-python 7 holds the GIL while it waits")
def test_a_blocked_host_is_released(emulator: Emulator) -> None:
    on = stream()
    ok(hip.hipMemsetAsync(device(4), 0, 4, on))
    waiting = threading.Thread(target=lambda: ok(hip.hipStreamSynchronize(on)))
    with emulator.hang():
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


def test_calls_are_traced(emulator: Emulator, kernels: Kernels) -> None:
    emulator.trace()
    on, mark = stream(), event()
    x, host = device(256), pinned(64)
    ok(hip.hipMemcpyAsync(at(x, 64), address(host), 64, Kind.hipMemcpyHostToDevice, on))
    kernels("increment", on, x, i32(16))
    ok(hip.hipEventRecord(mark, on))
    hip.hipStreamSynchronize(0x10)
    handle = ok(hipblas.hipblasCreate())
    ok(hipblas.hipblasSetStream(handle, on))
    arguments = "[dev:alloc#1+0 0x00000010]"
    assert emulator.calls() == [
        "hipStreamCreateWithFlags(stream#1,1) -> hipSuccess",
        "hipEventCreateWithFlags(event#1,2) -> hipSuccess",
        "hipMalloc(dev:alloc#1+0,256) -> hipSuccess",
        "hipHostMalloc(host:alloc#1+0,256,0) -> hipSuccess",
        "hipMemcpyAsync(dev:alloc#1+64,host:alloc#1+0,64,1,stream#1) -> hipSuccess",
        'hipModuleGetFunction(function#1,module#1,"increment") -> hipSuccess',
        f"hipModuleLaunchKernel(increment,1,1,1,64,1,1,0,stream#1,{arguments}) -> hipSuccess",
        "hipEventRecord(event#1,stream#1) -> hipSuccess",
        "hipStreamSynchronize(pageable) -> hipErrorInvalidHandle",
        "hipblasCreate(handle#0) -> HIPBLAS_STATUS_SUCCESS",
        "hipblasSetStream(handle#0,stream#1) -> HIPBLAS_STATUS_SUCCESS",
    ]
    assert emulator.executed() == []
    ok(hip.hipStreamSynchronize(on))
    assert emulator.executed() == [
        "stream#1 memcpy dev:alloc#1+64 <- host:alloc#1+0 64",
        "stream#1 kernel increment",
        "stream#1 record event#1",
    ]


def test_the_order_depends_on_the_seed_alone(emulator: Emulator) -> None:
    def executed(seed: int) -> tuple[str, ...]:
        emulator.reset()
        emulator.set_seed(seed)
        emulator.trace()
        streams = [stream() for _ in range(4)]
        for _ in range(3):
            for on in streams:
                ok(hip.hipMemsetAsync(device(4), 0, 4, on))
        ok(hip.hipDeviceSynchronize())
        return tuple(emulator.executed())

    orders = [executed(seed) for seed in SEEDS]
    assert orders == [executed(seed) for seed in SEEDS]
    assert len(set(orders)) >= len(SEEDS) // 2


def test_live_objects_are_counted(emulator: Emulator, kernels: Kernels) -> None:
    before = emulator.live()
    assert before.modules == 1
    on, mark, memory, host = stream(), event(), device(100), pinned(4)
    handle = ok(hipblas.hipblasCreate())
    begin(on)
    graph = end(on)
    executable = instantiate(graph)
    live = emulator.live()
    assert (live.streams, live.events, live.graphs, live.execs) == (1, 1, 1, 1)
    assert (live.device_allocations, live.device_bytes) == (1, 100)
    assert (live.pinned_allocations, live.pinned_bytes) == (1, 16)
    assert live.blas_handles == 1
    ok(hip.hipGraphExecDestroy(executable))
    ok(hip.hipGraphDestroy(graph))
    ok(hipblas.hipblasDestroy(handle))
    ok(hip.hipHostFree(address(host)))
    ok(hip.hipFree(memory))
    ok(hip.hipEventDestroy(mark))
    ok(hip.hipStreamDestroy(on))
    assert emulator.live() == before


def test_threads_may_share_the_device(kernels: Kernels) -> None:
    wrong = []

    def work() -> None:
        ok(hip.hipSetDevice(0))
        on, memory, result = stream(), device(256), pinned(64)
        for _ in range(20):
            ok(hip.hipMemsetAsync(memory, 0, 256, on))
            for _ in range(5):
                kernels("increment", on, memory, i32(64))
            to_host(result, memory, on)
            ok(hip.hipStreamSynchronize(on))
            if not (result == 5).all():
                wrong.append(result.copy())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_environment_sets_the_emulator_up(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    program = """
try:
    from rocm.bindings import hip
except ImportError:
    from hip import hip
import ctypes
print(hip.hipMemGetInfo()[2], int(hip.hipMalloc(4)[0]), int(hip.hipMalloc(4)[0]))
warp = hip.hipDeviceAttribute_t.hipDeviceAttributeWarpSize
print(hip.hipDeviceGetAttribute(warp, 0)[1])
_, stream = hip.hipStreamCreateWithFlags(hip.hipStreamNonBlocking)
_, memory = hip.hipMalloc(4)
hip.hipMemsetAsync(memory, 0, 4, stream)
print(ctypes.CDLL("libamdhip64.so").emulatorPending())
print(int(hip.hipFree(12)[0]))
"""
    folder = build.build()
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(folder),
        "ROCM_PATH": str(folder.parent),
        "GRAPHEXEC_EMULATOR_MEMORY": "12345",
        "GRAPHEXEC_EMULATOR_FAIL": "hipMalloc:2=2",
        "GRAPHEXEC_EMULATOR_WAVEFRONT": "32",
        "GRAPHEXEC_EMULATOR_SCHEDULE": "eager",
        "GRAPHEXEC_EMULATOR_TRACE": str(trace),
        "GRAPHEXEC_EMULATOR_VERBOSE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["12345", "0", "2", "32", "0", "1"]
    assert "hipErrorInvalidValue: not an allocation to free: pageable" in done.stderr
    lines = trace.read_text().splitlines()
    assert lines[0] == "hipMemGetInfo(12345,12345) -> hipSuccess"
    assert "hipMalloc(?,4) -> hipErrorOutOfMemory" in lines
