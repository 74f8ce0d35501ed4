"""fuse-attention: gemm, softmax, gemm become one attention, whose scores never lie in memory.

The pattern, with what may stand in it:

    scores = alpha · q · kᵀ [+ mask]      gemm
    probs  = softmax(scores)              with scale, causal or a mask
    ctx    = probs · v                    gemm

Casts may stand between the three, and copies that permute axes before and after them: the
attention reads and writes through strides instead. It is made when

1. the device computes attention of this type as one command,
2. nobody else reads what lies between, no output shows it and no `after` edge touches it,
3. what the three compute is an attention: the softmax runs along the keys, ctx is the plain
   product, at most one addend joins the scores, with factor 1,
4. the scores have the batch axes of ctx, so that none are computed more than once.

The node is named like the last one that it replaces and keeps its `after` edges. Values change by
rounding only: sums and scores stay in the wide type (after Dao et al. 2022, arXiv:2205.14135).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from graphexec.rewriting import GraphRewrite, Note, Target
from graphexec.tensor import DType
from graphexec.typed import TypedGraph, TypedNode

Axes = tuple[int, ...]


class _No(Exception):
    """The pattern is there, but a condition does not hold."""


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with every attention in one node."""
    notes: list[Note] = []
    for node in graph.nodes:
        site = _Site(graph, node)
        if not site.found:
            continue
        try:
            graph = _replaced(graph, site, target)
            names = ", ".join(f"'{name}'" for name in site.gone)
            text = f"{names} and '{site.last.name}' became the attention '{site.last.name}'"
            notes.append(Note((*site.gone, site.last.name), text))
        except _No as reason:
            text = f"'{site.scores.name}', '{site.probs.name}', '{node.name}' are left: {reason}"
            nodes = (site.scores.name, site.probs.name, node.name)
            notes.append(Note(nodes, text, applied=False))
    return graph, tuple(notes)


class _Site:
    """A gemm of a softmax of a gemm, and what lies between; `found` says whether it is one."""

    def __init__(self, graph: TypedGraph, ctx: TypedNode) -> None:
        self.graph, self.ctx, self.last = graph, ctx, ctx
        self.made = {node.name: node for node in graph.nodes}
        self.types = graph.types()
        self.found = False
        if ctx.op.name != "gemm":
            return
        after_softmax, probs = self._behind_casts(ctx.operands["a"])
        if probs is None or probs.op.name != "softmax":
            return
        before_softmax, scores = self._behind_casts(probs.operands["x"])
        if scores is None or scores.op.name != "gemm":
            return
        self.probs, self.scores, self.found = probs, scores, True
        self.casts = (*before_softmax, *after_softmax)
        self.gone = [scores.name, *before_softmax, probs.name, *after_softmax]

    def _behind_casts(self, name: str) -> tuple[list[str], TypedNode | None]:
        """The casts that made a tensor of another, and the node that made that one."""
        casts: list[str] = []
        node = self.made.get(name)
        while node is not None and _does_only(node, "dtype"):
            casts.insert(0, node.name)
            node = self.made.get(node.operands["x"])
        return casts, node


def _replaced(graph: TypedGraph, site: _Site, target: Target) -> TypedGraph:
    """The graph with one node at a site; _No where a condition does not hold."""
    from graphexec.ops.attention import LARGEST_HEAD, OP  # the node it makes is one of its op

    _check_types(site, target, LARGEST_HEAD)
    _check_private(graph, site)
    _check_sense(site)
    operands = {
        "q": _Operand(site.scores.operands["a"], _turn(site, site.scores, "a", swap=False)),
        "k": _Operand(site.scores.operands["b"], _turn(site, site.scores, "b", swap=True)),
        "v": _Operand(site.ctx.operands["b"], _turn(site, site.ctx, "b", swap=False)),
    }
    attrs = {a.name: a.default for a in OP.attributes} | {
        "scale": float(site.scores.attrs["alpha"]) * float(site.probs.attrs["scale"]),
        "causal": site.probs.attrs["causal"],
        "dtype": site.ctx.type.dtype,
    }
    for name, operand in operands.items():
        operands[name] = found = _through_copies(site, operand)
        plain = found.axes == tuple(range(len(found.axes)))
        attrs[f"permute_{name}"] = None if plain else found.axes
    _take_copy_behind(graph, site, attrs)
    names = {name: operand.tensor for name, operand in operands.items()}
    names |= _addend(site)
    types = {key: site.types[name] for key, name in names.items()}
    node = TypedNode(
        site.last.name, OP, names, attrs, OP.infer(types, attrs), site.last.after, site.last.line
    )
    dropped = _unread(graph, site, node)
    site.gone[:] = [n.name for n in graph.nodes if n.name in dropped]
    nodes = (node if n.name == node.name else n for n in graph.nodes if n.name not in dropped)
    return replace(graph, nodes=tuple(nodes))


# Conditions -----------------------------------------------------------------------------------


