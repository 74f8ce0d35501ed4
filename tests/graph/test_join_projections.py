"""join-projections: which products become one, near misses, the bytes of weights, the numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact import draw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare
from graphexec.tools.explain import explain

NODES = """
  q: x @ T(wq) + bq
  k: x @ T(wk) + bk
  v: x @ T(wv) + bv
"""
READERS = """
  a: q + 1
  b: k * 2
  c: v - 1
"""


def graph_of(
    folder: Path, nodes: str = NODES, readers: str = READERS, dtype: str = "f32",
    widths: tuple[int, int, int] = (32, 8, 16), given: str = "", outputs: str = "a b c",
) -> gx.Graph:  # fmt: skip
    """Three projections of x (2, 6, 24); `given` names those of their weights that are inputs."""
    rng = np.random.default_rng(3)
    shapes = {f"w{n}": (width, 24) for n, width in zip("qkv", widths, strict=True)}
    shapes |= {f"b{n}": (width,) for n, width in zip("qkv", widths, strict=True)}
    arrays = {name: draw(rng, shape, gx.DType.F32) for name, shape in shapes.items()}
    np.savez(folder / "w.npz", **arrays)
    half = f", dtype: {dtype}"
    inputs = "".join(
        f"  {name}: {{shape: {list(shape)}{half}}}\n"
        for name, shape in shapes.items() if name in given.split()
    )  # fmt: skip
    weights = "".join(f"  {n}: {n}\n" for n in shapes if n not in given.split())
    if dtype != "f32":
        np.savez(folder / "w.npz", **{n: a.astype(np.float16) for n, a in arrays.items()})
    text = (
        "version: 1\nname: g\ndims: {B: 2, S: 6, H: 4, D: 8}\nfile: w.npz\n"
        f"inputs:\n  x: {{shape: [2, 6, 24]{half}}}\n{inputs}"
        f"weights:\n{weights}nodes:{nodes}{readers}\n"
        f"outputs: {{{', '.join(f'{n}: {n}' for n in outputs.split())}}}\n"
    )
    path = folder / "g.yaml"
    path.write_text(text)
    return gx.load(path)


def gemms(graph: gx.Graph, device: str = "cpu", **options: Any) -> list[str]:
    plan = gx.make_plan(graph, device=device, **options)
    launches = [i for i in plan.instructions if isinstance(i, Launch)]
    return sorted(i.node.removesuffix(".gemm") for i in launches if i.command == "gemm")


def notes(graph: gx.Graph) -> list[str]:
    found = plan_graph(graph, device="cpu").notes
    return [note.text for note in found if note.rewrite == "join-projections"]


def assert_right(graph: gx.Graph, **options: Any) -> None:
    rng = np.random.default_rng(1)
    inputs = {i.name: draw(rng, i.shape, i.dtype) for i in graph.inputs.values()}
    found = compare(graph, inputs, device=gx.CpuDevice(poison=True), **options)
    assert found.ok, found


@pytest.mark.parametrize("device", ["cpu", "hip"])
def test_projections_of_one_tensor_are_one_product(tmp_path: Path, device: str) -> None:
    graph = graph_of(tmp_path)
    assert gemms(graph, device) == ["q+k+v"]
    assert gemms(graph, device, no_rewrite="join-projections") == ["k", "q", "v"]
    assert_right(graph)


def test_compare_judges_each_of_them(tmp_path: Path) -> None:
    graph = graph_of(tmp_path)
    given = {"x": np.ones((2, 6, 24), np.float32)}
    found = compare(graph, given, device="cpu")
    assert found.ok
    assert {"q", "k", "v"} <= {row.name for row in found.nodes}
    assert {n.name: n.by for n in found.not_computed} == {f"{n}.gemm": (n,) for n in "qkv"}


def test_weights_lie_one_after_another_and_are_in_memory_once(tmp_path: Path) -> None:
    plan = gx.make_plan(graph_of(tmp_path), device="cpu")
    placed = {t.name: t for t in plan.tensors}
    end = placed["wq+wk+wv"].offset
    for name in ("wq", "wk", "wv"):
        assert placed[name].buffer == "weights"
        assert placed[name].offset == end
        end += placed[name].bytes
    assert end == placed["wq+wk+wv"].offset + placed["wq+wk+wv"].bytes
    weights = next(b for b in plan.buffers if b.id == "weights")
    assert weights.bytes == 56 * 24 * 4 + 256  # the biases, 224 bytes, in one piece


def test_without_a_bias_and_with_the_ops_own(tmp_path: Path) -> None:
    plain = NODES.replace(" + bq", "").replace(" + bk", "").replace(" + bv", "")
    assert gemms(graph_of(tmp_path, plain)) == ["q+k+v"]
    assert_right(graph_of(tmp_path, plain))
    own = "".join(
        f"\n  {n}: {{op: gemm, a: x, b: w{n}, trans_b: true, bias: b{n}, alpha: 0.5}}"
        for n in "qkv"
    )
    graph = graph_of(tmp_path, own)
    assert gemms(graph) == ["q+k+v"]
    assert_right(graph)


def test_silu_of_a_gate_times_up_reads_both_windows_in_one_map(tmp_path: Path) -> None:
    nodes = "\n  q: x @ T(wq)\n  k: x @ T(wk)\n  y: silu(q) * k"
    graph = graph_of(tmp_path, nodes, "", widths=(16, 16, 16), outputs="y")
    plan = gx.make_plan(graph, device="hip", resident=True)
    launches = [(i.node, i.command) for i in plan.instructions if isinstance(i, Launch)]
    assert launches == [("q+k", "gemm"), ("y", "map")]
    assert_right(graph)


def test_heads_are_read_from_the_product_as_strides(tmp_path: Path) -> None:
    """Four heads of queries share one of keys and values; no copy is left."""
    readers = """
  qh: {op: copy, x: q, axes: B S (H D) -> B H S D}
  kh: {op: copy, x: k, axes: B S (1 D) -> B 1 S D}
  vh: {op: copy, x: v, axes: B S (1 D) -> B 1 S D}
  a: {op: attention, q: qh, k: kh, v: vh}
