"""hip-python behind one module: both versions, every status, and why a platform is not usable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from graphexec.base.errors import DeviceUnavailable
from graphexec.runtime.hip import platform as hip_platform

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VERSIONS = {"7": "hip-python==7.2.2.562.43", "10": "hip-python[libraries]==10.0.0.0.1.2"}


def installed_version() -> str:
    return metadata.version("hip-python").split(".")[0]


@pytest.fixture(scope="session")
def other_interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the version of hip-python that is not installed here.

    Made with pip once a test session, under $GRAPHEXEC_TEST_VENVS if that is set.
    """
    (version,) = VERSIONS.keys() - {installed_version()}
    kept = os.environ.get("GRAPHEXEC_TEST_VENVS")
    folder = (Path(kept) if kept else tmp_path_factory.mktemp("venvs")) / f"hip-python-{version}"
    python = folder / "bin" / "python"
    if python.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    done = subprocess.run([*pip, VERSIONS[version]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        python.unlink()
        if os.environ.get("CI"):
            pytest.fail(f"pip could not install {VERSIONS[version]}:\n{done.stderr}")
        pytest.skip(f"pip could not install {VERSIONS[version]} here")
    return python


@pytest.fixture(params=["installed", "other"])
def interpreter(request: pytest.FixtureRequest) -> Path:
    """Each Python with a hip-python, one version after the other."""
    if request.param == "installed":
        return Path(sys.executable)
    path: Path = request.getfixturevalue("other_interpreter")
    return path


@pytest.fixture(scope="session")
def failing_hip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with HIP libraries whose calls fail in known ways."""
    folder = tmp_path_factory.mktemp("failing_hip")
    for name in ("libamdhip64.so", "libhiprtc.so", "libhipblas.so"):
        compiler = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
        source = [str(HERE / "failing_hip.c"), f"-Wl,-soname,{name}"]
        subprocess.run([*compiler, *source, "-o", str(folder / name)], check=True)
    return folder


@pytest.fixture(scope="session")
def emulator() -> Path:
    """The folder with the emulator's libraries, built if need be."""
    build = [sys.executable, str(ROOT / "tests" / "hip_emulator" / "build.py")]
    done = subprocess.run(build, capture_output=True, text=True, check=True)
    return Path(done.stdout.splitlines()[-1])


def run(interpreter: Path, script: str, **environment: str) -> str:
    """The output of a script in a fresh process that sees graphexec and one hip-python.

    The other version's Python borrows this one's packages, except for its hip-python 10.
    """
    prepare = f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
    if interpreter != Path(sys.executable):
        prepare += f"sys.path += {sys.path[1:]!r}\n"
        if installed_version() == "10":
            prepare += "sys.modules['rocm'] = None\n"
    done = subprocess.run(
        [str(interpreter), "-c", prepare + textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_call_fits_hip_pythons_signatures(interpreter: Path) -> None:
    script = str(HERE / "hip_signatures.py")
    done = subprocess.run([interpreter, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 80


def test_importing_the_module_does_not_import_hip_python() -> None:
    script = """
        import graphexec.runtime.hip.bindings
        print([name for name in sys.modules if name.split(".")[0] in ("hip", "rocm")])
    """
    assert run(Path(sys.executable), script).strip() == "[]"


def test_platform_is_described(interpreter: Path, failing_hip: Path) -> None:
    script = """
        import dataclasses, json
        from graphexec.runtime.hip import bindings as hip_bindings
        bindings = hip_bindings.load()
        assert hip_bindings.load() is bindings
        print(json.dumps(dataclasses.asdict(bindings.platform)))
    """
    platform = json.loads(run(interpreter, script, GRAPHEXEC_HIP_LIBRARY_PATH=str(failing_hip)))
    assert platform["name"] == "HIP (custom library)"
    assert platform["runtime_path"] == str(failing_hip / "libamdhip64.so")
    assert platform["runtime_version"] == "7.2.53211"
    assert platform["devices"] == 1
    seven = platform["hip_python_version"].startswith("7")
    assert platform["flavour"] == ("hip" if seven else "rocm.bindings")


# Per call: the exception, which call it names, and what it says of the failure.
FAILURES = {
    "bindings.malloc(64)": (
        "HipOutOfMemory",
        "hipMalloc failed: ",
        "hipErrorOutOfMemory (2): out of memory",
    ),
    "bindings.set_device(0)": (
        "HipError",
        "hipSetDevice failed: ",
        "hipErrorInvalidHandle (400): invalid resource handle",
    ),
    "bindings.prepare_record(None, None, node='scores')()": (
        "HipError",
        "node 'scores': hipEventRecord failed: ",
        "hipErrorInvalidHandle (400): invalid resource handle",
    ),
    "bindings.blas.create()": (
        "HipOutOfMemory",
        "hipblasCreate failed: HIPBLAS_STATUS_ALLOC_FAILED (2): ",
        "memory for the library's own use could not be allocated",
    ),
    "bindings.blas.destroy(None)": (
        "HipError",
        "hipblasDestroy failed: ",
        "HIPBLAS_STATUS_HANDLE_IS_NULLPTR (9): the handle is null",
    ),
    "bindings.kernels.compile('kernel', 'k.hip', ['-O3'])": (
        "HipError",
        "hiprtcCompileProgram failed: HIPRTC_ERROR_COMPILATION (6): ",
        "HIPRTC_ERROR_COMPILATION\nk.hip:1: expected ';'",
    ),
    "bindings.synchronize_device()": (
        "HipError",
        "hipDeviceSynchronize failed: ",
        "no status (-1): 77 is not a valid hipError_t",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_are_named(failure: str, failing_hip: Path) -> None:
    check_failure(Path(sys.executable), failure, failing_hip)


def test_failures_are_named_with_the_other_version(
    other_interpreter: Path, failing_hip: Path
) -> None:
    for failure in FAILURES:
        check_failure(other_interpreter, failure, failing_hip)


def check_failure(interpreter: Path, failure: str, failing_hip: Path) -> None:
    script = f"""
        import ctypes, json
        from graphexec.runtime.hip import bindings as hip_bindings
        bindings = hip_bindings.load()
        try:
            {failure}
        except hip_bindings.HipError as error:
            runtime = ctypes.CDLL(bindings.platform.runtime_path)
            print(json.dumps([type(error).__name__, str(error), runtime.hipGetLastError()]))
    """
    output = run(interpreter, script, GRAPHEXEC_HIP_LIBRARY_PATH=str(failing_hip))
    kind, message, pending = json.loads(output)
    expected_kind, call, meaning = FAILURES[failure]
    assert (kind, message) == (expected_kind, call + meaning)
    assert pending == 0, "the failure is still pending in the runtime"


def test_a_missing_function_is_named(interpreter: Path, failing_hip: Path) -> None:
    script = """
        from graphexec.runtime.hip import bindings as hip_bindings
        try:
            hip_bindings.load().create_stream()
        except hip_bindings.HipError as error:
            print(error)
    """
    message = run(interpreter, script, GRAPHEXEC_HIP_LIBRARY_PATH=str(failing_hip))
    assert message.startswith("hipStreamCreateWithFlags failed: no status (-1): failed to dlsym")


def test_not_ready_is_an_answer(interpreter: Path, failing_hip: Path) -> None:
    script = """
        from graphexec.runtime.hip import bindings as hip_bindings
        bindings = hip_bindings.load()
        print(bindings.event_is_done(None), bindings.event_is_done(64))
    """
    output = run(interpreter, script, GRAPHEXEC_HIP_LIBRARY_PATH=str(failing_hip))
    assert output.split() == ["False", "True"]


def test_an_empty_library_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHEXEC_HIP_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(DeviceUnavailable) as caught:
        hip_platform.choose("libamdhip64.so")
    assert str(caught.value) == (
        f"GRAPHEXEC_HIP_LIBRARY_PATH={tmp_path}: {tmp_path} holds no libamdhip64.so"
    )


def test_a_library_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libamdhip64.so").write_text("not a library")
    monkeypatch.setenv("GRAPHEXEC_HIP_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(DeviceUnavailable, match=r"libamdhip64\.so cannot be loaded \("):
        hip_platform.choose("libamdhip64.so")


NO_DEVICE = """
    int hipGetDeviceCount(int *n) { *n = 0; return 100; }
    const char *hipGetErrorName(int e) { return e == 100 ? "hipErrorNoDevice" : "?"; }
"""


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("int unrelated;", "is no HIP runtime"),
        (NO_DEVICE, r"reports no device \(hipErrorNoDevice, 100\)"),
    ],
)
def test_a_runtime_without_a_device_is_refused(
    source: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runtime.c").write_text(source)
    compiler = [os.environ.get("CC", "cc"), "-shared", "-fPIC", str(tmp_path / "runtime.c")]
    subprocess.run([*compiler, "-o", str(tmp_path / "libamdhip64.so")], check=True)
    monkeypatch.setenv("GRAPHEXEC_HIP_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(DeviceUnavailable, match=complaint):
        hip_platform.choose("libamdhip64.so")


def test_without_any_runtime_every_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> hip_platform.Source:
        raise hip_platform.Unusable("there is no NVIDIA driver (libcuda.so.1)")

    broken = tmp_path / "lib"
    broken.mkdir()
    (broken / "libamdhip64.so").write_text("not a library")
    monkeypatch.delenv("GRAPHEXEC_HIP_LIBRARY_PATH", raising=False)
    monkeypatch.setenv("ROCM_PATH", str(tmp_path))
    monkeypatch.setattr(hip_platform, "on_cuda", no_driver)
    with pytest.raises(DeviceUnavailable) as caught:
        hip_platform.choose("/nowhere/libamdhip64.so")
    message = str(caught.value)
    assert message.startswith("no usable GPU: /nowhere/libamdhip64.so cannot be loaded (")
    assert f"; {broken}/libamdhip64.so cannot be loaded (" in message
    assert message.endswith("; there is no NVIDIA driver (libcuda.so.1)")


def test_the_emulator_is_told_from_hardware(tmp_path: Path) -> None:
    class Runtime:
        emulatorSetSeed = None

    emulator = hip_platform.Source(tmp_path, Runtime(), 1)  # type: ignore[arg-type]
    hardware = hip_platform.Source(tmp_path, object(), 1)  # type: ignore[arg-type]
    assert hip_platform.platform_name(emulator, "gfx90a") == "HIP emulator"
    assert hip_platform.platform_name(hardware, "gfx90a:sramecc+") == "HIP on AMD"
    assert hip_platform.platform_name(hardware, "sm_90") == "HIP over CUDA"
    assert hip_platform.platform_name(hardware, "") == "HIP (custom library)"


@pytest.mark.parametrize(
    ("version", "text"), [(70253211, "7.2.53211"), (13000, "13.0"), (12090, "12.9")]
)
def test_versions_are_written_as_their_makers_do(version: int, text: str) -> None:
    assert hip_platform.version_text(version) == text


EMULATED = r"""
    import ctypes
    import numpy as np
    from graphexec.runtime.hip.bindings import BlasGemm, load

    hip = load()
    assert hip.platform.name == "HIP emulator"
    first, second, event = hip.create_stream(), hip.create_stream(), hip.create_event()
    x = np.arange(256, dtype=np.float32).reshape(16, 16)
    host, a, b, c = hip.host_malloc(1024), hip.malloc(1024), hip.malloc(1024), hip.malloc(1024)
    assert hip.pointer_info(a).kind == "device" and hip.pointer_info(host).kind == "host"
    view = hip.host_view(host, 1024)
    view[:] = x.tobytes()
    hip.prepare_copy(a, host, 1024, "h2d", first)()
    hip.synchronize_stream(first)

    source = '''extern "C" __global__ void scale(float s, const float *x, float *y, int n)
        { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] = s * x[i]; }'''
    module = hip.kernels.load_module(hip.kernels.compile(source, "scale.hip", ["-O2"]))
    scale = hip.kernels.function(module, "scale")
    arguments = hip.kernels.pack((ctypes.c_float(3), a, hip.pointer(int(b)), ctypes.c_int(256)))
    handle, workspace = hip.blas.create(), hip.malloc(1 << 20)
    hip.blas.set_stream(handle, second)
    hip.blas.set_workspace(handle, workspace, 1 << 20)
    product = BlasGemm("f32", 16, 16, 16, 16, 16, 16, trans_a=True)
    gemm = hip.blas.gemm(handle, product, a, b, c, node="product")
    steps = [
        hip.kernels.prepare_launch(scale, (4, 1, 1), (64, 1, 1), 0, first, arguments),
        hip.prepare_record(event, first),
        hip.prepare_wait(second, event),
        gemm,
        hip.prepare_record(event, second),
        hip.prepare_wait(first, event),
        hip.prepare_copy(host, c, 1024, "d2h", first),
    ]

    def result():
        hip.synchronize_stream(first)
        found = np.frombuffer(bytes(view), np.float32).reshape(16, 16)
        view[:] = bytes(1024)
        return found

    for step in steps:
        step()
    expected = (3 * x) @ x.T
    assert (result() == expected).all()

    hip.graphs.begin_capture(first)
    assert hip.graphs.is_capturing(first)
    for step in steps:
        step()
    graph = hip.graphs.end_capture(first)
    assert hip.graphs.nodes(graph) == 3 and hip.graphs.edges(graph) >= 2
    exec_ = hip.graphs.instantiate(graph)
    hip.graphs.destroy(graph)
    launch = hip.graphs.prepare_launch(exec_, first)
    for _ in range(3):
        launch()
        assert (result() == expected).all()
    hip.graphs.destroy_exec(exec_)

    start, stop = hip.create_event(timing=True), hip.create_event(timing=True)
    hip.prepare_record(start, first)()
    hip.prepare_fill(c, 7, 1024, first)()
    hip.prepare_record(stop, first)()
    hip.synchronize_event(stop)
    assert hip.event_is_done(stop) and hip.stream_is_done(first) and hip.elapsed(start, stop) >= 0
    hip.copy(host, c, 1024, "d2h")
    assert set(view) == {7}
    free, total = hip.memory_info()
    assert 0 < free < total == hip.properties(0).total_memory
    for pointer in (a, b, c, workspace):
        hip.free(pointer)
    del view
    hip.host_free(host)
    hip.blas.destroy(handle)
    hip.kernels.unload_module(module)
    for made in (event, start, stop):
        hip.destroy_event(made)
    for stream in (first, second):
        hip.destroy_stream(stream)
    print("done")
"""


def test_plans_kinds_of_calls_work_on_the_emulator(interpreter: Path, emulator: Path) -> None:
    output = run(interpreter, EMULATED, GRAPHEXEC_HIP_LIBRARY_PATH=str(emulator))
    assert output.strip() == "done"


@pytest.mark.parametrize("epilogue", ["BIAS", "RELU"])
def test_hipblaslt_works_on_the_emulator(epilogue: str, emulator: Path) -> None:
    script = f"""
        import numpy as np
        from graphexec.runtime.hip.bindings import BlasGemm, load

        hip = load()
        if hip.lt is None:
            raise SystemExit
        x = np.arange(-32, 32, dtype=np.float32).reshape(8, 8)
        host, a, bias, c = hip.host_malloc(256), hip.malloc(256), hip.malloc(32), hip.malloc(256)
        workspace, stream = hip.malloc(1 << 20), hip.create_stream()
        view = hip.host_view(host, 256)
        view[:] = x.tobytes()
        hip.copy(a, host, 256, "h2d")
        hip.copy(bias, host, 32, "h2d")
        handle = hip.lt.create()
        operation = hip.lt.gemm(
            handle, BlasGemm("f32", 8, 8, 8, 8, 8, 8), a, a, c, stream, workspace, 1 << 20,
            epilogue={epilogue!r}, bias=bias if {epilogue!r} == "BIAS" else None,
        )
        operation.step()
        hip.synchronize_stream(stream)
        operation.close()
        hip.lt.destroy(handle)
        hip.copy(host, c, 256, "d2h")
        found = np.frombuffer(bytes(view), np.float32).reshape(8, 8)
        expected = x @ x + x[0] if {epilogue!r} == "BIAS" else np.maximum(x @ x, 0)
        assert (found == expected).all(), found
    """
    run(Path(sys.executable), script, GRAPHEXEC_HIP_LIBRARY_PATH=str(emulator))
