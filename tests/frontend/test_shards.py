"""Sharded models: an index says in which file beside it each array is."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.frontend import shards
from graphexec.frontend.weight_paths import FileError, WeightError
from graphexec.frontend.weights import WeightFiles
from graphexec.graph.infer import infer
from graphexec.ir.typed import TypedWeight

INDEX = "model.safetensors.index.json"
ARRAYS = {
    "one": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)},
    "two": {"c": np.full((1, 2), -1.5, np.float64)},
}


def shard(name: str) -> str:
    return f"model-{name}.safetensors"


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model of two shards and their index."""
    for name, arrays in ARRAYS.items():
        save_file(arrays, tmp_path / shard(name))
    write_index(tmp_path, {key: shard(name) for name, arrays in ARRAYS.items() for key in arrays})
    return tmp_path


def read(folder: Path, key: str | None, root: Path | None = None, file: str = INDEX) -> Any:
    with WeightFiles() as files:
        found = files.find(folder, root, file, key, None)
        return files.read(TypedWeight(TensorType(found.shape, found.dtype), found.path, found.key))


def refused(folder: Path, key: str | None = "a", root: Path | None = None,
            file: str = INDEX) -> WeightError:  # fmt: skip
    with pytest.raises(WeightError) as caught:
        read(folder, key, root, file)
    return caught.value


def test_each_array_is_read_from_its_shard(model: Path) -> None:
    for name, arrays in ARRAYS.items():
        for key, array in arrays.items():
            assert np.array_equal(read(model, key), array)
            with WeightFiles() as files:
                found = files.find(model, None, INDEX, key, None)
            assert (found.path, found.key) == ((model / shard(name)).resolve(), key)


def test_an_index_below_the_folder(model: Path) -> None:
    assert np.array_equal(read(model.parent, "c", file=f"{model.name}/{INDEX}"), [[-1.5, -1.5]])
    assert np.array_equal(read(model.parent, "c", file=str(model / INDEX)), [[-1.5, -1.5]])


def test_an_index_of_one_array_needs_no_key(model: Path) -> None:
    write_index(model, {"c": shard("two")})
    assert read(model, None).shape == (1, 2)


def test_keys_that_the_index_does_not_have(model: Path) -> None:
    error = refused(model, "aa")
    assert str(error) == f"there is no array 'aa' in '{INDEX}'; it holds 'a', 'b', 'c'"
    assert (error.field, error.help) == ("key", "did you mean 'a'?")
    error = refused(model, None)
    assert str(error) == f"'{INDEX}' holds several arrays: 'a', 'b', 'c'"


def test_a_key_that_its_shard_does_not_have(model: Path) -> None:
    write_index(model, {"a": shard("two")})
    error = refused(model, "a")
    assert str(error) == (f"there is no array 'a' in '{shard('two')}', where '{INDEX}' says it is")
    assert error.field == "key"
    assert not isinstance(error, FileError)  # another array may be sound


def test_a_missing_shard(model: Path) -> None:
    (model / shard("two")).unlink()
    assert np.array_equal(read(model, "a"), ARRAYS["one"]["a"])
    error = refused(model, "c")
    assert str(error) == f"there is no weights file '{shard('two')}' in '{model}'"
    assert isinstance(error, FileError)


@pytest.mark.parametrize("content", [b"", b"abc", b"\x00" * 64])
def test_a_damaged_shard(model: Path, content: bytes) -> None:
    (model / shard("two")).write_bytes(content)
    error = refused(model, "c")
    assert shard("two") in str(error)
    assert isinstance(error, FileError)


@pytest.mark.parametrize(
    "name",
    ["../model-two.safetensors", "/etc/hostname", "sub/model-two.safetensors", "..", "", "w.npz",
     "sub\\model-two.safetensors", "model-two.safetensors/", INDEX],
)  # fmt: skip
def test_shards_lie_beside_their_index(model: Path, name: str) -> None:
    write_index(model, {"c": name})
    error = refused(model, "c")
    assert str(error) == f"'{INDEX}' names a shard '{name}'"
    assert error.help == "a shard is a .safetensors file in the folder of its index"


@pytest.mark.parametrize(
    "name", ["model\0.safetensors", "x" * 300 + ".safetensors", ".safetensors"]
)
def test_shards_of_odd_names(model: Path, name: str) -> None:
    write_index(model, {"c": name})
    assert isinstance(refused(model, "c"), FileError)


def test_a_shard_that_is_a_link_to_the_outside(model: Path) -> None:
    inside = model / "graphs"
    inside.mkdir()
    (model / INDEX).rename(inside / INDEX)
    (inside / shard("two")).symlink_to(model / shard("two"))
    error = refused(inside, "c")
    assert f"'{shard('two')}' is a link to '{model / shard('two')}' and lies outside" in str(error)
    assert np.array_equal(read(inside, "c", root=model), ARRAYS["two"]["c"])


def test_the_cache_of_a_hub(model: Path) -> None:
    """Files have their names only as links; what they lead to is named by its hash."""
    snapshot = model / "snapshots" / "1f"
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir()
    for number, name in enumerate((INDEX, shard("one"), shard("two"))):
        (model / name).rename(model / "blobs" / f"{number:040x}")
        (snapshot / name).symlink_to(f"../../blobs/{number:040x}")
    for name, arrays in ARRAYS.items():
        for key, array in arrays.items():
            assert np.array_equal(read(snapshot, key, model), array)
            assert np.array_equal(read(snapshot, key, model, shard(name)), array)
    assert "lies outside" in str(refused(snapshot))


