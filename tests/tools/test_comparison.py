"""compare: outputs against float64, and the first node whose own work is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.graph.infer import infer
from graphexec.graph.not_computed import NotComputed, not_computed
from graphexec.ir.op import Attrs, Call, In, Op, Operand, Out
from graphexec.ir.operand import FLOATS
from graphexec.ir.plan import Launch, Wait
from graphexec.ir.program import Command, Kernel, Parallel
from graphexec.machine.costs import GPU
from graphexec.planning.pipeline import plan_graph
from graphexec.runtime.executable import Executable
from graphexec.tools.compare import Comparison, compare_executable
from graphexec.tools.evaluate import evaluate
from graphexec.tools.judge import TOLERANCE

Array = np.ndarray[Any, Any]


class Shift(Op):
    """y = x + `by`, by whatever `work` the test gives."""

    name = "shift"
    doc = "For tests."
    deterministic = False  # it depends on the node
    operands = (Operand("x", "any tensor"),)

    def __init__(self, work: Callable[[str, Array], Array], by: float = 1) -> None:
        self.work, self.by = work, by

    def infer(self, types: Mapping[str, TensorType], attrs: Attrs) -> TensorType:
        return types["x"]

    def reference(self, arrays: Mapping[str, Array], attrs: Attrs, type: TensorType) -> Array:
        return arrays["x"] + self.by

    def lower(self, call: Call) -> list[Command]:
        x, out = call.operands["x"], call.out

        def compute(arrays: list[Array], parallel: Parallel) -> None:
            arrays[1][...] = self.work(call.node, arrays[0])

        kernel = Kernel(Path("shift.hip"), "shift", (x, out), (1, 1, 1), (1, 1, 1), compute)
        return [call.command("shift", kernel, In(x), Out(out), flops=10**9)]  # worth a stream


def chain(work: Callable[[str, Array], Array], dtype: str = "f32", length: int = 4) -> gx.Graph:
    graph = gx.Graph("chain", ops={**gx.known_ops(), "shift": Shift(work)})
    name = graph.input("x", (5, 5), dtype)
    for i in range(length):
        name = graph.shift(name, name=f"s{i}")
    graph.output(y=name)
    return graph


def x(dtype: str = "f32") -> Array:
    return np.random.default_rng(0).standard_normal((5, 5)).astype(gx.DType(dtype).numpy())


def test_a_right_graph_is_right() -> None:
    graph = gx.load(Path(__file__).parents[2] / "graphs" / "diamond.yaml", dims={"M": 9, "N": 7})
    rng = np.random.default_rng(1)
    types = infer(graph).inputs
    inputs = {n: rng.standard_normal(t.shape, np.float32) for n, t in types.items()}
    found = gx.compare(graph, inputs, device="cpu", streams=3)
    assert found.ok
    assert found.first_bad is None
    assert [r.name for r in found.nodes] == [n.name for n in infer(graph).nodes]
    assert {r.name for r in found.outputs} == set(graph.outputs)
    assert {r.op for r in found.outputs} == {"output"}
    assert all(0 <= r.relative <= r.tolerance for r in (*found.nodes, *found.outputs))
    assert any(r.relative > 0 for r in found.nodes)


@pytest.mark.parametrize("bad", ["s0", "s2", "s3"])
def test_the_first_node_that_computes_wrongly_is_named(bad: str) -> None:
    found = gx.compare(
        chain(lambda node, a: a + (1.01 if node == bad else 1)), {"x": x()}, device="cpu"
    )
    assert not found.ok
    assert found.first_bad == bad
    assert [r.name for r in found.nodes if not r.ok] == [bad]  # its readers did what they should
    assert not found.outputs[0].ok
    (row,) = [r for r in found.nodes if r.name == bad]
    assert row.max_abs == pytest.approx(0.01, rel=1e-3)
    assert row.relative == pytest.approx(0.05 / np.linalg.norm(_expected(bad)), rel=1e-3)


def _expected(node: str) -> Array:
    return x().astype(np.float64) + int(node[1:]) + 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_out_of_tolerance(value: float) -> None:
    def work(node: str, a: Array) -> Array:
        a = a + 1
        if node == "s1":
            a[2, 2] = value
        return a

    found = gx.compare(
        chain(work), {"x": x()}, device="cpu", tolerance=1e9 if value != value else None
    )
    assert found.first_bad == "s1"
    assert not found.outputs[0].ok


def test_infinities_that_agree_are_no_error() -> None:
    given = x()
    given[1, 1], given[2, 3] = np.inf, -np.inf
    assert gx.compare(chain(lambda node, a: a + 1), {"x": given}, device="cpu").ok


def test_a_tolerance_of_ones_own() -> None:
    graph = chain(lambda node, a: a + 1.01)
    assert not gx.compare(graph, {"x": x()}, device="cpu").ok
    assert gx.compare(graph, {"x": x()}, device="cpu", tolerance=0.5).ok
    assert not gx.compare(chain(lambda node, a: a + 1), {"x": x()}, device="cpu", tolerance=0.0).ok


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_rounding_of_each_dtype_is_tolerated_and_not_much_more(dtype: str) -> None:
    assert gx.compare(chain(lambda node, a: a + 1, dtype), {"x": x(dtype)}, device="cpu").ok
    error = {"f16": 0.01, "bf16": 0.1, "f32": 1e-4, "f64": 1e-11}[dtype]
    worse = chain(lambda node, a: (a + 1) * (1 + error if node == "s1" else 1), dtype)
    assert gx.compare(worse, {"x": x(dtype)}, device="cpu").first_bad == "s1"


def shifted(x: Array, found: Array) -> Comparison:
    """A comparison of `found` with `x`."""
    shift = Shift(lambda node, a: found, by=0)
    graph = gx.Graph("one", ops={**gx.known_ops(), "shift": shift})
    dtype = next(d for d in gx.DType if d.numpy() == x.dtype)
    graph.output(y=graph.shift(graph.input("x", x.shape, dtype), name="s"))
    return gx.compare(graph, {"x": x}, device="cpu")


@pytest.mark.parametrize("dtype", FLOATS)
def test_subnormal_results_may_be_as_far_off_as_the_smallest_normal_one(dtype: gx.DType) -> None:
    smallest = float(ml_dtypes.finfo(dtype.numpy()).smallest_normal)
    x = (np.random.default_rng(0).uniform(0.1, 0.5, (40, 9)) * smallest).astype(dtype.numpy())
    allowed = TOLERANCE[dtype] * smallest
    rounded = (x.astype(np.float64) + 0.5 * allowed).astype(x.dtype)
    (row,) = shifted(x, rounded).nodes
    assert TOLERANCE[dtype] < row.relative <= row.tolerance
    wrong = (x.astype(np.float64) + 3 * allowed).astype(x.dtype)
    assert shifted(x, wrong).first_bad == "s"
    assert not shifted(x, wrong).outputs[0].ok
    assert shifted(x, np.zeros_like(x)).first_bad == "s"  # flushed to zero
    assert shifted(x, np.nextafter(x, np.ones_like(x))).ok


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_zero_must_be_zero(dtype: gx.DType) -> None:
    zeros = np.zeros((3, 4), dtype.numpy())
    assert shifted(zeros, zeros).ok
    smallest = ml_dtypes.finfo(dtype.numpy()).smallest_normal
    assert shifted(zeros, zeros + smallest).first_bad == "s"


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(FLOATS), depth=st.integers(1, 300), same=st.booleans(),
    seed=st.integers(0, 99), scale=st.floats(0, 1),
)  # fmt: skip
def test_a_gemm_is_right_at_every_scale(
    dtype: gx.DType, depth: int, same: bool, seed: int, scale: float
) -> None:
    """From products that vanish to sums that nearly overflow, also if all round the same way."""
    info = ml_dtypes.finfo(dtype.numpy())
    low, high = np.log2(float(info.smallest_subnormal)), (info.maxexp - 12) / 2
    rng = np.random.default_rng(seed)

    def operand(shape: tuple[int, int]) -> Array:
        values = rng.uniform(1, 2, () if same else shape)
        return np.broadcast_to(values * 2 ** (low + scale * (high - low)), shape)

    a, b = operand((3, depth)).astype(dtype.numpy()), operand((depth, 5)).astype(dtype.numpy())
    graph = gx.Graph("g")
    graph.output(y=graph.gemm(graph.input("a", a.shape, dtype), graph.input("b", b.shape, dtype)))
    found = gx.compare(graph, {"a": a, "b": b}, device="cpu")
    assert found.ok, (found, a, b)


def test_products_that_underflow_alike_add_up() -> None:
    """Each of 4096 products is 7.87 times the smallest subnormal number, and rounds to 8 times."""
    a = np.full((2, 4096), 1.05e-22, np.float32)
    graph = gx.Graph("g")
    graph.output(y=graph.gemm(graph.input("a", a.shape), graph.input("b", a.T.shape), name="y"))
    found = gx.compare(graph, {"a": a, "b": np.ascontiguousarray(a.T)}, device="cpu")
    (row,) = found.nodes
    assert found.ok
    assert row.max_abs > TOLERANCE[gx.DType.F32] * np.finfo(np.float32).smallest_normal


def test_a_softmax_whose_probabilities_underflow_is_right() -> None:
    graph = gx.Graph("g")
    graph.output(p=graph.softmax(graph.input("x", (2, 400_000), "f16"), name="p"))
    given = np.random.default_rng(3).standard_normal((2, 400_000)).astype(np.float16)
    found = gx.compare(graph, {"x": given}, device="cpu")
    assert found.ok
    assert found.nodes[0].relative > TOLERANCE[gx.DType.F16]  # however well it is rounded


def test_errors_that_grow_along_the_graph_blame_nobody() -> None:
    """Every node rounds to f16 as it should; after 60 of them the output is allowed more."""
    graph = gx.Graph("long")
    name = graph.input("x", (8, 8), "f16")
    for _ in range(30):
        name = graph.gemm(name, "x", alpha=0.3)
    graph.output(y=name)
    given = np.random.default_rng(2).standard_normal((8, 8)).astype(np.float16)
    found = gx.compare(graph, {"x": given}, device="cpu")
    assert found.first_bad is None
    assert found.outputs[0].tolerance > found.nodes[0].tolerance


def test_a_race_blames_the_node_that_read_too_early() -> None:
    """The operand is right at the end of the run, the node's own result is wrong."""
    first_read, late_read = threading.Event(), threading.Event()
    late: set[str] = set()

    def work(node: str, a: Array) -> Array:
        found = a + 1
        if node in late:
            late_read.set()
            first_read.wait(30)
        else:
            late_read.wait(30)  # so that x is not overwritten before it is read
        return found

    graph = gx.Graph("race", ops={**gx.known_ops(), "shift": Shift(work)})
    graph.input("x", (5, 5))
    for name in ("left", "right"):
        graph.shift("x", name=name)
    graph.gemm("left", "right", name="join")
    graph.output(y=graph.softmax("join", name="after"))

    def plan(source: gx.Graph, resident: bool) -> Any:
        compiled = plan_graph(source, streams=2, verify=False, resident=resident, costs=GPU)
        steps = compiled.plan.instructions
        join = next(i for i, s in enumerate(steps) if isinstance(s, Launch) and s.node == "join")
        assert isinstance(steps[join - 1], Wait)
        streams = {s.node: s.stream for s in steps if isinstance(s, Launch)}
        late.update(n for n in ("left", "right") if streams[n] != streams["join"])
        bound = compiled.bound
        changed = replace(bound.plan, instructions=steps[: join - 1] + steps[join:])
        work = {n - (n >= join): done for n, done in bound.work.items()}
        return replace(compiled, bound=replace(bound, plan=changed, work=work))

    def released(node: str, written: Array) -> None:
        if node == "join":
            first_read.set()

    with Executable(graph, plan, gx.CpuDevice(poison=True)) as exe:
        tapped = exe.run_tapped

        class Watched:
            """The executable, releasing the late branch once the join has read."""

            graph, rewritten, state = exe.graph, exe.rewritten, exe.state
            plan = exe.plan

            def run(self, **inputs: Array) -> dict[str, Array]:
                first_read.clear()
                late_read.clear()
                return tapped(inputs, released)

            def run_tapped(self, inputs: Mapping[str, Array], tap: Any) -> dict[str, Array]:
                first_read.clear()
                late_read.clear()

                def both(node: str, written: Array) -> None:
                    tap(node, written)
                    released(node, written)

                return tapped(inputs, both)

        found = compare_executable(Watched(), {"x": x()})  # type: ignore[arg-type]
    assert found.first_bad == "join"
    assert next(r.name for r in found.nodes if not r.ok) == "join"
    assert {r.name for r in found.nodes if r.ok} >= {"left", "right"}
    assert not found.outputs[0].ok


