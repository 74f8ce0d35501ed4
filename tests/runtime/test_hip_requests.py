"""Several requests in flight, arrays that lie on the device, and executables that stay there."""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hip_lab import (
    MODES,
    Array,
    Lab,
    assert_right,
    bits,
    calls,
    dtype_of,
    example,
    inputs_of,
    small,
)

import graphexec as gx
from graphexec.base.errors import DataError, SessionClosed
from graphexec.base.tensor import DType, TensorType
from graphexec.ir.plan import Launch, Wait
from graphexec.proof import HazardError, prove
from graphexec.runtime.device_array import DeviceArray
from graphexec.runtime.hip.bindings import Bindings, load
from graphexec.runtime.hip.device import Mode
from graphexec.runtime.pinned import is_pinned
from graphexec.runtime.requests import in_flight

# Requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["diamond", "multi_head_attention"])
def test_mapped_requests_are_the_runs(lab: Lab, name: str, mode: Mode, depth: int) -> None:
    with lab.nothing_left(), lab.compile(name, mode, 2) as exe:
        requests = [inputs_of(exe, seed) for seed in range(4)]
        expected = [bits(exe.run(**inputs)) for inputs in requests]
        for seed in range(4):
            lab.seed(seed)
            found = list(exe.map(requests, in_flight=depth))
            assert [bits(outputs) for outputs in found] == expected
        assert_right(exe, requests[0], found[0])


