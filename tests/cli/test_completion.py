"""Completion in bash, zsh and fish: what the program answers to the functions of the shells."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PROGRAM

from graphexec.cli.app import app

GRAPH = """\
version: 1
dims: {Rows: 6, Cols: 4}
inputs:
  left: {shape: [Rows, Cols], dtype: f32}
  lower: {shape: [Rows, Cols], dtype: f32}
nodes:
  product: {op: gemm, a: left, b: lower, trans_b: true}
  prob: {op: softmax, x: product}
outputs: {answer: prob}
"""


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`answer(shell, "run", "g.yaml", "")` has the completions of the last word."""
    (tmp_path / "g.yaml").write_text(GRAPH)
    monkeypatch.chdir(tmp_path)

    def answer(shell: str, *words: str) -> list[str]:
        place = words[-1] if shell == "fish" else str(len(words))
        shown = " ".join(["graphexec", *words])
        env = {"COMP_WORDS": shown, "COMP_CWORD": place, "_GRAPHEXEC_COMPLETE": f"{shell}_complete"}
        done = CliRunner().invoke(app, prog_name="graphexec", env=env,
                                  complete_var="_GRAPHEXEC_COMPLETE")  # fmt: skip
        lines = done.stdout.rstrip("\n").splitlines()
        if shell == "zsh":  # three lines an answer: its kind, itself, its help
            return [f"{kind},{text}" for kind, text in zip(lines[::3], lines[1::3], strict=True)]
        return [line.partition("\t")[0] for line in lines]

    return answer


SHELLS = ("bash", "zsh", "fish")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("words", "found"), [
    (("plan", "g."), ["file,g."]),
    (("check", "res"), ["file,res"]),
    (("explain", "g.yaml", "pro"), ["plain,product", "plain,prob"]),
    (("explain", "g.yaml", "a"), ["plain,answer"]),
    (("ops", "so"), ["plain,softmax"]),
    (("run", "g.yaml", "--no-rewrite", "a"), ["plain,accumulate-in-place", "plain,all"]),
    (("tune", "g.yaml", "--rewrite", "fold"),
     ["plain,fold-biases", "plain,fold-casts", "plain,fold-copies"]),
    (("explain", "none.yaml", "pro"), []),
    (("run", "g.yaml", "-i", "x.np"), ["file,x.np"]),
])  # fmt: skip
def test_what_is_completed(
    answer: Any, shell: str, words: tuple[str, ...], found: list[str]
) -> None:
    assert sorted(answer(shell, *words)) == sorted(found)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_settings_are_completed_as_one_word(answer: Any, shell: str) -> None:
    assert answer(shell, "run", "g.yaml", "-D", "R") == ["plain,Rows=6"]
    assert answer(shell, "run", "g.yaml", "-i", "lower=z") == ["plain,lower=zeros"]


def test_bash_completes_what_follows_an_equals_sign(answer: Any) -> None:
    assert answer("bash", "run", "g.yaml", "-i", "lower", "=", "o") == ["plain,ones"]
    assert answer("bash", "run", "g.yaml", "-i", "lower", "=") == [
        f"plain,{made}" for made in ("zeros", "ones", "arange", "full:", "randn:", "randint:")
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself(answer: Any, tmp_path: Path) -> None:
    env = {**os.environ, "_GRAPHEXEC_COMPLETE": "bash_source"}
    script = subprocess.run([PROGRAM], env=env, capture_output=True, text=True, check=True).stdout
    asked = f"""{script}
PATH={PROGRAM.parent}:$PATH
COMP_WORDS=(graphexec explain g.yaml prod); COMP_CWORD=3
_graphexec_completion graphexec prod g.yaml
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "product", done.stderr