"""
    graph = graph_of(tmp_path, readers=readers, widths=(32, 8, 8), outputs="a")
    plan = gx.make_plan(graph, device="cpu", resident=True)
    launches = [(i.node, i.command) for i in plan.instructions if isinstance(i, Launch)]
    assert launches == [("q+k+v", "gemm"), ("a", "attention")]
    assert_right(graph)


def apart(graph: gx.Graph) -> list[str]:
    """The gemms, after the graph was found to give the right numbers."""
    assert_right(graph)
    return gemms(graph)


def test_near_misses(tmp_path: Path) -> None:
    with_input = graph_of(tmp_path, given="wk")  # inputs would be copied in each run
    assert apart(with_input) == ["k", "q+v"]
    assert "'k.gemm' is not joined with products of the same tensor: 'wk' is no weight" in notes(
        with_input
    )
    assert apart(graph_of(tmp_path, given="bk")) == ["k", "q+v"]
    rows = graph_of(tmp_path, NODES.replace("T(wk)", "wk"), widths=(32, 24, 16))
    assert apart(rows) == ["k", "q+v"]
    # Another reader of a weight, a product that is an output, an edge, another a, another factor.
    assert apart(graph_of(tmp_path, readers=READERS + "  d: wk + 1\n", outputs="a b c d")) == [
        "k", "q+v",
    ]  # fmt: skip
    assert apart(graph_of(tmp_path, outputs="a k c")) == ["k", "q+v"]
    other = NODES.replace("k: x", "k: z").replace("\n  q", "\n  z: x + 1\n  q")
    assert apart(graph_of(tmp_path, other)) == ["k", "q+v"]
    edge = "\n  k: {op: gemm, a: x, b: wk, trans_b: true, after: [q]}"
    assert apart(graph_of(tmp_path, NODES.replace("\n  k: x @ T(wk) + bk", edge))) != ["q+k+v"]
    half = "\n  k: {op: gemm, a: x, b: wk, trans_b: true, bias: bk, alpha: 0.5}"
    assert apart(graph_of(tmp_path, NODES.replace("\n  k: x @ T(wk) + bk", half))) == ["k", "q+v"]


def test_what_nothing_takes_as_a_window_stays_apart(tmp_path: Path) -> None:
    """Columns, flattened, are no window; the others are one product all the same."""
    flat = READERS.replace("b: k * 2", "f: {op: copy, x: k, reshape: [-1]}\n  b: f * 2")
    graph = graph_of(tmp_path, readers=flat)
    assert notes(graph) == [
        "'k' stays apart: 'k' would have to be copied",
        "'q' and 'v' are one product: 'wq' and 'wv' are loaded one after another",
    ]
    assert apart(graph) == ["k", "q+v"]


def test_columns_that_begin_at_odd_places_keep_them_apart(tmp_path: Path) -> None:
    """Products of products need aligned rows."""
    readers = "  y: q @ T(k)\n  c: v - 1\n"
    assert gemms(graph_of(tmp_path, readers=readers, widths=(16, 16, 8), outputs="y c")) == [
        "q+k+v", "y",
    ]  # fmt: skip
    odd = graph_of(
        tmp_path, readers="  y: q @ T(k)\n  c: v - 1\n", widths=(16, 16, 7), outputs="y c"
    )
    assert gemms(odd) == ["q", "v", "y"]
    assert_right(odd)


def test_explain_says_what_became_of_each(tmp_path: Path) -> None:
    from graphexec.graph.not_computed import not_computed

    compiled = plan_graph(graph_of(tmp_path), device="cpu")
    computed = {n for i in compiled.plan.instructions if isinstance(i, Launch)
                for n in (i.node, *i.nodes)}  # fmt: skip
    where = not_computed(compiled.graph, compiled.rewritten, computed)
    assert {n: (w.how, *w.by) for n, w in where.items()} == {
        **dict.fromkeys(("q", "k", "v"), ("view", "q+k+v")),
        **dict.fromkeys(("q.gemm", "k.gemm", "v.gemm"), ("part of", "q+k+v")),
    }
    text = "'q', 'k' and 'v' are one product: 'wq', 'wk' and 'wv' are loaded one after another"
    assert notes(graph_of(tmp_path)) == [text]
    for name in ("wq", "wq+wk+wv", "q+k+v", "q", "q.gemm", "bq"):
        assert explain(compiled, name), name


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.tuples(*[st.integers(1, 40)] * 3), st.sampled_from(["f32", "f16"]),
    st.sampled_from(["", "bk", "wq", "wv bv"]), st.integers(1, 4),
)  # fmt: skip
def test_random_widths(
    tmp_path: Path, widths: tuple[int, int, int], dtype: str, inputs: str, streams: int
) -> None:
    graph = graph_of(tmp_path, dtype=dtype, widths=widths, given=inputs)
    assert_right(graph, streams=streams)
