"""GGUF files, written by the package gguf: numbers against float64, and damaged ones."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from frontend.pretrained.reference import LLAMA, Config, decoder_logits, decoder_weights
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import DType, TensorType
from graphexec.cli.app import app
from graphexec.frontend.pretrained import gguf as gguf_weights
from graphexec.frontend.pretrained.gguf import GgufWeights
from graphexec.frontend.pretrained.gguf_header import DamagedHeader, read_header
from graphexec.frontend.weight_paths import WeightError

gguf = pytest.importorskip("gguf", reason="needs pip install gguf")

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "model.embed_tokens": "token_embd",
    "model.norm": "output_norm", "lm_head": "output", "model.layers.": "blk.",
}  # fmt: skip
SMALL = {**LLAMA, "hidden_size": 32, "intermediate_size": 64}  # whole blocks of 32


def renamed(key: str) -> str:
    for old, new in NAMES.items():
        key = key.replace(old, new)
    return key


def write(
    path: Path, config: Config, weights: dict[str, Any], architecture: str = "llama",
    kinds: dict[str, int] | None = None, factor: dict[str, float] | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Write a model; what a reader finds, under the names of Hugging Face. `kinds` are types of
    quantisation by a part of the key. Rows of queries and keys are laid as their pairs are."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(5000)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 5000)
    for key, value in more.items():
        getattr(writer, key)(value)
    for key, value in (factor or {}).items():
        writer.add_float32(key, value)
    found = {}
    for key, array in weights.items():
        if architecture == "llama" and ("q_proj" in key or "k_proj" in key):
            array = interleaved(array, config)
        kind = next((k for part, k in (kinds or {}).items() if part in key), None)
        if kind is None:
            writer.add_tensor(renamed(key), array)
        elif kind == gguf.GGMLQuantizationType.F16:
            array = array.astype(np.float16)
            writer.add_tensor(renamed(key), array)
        else:
            raw = gguf.quantize(array, kind)
            writer.add_tensor(renamed(key), raw, raw_dtype=kind)
            array = gguf.dequantize(raw, kind)
        if architecture == "llama" and ("q_proj" in key or "k_proj" in key):
            array = interleaved(array, config, back=True)
        found[key] = array
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def interleaved(array: Any, config: Config, back: bool = False) -> Any:
    """Rows (heads, halves, D / 2) as (heads, D / 2, halves), as llama.cpp's converter lays them."""
    d = config["hidden_size"] // config["num_attention_heads"]
    parts = (-1, d // 2, 2) if back else (-1, 2, d // 2)
    return array.reshape(*parts, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape).copy()


def check(path: Path, config: Config, weights: dict[str, Any]) -> None:
    """Two steps of the model against float64."""
    with gx.compile(gx.load(path), device="cpu") as exe:
        exe.run(ids=np.array([[4, 9]], np.int32))
        found = exe.run(ids=np.array([[31, 2, 2]], np.int32))["logits"]
    right = decoder_logits(config, weights, np.array([[4, 9, 31, 2, 2]]))
    np.testing.assert_allclose(found, right, atol=2e-5 * np.abs(right).max())


Q = gguf.GGMLQuantizationType


@pytest.mark.parametrize(
    "kinds",
    [{}, {"mlp": Q.F16, "embed": Q.BF16}, {"proj": Q.Q8_0}, {"proj": Q.Q4_0, "embed": Q.Q5_1}],
    ids=["f32", "halves", "8 bits", "4 bits"],
)
def test_llama(tmp_path: Path, kinds: dict[str, Any]) -> None:
    weights = write(tmp_path / "m.gguf", SMALL, decoder_weights(SMALL), kinds=kinds)
    check(tmp_path / "m.gguf", SMALL, weights)


def test_tied_and_linear(tmp_path: Path) -> None:
    config = {**SMALL, "tie_word_embeddings": True,
              "rope_scaling": {"type": "linear", "factor": 2.0}}  # fmt: skip
    linear = gguf.RopeScalingType.LINEAR
    weights = write(tmp_path / "m.gguf", config, decoder_weights(config),
                    add_rope_scaling_type=linear, add_rope_scaling_factor=2.0)  # fmt: skip
    check(tmp_path / "m.gguf", config, weights)


@pytest.mark.parametrize("key", ["llama.rope.scaling.factor", "llama.rope.scale_linear"])
def test_a_factor_alone_is_linear(tmp_path: Path, key: str) -> None:
    config = {**SMALL, "rope_scaling": {"type": "linear", "factor": 2.0}}
    weights = write(tmp_path / "m.gguf", config, decoder_weights(config), factor={key: 2.0})
    check(tmp_path / "m.gguf", config, weights)


def test_a_window(tmp_path: Path) -> None:
    config = {**SMALL, "sliding_window": 3}
    weights = write(tmp_path / "m.gguf", config, decoder_weights(config), add_sliding_window=3)
    check(tmp_path / "m.gguf", config, weights)


def test_arrays_that_nothing_would_read(tmp_path: Path) -> None:
    """They say that the model is another one."""
    more = {f"blk.{i}.attn_q_norm.weight": np.ones(8, np.float32) for i in range(9)}
    write(tmp_path / "m.gguf", SMALL, {**decoder_weights(SMALL), **more})
    with pytest.raises(gx.GraphError, match=r"does not have: 'blk\.0\.attn_q_norm.* and 1 more"):
        gx.load(tmp_path / "m.gguf")


def test_frequencies_that_are_divided(tmp_path: Path) -> None:
    """Llama 3.1 in GGUF: factors in an array of their own."""
    config = {**SMALL, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}}  # fmt: skip
    from frontend.pretrained.reference import frequencies

    plain = {**config, "rope_scaling": None}
    factors = (frequencies(plain) / frequencies(config)).astype(np.float32)
    given = {**decoder_weights(config), "rope_freqs.weight": factors}
    weights = write(tmp_path / "m.gguf", config, given)
    check(tmp_path / "m.gguf", config, weights)