def test_nodes_that_no_command_computes_are_not_compared() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2, 6))
    graph.copy("x", reshape=[3, 4], name="seen")
    graph.softmax("x", name="dead")
    graph.output(y=graph.softmax("seen", name="s"))
    found = gx.compare(graph, {"x": np.ones((2, 6), np.float32)}, device="cpu")
    assert found.ok
    assert [r.name for r in found.nodes] == ["s"]
    assert found.not_computed == (
        NotComputed("seen", "copy", "view", ("x",)),
        NotComputed("dead", "softmax", "left out"),
    )


def test_what_rewrites_take_in_is_said_to_be_in_the_node_that_does_it() -> None:
    graph = gx.load(Path(__file__).parents[2] / "graphs" / "multi_head_attention.yaml")
    types = infer(graph).inputs
    rng = np.random.default_rng(5)
    inputs = {n: rng.standard_normal(t.shape, np.float32) for n, t in types.items()}
    found = gx.compare(graph, inputs, device="cpu")
    assert found.ok
    assert [r.name for r in found.nodes] == ["q", "k", "v", "merged", "y"]
    assert all(r.relative > 0 for r in found.nodes)
    assert {n.name: (n.how, *n.by) for n in found.not_computed} == {
        **{f"{x}_{part}": ("view", x) for x in "qkv" for part in ("split", "heads")},
        **dict.fromkeys(("scores", "probs", "ctx"), ("part of", "merged")),
    }
    with gx.compile(graph, device="cpu", no_rewrite=["all"]) as exe:
        whole = compare_executable(exe, inputs)
    assert [n.how for n in whole.not_computed] == ["view"] * 3  # copies that only reshape
    assert {"scores", "probs", "ctx", "q_heads"} <= {r.name for r in whole.nodes}