def test_requests_overlap(emulated: Lab) -> None:
    """Commands of one request run between those of another, each on memory of its own."""
    with emulated.compile("diamond", "stream", 2) as exe:
        inputs = inputs_of(exe)
        list(exe.map([inputs] * 2))  # makes the second session
        launches = sum(isinstance(i, Launch) for i in exe.plan.instructions)
        overlapping = 0
        for seed in range(8):
            emulated.seed(seed)
            emulated.emulator.trace()
            list(exe.map([inputs] * 6))
            owners = [re.match(r"stream#(\d+) (?:memcpy|gemm|kernel)", line)
                      for line in emulated.emulator.executed()]  # fmt: skip
            sessions = [(int(found[1]) - 1) // len(exe.plan.streams) for found in owners if found]
            assert len(sessions) == 6 * launches
            for session in set(sessions):
                own = [at for at, owner in enumerate(sessions) if owner == session]
                assert len(own) == 3 * launches
                for first in range(0, len(own), launches):
                    overlapping += own[first + launches - 1] - own[first] >= launches
        assert overlapping, "others' commands ran between those of a request"


def test_a_third_request_waits_for_the_oldest(lab: Lab) -> None:
    with lab.compile(small()) as exe:
        requests = [inputs_of(exe, seed) for seed in range(3)]
        expected = [bits(exe.run(**inputs)) for inputs in requests]
        first, second, third = (exe.submit(**inputs) for inputs in requests)
        assert first.done()
        assert [bits(p.result()) for p in (third, first, second)] == [
            expected[i] for i in (2, 0, 1)
        ]
        assert bits(first.result()) == expected[0], "a result can be asked for again"


def test_a_result_that_takes_too_long(emulated: Lab) -> None:
    with emulated.compile(small()) as exe:
        inputs = inputs_of(exe)
        with emulated.emulator.hang():
            pending = exe.submit(**inputs)
            assert not pending.done()
            with pytest.raises(TimeoutError, match=r"the run is not done after 0\.02 s"):
                pending.result(timeout=0.02)
        assert bits(pending.result(timeout=60)) == bits(exe.run(**inputs))


def test_inputs_may_be_reused_at_once(lab: Lab) -> None:
    with lab.compile(small()) as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        pending = exe.submit(**inputs)
        for array in inputs.values():
            array.fill(np.nan)
        assert bits(pending.result()) == expected


def test_requests_side_by_side_are_proved(lab: Lab) -> None:
    plan = gx.make_plan(example("diamond"), device="hip", streams=3)
    composite = in_flight(plan, 3)
    prove(composite)
    waits = [i for i in composite.instructions if isinstance(i, Wait) and i.role == "dependency"]
    assert waits
    from dataclasses import replace

    for wait in waits:
        racy = replace(
            composite, instructions=tuple(i for i in composite.instructions if i is not wait)
        )
        with pytest.raises(HazardError):
            prove(racy)


def test_a_map_that_is_left_early(lab: Lab) -> None:
    with lab.nothing_left(), lab.compile(small()) as exe:
        inputs = inputs_of(exe)
        found = exe.map(itertools.repeat(inputs), in_flight=3)
        expected = bits(next(found))
        found.close()  # type: ignore[attr-defined]
        assert bits(exe.run(**inputs)) == expected


def test_a_wrong_request_in_a_map(lab: Lab) -> None:
    with lab.compile(small()) as exe:
        inputs = inputs_of(exe)
        found = exe.map([inputs, {**inputs, "z": inputs["x"]}, inputs])
        with pytest.raises(DataError, match="request 1: there is no input 'z'"):
            list(found)
        assert_right(exe, inputs, exe.run(**inputs))
    with pytest.raises(DataError, match="in_flight must be at least 1"):
        exe.map([], in_flight=0)


# Arrays on the device -------------------------------------------------------------------------


class Producer:
    """Another library with arrays on the device: memory, a stream, and work on that stream."""

    def __init__(self, hip: Bindings) -> None:
        self.hip = hip
        self.stream = hip.create_stream()
        self._owned: list[Any] = []
        self._kept: list[Any] = []

    def array(self, values: Array, late: bool = True) -> Any:
        """`values` on the device; if `late`, they come there by a copy that was only issued."""
        device, pinned = self.hip.malloc(values.nbytes), self.hip.host_malloc(values.nbytes)
        self._owned += [(self.hip.free, device), (self.hip.host_free, pinned)]
        self.hip.host_view(pinned, values.nbytes)[:] = np.ascontiguousarray(values).tobytes()
        self.hip.prepare_copy(device, pinned, values.nbytes, "h2d", self.stream)()
        if not late:
            self.hip.synchronize_stream(self.stream)
        return device

    def close(self) -> None:
        self.hip.synchronize_stream(self.stream)
        for free, pointer in self._owned:
            free(pointer)
        self.hip.destroy_stream(self.stream)


@contextmanager
def producer() -> Iterator[Producer]:
    made = Producer(load())
    try:
        yield made
    finally:
        made.close()


class ByInterface:
    """An array with `__cuda_array_interface__` alone, written by `stream`."""

    def __init__(self, made: Producer, values: Array, **changes: Any) -> None:
        codes = {DType.F16: "<f2", DType.F32: "<f4", DType.F64: "<f8", DType.BF16: "|V2"}
        self.__cuda_array_interface__ = {
            "shape": values.shape, "typestr": codes[dtype_of(values)], "strides": None,
            "data": (int(made.array(values)), False), "version": 3, "stream": int(made.stream),
        } | changes  # fmt: skip


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class ByDlpack:
    """An array with DLPack alone, which orders the consumer's stream behind its own."""

    def __init__(self, made: Producer, values: Array, device: tuple[int, int] = (10, 0)) -> None:
        self.made, self.shape, self.device = made, values.shape, device
        self.extents = (ctypes.c_int64 * values.ndim)(*values.shape)
        code = 4 if dtype_of(values) is DType.BF16 else 2
        # 64 bytes in front, so that the offset matters.
        padded = np.concatenate([np.zeros(64, np.uint8), values.reshape(-1).view(np.uint8)])
        self.tensor = _Tensor(
            int(made.array(padded)), *device, values.ndim, code, 8 * values.itemsize, 1,
            self.extents, None, 64, None, None,
        )  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, stream: int) -> object:
        hip, event = self.made.hip, self.made.hip.create_event()
        hip.prepare_record(event, self.made.stream)()
        hip.prepare_wait(hip.pointer(stream), event)()
        hip.destroy_event(event)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [ByInterface, ByDlpack])
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_arrays_on_the_device(lab: Lab, dtype: str, kind: Any, mode: Mode) -> None:
    """Copies are ordered after the stream that writes the arrays, in every order of execution."""
    with lab.nothing_left(), lab.compile(small(dtype), mode, 2) as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        for seed in range(6):
            lab.seed(seed)
            with producer() as made:
                on_device = {name: kind(made, array) for name, array in inputs.items()}
                assert bits(exe.run(**on_device)) == expected
                mixed = {**inputs, "x": kind(made, inputs["x"])}
                assert bits(exe.run(**mixed)) == expected
                assert bits(exe.submit(**on_device).result()) == expected