def test_an_index_outside_the_folder(model: Path) -> None:
    inside = model / "graphs"
    inside.mkdir()
    assert "lies outside" in str(refused(inside, "c", file=f"../{INDEX}"))
    assert np.array_equal(read(inside, "c", model, f"../{INDEX}"), ARRAYS["two"]["c"])


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is damaged: "),
    (b"{", "is damaged: "),
    (b"\xff\xfe\xfd", "is damaged: "),
    (b'{"weight_map": {"a": "x", "a": "x"}}', "the key 'a' is in it twice"),
    (b"[" * 200_000, "it is nested too deeply"),
    (b"1" * 5_000, "is damaged: "),
    (b"null", "it has no object 'weight_map'"),
    (b"[]", "it has no object 'weight_map'"),
    (b"{}", "it has no object 'weight_map'"),
    (b'{"weight_map": ["a"]}', "it has no object 'weight_map'"),
    (b'{"weight_map": {}}', "it names no arrays"),
    (b'{"weight_map": {"a": 1}}', "the file of 'a' is not a text"),
    (b'{"weight_map": {"a": null}}', "the file of 'a' is not a text"),
])  # fmt: skip
def test_a_damaged_index(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / INDEX).write_bytes(content)
    error = refused(tmp_path)
    assert words in str(error)
    assert INDEX in str(error)
    assert isinstance(error, FileError)


def test_an_index_that_is_too_large(model: Path) -> None:
    with (model / INDEX).open("ab") as stream:
        stream.truncate(shards._MAX_BYTES + 1)  # a hole: it takes no disk
    assert "it is larger than 32 MiB" in str(refused(model))


def test_an_index_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / INDEX)
    assert "it is a pipe, not a file" in str(refused(tmp_path))


@pytest.mark.parametrize("name", ["model.index.json", "pytorch_model.bin.index.json", "m.json"])
def test_other_indexes_are_not_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    error = refused(tmp_path, file=name)
    assert str(error) == f"weights file '{name}' has an unknown ending"
    assert ".safetensors.index.json" in error.help


@given(st.data())
def test_any_damaged_byte_of_an_index(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("index")
    save_file(ARRAYS["two"], folder / shard("two"))
    write_index(folder, {"c": shard("two")})
    raw = bytearray((folder / INDEX).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (folder / INDEX).write_bytes(raw)
    with suppress(WeightError):
        assert np.array_equal(read(folder, "c"), ARRAYS["two"]["c"])


def test_an_index_is_read_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = shards.read_file
    monkeypatch.setattr(shards, "read_file", lambda *a: opened.append(a) or original(*a))
    with WeightFiles() as files:
        for key in "abc":
            files.find(model, None, INDEX, key, None)
    assert len(opened) == 1
    opened.clear()
    (model / INDEX).write_text("{")
    with WeightFiles() as files:
        for key in "abc":
            with pytest.raises(FileError):
                files.find(model, None, INDEX, key, None)
    assert len(opened) == 1  # though it is damaged


# In a graph -----------------------------------------------------------------------------------

TEXT = """\
version: 1
dims: {N: 3}
file: model.safetensors.index.json
weights:
  a: {key: a, shape: [2, N], dtype: f32}
  b: {key: b, shape: [N]}
  c: c
nodes: {y: {op: copy, x: a}}
outputs: [y, b, c]
"""


def diagnostics(graph: gx.Graph) -> list[Any]:
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    return list(caught.value.diagnostics)


def test_a_run_with_shards(model: Path) -> None:
    with gx.compile(gx.loads(TEXT, folder=model), device="cpu") as exe:
        out = exe.run()
    assert np.array_equal(out["y"], ARRAYS["one"]["a"])
    assert np.array_equal(out["b"], ARRAYS["one"]["b"])
    assert np.array_equal(out["c"], ARRAYS["two"]["c"])


def test_a_file_that_weights_share_is_said_once_and_at_its_place(tmp_path: Path) -> None:
    (found,) = diagnostics(gx.loads(TEXT, folder=tmp_path))
    assert found.message == f"there is no weights file '{INDEX}' in '{tmp_path}'"
    assert (found.mark.line, found.mark.column) == (3, 7)
    graph = gx.Graph(folder=tmp_path, file=INDEX)
    graph.output(graph.weight("v", key="a"), graph.weight("w", key="b"))
    (found,) = diagnostics(graph)
    assert found.message == f"there is no weights file '{INDEX}' in '{tmp_path}'"


def test_every_shard_and_key_that_is_missing_is_told_at_once(model: Path) -> None:
    write_index(model, {"a": shard("no"), "b": shard("lost"), "c": shard("one"), "d": shard("no")})
    text = TEXT.replace("  c: c\n", "  c: c\n  d: d\n  e: e\n").replace("b, c]", "b, c, d, e]")
    found = diagnostics(gx.loads(text, folder=model))
    places = {(d.mark.line, d.mark.column): d.message.partition(", where")[0] for d in found}
    assert [d.message for d in found[:2]] == [
        f"there is no weights file '{shard(name)}' in '{model}'" for name in ("no", "lost")
    ]
    assert all(d.mark.line == 3 for d in found[:2])
    assert places[7, 6] == f"weight 'c': there is no array 'c' in '{shard('one')}'"
    assert places[9, 6].startswith("weight 'e': there is no array 'e' in")
    assert len(found) == 4


def test_weights_outside_are_counted(model: Path) -> None:
    inside = model / "graphs"
    inside.mkdir()
    text = TEXT.replace(INDEX, f"../{INDEX}")
    (found,) = diagnostics(gx.loads(text, folder=inside))
    assert found.mark.line == 3
    assert "lies outside" in found.message
    assert list(found.notes) == ["2 more weights lie outside of it"]
    assert infer(gx.loads(text, folder=inside, weight_root=model)).weights["c"].key == "c"
