"""The Llama family as YAML: what differs between its models, and the text for one of them.

RMS norms before attention and before a gated MLP, rotary positions, grouped heads of keys and
values (Touvron et al. 2023, arXiv:2302.13971; Jiang et al. 2023, arXiv:2310.06825; Yang et al.
2024, arXiv:2407.10671). Keys and values are state, and so are the last token and all that were
generated: a run is a step, and can be replayed on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import pi

from graphexec.frontend.yaml.write import flow

ROOM = 2048
"""Tokens that there is room for, unless the model knows fewer or -D C says so."""


@dataclass(frozen=True)
class Scaling:
    """Frequencies that are lowered for longer texts: all of them by `factor`, or, with `low`, those
    of waves that do not turn `low` times in `context` tokens, and those that turn between `low` and
    `high` times in part (Llama 3.1)."""

    factor: float
    low: float = 0.0
    high: float = 0.0
    context: int = 0


@dataclass(frozen=True)
class Keys:
    """What the arrays of a model are called; those from `q` on stand after `layer`."""

    words: str
    end: str
    head: str
    layer: str
    q: str
    k: str
    v: str
    o: str
    gate: str
    up: str
    down: str
    before: str
    after: str


GGUF = Keys(
    "token_embd.weight", "output_norm.weight", "output.weight", "blk.{i}.",
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
    "attn_norm.weight", "ffn_norm.weight",
)  # fmt: skip
HUGGING_FACE = Keys(
    "embed_tokens.weight", "norm.weight", "lm_head.weight", "layers.{i}.",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    "input_layernorm.weight", "post_attention_layernorm.weight",
)  # fmt: skip


PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class Decoder:
    """A model: `dims` L, E, G, R, D, F and V as in the YAML. `biases` names those of q, k, v, o,
    gate, up and down that add one. `factors` is the key of an array by which frequencies are
    divided."""

    name: str
    file: str
    source: str
    keys: Keys
    dims: Mapping[str, int]
    context: int
    eps: float
    theta: float
    tied: bool
    pairs: str = "halves"
    rotate: int | None = None
    scaling: Scaling | None = None
    factors: str = ""
    window: int | None = None
    biases: frozenset[str] = frozenset()

    def text(self, dtype: str) -> str:
        """The YAML, with weights and states in `dtype`."""
        return "".join(f"{line}\n" for line in _Text(self, dtype).lines())

    def arrays(self) -> set[str]:
        """The keys of all that it reads."""
        keys = self.keys
        found = {keys.words, keys.end, *([] if self.tied else [keys.head])}
        found |= {self.factors} if self.factors else set()
        inner = [keys.before, keys.after]
        inner += [f"{getattr(keys, part)}.weight" for part in PROJECTIONS]
        inner += [f"{getattr(keys, part)}.bias" for part in self.biases]
        layers = (keys.layer.replace("{i}", str(i)) for i in range(self.dims["L"]))
        return found | {layer + key for layer in layers for key in inner}


class _Text:
    def __init__(self, model: Decoder, dtype: str) -> None:
        self.model, self.dtype = model, dtype
        self.tables = model.scaling is not None or bool(model.factors)

    def lines(self) -> Iterator[str]:
        model, keys = self.model, self.model.keys
        dims = {"B": 1, "S": 1, "C": min(model.context, ROOM), **model.dims}
        yield f"# {model.source}. A run is a step: a prompt first, then one token after another."
        yield "# G heads of keys and values, R queries for each, of D features; room for C tokens."
        yield "version: 1"
        yield f"name: {flow(model.name)}"
        yield f"dims: {flow(dims)}"
        yield f"consts: {flow({'theta': model.theta, 'eps': model.eps})}"
        yield f"file: {flow(model.file)}"
        yield f"weight_dtype: {self.dtype}"
        yield "inputs: {ids: {shape: [B, S], dtype: i32}}  # below 0: the token of the last step"
        yield "weights:"
        yield f"  words: {{key: {flow(keys.words)}, shape: [V, E]}}"
        yield f"  ge: {{key: {flow(keys.end)}, shape: [E]}}"
        if not model.tied:
            yield f"  head: {{key: {flow(keys.head)}, shape: [V, E]}}"
        if model.factors:
            yield f"  factors: {{key: {flow(model.factors)}, shape: [{self.half}]}}"
        yield "state:"
        yield "  n: {shape: [], dtype: i32, next: n + S}   # how many tokens were seen"
        yield "  last: {shape: [B, 1], dtype: i32, next: token}"
        yield "  tokens: {shape: [B, C], dtype: i32, init: -1, next: generated}"
        yield "blocks:"
        yield "  layer:"
        yield from (f"    {line}" for line in self.layer())
        yield "nodes:"
        yield from (f"  {line}" for line in self.nodes())
        yield "outputs: {logits: logits, token: token}"

    def layer(self) -> Iterator[str]:
        keys = self.model.keys
        yield f"inputs: [x, n{', place, cos, sin' * self.tables}]"
        yield f"prefix: {flow(keys.layer)}"
        yield "weights:"
        shapes = {
            "q": "[G * R * D, E]", "k": "[G * D, E]", "v": "[G * D, E]", "o": "[E, G * R * D]",
            "gate": "[F, E]", "up": "[F, E]", "down": "[E, F]",
        }  # fmt: skip
        for name, shape in shapes.items():
            key = getattr(keys, name)
            yield f"  {_WEIGHT[name]}: {{key: {flow(key + '.weight')}, shape: {shape}}}"
            if name in self.model.biases:
                rows = f"{shape.partition(',')[0]}]"
                yield f"  {_BIAS[name]}: {{key: {flow(key + '.bias')}, shape: {rows}}}"
        yield f"  g1: {{key: {flow(keys.before)}, shape: [E]}}"
        yield f"  g2: {{key: {flow(keys.after)}, shape: [E]}}"
        yield "state:"
        for name, next_ in (("keys", "k"), ("values", "v")):
            yield f"  {name}: {{shape: [B, G, 1, C, D], dtype: {self.dtype}, next: {next_}}}"
        yield "nodes:"
        yield "  h: {op: norm, kind: rms, x: x, weight: g1, eps: eps}"
        yield f"  q0: {self.product('h', 'q')}"
        yield f"  k0: {self.product('h', 'k')}"
        yield f"  v0: {self.product('h', 'v')}"
        yield "  q1: {op: copy, x: q0, axes: B S (G R D) -> B G R S D}"
        yield "  k1: {op: copy, x: k0, axes: B S (G 1 D) -> B G 1 S D}"
        yield "  v1: {op: copy, x: v0, axes: B S (G 1 D) -> B G 1 S D}"
        yield f"  q: {self.rope('q1')}"
        yield f"  k2: {self.rope('k1')}"
        yield "  k: {op: append, into: keys, x: k2, at: n, axis: 3}"
        yield "  v: {op: append, into: values, x: v1, at: n, axis: 3}"
        window = f", window: {self.model.window}" if self.model.window else ""
        yield ("  a: {op: attention, q: q, k: k, v: v, at: n, causal: true, scale: D ** -0.5"
               f"{window}}}")  # fmt: skip
        yield "  c: {op: copy, x: a, axes: B G R S D -> B S (G R D)}"
        yield f"  r: x + {self.product('c', 'o')}"
        yield "  m: {op: norm, kind: rms, x: r, weight: g2, eps: eps}"
        yield f"  gate: {self.product('m', 'gate')}"
        yield f"  up: {self.product('m', 'up')}"
        yield "  s: silu(gate) * up"
        yield f"  next: r + {self.product('s', 'down')}"
        yield "outputs: {x: next}"

    def product(self, x: str, name: str) -> str:
        bias = f" + {_BIAS[name]}" if name in self.model.biases else ""
        return f"{x} @ T({_WEIGHT[name]}){bias}"

    def rope(self, x: str) -> str:
        rotate = f", rotate: {self.model.rotate}" if self.model.rotate else ""
        angles = "position: place, cos: cos, sin: sin" if self.tables else "at: n, theta: theta"
        return f"{{op: rope, x: {x}, {angles}, pairs: {self.model.pairs}{rotate}}}"

    def nodes(self) -> Iterator[str]:
        yield 't: "where(ids < 0, last, ids)"'
        yield "x0: {op: gather, x: words, index: t}"
        yield from self.angles()
        tables = ", place: place, cos: cos, sin: sin" if self.tables else ""
        yield f"trunk: {{block: layer, x: x0, n: n{tables}, repeat: L}}"
        yield "end: {op: copy, x: trunk, slice: {1: [S - 1, S]}}"
        yield "row: {op: copy, x: end, reshape: [B, E]}"
        yield "e: {op: norm, kind: rms, x: row, weight: ge, eps: eps}"
        head = "words" if self.model.tied else "head"
        wide = "" if self.dtype == "f32" else ", out_dtype: f32"
        yield f"logits: {{op: gemm, a: e, b: {head}, trans_b: true{wide}}}"
        yield "best: {op: reduce, kind: argmax, x: logits, axis: -1, keep: true}"
        yield "token: {op: copy, x: best, dtype: i32}"
        yield "at: n + S - 1"
        yield "generated: {op: append, into: tokens, x: token, at: at, axis: 1}"

    @property
    def half(self) -> str:
        return f"{self.model.rotate} // 2" if self.model.rotate else "D // 2"

    def angles(self) -> Iterator[str]:
        """Tables of the positions of the step, where frequencies are not those of theta alone."""
        if not self.tables:
            return
        scaling, size = self.model.scaling, self.model.rotate or "D"
        yield "place: {op: map, expr: index(0), shape: [S]}      # in the tables of this step"
        yield f"f: {self.table(f'theta ** (-2.0 * index(0) / {size})', f'{self.half}')}"
        last = "f"
        if scaling is not None and scaling.high:
            turns = f"f * {scaling.context / (2 * pi)!r}"
            span = scaling.high - scaling.low
            yield f'kept: "clip(({turns} - {scaling.low!r}) / {span!r}, 0.0, 1.0)"'
            yield f"lowered: f * (kept + (1.0 - kept) / {scaling.factor!r})"
            last = "lowered"
        elif scaling is not None:
            yield f"lowered: f / {scaling.factor!r}"
            last = "lowered"
        if self.model.factors:
            yield f"divided: {last} / factors"
            last = "divided"
        yield f"angle: {self.table(f'(n + index(0)) * {last}', f'S, {self.half}')}"
        yield "cos: cos(angle)"
        yield "sin: sin(angle)"

    def table(self, expr: str, shape: str) -> str:
        return f'{{op: map, expr: "{expr}", shape: [{shape}], dtype: f32}}'


_WEIGHT = {"q": "wq", "k": "wk", "v": "wv", "o": "wo", "gate": "wg", "up": "wu", "down": "wd"}
_BIAS = {name: f"b{weight[1]}" for name, weight in _WEIGHT.items()}