def test_a_repeated_attention_is_equal_to_the_one_that_is_computed() -> None:
    graph = gx.Graph("twice")
    q = graph.input("q", (2, 8, 4))
    for one in "ab":
        scores = graph.gemm(q, q, trans_b=True, name=f"scores_{one}")
        graph.gemm(graph.softmax(scores, name=f"probs_{one}"), q, name=f"ctx_{one}")
    graph.output(y=graph.gemm("ctx_a", "ctx_b", trans_b=True, name="y"))
    given = np.random.default_rng(6).standard_normal((2, 8, 4), np.float32)
    with gx.compile(graph, device="cpu") as exe:
        found = compare_executable(exe, {"q": given})
        commands = {node for node, _ in _results(exe)}
        where = not_computed(exe.graph, exe.rewritten, commands)
    assert found.ok
    assert [r.name for r in found.nodes] == ["ctx_a", "ctx_b", "y"]  # ctx_b: of what ctx_a made
    assert {n.name: n.by for n in found.not_computed} == {
        f"{node}_{one}": ("ctx_a",) for node in ("scores", "probs") for one in "ab"
    }
    assert where["ctx_b"] == NotComputed("ctx_b", "gemm", "repeats", ("ctx_a",))


def test_what_was_taken_in_twice_over_is_followed_to_the_end() -> None:
    """Equal attentions, of which one is left, which writes to where a copy moves it."""
    graph = gx.Graph("twice")
    q = graph.input("q", (2, 8, 4))
    for one in "ab":
        scores = graph.gemm(q, q, trans_b=True, name=f"scores_{one}")
        graph.gemm(graph.softmax(scores, name=f"probs_{one}"), q, name=f"ctx_{one}")
        graph.copy(f"ctx_{one}", permute=[1, 0, 2], reshape=[8, 8], name=f"merged_{one}")
    graph.output(y=graph.gemm("merged_a", "merged_b", trans_b=True, name="y"))
    compiled = plan_graph(graph)
    computed = {node for i in compiled.plan.instructions if isinstance(i, Launch)
                for node, _ in i.results}  # fmt: skip
    where = not_computed(compiled.graph, compiled.rewritten, computed)
    assert computed & {n.name for n in compiled.graph.nodes} == {"merged_a", "y"}
    assert (where["merged_b"].how, where["merged_b"].by) == ("repeats", ("merged_a",))
    gone = [f"{node}_{one}" for node in ("scores", "probs", "ctx") for one in "ab"]
    assert {n: where[n].by for n in gone} == dict.fromkeys(gone, ("merged_a",))
    assert {where[n].how for n in gone} == {"part of"}