def test_arrays_on_the_device_make_no_round_trip(emulated: Lab) -> None:
    with emulated.compile(small(), "graph", 2) as exe, producer() as made:
        inputs = inputs_of(exe)
        on_device = {name: ByInterface(made, array) for name, array in inputs.items()}
        exe.run(**on_device)  # makes the plan without transfers
        emulated.emulator.trace()
        exe.run(**on_device)
        names = [call.name for call in calls(emulated.emulator)]
    assert [name for name in names if name != "hipStreamQuery"] == [
        *["hipEventRecord", "hipStreamWaitEvent"],  # both are written by one stream
        *["hipMemcpyAsync"] * 2,  # on the device
        "hipGraphLaunch",
        "hipMemcpyAsync",  # the output
        "hipStreamSynchronize",
    ]  # fmt: skip


def test_the_weights_of_the_twin_are_the_same(emulated: Lab) -> None:
    with emulated.compile("multi_head_attention", "stream") as exe, producer() as made:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        emulated.emulator.trace()
        found = exe.run(x=ByInterface(made, inputs["x"]))
        sizes = [int(c.arguments[1]) for c in calls(emulated.emulator) if c.name == "hipMalloc"]
        assert exe.plan.buffer("weights").bytes not in sizes
        assert bits(found) == expected


def test_wrong_arrays_on_the_device(lab: Lab) -> None:
    with lab.compile(small(), streams=1) as exe, producer() as made:
        inputs = inputs_of(exe)
        x, w = inputs["x"], ByInterface(made, inputs["w"])

        def refused(array: Any) -> str:
            with pytest.raises(DataError) as caught:
                exe.run(x=array, w=w)
            return str(caught.value)

        assert "input 'x' must be f32[24, 24], found f64[24, 24]" in refused(
            ByInterface(made, x.astype(np.float64))
        )
        assert "input 'x' must be f32[24, 24], found i32[24, 24]" in refused(
            ByInterface(made, x, typestr="<i4")
        )
        assert "elements of type <u4 are not supported" in refused(
            ByInterface(made, x, typestr="<u4")
        )
        assert "not contiguous" in refused(ByInterface(made, x, strides=(4, 96)))
        assert "lies on another device" in refused(ByDlpack(made, x, device=(10, 3)))
        assert "'N' is 24 by axis 0, but 5 by axis 0 of input 'x'" in refused(
            ByInterface(made, x[:5, :5])
        )
        assert_right(exe, inputs, exe.run(x=ByInterface(made, x), w=w))


def test_arrays_of_a_gpu_on_the_cpu(lab: Lab) -> None:
    with gx.compile(small(), device="cpu") as exe, producer() as made:
        inputs = inputs_of(exe)
        with pytest.raises(DataError, match=r"input 'x' cannot be taken: .* runs on the CPU"):
            exe.run(x=ByInterface(made, inputs["x"]), w=inputs["w"])


# Executables that stay on the device ----------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_resident_executable(lab: Lab, mode: Mode) -> None:
    graph = example("attention")
    with lab.compile(graph, mode) as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
    with lab.nothing_left(), lab.compile(graph, mode, resident=True) as exe:
        assert not [i for i in exe.plan.instructions if getattr(i, "command", "") == "memcpy"]
        hip = load()
        out = exe.device_array("out")
        assert out.type == TensorType((2, 8, 128, 64), DType.F16)
        interface = out.__cuda_array_interface__
        assert interface["data"] == (out.address, False)
        assert (interface["shape"], interface["typestr"]) == (out.type.shape, "<f2")
        for name, array in inputs.items():
            here = hip.pointer(exe.device_array(name).address)
            with producer() as made:
                pinned = made.array(array, late=False)
                hip.prepare_copy(here, pinned, array.nbytes, "d2d", made.stream)()
        exe.replay()
        exe.replay()
        with producer() as made:
            pinned = hip.host_malloc(out.type.nbytes)
            hip.prepare_copy(
                pinned, hip.pointer(out.address), out.type.nbytes, "d2h", made.stream
            )()
            hip.synchronize_stream(made.stream)
            assert bytes(hip.host_view(pinned, out.type.nbytes)) == expected["out"]
            hip.host_free(pinned)
        assert bits(exe.run(**inputs)) == expected, "host arrays are taken too"
        own = {name: exe.device_array(name) for name in inputs}
        assert bits(exe.run(**own)) == expected, "what lies there already is not copied"


