"""Text from SmolLM2, as it comes: python docs/examples/generate.py "Why is the sky blue?"

Needs pip install tokenizers, and the weights and the tokenizer that scripts/make_decoder writes.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import graphexec as gx

GRAPHS = Path(__file__).resolve().parents[2] / "graphs"
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
END = 2  # <|im_end|>
AT_ONCE = 8  # tokens that the device makes before the host looks at them


def generate(exe: gx.Executable, prompt: list[int], count: int) -> Iterator[list[int]]:
    """Up to `count` tokens after the prompt, greedily, some at a time; ends after END."""
    exe.reset()
    token = exe.run(ids=np.array([prompt], np.int32))["token"]
    made, found = 1, token[0].tolist()
    yield found
    while made < count and END not in found:
        if made == 1:  # this run is what replay repeats
            exe.run(ids=np.array([[-1]], np.int32))
            more = 1
        else:
            more = min(AT_ONCE, count - made)
            exe.replay(more)
        first = len(prompt) - 1 + made
        found = exe.state["tokens"][0, first : first + more].tolist()
        if END in found:
            found = found[: found.index(END) + 1]
        made += more
        yield found


def main() -> None:
    """The program."""
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("-n", type=int, default=100, help="how many tokens at most")
    parser.add_argument("--device", choices=("cpu", "hip"), default="cpu")
    parser.add_argument("--graph", type=Path, default=GRAPHS / "smollm2.yaml")
    options = parser.parse_args()
    words = Tokenizer.from_file(str(options.graph.with_suffix(".tokenizer.json")))
    prompt = words.encode(CHAT.format(options.prompt)).ids
    with gx.compile(gx.load(options.graph), device=options.device) as exe:
        tokens: list[int] = []
        start = time.perf_counter()
        for found in generate(exe, prompt, options.n):
            if len(tokens) < 2:
                start, before = time.perf_counter(), len(tokens) + len(found)
            shown = words.decode(tokens)
            tokens += found
            print(words.decode(tokens)[len(shown) :], end="", flush=True)
        rate = (len(tokens) - before) / (time.perf_counter() - start)
    print(f"\n{len(tokens)} tokens, {rate:.1f} tokens per second")


if __name__ == "__main__":
    main()
