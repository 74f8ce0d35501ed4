"""Weight files: what is read, and what is refused with which words."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import graphexec as gx
from graphexec.base.tensor import DType, TensorType
from graphexec.frontend import weights
from graphexec.frontend.weight_paths import WeightError
from graphexec.frontend.weights import WeightFiles
from graphexec.graph.infer import infer
from graphexec.ir.typed import TypedWeight

Array = np.ndarray[Any, Any]
VALUES = np.arange(6, dtype=np.float64).reshape(2, 3) - 2.5


def stored(dtype: str) -> Array:
    return VALUES.astype(DType(dtype).numpy())


def read(folder: Path, file: str, key: str | None = None, dtype: str | None = None,
         root: Path | None = None) -> Array:  # fmt: skip
    with WeightFiles() as files:
        found = files.find(folder, root, file, key, DType(dtype) if dtype else None)
        return files.read(TypedWeight(TensorType(found.shape, found.dtype), found.path, key))


def refused(folder: Path, file: str, key: str | None = None, dtype: str | None = None,
            root: Path | None = None) -> WeightError:  # fmt: skip
    with pytest.raises(WeightError) as caught:
        read(folder, file, key, dtype, root)
    return caught.value


# Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
def test_npy(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "w.npy", stored(dtype))
    found = read(tmp_path, "w.npy")
    assert found.dtype == stored(dtype).dtype
    assert np.array_equal(found, stored(dtype))
    assert found.flags.c_contiguous


def test_fortran_order_and_scalars(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.asfortranarray(VALUES))
    found = read(tmp_path, "w.npy")
    assert np.array_equal(found, VALUES)
    assert found.flags.c_contiguous
    np.save(tmp_path / "s.npy", np.float32(3))
    assert read(tmp_path, "s.npy").shape == ()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "w.npz", one=VALUES, two=stored("f16"))
    assert np.array_equal(read(tmp_path, "w.npz", "one"), VALUES)
    assert read(tmp_path, "w.npz", "two").dtype == np.float16
    save(tmp_path / "single.npz", only=VALUES)
    assert np.array_equal(read(tmp_path, "single.npz"), VALUES)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_safetensors(tmp_path: Path, dtype: str) -> None:
    from safetensors.numpy import save_file

    save_file({"w": stored(dtype), "v": stored(dtype)[0]}, tmp_path / "w.safetensors")
    assert np.array_equal(read(tmp_path, "w.safetensors", "w"), stored(dtype))
    assert np.array_equal(read(tmp_path, "w.safetensors", "v", dtype), stored(dtype)[0])


@pytest.mark.parametrize("form", ["bfloat16", "V2", "uint16"])
@pytest.mark.parametrize("file", ["w.npy", "w.npz"])
def test_bf16_in_files_that_do_not_know_it(tmp_path: Path, form: str, file: str) -> None:
    raw = stored("bf16") if form == "bfloat16" else stored("bf16").view(form)
    (np.save if file == "w.npy" else np.savez)(tmp_path / file, raw)
    found = read(tmp_path, file, dtype="bf16")
    assert found.dtype == DType.BF16.numpy()
    assert np.array_equal(found.astype(np.float64), VALUES)
    error = refused(tmp_path, file)
    assert "elements of type" in str(error)
    assert error.help == "`dtype: bf16` reads 2-byte data as bf16"


def test_a_dtype_that_is_stated_is_asserted(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", stored("f32"))
    assert read(tmp_path, "w.npy", dtype="f32").dtype == np.float32
    error = refused(tmp_path, "w.npy", dtype="f16")
    assert str(error) == "the stored array is f32, stated is f16"
    assert error.field == "dtype"


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.complex64, np.uint64, "U3", "M8[s]"])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "w.npy", np.zeros(3, dtype))
    assert "the stored array has elements of type" in str(refused(tmp_path, "w.npy"))


def test_big_endian_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", VALUES.astype(">f4"))
    error = refused(tmp_path, "w.npy")
    assert "is big-endian (>f4)" in str(error)
    assert "newbyteorder('<')" in error.help


def test_empty_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.zeros((2, 0)))
    assert str(refused(tmp_path, "w.npy")) == "the stored array is empty: shape [2, 0]"


# Files that are not sound ---------------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("file", ["w.npy", "w.npz"])
def test_pickles_are_never_loaded(tmp_path: Path, file: str) -> None:
    array = np.array([Bomb()], dtype=object)
    (np.save if file == "w.npy" else np.savez)(tmp_path / file, array, allow_pickle=True)
    assert "pickled Python objects" in str(refused(tmp_path, file))
    (tmp_path / "raw.npy").write_bytes(b"\x80\x04K\x01.")
    assert "raw.npy" in str(refused(tmp_path, "raw.npy"))


def npy_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, VALUES)
    return stream.getvalue()


@pytest.mark.parametrize("length", [0, 3, 8, 9, 40, 127, 128, 129, len(npy_bytes()) - 1])
def test_truncated_npy(tmp_path: Path, length: int) -> None:
    (tmp_path / "w.npy").write_bytes(npy_bytes()[:length])
    assert "w.npy" in str(refused(tmp_path, "w.npy"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_npz(tmp_path: Path, compression: int) -> None:
    """Every byte in turn: an error in words, or the right values; nothing else."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("w.npy", npy_bytes())
    sound = stream.getvalue()
    for place in range(0, len(sound), 3):
        damaged = bytearray(sound)
        damaged[place] ^= 0x55
        (tmp_path / "w.npz").write_bytes(damaged)
        try:
            assert np.array_equal(read(tmp_path, "w.npz"), VALUES)
        except WeightError:
            continue