def test_a_replay_makes_one_launch(emulated: Lab) -> None:
    with emulated.compile(small(), "graph", resident=True) as exe:
        exe.run(**inputs_of(exe))
        emulated.emulator.trace()
        exe.replay()
        names = [call.name for call in calls(emulated.emulator)]
    assert set(names[1:-1]) <= {"hipStreamQuery"}
    assert (names[0], names[-1]) == ("hipGraphLaunch", "hipStreamSynchronize")


def test_device_arrays_are_for_resident_executables(lab: Lab) -> None:
    with (
        lab.compile(small()) as exe,
        pytest.raises(DataError, match=r"'out' lies in the memory of the host(.|\n)*resident=True"),
    ):
        exe.device_array("out")
    with (
        lab.compile(small(), resident=True) as exe,
        pytest.raises(DataError, match="there is no input or output 'scores'"),
    ):
        exe.device_array("scores")


def test_an_array_of_another_executable_is_copied(lab: Lab) -> None:
    """The output of one executable is the input of the next, on the device all along."""
    g = gx.Graph("double")
    x = g.input("x", (24, 24), "f32")
    g.output(y=g.copy(x, name="y"))
    with lab.compile(small(), resident=True) as first, lab.compile(g) as second:
        inputs = inputs_of(first)
        expected = first.run(**inputs)["out"]
        out = first.device_array("out")
        assert isinstance(out, DeviceArray)
        found = second.run(x=out)["y"]
        assert found.tobytes() == expected.tobytes()


def vectors(*names: str) -> gx.Graph:
    """The inputs `names`, copied to outputs in capitals."""
    g = gx.Graph("vectors")
    for name in names:
        g.output(**{name.upper(): g.copy(g.input(name, (5,)), name=f"copy_{name}")})
    return g


def vector(first: float) -> Array:
    return np.arange(5, dtype=np.float32) + np.float32(first)


def firsts(outputs: dict[str, Array]) -> list[float]:
    """The first elements of outputs, each of which must be a vector as a whole."""
    for array in outputs.values():
        assert np.array_equal(array, vector(array[0]))
    return [float(array[0]) for array in outputs.values()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ba-", [20, 10, 30]), ("bca", [20, 30, 10]), ("aab", [10, 10, 20]), ("-ab", [70, 10, 20]),
        ("bc-", [20, 30, 30]), ("cb-", [30, 20, 30]), ("BAC", [20, 10, 30]), ("bAa", [20, 10, 10]),
        ("abc", [10, 20, 30]),
    ],
)  # fmt: skip
def test_inputs_given_for_one_another(
    lab: Lab, given: str, expected: list[float], mode: Mode
) -> None:
    """All are read before one is overwritten; "-" is a new host array, 70 in place of the first,
    30 of the last."""
    with lab.nothing_left(), lab.compile(vectors(*"abc"), mode, resident=True) as exe:
        for seed in range(4):
            lab.seed(seed)
            exe.run(a=vector(10), b=vector(20), c=vector(30))
            fresh = iter([vector(70 if given[0] == "-" else 30)])
            inputs = {
                name: next(fresh) if source == "-" else exe.device_array(source)
                for name, source in zip("abc", given, strict=True)
            }
            assert firsts(exe.run(**inputs)) == expected