def _check_types(site: _Site, target: Target, largest: int) -> None:
    q, v = site.types[site.scores.operands["a"]], site.types[site.ctx.operands["b"]]
    if f"attention:{q.dtype}" not in target.capabilities:
        where = "the CPU" if target.device == "cpu" else "this device"
        help = "" if target.device == "cpu" else (
            "; f16 and bf16 are on AMD and NVIDIA GPUs with Triton: pip install 'graphexec[fused]'"
        )  # fmt: skip
        raise _No(f"attention of {q.dtype} is not one command on {where}{help}")
    if v.dtype is not q.dtype:
        raise _No(f"the keys are {q.dtype} and the values {v.dtype}")
    between = [site.types[name].dtype for name in (*site.casts, site.scores.name)]
    if DType.F64 in between and q.dtype is not DType.F64:
        raise _No(f"the scores are f64, but sums of {q.dtype} are kept in f32")
    head = q.shape[-2 if site.scores.attrs["trans_a"] else -1]
    if max(head, site.ctx.type.shape[-1]) > largest:
        raise _No(f"a head of more than {largest} elements does not fit a block")


def _check_private(graph: TypedGraph, site: _Site) -> None:
    readers = _readers(graph)
    for name in site.gone:
        if name in graph.outputs.values():
            raise _No(f"'{name}' is an output")
        if readers[name] > 1:
            others = [n.name for n in graph.nodes
                      if name in n.operands.values() and n.name not in site.gone]  # fmt: skip
            other = next((o for o in others if o != site.ctx.name), site.ctx.name)
            raise _No(f"'{other}' reads '{name}' too")
        if _has_after(graph, site.made[name]):
            raise _No(f"an `after` edge goes through '{name}'")


def _check_sense(site: _Site) -> None:
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


# Copies before and after ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Operand:
    """A tensor, and the order in which its axes are taken."""

    tensor: str
    axes: Axes


def _turn(site: _Site, gemm: TypedNode, operand: str, swap: bool) -> Axes:
    """The order of axes that makes of a gemm's operand what attention takes."""
    rank = len(site.types[gemm.operands[operand]].shape)
    if gemm.attrs[f"trans_{operand}"] == swap:
        return tuple(range(rank))
    return (*range(rank - 2), rank - 1, rank - 2)


def _through_copies(site: _Site, operand: _Operand) -> _Operand:
    """The tensor that copies, which only permute, have made this one of."""
    node = site.made.get(operand.tensor)
    if node is None or not _does_only(node, "permute") or _has_after(site.graph, node):
        return operand
    source = _permutation(node)
    axes = tuple(source[axis] for axis in operand.axes)
    if len(axes) - 1 not in axes[-2:]:  # nothing would be read side by side
        return operand
    return _through_copies(site, _Operand(node.operands["x"], axes))


def _take_copy_behind(graph: TypedGraph, site: _Site, attrs: dict[str, object]) -> None:
    """Let the attention write what a copy of its result would."""
    ctx = site.ctx
    readers = [n for n in graph.nodes if ctx.name in n.operands.values()]
    if len(readers) != 1 or ctx.name in graph.outputs.values() or _has_after(graph, ctx):
        return
    copy = readers[0]
    if not _does_only(copy, "permute", "reshape", "dtype"):
        return
    axes = _permutation(copy)
    plain = axes == tuple(range(len(axes)))
    if axes[-1] != len(axes) - 1 or (plain and copy.type.dtype is ctx.type.dtype):
        return  # a mere reshape moves no bytes anyway
    attrs["permute"] = None if plain else axes
    attrs["reshape"], attrs["dtype"] = copy.attrs["reshape"], copy.type.dtype
    site.gone.append(ctx.name)
    site.last = copy


def _does_only(node: TypedNode, *what: str) -> bool:
    """Whether a node is a copy within device memory that does these things at most."""
    settings = ("to", "dtype", "permute", "reshape", "slice")
    return node.op.name == "copy" and node.type.space == "device" and all(
        node.attrs[key] is None for key in settings if key not in what
    )  # fmt: skip


def _permutation(copy: TypedNode) -> Axes:
    axes, shape = copy.attrs["permute"], copy.type.shape
    if axes is None:
        return tuple(range(len(shape)))
    return tuple(axis % len(axes) for axis in axes)


# Readers ----------------------------------------------------------------------------------------


def _readers(graph: TypedGraph) -> Counter[str]:
    """How often each tensor is an operand."""
    return Counter(name for node in graph.nodes for name in node.operands.values())


def _has_after(graph: TypedGraph, node: TypedNode) -> bool:
    return bool(node.after) or any(node.name in other.after for other in graph.nodes)


def _unread(graph: TypedGraph, site: _Site, node: TypedNode) -> set[str]:
    """Nodes of the site, and copies before it, that nobody reads once `node` is there."""
    gone = set(site.gone)
    kept = set(graph.outputs.values()) | set(node.operands.values())
    for other in reversed(graph.nodes):
        if other.name in gone or other.name == node.name:
            continue
        needed = other.name in kept or other.op.name != "copy" or _has_after(graph, other)
        if not needed and other.name in _sources(site):
            gone.add(other.name)
        else:
            kept.update(other.operands.values())
    return gone


def _sources(site: _Site) -> set[str]:
    """The copies that the operands of the site were made by."""
    pending = [*site.scores.operands.values(), site.ctx.operands["b"]]
    found: set[str] = set()
    while pending:
        node = site.made.get(pending.pop())
        if node is not None and _does_only(node, "permute"):
            found.add(node.name)
            pending.append(node.operands["x"])
    return found


REWRITE = GraphRewrite(
    "fuse-attention", "makes gemm, softmax, gemm one command that keeps no scores", rewrite
)