def test_truncated_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", w=VALUES)
    whole = (tmp_path / "whole.npz").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.npz").write_bytes(whole[:length])
        assert "w.npz" in str(refused(tmp_path, "w.npz"))
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("w.npy", npy_bytes()[:-8])
    assert "truncated" in str(refused(tmp_path, "short.npz"))


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=VALUES)
    raw = bytearray((tmp_path / "w.npz").read_bytes())
    raw[6] |= 1  # the flag of the member
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    (tmp_path / "w.npz").write_bytes(raw)
    assert "w.npz" in str(refused(tmp_path, "w.npz"))


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    """Refused before memory is taken for it."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    padded = header + b" " * (117 - len(header)) + b"\n"
    (tmp_path / "w.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + padded)
    assert "truncated" in str(refused(tmp_path, "w.npy"))


@pytest.mark.parametrize("shape", ["(-1, 3)", "(2, '3')", "(True,)", "5", "(2.0,)"])
def test_nonsense_in_a_header(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padded = header + b" " * (117 - len(header)) + b"\n"
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + padded + bytes(64)
    (tmp_path / "w.npy").write_bytes(body)
    try:
        found = read(tmp_path, "w.npy")
    except WeightError:
        return
    assert shape == "(True,)"
    assert found.shape == (1,)


def test_damaged_safetensors(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    for raw in (
        b"",
        b"abc",
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", len(header)) + header,
    ):
        (tmp_path / "w.safetensors").write_bytes(raw)
        assert "w.safetensors" in str(refused(tmp_path, "w.safetensors", "w"))
    integers = json.dumps({"w": {"dtype": "U32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    raw = struct.pack("<Q", len(integers)) + integers + bytes(16)
    (tmp_path / "w.safetensors").write_bytes(raw)
    assert "the stored array has elements of type" in str(refused(tmp_path, "w.safetensors"))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "w.npy").open("wb") as stream:
        np.lib.format.write_array(stream, VALUES, version=version)
    assert np.array_equal(read(tmp_path, "w.npy"), VALUES)


def test_a_version_of_npy_that_is_not_known(tmp_path: Path) -> None:
    raw = bytearray(npy_bytes())
    raw[6:8] = 7, 2
    (tmp_path / "w.npy").write_bytes(raw)
    assert "is of version 7.2 of .npy" in str(refused(tmp_path, "w.npy"))


@pytest.mark.parametrize("header", [
    "-" * 59_000,
    "(" * 59_000,
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'more'",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} # '",
    "{'descr': '<f8', 'shape': (3,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1 2,)}",
    "{'descr': '\\d', 'fortran_order': False, 'shape': (3,)}",
    "{" + "'descr': '<f8', " * 3_000,
    "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 65 + ")}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 5_000 + ",)}",
])  # fmt: skip
def test_headers_that_are_no_header(tmp_path: Path, header: str) -> None:
    (tmp_path / "w.npy").write_bytes(_npy(header))
    assert str(refused(tmp_path, "w.npy")) == f"'{tmp_path / 'w.npy'}' has a damaged header"


@pytest.mark.parametrize(("descr", "words"), [
    ("'<f3'", "a type that is not known: '<f3'"),
    ("'<U999999'", "a type that is not known"),
    ("'f8,f8'", "a type that is not known: 'f8,f8'"),
    ("'(2,)f8'", "a type that is not known: '(2,)f8'"),
    ("'a3'", "elements of type bytes24"),
    ("[('x', '<f8')]", "holds records, not numbers"),
])  # fmt: skip
def test_types_of_elements_that_are_no_numbers(tmp_path: Path, descr: str, words: str) -> None:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (3,)}}"
    (tmp_path / "w.npy").write_bytes(_npy(header, bytes(100)))
    assert words in str(refused(tmp_path, "w.npy"))


def test_more_bytes_than_can_be_counted(tmp_path: Path) -> None:
    shape = (10**18,) * 40
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
    (tmp_path / "w.npy").write_bytes(_npy(header))
    assert "more bytes than memory can have" in str(refused(tmp_path, "w.npy"))


def test_headers_of_other_writers(tmp_path: Path) -> None:
    header = '{"shape":(2L, 3L),"fortran_order":False,"descr":"<f8"}'
    (tmp_path / "w.npy").write_bytes(_npy(header, VALUES.tobytes()))
    assert np.array_equal(read(tmp_path, "w.npy"), VALUES)


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_damaged_byte_of_an_archive(tmp_path: Path, method: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("w.npy", npy_bytes())
    sound = made.getvalue()
    (tmp_path / "w.npz").write_bytes(sound)
    assert np.array_equal(read(tmp_path, "w.npz"), VALUES)
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 0xA5
        (tmp_path / "w.npz").write_bytes(damaged)
        with suppress(WeightError):
            read(tmp_path, "w.npz")


def _safetensors(tmp_path: Path, dtype: str, shape: list[int], body: bytes) -> None:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(body)]}
    header = json.dumps({"w": entry}).encode()
    raw = struct.pack("<Q", len(header)) + header + body
    (tmp_path / "w.safetensors").write_bytes(raw)


@pytest.mark.parametrize(("dtype", "size"), [
    ("I16", 2), ("U16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("U64", 8), ("U32", 4),
])  # fmt: skip
def test_unsupported_types_of_safetensors_by_their_names(
    tmp_path: Path, dtype: str, size: int
) -> None:
    _safetensors(tmp_path, dtype, [3], bytes(3 * size))
    error = refused(tmp_path, "w.safetensors")
    assert str(error) == f"the stored array has elements of type {dtype}"
    assert error.help == "known are f16, bf16, f32, f64, i8, u8, i32, i64, bool"


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
@pytest.mark.parametrize("dtype", ["i8", "u8", "i32", "i64", "bool"])
def test_integers_and_bools(tmp_path: Path, dtype: str, ending: str) -> None:
    kind = DType(dtype).numpy()
    info = None if dtype == "bool" else np.iinfo(kind)
    values = np.array([[0, 1, 1], [info.min, info.max, 1] if info else [1, 0, 1]], kind)
    if ending == "safetensors":
        _safetensors(tmp_path, dtype.upper(), [2, 3], values.tobytes())
    elif ending == "npz":
        np.savez(tmp_path / "w.npz", w=values)
    else:
        np.save(tmp_path / "w.npy", values)
    found = read(tmp_path, f"w.{ending}")
    assert found.dtype == kind
    assert np.array_equal(found, values)
    error = refused(tmp_path, f"w.{ending}", dtype="f32")
    assert str(error) == f"the stored array is {dtype}, stated is f32"


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_a_scalar_of_safetensors(tmp_path: Path, dtype: str) -> None:
    value = np.array(-2.5).astype(DType(dtype).numpy())
    _safetensors(tmp_path, dtype.upper(), [], value.tobytes())
    found = read(tmp_path, "w.safetensors")
    assert (found.shape, found.dtype) == ((), value.dtype)
    assert found == value


# Keys -----------------------------------------------------------------------------------------


def test_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", query=VALUES, key=VALUES)
    np.save(tmp_path / "w.npy", VALUES)
    error = refused(tmp_path, "w.npz", "quary")
    assert str(error) == "there is no array 'quary' in 'w.npz'; it holds 'query', 'key'"
    assert (error.field, error.help) == ("key", "did you mean 'query'?")
    error = refused(tmp_path, "w.npz")
    assert "'w.npz' holds several arrays: 'query', 'key'" in str(error)
    assert "`key`" in error.help
    error = refused(tmp_path, "w.npy", "query")
    assert str(error) == "'w.npy' holds one array; leave out `key`"
    assert error.field == "key"


def test_many_keys_are_not_all_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{f"k{i}": VALUES for i in range(30)})
    assert "'k7', …" in str(refused(tmp_path, "w.npz", "other"))


# Where files may be ---------------------------------------------------------------------------


def test_missing_files_and_unknown_endings(tmp_path: Path) -> None:
    assert str(refused(tmp_path, "no.npy")).startswith("there is no weights file 'no.npy' in")
    (tmp_path / "w.bin").write_bytes(b"")
    error = refused(tmp_path, "w.bin")
    assert str(error) == "weights file 'w.bin' has an unknown ending"
    assert ".safetensors" in error.help
    (tmp_path / "folder.npy").mkdir()
    found = str(refused(tmp_path, "folder.npy"))
    assert found == "cannot read the weights file 'folder.npy': Is a directory"
    assert "cannot read the weights file '': Is a directory" in str(refused(tmp_path, ""))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A folder for graphs, and a file outside it."""
    inside, outside = tmp_path / "graphs", tmp_path / "secret.npy"
    (inside / "sub").mkdir(parents=True)
    np.save(outside, VALUES)
    np.save(inside / "sub" / "w.npy", VALUES)
    return inside, outside