def test_windows_on_inputs_of_the_same_executable(lab: Lab) -> None:
    """They may share some bytes with the buffer that they go to, and with others."""
    g = gx.Graph("windows")
    for name in "ab":
        g.output(**{name.upper(): g.copy(g.input(name, (6,)), name=f"copy_{name}")})
    with lab.nothing_left(), lab.compile(g, resident=True) as exe:
        for seed, shift in itertools.product(range(3), (-5, -1, 1, 5)):
            lab.seed(seed)
            a, b = np.arange(6, dtype=np.float32), np.arange(10, 16, dtype=np.float32)
            exe.run(a=a, b=b)
            first, second = (exe.device_array(name) for name in "ab")
            between = (second.address - first.address) // 4
            memory = np.full(between + 6, np.nan, np.float32)  # between them lies anything
            memory[:6], memory[between:] = a, b
            place = between + shift if shift < 0 else shift
            window = DeviceArray(first.address + 4 * place, first.type, exe)
            found = exe.run(a=window, b=first) if shift > 0 else exe.run(a=second, b=window)
            wanted = [memory[place : place + 6], a] if shift > 0 else [b, memory[place : place + 6]]
            for output, content in zip("AB", wanted, strict=True):
                known = ~np.isnan(content)
                assert known.any()
                assert np.array_equal(found[output][known], content[known])
            del found  # pinned memory


def test_requests_that_take_what_others_hold(lab: Lab) -> None:
    """Device arrays of the first request in flight, given to the second, overwritten by a third."""
    with lab.compile(vectors("a", "b"), resident=True) as exe:
        for seed in range(6):
            lab.seed(seed)
            own = {name: exe.device_array(name) for name in "abAB"}
            pending = [
                exe.submit(a=vector(1), b=vector(2)),
                exe.submit(a=own["B"], b=own["a"]),
                exe.submit(a=vector(5), b=vector(6)),
                exe.submit(a=own["b"], b=own["A"]),
            ]
            found = [firsts(p.result()) for p in pending]
            assert found == [[1, 2], [2, 1], [5, 6], [6, 5]]


def test_arrays_of_an_executable_whose_run_is_in_flight(lab: Lab) -> None:
    """They are read behind that run."""
    with (
        lab.compile(vectors("a"), resident=True) as first,
        lab.compile(vectors("a"), resident=True) as second,
    ):
        for seed in range(12):
            lab.seed(seed)
            pending = first.submit(a=vector(seed))
            assert firsts(second.run(a=first.device_array("A"))) == [seed]
            assert firsts(pending.result()) == [seed]


def test_arrays_of_a_closed_executable_are_refused(lab: Lab) -> None:
    with lab.compile(vectors("a"), resident=True) as exe:
        with lab.compile(vectors("a"), resident=True) as other:
            other.run(a=vector(1))
            array = other.device_array("A")
        with pytest.raises(SessionClosed, match="the executable that owns it is closed"):
            exe.run(a=array)
        assert firsts(exe.run(a=vector(2))) == [2]


# Pinned memory --------------------------------------------------------------------------------


def pinned(inputs: dict[str, Array]) -> dict[str, Array]:
    found = {name: gx.pinned_empty(a.shape, a.dtype) for name, a in inputs.items()}
    for name, array in inputs.items():
        found[name][...] = array
    return found


@pytest.mark.parametrize("mode", MODES)
def test_pinned_arrays_are_taken_in_place(lab: Lab, mode: Mode) -> None:
    with lab.nothing_left():
        with lab.compile("diamond", mode, 2) as exe:
            requests = [inputs_of(exe, seed) for seed in range(5)]
            expected = [bits(exe.run(**inputs)) for inputs in requests]
            in_place = [pinned(inputs) for inputs in requests]
            for depth in (1, 2, 3):
                lab.seed(depth)
                found = list(exe.map(in_place, in_flight=depth))
                assert [bits(outputs) for outputs in found] == expected
            mixed = {**requests[0], **dict(list(in_place[0].items())[:1])}
            assert bits(exe.run(**mixed)) == expected[0]
        assert [bits(outputs) for outputs in found] == expected, "outputs outlive the executable"
        del found, in_place, mixed


