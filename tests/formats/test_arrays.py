"""Arrays given with -i and saved with -o: all ways a file can be wrong, or fine."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from graphexec.base.atomic_file import text_writer
from graphexec.base.errors import DataError
from graphexec.base.tensor import DType, TensorType
from graphexec.formats.arrays import check_writable, read_inputs, write_outputs
from graphexec.ir.operand import FLOATS

F32 = TensorType((2, 3), DType.F32)
BF16 = TensorType((2, 3), DType.BF16)
DRAWN = [0.7208776, 0.6340365, -0.911659]
INTEGERS = [667, 833, 580, 132]  # of randint:-5:1000:7 for x
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """`save(array)` gives the path of an .npy file."""

    def save(array: np.ndarray, name: str = "x.npy") -> str:
        np.save(tmp_path / name, array, allow_pickle=True)
        return str(tmp_path / name)

    return save


def read(spec: str, type: TensorType = F32, seed: int = 0) -> np.ndarray:
    return read_inputs([spec], {"x": type}, seed)[0]["x"]


def refused(*specs: str, **inputs: TensorType) -> str:
    with pytest.raises(DataError) as error:
        read_inputs(specs, inputs or {"x": F32}, 0)
    return str(error.value)


# What is accepted -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
def test_an_npy_file_of_the_right_type_is_read_as_it_is(save, dtype):
    type = TensorType((2, 3), DType(dtype))
    array = X.astype(type.dtype.numpy())
    found = read(f"x={save(array)}", type)
    assert found.dtype == array.dtype
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("array", [np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]])
def test_arrays_not_c_contiguous_are_converted(save, array):
    found = read(f"x={save(array)}")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize("as_stored", [
    lambda b: b, lambda b: b.view("V2"), lambda b: b.view(np.uint16),
    lambda b: b.astype(np.float32),
], ids=["ml_dtypes", "void", "uint16", "float32"])  # fmt: skip
def test_bf16_is_accepted_in_every_form_that_holds_it(save, as_stored):
    array = (X / 3).astype(ml_dtypes.bfloat16)
    found = read(f"x={save(as_stored(array))}", BF16)
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, array)


def test_float32_with_nan_is_accepted_as_bf16(save):
    array = np.full((2, 3), np.nan, np.float32)
    assert np.isnan(read(f"x={save(array)}", BF16).astype(np.float32)).all()


def test_float32_that_bf16_does_not_hold_is_refused(save):
    assert "does not hold exactly" in refused(f"x={save(X / 3)}", x=BF16)


def test_an_npz_file_gives_arrays_by_name(tmp_path):
    np.savez_compressed(tmp_path / "all.npz", x=X, y=X + 1)
    arrays, drawn = read_inputs([str(tmp_path / "all.npz")], {"x": F32, "y": F32, "z": F32}, 0)
    np.testing.assert_array_equal(arrays["y"], X + 1)
    assert list(arrays) == ["x", "y", "z"]
    assert drawn == ["z"]


def test_an_equals_sign_in_the_path_of_an_npz_file(tmp_path):
    folder = tmp_path / "a=b"
    folder.mkdir()
    np.savez(folder / "all.npz", x=X)
    np.testing.assert_array_equal(read(str(folder / "all.npz")), X)


def test_a_tensor_without_axes(save):
    type = TensorType((), DType.F32)
    assert read(f"x={save(np.float32(3))}", type).shape == ()


# Drawing --------------------------------------------------------------------------------


def test_draws_depend_on_seed_and_name_only():
    first, drawn = read_inputs([], {"x": F32, "y": F32}, 7)
    second, _ = read_inputs(["x=randn:1"], {"z": F32, "x": F32, "y": F32}, 7)
    assert drawn == ["x", "y"]
    np.testing.assert_array_equal(first["y"], second["y"])
    assert not np.array_equal(first["x"], first["y"])
    assert not np.array_equal(first["x"], second["x"])
    np.testing.assert_array_equal(second["x"], read("x=randn:1"))


def test_drawn_numbers_never_change():
    # Somebody may have written down a result that depends on them.
    np.testing.assert_allclose(read("x=randn:0")[0], DRAWN, rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_draws_have_the_dtype_asked_for(dtype):
    type = TensorType((64, 64), dtype)
    found = read("x=randn:3", type)
    assert found.dtype == dtype.numpy()
    assert abs(float(found.astype(np.float64).std()) - 1) < 0.05


@pytest.mark.parametrize("dtype", DType)
def test_integers_are_drawn_for_every_dtype(dtype):
    type = TensorType((8, 50), dtype)
    low, high = (0, 2) if dtype is DType.BOOL else (3, 100)
    found = read(f"x=randint:{low}:{high}:5", type)
    assert (found.dtype, found.shape) == (dtype.numpy(), (8, 50))
    wide = found.astype(np.float64)
    assert wide.min() >= low
    assert wide.max() < high
    assert set(np.unique(wide)) <= set(range(low, high))
    assert len(np.unique(wide)) > (high - low) // 2
    if dtype is not DType.BOOL:  # one seed, one tensor, whatever the dtype is
        same = read("x=randint:3:100:5", TensorType((8, 50), DType.F64))
        np.testing.assert_array_equal(wide, same)


def test_drawn_integers_never_change():
    found = read("x=randint:-5:1000:7", TensorType((4,), DType.I64))
    assert found.tolist() == INTEGERS


def test_integers_of_the_whole_range():
    found = read(f"x=randint:{-(2**63)}:{2**63 - 1}:1", TensorType((99,), DType.I64))
    assert found.min() < 0 < found.max()
    assert read("x=randint:-128:128:1", TensorType((4000,), DType.I8)).min() == -128


@pytest.mark.parametrize("dtype", [d for d in DType if not d.is_float])
def test_integers_that_are_not_given_are_0_or_1(dtype):
    type = TensorType((64,), dtype)
    arrays, drawn = read_inputs([], {"ids": type}, 3)
    assert drawn == ["ids"]
    assert arrays["ids"].dtype == dtype.numpy()
    assert set(arrays["ids"].tolist()) == {0, 1}


@pytest.mark.parametrize(("spec", "dtype", "message"), [
    ("randn:0", "i32", "normal numbers are floats, and the input is i32"),
    ("randn:0", "bool", "randint:LOW:HIGH:SEED draws integers"),
    ("randint:0:300:1", "u8", "u8 has no 299; it has 0 to 255"),
    ("randint:-1:3:1", "u8", "u8 has no -1; it has 0 to 255"),
    ("randint:0:3:1", "bool", "bool has no 2; it has 0 to 1"),
    ("randint:3:3:1", "i32", "there is no integer from 3 on and below 3"),
    ("randint:0:1e3:1", "i32", "expected randint:LOW:HIGH:SEED, such as randint:0:10:7"),
    ("randint:0:10", "i32", "the seed must be an integer"),
    ("randint:0", "f32", "expected randint:LOW:HIGH:SEED"),
    ("randint:0:9999999999999999999:1", "f32", "the integers must be in 64 bits"),
    ("randint:0:10:-1", "f32", "the seed must be an integer"),
    ("full:2.5", "i32", "i32 has no 2.5; it has -2147483648 to 2147483647"),
    ("full:inf", "i64", "i64 has no inf"),
    ("full:nan", "u8", "u8 has no nan"),
    ("full:256", "u8", "u8 has no 256"),
    ("full:2", "bool", "bool has no 2; it has 0 to 1"),
])  # fmt: skip
def test_numbers_that_a_type_does_not_have(spec, dtype, message):
    assert message in refused(f"x={spec}", x=TensorType((2,), DType(dtype)))


def test_large_integers_are_filled_exactly():
    found = read(f"x=full:{2**63 - 1}", TensorType((2,), DType.I64))
    assert found.tolist() == [2**63 - 1] * 2
    assert read("x=full:1", TensorType((2,), DType.BOOL)).tolist() == [True, True]
    assert read("x=full:-3.0", TensorType((2,), DType.I8)).tolist() == [-3, -3]


def test_arange_of_a_narrow_type_wraps():
    found = read("x=arange", TensorType((300,), DType.I8))
    assert found[[0, 127, 128, 256]].tolist() == [0, 127, -128, 0]
    assert read("x=arange", TensorType((3,), DType.BOOL)).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [d for d in DType if not d.is_float])
def test_files_of_every_dtype(dtype, save, tmp_path):
    x = np.array([0, 1, 1, 0], dtype.numpy())
    type = TensorType((4,), dtype)
    np.testing.assert_array_equal(read(f"x={save(x)}", type), x)
    write_outputs(tmp_path / "out.npz", {"x": x})
    (found,) = read_inputs([str(tmp_path / "out.npz")], {"x": type}, 0)[0].values()
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x)
    other = np.int16([1, 2, 3, 4])
    assert f"has dtype int16, expected {dtype.numpy().name}" in refused(f"x={save(other)}", x=type)


def test_bools_of_any_byte(save):
    path = save(np.array([0, 1, 2, 255], np.uint8).view(bool))
    found = read(f"x={path}", TensorType((4,), DType.BOOL))
    assert found.view(np.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("seed", ["", "-1", "1.5", "x", "99999999999999999999", "²", "9" * 5000])
def test_a_seed_is_a_number(seed):
    assert "the seed must be an integer" in refused(f"x=randn:{seed}")


def test_an_input_too_large_to_draw():
    huge = TensorType((2**24, 2**24), DType.F32)
    assert "does not fit into memory" in refused("x=randn:0", x=huge)


# What is refused ------------------------------------------------------------------------


def test_a_wrong_shape_shows_both(save):
    text = refused(f"x={save(X.T)}")
    assert "has shape [3, 2], expected [2, 3]" in text
    assert "transposed" in text


def test_a_shape_that_a_reshape_would_mend(save):
    assert "x.reshape([2, 3]) would fit" in refused(f"x={save(X[None])}")


@pytest.mark.parametrize("dtype", ["f8", "f2", "i4", "c8", "?", "U3", "M8[s]"])
def test_a_wrong_dtype_says_how_to_convert(save, dtype):
    text = refused(f"x={save(np.zeros((2, 3), dtype))}")
    assert "expected float32" in text
    assert "x.astype(np.float32)" in text


def test_a_structured_dtype(save):
    assert "holds records, not numbers" in refused(f"x={save(np.zeros((2, 3), [('a', 'f4')]))}")


def test_big_endian_is_refused_with_help(save):
    text = refused(f"x={save(X.astype('>f4'))}")
    assert "big-endian (>f4)" in text
    assert "newbyteorder" in text


def test_pickled_objects_are_never_loaded(tmp_path, save):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = save(np.array([[Trap()] * 3] * 2, dtype=object))
    assert "pickled Python objects, which are never loaded" in refused(f"x={path}")
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Trap()))
    assert "is not an .npy file" in refused(f"x={path}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [-1, -20, 100, 9, 7, 0])
def test_a_truncated_file(tmp_path, save, keep):
    path = Path(save(X))
    path.write_bytes(path.read_bytes()[:keep])
    text = refused(f"x={path}")
    expected = {0: "is empty", 7: "damaged header", 9: "damaged header", 100: "damaged header"}
    assert expected.get(keep, "is truncated") in text


def test_a_header_that_claims_to_be_huge(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1))
    assert "has a header of 4294967295 bytes" in refused(f"x={tmp_path / 'x.npy'}")


def test_a_missing_file_suggests_one_that_is_there(save):
    text = refused(f"x={save(X, 'query.npy').replace('query', 'qurey')}")
    assert "there is no file" in text
    assert "did you mean 'query.npy'?" in text


def test_a_folder_in_place_of_a_file(tmp_path):
    assert "Is a directory" in refused(f"x={tmp_path}")


def test_an_unknown_name_suggests_a_known_one(save):
    text = refused(f"quary={save(X)}", query=F32, key=F32)
    assert "gives 'quary', which is not an input of the graph" in text
    assert "did you mean 'query'?" in text
    assert "'query', 'key'" in text


def test_an_npz_file_without_arrays_gives_no_inputs(tmp_path):
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(DataError, match=r"empty\.npz' holds no array"):
        read_inputs([str(tmp_path / "empty.npz")], {"x": F32}, 0)


def test_unknown_keys_of_an_npz_file(tmp_path):
    np.savez(tmp_path / "all.npz", x=X, extra=X)
    assert "gives 'extra', which is not an input" in refused(str(tmp_path / "all.npz"))


def test_an_input_given_twice(tmp_path, save):
    np.savez(tmp_path / "all.npz", x=X)
    text = refused(f"x={save(X)}", str(tmp_path / "all.npz"))
    assert "input 'x' is given twice" in text


@pytest.mark.parametrize(("spec", "help"), [
    ("x.npy", "-i NAME=x.npy"), ("x", "-i NAME=x.npy, -i all.npz"), ("", "-i NAME=x.npy"),
    ("x=", "-i x=x.npy"), ("x=all.npz", "-i all.npz"),
])  # fmt: skip
def test_a_spec_that_is_none(spec, help):
    assert help in refused(spec)


def test_every_mistake_is_reported_at_once(save):
    text = refused(f"x={save(X.T)}", "y=missing.npy", "z=randn:?", "w=randn:0", x=F32, y=F32, z=F32)
    assert text.count("error:") == 4


def test_an_npz_file_that_is_no_archive(tmp_path):
    (tmp_path / "all.npz").write_bytes(b"PK\x03\x04 not really")
    assert "is not a sound .npz file" in refused(str(tmp_path / "all.npz"))


def test_a_damaged_member_of_an_npz_file(tmp_path):
    np.savez_compressed(tmp_path / "all.npz", x=np.random.default_rng(0).random((2, 3), np.float32))
    raw = bytearray((tmp_path / "all.npz").read_bytes())
    raw[80] ^= 0xFF
    (tmp_path / "all.npz").write_bytes(raw)
    assert "all.npz" in refused(str(tmp_path / "all.npz"))


def test_an_npz_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "holds 'readme.txt', which is no array" in refused(str(tmp_path / "all.npz"))


def test_a_compressed_bomb_is_not_unpacked(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**28,)}
    )
    with zipfile.ZipFile(tmp_path / "all.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(2**24))
    assert "has shape [268435456], expected [2, 3]" in refused(str(tmp_path / "all.npz"))


# Saving ---------------------------------------------------------------------------------

OUTPUTS = {
    "file": X,
    "allow_pickle": X.astype(np.float16),
    "bf": (X / 3).astype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("target", ["out.npz", "out"])
def test_what_is_saved_can_be_given_again(tmp_path, target):
    path = tmp_path / target
    check_writable(path)
    assert not list(tmp_path.iterdir())
    write_outputs(path, OUTPUTS)
    types = {n: TensorType(a.shape, d) for (n, a), d in zip(
        OUTPUTS.items(), (DType.F32, DType.F16, DType.BF16), strict=True)}  # fmt: skip
    specs = [str(path)] if path.suffix else [f"{n}={path / n}.npy" for n in OUTPUTS]
    arrays, drawn = read_inputs(specs, types, 0)
    assert not drawn
    for name, array in OUTPUTS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_bf16_is_saved_as_float32(tmp_path):
    write_outputs(tmp_path / "out.npz", OUTPUTS)
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["bf"].dtype == np.float32
        np.testing.assert_array_equal(saved["bf"], OUTPUTS["bf"].astype(np.float32))


def test_saving_replaces_what_was_there_and_follows_links(tmp_path):
    real = tmp_path / "real.npz"
    real.write_text("old")
    (tmp_path / "out.npz").symlink_to(real)
    write_outputs(tmp_path / "out.npz", {"y": X})
    assert (tmp_path / "out.npz").is_symlink()
    with np.load(real) as saved:
        np.testing.assert_array_equal(saved["y"], X)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "real.npz"]


@pytest.mark.parametrize("target", ["out.npz", "out"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_is_left(tmp_path, monkeypatch, target, failure):
    write = np.lib.format.write_array

    def fail_at_last(stream, array, **options):
        write(stream, array, **options)
        if array.shape == (1,):
            raise failure

    monkeypatch.setattr(np.lib.format, "write_array", fail_at_last)
    expected = DataError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_outputs(tmp_path / target, {"a": X, "b": np.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_a_folder_in_place_of_one_output_leaves_all_as_they_were(tmp_path):
    folder = tmp_path / "d"
    write_outputs(folder, {"a": X})
    (folder / "c.npy").mkdir()
    trace = tmp_path / "trace.json"
    with pytest.raises(DataError, match=r"cannot write '.*c\.npy': it is a directory"):
        write_outputs(folder, {"a": 2 * X, "b": X, "c": X}, {trace: text_writer("{}")})
    assert sorted(p.name for p in folder.iterdir()) == ["a.npy", "c.npy"]
    np.testing.assert_array_equal(np.load(folder / "a.npy"), X)
    assert not trace.exists()
    (folder / "c.npy").rmdir()
    write_outputs(folder, {"a": 2 * X, "b": X, "c": X}, {trace: text_writer("{}")})
    assert sorted(p.name for p in folder.iterdir()) == ["a.npy", "b.npy", "c.npy"]
    np.testing.assert_array_equal(np.load(folder / "a.npy"), 2 * X)
    assert trace.read_text() == "{}"


@pytest.mark.parametrize("target", ["none/out.npz", "none/out", "file/out.npz", "file/out", "file",
                                    "dir.npz", "out.npy"])  # fmt: skip
def test_an_unwritable_target_is_known_before(tmp_path, target):
    (tmp_path / "file").touch()
    (tmp_path / "dir.npz").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"(cannot write|cannot be saved).*'"):
        check_writable(tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_mode_of_a_saved_file_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_outputs(tmp_path / "out.npz", {"y": X})
    finally:
        os.umask(before)
    assert (tmp_path / "out.npz").stat().st_mode & 0o777 == 0o640