def test_files_outside_the_folder_are_refused(places: tuple[Path, Path]) -> None:
    inside, outside = places
    (inside / "link.npy").symlink_to(outside)
    (inside / "up").symlink_to(inside.parent)
    for file in (
        "../secret.npy",
        str(outside),
        "link.npy",
        "up/secret.npy",
        "sub/../../secret.npy",
    ):
        error = refused(inside, file)
        assert f"weights file '{file}'" in str(error)
        assert "lies outside" in str(error)
        assert "--weights-root" in error.help
    assert "lies outside" in str(refused(inside, "../missing.npy"))  # and is not looked at


def test_a_link_to_the_outside_is_called_one(places: tuple[Path, Path]) -> None:
    inside, outside = places
    (inside / "link.npy").symlink_to(outside)
    (inside / "up").symlink_to(inside.parent)
    found = str(refused(inside, "link.npy"))
    assert found == f"weights file 'link.npy' is a link to '{outside}' and lies outside '{inside}'"
    found = str(refused(inside, "up/secret.npy"))
    assert f"is in '{inside}/up', which is a link to '{inside.parent}' and lies outside" in found
    assert " link " not in str(refused(inside, "../secret.npy"))


@pytest.mark.parametrize(("count", "note"), [
    (1, None), (2, "1 more weight lies outside of it"), (9, "8 more weights lie outside of it"),
])  # fmt: skip
def test_many_weights_outside_are_said_once(
    places: tuple[Path, Path], count: int, note: str | None
) -> None:
    inside, outside = places
    graph = gx.Graph("g", folder=inside)
    for number in range(count):
        (inside / f"l{number}.npy").symlink_to(outside)
        graph.weight(f"w{number}", f"l{number}.npy")
    graph.output(graph.copy("w0"))
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    (found,) = caught.value.diagnostics
    assert "weight 'w0': weights file 'l0.npy' is a link to" in found.message
    assert list(found.notes) == ([note] if note else [])


