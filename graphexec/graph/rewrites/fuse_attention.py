"""fuse-attention: gemm, softmax, gemm become one attention, whose scores are never stored.

The pattern:

    scores = alpha · q · kᵀ [+ mask]      gemm
    probs  = softmax(scores)              with scale, causal or a mask
    ctx    = probs · v                    gemm

Casts may stand between the three. The attention is made when

1. the device does it as one command; it is asked about the kernel for dense operands,
2. the tensors in between have no other reader, are no outputs and have no `after` edge,
3. what the three compute is an attention: the softmax runs along the keys, ctx is the plain
   product, at most one addend joins the scores, with factor 1,
4. the scores have the batch axes of ctx, so that none are computed more than once.

The node has the name of the last one that it replaces and keeps its `after` edges. Values change by
rounding only: sums and scores stay in the wide type (after Dao et al. 2022, arXiv:2205.14135).
Copies before and after it are left to fold-copies and permuted-results, as with any op.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphexec.base.tensor import DType
from graphexec.graph.rewrites.readers import Readers, quoted
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.ops.attention import LARGEST_HEAD, OP


class _No(Exception):
    """The pattern is there, but a condition does not hold."""


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with every attention as one node."""
    if not any(node.op.name == "softmax" for node in graph.nodes):
        return graph, ()
    return _Fusing(graph, target).run()


@dataclass(frozen=True)
class _Site:
    """A gemm of a softmax of a gemm; `between` names all nodes but the last, in order."""

    scores: TypedNode
    probs: TypedNode
    ctx: TypedNode
    between: tuple[str, ...]

    def all(self) -> tuple[str, ...]:
        return (*self.between, self.ctx.name)


class _Fusing:
    def __init__(self, graph: TypedGraph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.types, self.readers = graph.types(), Readers(graph)
        self.nodes = {node.name: node for node in graph.nodes}

    def run(self) -> tuple[TypedGraph, tuple[Note, ...]]:
        notes: list[Note] = []
        for node in self.graph.nodes:
            site = self.site(node)
            if site is None:
                continue
            try:
                self.nodes[node.name] = self.fused(site)
            except _No as reason:
                text = f"{quoted(site.all())} stay apart: {reason}"
                notes.append(Note(site.all(), text, applied=False))
                continue
            for name in site.between:
                del self.nodes[name]
            text = f"{quoted(site.all())} became the attention '{node.name}'"
            notes.append(Note(site.all(), text))
        if not any(note.applied for note in notes):
            return self.graph, tuple(notes)
        return replace(self.graph, nodes=tuple(self.nodes.values())), tuple(notes)

    def site(self, ctx: TypedNode) -> _Site | None:
        """The site whose last gemm is `ctx`."""
        if ctx.op.name != "gemm":
            return None
        behind, probs = self.before_casts(ctx.operands["a"])
        if probs is None or probs.op.name != "softmax":
            return None
        before, scores = self.before_casts(probs.operands["x"])
        if scores is None or scores.op.name != "gemm":
            return None
        return _Site(scores, probs, ctx, (scores.name, *before, probs.name, *behind))

    def before_casts(self, name: str) -> tuple[list[str], TypedNode | None]:
        """The chain of casts that ends in a tensor, and the node that made the first operand."""
        casts: list[str] = []
        node = self.nodes.get(name)
        while node is not None and _only_casts(node):
            casts.insert(0, node.name)
            node = self.nodes.get(node.operands["x"])
        return casts, node

    def fused(self, site: _Site) -> TypedNode:
        """The attention of a site; _No where a condition does not hold."""
        scores, probs, ctx = site.scores, site.probs, site.ctx
        self.check_types(site, LARGEST_HEAD)
        for name in site.between:  # 2
            if self.readers.only(name) is None:
                raise _No(self.readers.why_not_alone(name))
        _check_sense(site)
        names = {"q": scores.operands["a"], "k": scores.operands["b"], "v": ctx.operands["b"]}
        names |= _addend(site)
        attrs = {a.name: a.default for a in OP.attributes} | {
            "scale": float(scores.attrs["alpha"]) * float(probs.attrs["scale"]),
            "causal": probs.attrs["causal"],
            "trans_q": scores.attrs["trans_a"],
            "trans_k": not scores.attrs["trans_b"],
            "trans_v": ctx.attrs["trans_b"],
            "out_dtype": ctx.type.dtype,
        }
        types = {key: self.types[name] for key, name in names.items()}
        type = OP.infer(types, attrs)
        answer = self.target.support(OP.fused(types, attrs, type))  # 1
        if answer.refused:
            of = types["q"].dtype
            raise _No(f"attention of {of} is not one command here; {answer.why}")
        return replace(ctx, op=OP, operands=names, attrs=attrs, type=type)

    def check_types(self, site: _Site, largest: int) -> None:
        q, v = self.types[site.scores.operands["a"]], self.types[site.ctx.operands["b"]]
        if v.dtype is not q.dtype:
            raise _No(f"the keys are {q.dtype} and the values {v.dtype}")
        if q.dtype is not DType.F64 and any(
            self.types[name].dtype is DType.F64 for name in site.between
        ):
            raise _No(f"the scores are f64, but sums of {q.dtype} are kept in f32")
        head = q.shape[-2 if site.scores.attrs["trans_a"] else -1]
        if max(head, site.ctx.type.shape[-1]) > largest:
            raise _No(f"a head of more than {largest} elements does not fit a block")


def _check_sense(site: _Site) -> None:
    """Conditions 3, but for the addend, and 4."""
    scores, probs, ctx = site.scores, site.probs, site.ctx
    if probs.attrs["axis"] % len(probs.type.shape) != len(probs.type.shape) - 1:
        raise _No(f"'{probs.name}' does not run along the keys")
    if ctx.attrs["trans_a"]:
        raise _No(f"'{ctx.name}' takes the probabilities transposed")
    if float(ctx.attrs["alpha"]) != 1.0 or _addends(ctx):
        raise _No(f"'{ctx.name}' does more than multiply")
    if ctx.type.shape[:-2] != scores.type.shape[:-2]:
        raise _No(f"'{ctx.name}' uses the scores for several batch entries")


def _addends(gemm: TypedNode) -> dict[str, float]:
    """What is added to the product of a gemm, and with which factor."""
    beta = 1.0 if gemm.attrs["beta"] is None else float(gemm.attrs["beta"])
    factors = {"c": beta, "bias": 1.0}
    return {k: f for k, f in factors.items() if k in gemm.operands and f != 0.0}


def _addend(site: _Site) -> dict[str, str]:
    """The operand `mask` of the attention, if there is one."""
    scale = float(site.probs.attrs["scale"])
    found = [(site.scores.operands[k], f * scale) for k, f in _addends(site.scores).items()]
    if "mask" in site.probs.operands:
        found.append((site.probs.operands["mask"], 1.0))
    if len(found) > 1:
        raise _No("more than one tensor is added to the scores")
    for name, factor in found:
        if factor != 1.0:
            raise _No(f"'{name}' is added to the scores with a factor other than 1")
        return {"mask": name}
    return {}


def _only_casts(node: TypedNode) -> bool:
    """Whether a node is a copy that does nothing but cast."""
    others = ("to", "permute", "reshape", "axes", "slice")
    return node.op.name == "copy" and all(node.attrs[key] is None for key in others)


REWRITE = GraphRewrite(
    "fuse-attention", "makes gemm, softmax, gemm one command that keeps no scores", rewrite
)