def test_the_device_reads_pinned_arrays_itself(emulated: Lab) -> None:
    with emulated.compile(small(), "graph") as exe:
        inputs = pinned(inputs_of(exe))
        whole = bits(exe.run(**inputs))  # makes the plan without transfers
        emulated.emulator.trace()
        assert bits(exe.run(**inputs)) == whole
        copies = [call for call in calls(emulated.emulator) if call.name == "hipMemcpyAsync"]
    assert len(copies) == 3, "x, w and out: no pinned memory of the session lies between"


def test_blocks_of_outputs_are_used_again(emulated: Lab) -> None:
    with emulated.compile(small(), "graph") as exe:
        inputs = pinned(inputs_of(exe))
        first, second = exe.run(**inputs)["out"], exe.run(**inputs)["out"]
        kept = first.tobytes()
        places = {first.ctypes.data, second.ctypes.data}
        assert len(places) == 2, "an output that is still there is not written over"
        inputs["x"][...] = 0
        third = exe.run(**inputs)["out"]
        assert first.tobytes() == kept != third.tobytes()
        del first, second, third
        emulated.emulator.trace()
        assert exe.run(**inputs)["out"].ctypes.data
        assert "hipHostMalloc" not in {call.name for call in calls(emulated.emulator)}


def test_windows_of_pinned_arrays(lab: Lab) -> None:
    with lab.compile(small()) as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        many = gx.pinned_empty((3, 24, 24), np.float32)
        many[1] = inputs["x"]
        assert is_pinned(many[1])
        assert bits(exe.run(x=many[1], w=inputs["w"])) == expected
        many[2] = inputs["x"].T
        assert not is_pinned(many[2].T), "not in C order"
        assert bits(exe.run(x=many[2].T, w=inputs["w"])) == expected
        assert not is_pinned(inputs["x"])
    assert gx.pinned_empty((0, 3), np.float16).shape == (0, 3)


def test_an_output_with_two_names_is_two_arrays(lab: Lab) -> None:
    g = gx.Graph("twice")
    y = g.softmax(g.input("x", (8, 8)))
    g.output(a=y, b=y)
    with lab.compile(g) as exe:
        inputs = pinned(inputs_of(exe))
        found = exe.run(**inputs)
        found["a"][...] = 0
        assert found["b"].any()


def test_a_result_is_an_ordinary_input(lab: Lab) -> None:
    """It may be in pinned memory, but its owner may change it at any time."""
    g = gx.Graph("again")
    g.output(y=g.softmax(g.input("x", (24, 24))))
    with lab.compile(g) as exe:
        inputs = pinned(inputs_of(exe))
        result = exe.run(**inputs)["y"]
        assert not is_pinned(result)
        expected = bits(exe.run(x=result.copy()))
        for seed in range(6):
            lab.seed(seed)
            pending = exe.submit(x=result)
            kept = result.copy()
            result[...] = 7
            assert bits(pending.result()) == expected
            result[...] = kept


def test_replays_take_their_time(lab: Lab) -> None:
    with lab.compile(small(), resident=True, timeout=30.0) as exe:
        exe.run(**inputs_of(exe))
        exe.replay(20)
        for times in (0, -1):
            with pytest.raises(DataError, match="times must be at least 1"):
                exe.replay(times)


@pytest.mark.parametrize("mode", MODES)
def test_replays_back_to_back(lab: Lab, mode: Mode) -> None:
    with lab.compile("diamond", mode, resident=True) as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        for seed in range(4):
            lab.seed(seed)
            exe.replay(5)
            outputs = {name: exe.device_array(name) for name in expected}
            with lab.compile(copies_of(outputs)) as reader:
                assert bits(reader.run(**outputs)) == expected


def copies_of(arrays: dict[str, DeviceArray]) -> gx.Graph:
    g = gx.Graph("reader")
    for name, array in arrays.items():
        copy = g.copy(g.input(name, array.type.shape, array.type.dtype.value), name=f"{name}_copy")
        g.output(**{name: copy})
    return g


@pytest.mark.parametrize("dtype", list(DType))
def test_pinned_arrays_have_the_dtypes_of_graphs(lab: Lab, dtype: DType) -> None:
    assert gx.pinned_empty((4, 8), dtype.value).dtype == dtype.numpy()
    assert gx.pinned_empty((4, 8), dtype.numpy()).dtype == dtype.numpy()