def test_files_inside_the_folder_are_read(places: tuple[Path, Path]) -> None:
    inside, _ = places
    (inside / "link.npy").symlink_to(inside / "sub" / "w.npy")
    for file in ("sub/w.npy", "link.npy", str(inside / "sub" / "w.npy"), "../graphs/sub/w.npy"):
        assert np.array_equal(read(inside, file), VALUES)


def test_another_root_may_be_allowed(places: tuple[Path, Path]) -> None:
    inside, outside = places
    assert np.array_equal(read(inside, "../secret.npy", root=outside.parent), VALUES)
    assert "lies outside" in str(refused(inside, "../secret.npy", root=inside / "sub"))
    assert "lies outside" in str(refused(inside, "/etc/hostname", root=outside.parent))


def test_a_null_character_in_a_path_is_a_mistake_like_others(tmp_path: Path) -> None:
    refused(tmp_path, "w\0.npy")


# In a graph -----------------------------------------------------------------------------------


def test_a_graph_reports_every_weight_that_cannot_be_had(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", query=VALUES)
    graph = gx.Graph("g", folder=tmp_path)
    graph.weight("a", "w.npz", "quary")
    graph.weight("b", "../w.npz")
    graph.weight("c", "w.npz", "query", dtype="f16")
    graph.output(graph.copy("a"))
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    messages = [d.message for d in caught.value.diagnostics]
    assert [m[:11] for m in messages] == ["weight 'a':", "weight 'b':", "weight 'c':"]
    assert caught.value.diagnostics[0].help == "did you mean 'query'?"


def test_places_in_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", query=VALUES)
    text = (
        "version: 1\nweights:\n  a: {file: w.npz, key: quary}\n"
        "nodes: {y: {op: copy, x: a}}\noutputs: [y]\n"
    )
    with pytest.raises(gx.GraphError) as caught:
        infer(gx.loads(text, folder=tmp_path))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.mark is not None
    assert (diagnostic.mark.line, diagnostic.mark.column) == (3, 25)


def test_a_file_that_changes_while_it_is_in_use(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", VALUES)
    with WeightFiles() as files:
        found = files.find(tmp_path, None, "w.npy", None, None)
    weight = TypedWeight(TensorType(found.shape, found.dtype), found.path, None)
    for other in (VALUES.T, VALUES.astype(np.float16), VALUES.astype(np.int64)[:, :1]):
        np.save(tmp_path / "w.npy", other)
        with WeightFiles() as files, pytest.raises(WeightError, match=r"w\.npy"):
            files.read(weight)
    (tmp_path / "w.npy").unlink()
    with WeightFiles() as files, pytest.raises(WeightError, match=r"w\.npy"):
        files.read(weight)


def test_weights_in_a_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=stored("bf16").view("V2"))
    graph = gx.Graph("g", folder=tmp_path)
    graph.input("x", (4, 2), "bf16")
    graph.weight("w", "w.npz", shape=(2, 3), dtype="bf16")
    graph.output(y=graph.gemm("x", "w", out_dtype="f32"))
    x = np.array([[1, 0], [0, 1], [1, 1], [2, 4]]).astype(DType.BF16.numpy())
    with gx.compile(graph, device="cpu") as exe:
        assert np.array_equal(exe.run(x=x)["y"], x.astype(np.float64) @ VALUES)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_an_archive_of_many_weights_is_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    names = [f"w{i}" for i in range(20)]
    arrays = {name: np.full((2, 2), i, np.float32) for i, name in enumerate(names)}
    if ending == "npz":
        np.savez(tmp_path / "all.npz", **arrays)
    else:
        save_file(arrays, tmp_path / "all.safetensors")
    opened = []
    original = weights._open
    monkeypatch.setattr(weights, "_open", lambda path: opened.append(path) or original(path))
    with WeightFiles() as files:
        for name, array in arrays.items():
            found = files.find(tmp_path, None, f"all.{ending}", name, None)
            weight = TypedWeight(TensorType(found.shape, found.dtype), found.path, name)
            assert np.array_equal(files.read(weight), array)
    assert opened == [tmp_path / f"all.{ending}"]