def test_a_long_chain_of_views_and_of_dead_nodes() -> None:
    graph = gx.Graph("long")
    view = dead = graph.input("x", (2, 6))
    for step in range(3000):
        view = graph.copy(view, reshape=[(2, 6), (3, 4)][step % 2], name=f"view_{step}")
        dead = graph.softmax(dead, name=f"dead_{step}")
    graph.output(y=graph.softmax(view, name="y"))
    compiled = plan_graph(graph, verify=False)
    where = not_computed(compiled.graph, compiled.rewritten, {"y"})
    assert {n.by for n in where.values() if n.how == "view"} == {("x",)}
    assert sum(n.how == "left out" for n in where.values()) == 3000


def _results(exe: Executable) -> list[Any]:
    return [result for i in exe.plan.instructions if isinstance(i, Launch) for result in i.results]


def test_a_node_of_several_commands_is_measured_by_the_last() -> None:
    graph = gx.Graph("g")
    graph.input("x", (4, 4), "f64")
    graph.output(
        y=graph.gemm("x", "x", "x", bias=graph.input("b", (4,), "f64"), out_dtype="f16", beta=2)
    )
    rng = np.random.default_rng(3)
    inputs = {"x": rng.standard_normal((4, 4)), "b": rng.standard_normal(4)}
    assert gx.compare(graph, inputs, device="cpu").ok


def test_evaluate_is_the_graph_in_float64() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2, 2), "f16")
    graph.gemm("x", "x", alpha=1 / 3, name="m")
    graph.output("m")
    given = np.array([[1, 2], [3, 4]], np.float16)
    values = evaluate(infer(graph), {"x": given})
    assert values["m"].dtype == np.float64
    assert np.allclose(values["m"], np.array([[7, 10], [15, 22]]) / 3, rtol=1e-15)


def test_wrong_inputs_are_reported_as_such() -> None:
    with pytest.raises(gx.DataError, match="input 'x'"):
        gx.compare(chain(lambda node, a: a + 1), {}, device="cpu")