def test_qwen2(tmp_path: Path) -> None:
    weights = decoder_weights(SMALL, biased=("q_proj", "k_proj", "v_proj"))
    write(tmp_path / "m.gguf", SMALL, weights, "qwen2")
    check(tmp_path / "m.gguf", SMALL, weights)


@pytest.mark.parametrize(
    ("architecture", "more", "told"),
    [
        ("gpt2", {}, ["architecture 'gpt2'", "known: llama, qwen2"]),
        ("llama", {"add_expert_count": 8}, ["a mixture of experts"]),
        ("llama", {"add_key_length": 8, "add_value_length": 16, "add_expert_count": 8},
         ["keys and values of different sizes", "experts"]),
        ("llama", {"add_rope_scaling_type": gguf.RopeScalingType.YARN},
         ["rope.scaling.type is 'yarn'", "known: 'none', 'linear'"]),
        ("llama", {"factor": {"llama.attention.sliding_window": 2.5,
                              "llama.attn_logit_softcapping": 30.0}},
         ["sliding_window is 2.5; expected a number from 1",
          "llama.attn_logit_softcapping is not supported"]),
        ("llama", {"add_causal_attention": False}, ["llama.attention.causal is False"]),
        ("qwen2", {}, ["there is no array 'blk.0.attn_q.bias'"]),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_told_at_once(
    tmp_path: Path, architecture: str, more: dict[str, Any], told: list[str]
) -> None:
    write(tmp_path / "m.gguf", SMALL, decoder_weights(SMALL), architecture, **more)
    ran = CliRunner().invoke(app, ["check", str(tmp_path / "m.gguf")])
    assert ran.exit_code == 2, ran.output
    for part in told:
        assert part in ran.output


def test_a_tensor_of_the_wrong_shape_or_missing(tmp_path: Path) -> None:
    weights = decoder_weights(SMALL)
    weights["model.layers.1.mlp.up_proj.weight"] = np.ones((63, 32), np.float32)
    del weights["model.layers.2.input_layernorm.weight"]
    write(tmp_path / "m.gguf", SMALL, weights)
    ran = CliRunner().invoke(app, ["check", str(tmp_path / "m.gguf")])
    assert ran.exit_code == 2, ran.output
    assert "there is no array 'blk.2.attn_norm.weight'" in ran.output
    assert "[63, 32]" in ran.output


def test_weights_of_a_graph(tmp_path: Path) -> None:
    """A YAML file may name one; numbers of a stated dtype."""
    write(tmp_path / "m.gguf", SMALL, decoder_weights(SMALL), kinds={"mlp": Q.Q8_0})
    (tmp_path / "g.yaml").write_text(
        "version: 1\nfile: m.gguf\nweights: {w: blk.0.ffn_up.weight}\nweight_dtype: bf16\n"
        "nodes: {y: {op: copy, x: w, dtype: f32}}\noutputs: {y: y}\n"
    )
    with gx.compile(gx.load(tmp_path / "g.yaml"), device="cpu") as exe:
        found = exe.run()["y"]
    file = GgufWeights(tmp_path / "m.gguf")
    wide = file.fetch("blk.0.ffn_up.weight", TensorType((64, 32), DType.F32))
    np.testing.assert_array_equal(found, wide.astype(DType.BF16.numpy()).astype(np.float32))


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.Q8_0, Q.Q4_0])
def test_pieces_are_the_whole(tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {} if kind == Q.F32 else {"mlp": kind}
    write(tmp_path / "m.gguf", SMALL, decoder_weights(SMALL), kinds=kinds)
    monkeypatch.setattr(gguf_weights, "_PIECE", 200)
    file = GgufWeights(tmp_path / "m.gguf")
    for key in file.keys:
        shape, dtype = file.describe(key)
        type = TensorType(shape, DType.F16 if dtype == np.float16 else DType.F32)
        pieces = list(file.pieces(key, type))
        assert max(piece.size for piece in pieces) <= 200
        np.testing.assert_array_equal(np.concatenate(pieces).reshape(shape), file.fetch(key, type))


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", SMALL, decoder_weights(SMALL))
    file = GgufWeights(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"")
    type = TensorType((50, 32), DType.F32)
    for read in (file.fetch, lambda *of: next(file.pieces(*of))):
        with pytest.raises(WeightError, match="changed while it was in use"):
            read("token_embd.weight", type)


PEAK = """if True:
    import sys
    from graphexec.cli.app import app
    app(["import", sys.argv[1], "-o", sys.argv[2]], standalone_mode=False)
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""  # of this process alone: what wait4 tells has its parent's memory in it


def test_an_import_takes_little_memory(tmp_path: Path) -> None:
    """Half of a file of one large matrix, beside what the import of a small one takes."""
    large = {**SMALL, "vocab_size": 1 << 20, "tie_word_embeddings": True}  # 128 MiB
    peaks = []
    for name, config in (("small", SMALL), ("large", large)):
        path = tmp_path / f"{name}.gguf"
        write(path, config, decoder_weights(config))
        ran = subprocess.run([sys.executable, "-c", PEAK, path, tmp_path / name],
                             check=True, capture_output=True, text=True)  # fmt: skip
        peaks.append(int(ran.stdout.split()[-2]) * 1024)
    assert peaks[1] - peaks[0] < path.stat().st_size / 2


def test_imported_it_runs_the_same(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", SMALL, decoder_weights(SMALL), kinds={"proj": Q.Q8_0})
    ran = CliRunner().invoke(
        app, ["import", str(tmp_path / "m.gguf"), "-o", str(tmp_path / "out"), "--dtype", "f16"]
    )
    assert ran.exit_code == 0, ran.output
    (written,) = (tmp_path / "out").glob("*.yaml")
    one, other = gx.load(tmp_path / "m.gguf", dtype="f16"), gx.load(written)
    ids = np.array([[4, 9, 1]], np.int32)
    found = []
    for graph in (one, other):
        with gx.compile(graph, device="cpu") as exe:
            found.append(exe.run(ids=ids)["logits"])
    np.testing.assert_array_equal(*found)
    other.weight_file, other.weight_dtype = one.weight_file, one.weight_dtype
    assert one == other


# Damaged files ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write(path, SMALL, decoder_weights(SMALL), kinds={"mlp": Q.Q8_0})
    return path.read_bytes()


def tried(path: Path) -> str:
    """Check the file as a user would: an error or not, but none of graphexec."""
    ran = CliRunner().invoke(app, ["check", str(path)])
    assert ran.exit_code in (0, 2), ran.output
    assert "internal error" not in ran.output
    return ran.output


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = data.draw(st.just(_whole(tmp_path_factory)))
    head = whole.index(b"blk.2.ffn_norm") + 200  # past the counts, keys and most infos
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, 200), st.integers(0, head)))
        changed[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1]))
    if data.draw(st.booleans()):
        changed = changed[: data.draw(st.integers(0, len(changed)))]
    path = tmp_path_factory.mktemp("damaged") / "m.gguf"
    path.write_bytes(changed)
    tried(path)


_KEPT: list[bytes] = []


def _whole(folders: pytest.TempPathFactory) -> bytes:
    if not _KEPT:
        path = folders.mktemp("whole") / "m.gguf"
        write(path, SMALL, decoder_weights(SMALL), kinds={"mlp": Q.Q8_0})
        _KEPT.append(path.read_bytes())
    return _KEPT[0]


def head(tensors: int = 0, pairs: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


NESTED = text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 8 + b"\0" * 64


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot read|no GGUF"), (b"GGML", "does not begin with GGUF"),
        (b"GGUF", "ends within its header"),
        (head(version=1), "its version is 1"), (head(version=3 << 24), "big-endian"),
        (head(tensors=2**60), "counts 1152921504606846976 things"),
        (head(pairs=2**60), "counts 1152921504606846976 things"),
        (head(0, 1, text("a") + struct.pack("<IIQ", 9, 4, 2**60)), "counts"),
        (head(0, 1, text("a") + struct.pack("<IIQ", 9, 8, 2**60)), "counts"),
        (head(0, 1, text("a") + struct.pack("<I", 99)), "unknown type 99"),
        (head(0, 1, NESTED), "nested too deeply"),
        (head(0, 1, struct.pack("<Q", 2**63) + b"a" * 8), "ends within"),
        (head(0, 1, struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe" + b"\0" * 20), "not UTF-8"),
        (head(0, 2, (text("a") + struct.pack("<IB", 0, 1)) * 2), "is in it twice"),
        (head(0, 1, text("general.alignment") + struct.pack("<II", 4, 7)), "alignment is 7"),
        (head(1, 0, text("t") + struct.pack("<I", 2**31) + b"\0" * 64), "has 2147483648 axes"),
        (head(1, 0, text("t") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0)), "has the shape"),
    ],
)  # fmt: skip
def test_headers_of_other_files(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(WeightError, match=told):
        GgufWeights(tmp_path / "m.gguf")
    tried(tmp_path / "m.gguf")


def test_a_tensor_past_the_end(tmp_path: Path) -> None:
    info = text("t") + struct.pack("<IQQIQ", 2, 1 << 20, 1 << 20, 0, 0)
    (tmp_path / "m.gguf").write_bytes(head(1, 0, info))
    with pytest.raises(WeightError, match="ends before its tensor 't' does"):
        GgufWeights(tmp_path / "m.gguf").describe("t")


def test_long_arrays_are_stepped_over(data: bytes) -> None:
    header = read_header(memoryview(data))
    assert "tokenizer.ggml.tokens" not in header.values
    assert header.values["llama.block_count"] == 3
    with pytest.raises(DamagedHeader, match="ends within"):
        read_header(memoryview(data[:100]))


def test_it_reads_what_the_package_reads(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    file, reader = GgufWeights(tmp_path / "m.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    assert list(file.keys) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        shape, dtype = file.describe(tensor.name)
        found = file.fetch(tensor.name, TensorType(shape, DType(f"f{dtype.itemsize * 8}")))
        np.testing.assert_array_equal(found, gguf.dequantize(tensor.data, tensor.tensor_type))
