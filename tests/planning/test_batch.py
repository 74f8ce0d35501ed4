"""batch: equal independent commands become one; all others stay unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attention_cases import assert_close, exact
from branches import BRANCHES, chains
from exact import draw
from hardware import PLAIN, Chip, without
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import repeated_graphs, stream_counts

import graphexec as gx
from graphexec.graph.infer import infer
from graphexec.graph.rewrite import rewrite
from graphexec.graph.rewriting import Target, target_of
from graphexec.ir.plan import Launch, Plan, Range
from graphexec.ir.program import (
    ALIGNMENT,
    Command,
    Gemm,
    GemmBatch,
    Kernel,
    Memcpy,
    Program,
    TritonKernel,
    Work,
    aligned,
)
from graphexec.machine.costs import CPU, GPU, CostModel
from graphexec.machine.support import Facts, Support
from graphexec.planning import batch
from graphexec.planning.lower import lower
from graphexec.planning.pipeline import plan_graph
from graphexec.planning.rewrite import chosen_rewrites, rewrite_program
from graphexec.runtime.hip.gemm import gemm_call
from graphexec.tools.compare import compare_executable
from graphexec.tools.evaluate import evaluate
from graphexec.tools.explain import explain


def rewritten(program: Program, costs: CostModel) -> Program:
    return batch.REWRITE.apply(program, Target(costs=costs))[0]


def lowered(graph: gx.Graph, resident: bool = False) -> Program:
    return lower(infer(graph), resident)


def batched(graph: gx.Graph, resident: bool = False) -> Program:
    """By the costs of the CPU, where transfers take no longer than anything else."""
    return rewritten(lowered(graph, resident), CPU)


def compute(program: Program) -> list[Command]:
    return [c for c in program.commands if not c.node.endswith((".h2d", ".d2h", ".d2d"))]


# What is merged -------------------------------------------------------------------------------


def test_eight_chains_of_eight_gemms_become_eight_commands() -> None:
    commands = compute(batched(chains(8, 8)))
    assert [len(c.nodes) for c in commands] == [8] * 8
    assert [c.nodes for c in commands] == [
        tuple(f"c{chain}_{step}" for chain in range(8)) for step in range(8)
    ]
    for command in commands:
        assert isinstance(command.work, Gemm)
        assert command.work.out.shape == (8, 32, 32)
        assert command.work.a.strides[0] == command.work.b.strides[0] == 32 * 32


def test_a_shared_operand_is_walked_at_stride_0_and_read_once() -> None:
    graph = chains(8, 2, shared=True)
    commands = compute(batched(graph))
    assert len(commands) == 2
    for command in commands:
        assert isinstance(command.work, Gemm)
        assert command.work.b.strides[0] == 0
        assert command.cost.bytes == (8 + 8 + 1) * 32 * 32 * 4
        assert command.cost.flops == sum(
            c.cost.flops for c in lowered(graph).commands if c.node in command.nodes
        )


def test_softmaxes_become_one_kernel_with_one_more_axis() -> None:
    commands = compute(batched(chains(6, 1, softmax=True)))
    assert [len(c.nodes) for c in commands] == [6, 6]
    kernel = commands[1].work
    assert isinstance(kernel, Kernel)
    assert kernel.args[0].shape == (6, 32, 32)  # type: ignore[union-attr]
    assert commands[1].inplace == tuple((n, n) for n in range(6))


@pytest.mark.parametrize("resident", [False, True])
def test_heads_become_one_attention(resident: bool) -> None:
    """Fused head by head, then all of them at once: a recipe takes any batch axes."""
    g = gx.Graph("heads")
    for h in range(6):
        q, k, v = (g.input(f"{name}{h}", (40, 32), "f16") for name in "qkv")
        probs = g.softmax(g.gemm(q, k, trans_b=True, name=f"scores{h}"), causal=True)
        g.output(**{f"y{h}": g.gemm(probs, v, name=f"ctx{h}")})
    for device in ("cpu", "hip"):
        plan = plan_graph(g, device=device, hardware=Chip(attention={"f16"}), resident=resident)
        [command] = compute(plan.program)
        assert (command.label, len(command.nodes)) == ("causal attention", 6)
        assert isinstance(command.work, TritonKernel)
        assert [view.shape for view in command.work.views] == [(6, 40, 32)] * 4
    with gx.compile(g, device="cpu", resident=resident) as exe:
        rng = np.random.default_rng(0)
        inputs = {n: draw(rng, t.shape, "f16") for n, t in exe.inputs.items()}
        outputs = exe.run(**inputs)
    for h in range(6):
        expected = exact({n: inputs[f"{n}{h}"] for n in "qkv"}, {"scale": 1.0, "causal": True})
        assert_close(outputs[f"y{h}"], expected, "f16")


def test_kernels_merge_only_where_the_result_is_dense() -> None:
    """7·7 f32 are 196 bytes of 256: a kernel cannot go along that; a GEMM can."""
    commands = compute(batched(chains(5, 1, 7, softmax=True)))
    assert [len(c.nodes) for c in commands] == [5, 0, 0, 0, 0, 0]


def test_copies_and_device_transfers_merge() -> None:
    g = gx.Graph("g")
    for n in range(4):
        x = g.input(f"x{n}", (16, 32))
        g.output(**{f"y{n}": g.copy(x, permute=[1, 0], name=f"turned{n}")})
        g.output(**{f"z{n}": g.copy(x, name=f"moved{n}")})
    commands = compute(batched(g))
    assert sorted(type(c.work).__name__ for c in commands) == ["Kernel", "Memcpy"]
    assert {len(c.nodes) for c in commands} == {4}


def test_inputs_and_outputs_that_stay_are_bound_too() -> None:
    program = batched(chains(4, 2), resident=True)
    assert [type(c.work) for c in compute(program)] == [Gemm, Gemm]
    groups = [group.storages for group in program.groups]
    for names in ("in.x{}", "in.w{}_1", "out.y{}"):
        assert tuple(names.format(n) for n in range(4)) in groups


def shuffled() -> gx.Graph:
    """Products of four inputs with the same in another order."""
    g = gx.Graph("shuffled")
    x = [g.input(f"x{n}", (32, 32)) for n in range(4)]
    for n, other in enumerate((0, 2, 1, 3)):
        y = g.softmax(g.gemm(x[n], x[other], name=f"g{n}"), name=f"s{n}")
        g.output(**{f"y{n}": g.gemm(y, y, name=f"h{n}")})
    return g


@pytest.mark.parametrize("resident", [False, True])
def test_windows_on_several_tensors_are_a_batch_each(resident: bool) -> None:
    g = gx.Graph("windows")
    for name in "ab":
        x = g.input(name, (4 * 64, 64))
        for n in range(4):
            rows = g.copy(x, slice={0: [64 * n, 64 * n + 64, None]})
            g.output(**{f"{name}_out{n}": g.softmax(rows, name=f"{name}{n}")})
    program = plan_graph(g, device="cpu", resident=resident, costs=CPU).program
    nodes = [c.nodes for c in program.commands if c.label == "softmax"]
    assert nodes == [("a0", "a1", "a2", "a3"), ("b0", "b1", "b2", "b3")]


def test_operands_at_no_stride_take_pointers() -> None:
    first = compute(batched(shuffled()))[0].work
    assert isinstance(first, GemmBatch)
    assert [m.b.storage[-2:] for m in first.members] == ["x0", "x2", "x1", "x3"]


@pytest.mark.parametrize("resident", [False, True])
def test_results_stay_at_a_stride_when_operands_take_pointers(resident: bool) -> None:
    commands = compute(batched(shuffled(), resident))
    assert [type(c.work).__name__ for c in commands] == ["GemmBatch", "Kernel", "Gemm"]


def test_chains_that_start_late_merge_all_the_same() -> None:
    """By depth alone, nothing of these would be at the same level."""
    g = gx.Graph("g")
    for chain in range(4):
        y = g.input(f"x{chain}", (32, 32))
        for step in range(chain):
            y = g.softmax(y, scale=chain + step / 8 + 1, name=f"late{chain}_{step}")
        for step in range(3):
            y = g.gemm(y, y, name=f"c{chain}_{step}")
        g.output(**{f"y{chain}": y})
    assert sorted(len(c.nodes) for c in compute(batched(g)) if c.nodes) == [4, 4, 4]


def test_windows_of_one_tensor_need_no_group() -> None:
    g = gx.Graph("g")
    x = g.input("x", (4 * 16, 16))
    for n in range(4):
        g.output(
            **{f"y{n}": g.copy(x, slice={0: [16 * n, 16 * n + 16, None]}, permute=[1, 0],
                               name=f"part{n}")}
        )  # fmt: skip
    [command] = compute(batched(g))
    kernel = command.work
    assert isinstance(kernel, Kernel)
    assert kernel.args[0].strides == (256, 1, 16)  # type: ignore[union-attr]


# Products that add a bias ---------------------------------------------------------------------


def layers(
    count: int, shared: bool = False, dtype: str = "f32", apart: bool = False,
    weight: bool = False, plain: int = 0, c: bool = False, given: bool = False,
) -> gx.Graph:  # fmt: skip
    """Products with a bias each, computed, or `given` where they lie at no stride; with `apart`, of
    operands that lie at none. They share the bias or the weight; the last `plain` have none. With
    `c`, each adds one as well."""
    g = gx.Graph("layers")
    for n in range(count):
        x = g.input(f"x{n}", (32 + n % 2 * apart, 32), dtype)
        x = g.copy(x, slice={0: [0, 32, None]}, name=f"rows{n}") if apart else x
        if not n or not shared:
            bias = g.input(f"b{n}", (32 + n % 2 * given,), dtype)
            first = {"slice": {0: [0, 32, None]}, "name": f"bias{n}"}
            bias = g.copy(bias, **first) if given else g.softmax(bias, name=f"bias{n}")
        w = g.input(f"w{n}", (32, 32), dtype) if not n or not weight else "w0"
        added = {"bias": bias} if n < count - plain else {}
        if c:
            added["c"] = g.softmax(g.input(f"z{n}", (32, 32), dtype), name=f"c{n}")
        y = g.gemm(x, w, alpha=0.25, name=f"y{n}", **added)
        g.output(**{f"out{n}": g.softmax(y, name=f"s{n}")})
    return g


ABLE = Chip()  # adds every bias
SINGLE = Chip(batches=())  # ... but not one each to the products of a batch


def biased(graph: gx.Graph, chip: Chip = ABLE, resident: bool = False) -> list[Command]:
    """The batches of the GEMMs in a program for a device that adds biases; or not all of them."""
    return with_notes(graph, chip, resident)[0]


def with_notes(
    graph: gx.Graph, chip: Chip, resident: bool = False
) -> tuple[list[Command], list[str]]:
    """The notes about GEMMs that are no batch."""
    target = target_of("cpu", chip, CPU)
    typed = rewrite(infer(graph), target, chosen_rewrites())[0]
    program = lower(typed, resident, target)
    found, notes = rewrite_program(program, target, chosen_rewrites())
    refused = [
        note.text for note in notes
        if not note.applied and note.rewrite == "batch" and note.nodes[0].startswith("y")
    ]  # fmt: skip
    return [c for c in compute(found) if c.node.startswith("y")], refused


@pytest.mark.parametrize("shared", [False, True])
def test_each_product_of_a_batch_has_its_bias(shared: bool) -> None:
    (command,) = biased(layers(8, shared))
    work = command.work
    assert isinstance(work, Gemm)
    assert work.bias is not None
    assert work.bias.shape == (8, 32)
    assert work.bias.strides == (0 if shared else 64, 1)  # 256 bytes apart
    assert len(command.reads) == 3 * 8
    assert {view.storage for view in command.reads[2::3]} == {
        "bias0" if shared else f"bias{n}" for n in range(8)
    }


def test_a_bias_for_all_is_no_bias_each() -> None:
    (command,) = biased(layers(8, shared=True), SINGLE)
    assert isinstance(command.work, Gemm)
    assert command.work.bias is not None


@pytest.mark.parametrize("why", ["pointers", "no biases at a stride"])
def test_otherwise_biases_are_put_into_the_results(why: str) -> None:
    """Adding biases in GEMMs must not prevent a batch."""
    apart = why == "pointers"
    first, second = biased(layers(8, apart=apart), ABLE if apart else SINGLE, resident=apart)
    assert [len(first.nodes), len(second.nodes)] == [8, 8]
    assert isinstance(first.work, Kernel)
    assert first.label == "copy"
    assert isinstance(second.work, GemmBatch if apart else Gemm)
    products = second.work.members if isinstance(second.work, GemmBatch) else [second.work]
    assert {(work.bias, work.beta) for work in products} == {(None, 1.0)}
    assert second.reads[2::3] == first.writes == second.writes


def test_products_with_and_without_a_bias_are_two_batches() -> None:
    works = [c.work for c in biased(layers(8, plain=4))]
    assert sorted(w.bias is None for w in works if isinstance(w, Gemm)) == [False, True]


def test_rows_of_one_product_have_one_bias() -> None:
    """With one weight and rows side by side, eight products are one: not if biases differ."""
    for shared in (False, True):
        (command,) = biased(layers(8, shared, weight=True))
        assert isinstance(command.work, Gemm)
        call = gemm_call(command.work)
        assert (call.gemm.batch, call.gemm.n) == ((1, 256) if shared else (8, 32))
        assert call.stride_bias == (0 if shared else 64)


@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_each_product_of_a_batch_adds_a_c(dtype: str) -> None:
    (command,) = biased(layers(8, dtype=dtype, c=True))
    work = command.work
    assert isinstance(work, Gemm)
    assert work.c is not None
    assert (work.c.storage, work.c.shape, work.c.strides) == ("c0", (8, 32, 32), (1024, 32, 1))
    assert [view.storage for view in command.reads[2::4]] == [f"c{n}" for n in range(8)]
    assert command.inplace == tuple((4 * n + 2, n) for n in range(8))


def test_a_batch_writes_over_its_c() -> None:
    compiled = plan_graph(layers(8, c=True), streams=1)
    at = compiled.allocation.places
    assert [at[f"c{n}"] for n in range(8)] == [at[f"y{n}"] for n in range(8)]


def test_a_sum_of_halves_is_made_of_products_in_f32() -> None:
    """It is rounded once, also where it is another command."""
    first, second = biased(layers(8, dtype="f16", c=True), SINGLE)
    assert [(c.label, len(c.nodes)) for c in (first, second)] == [("gemm", 8), ("affine", 8)]
    assert isinstance(first.work, Gemm)
    assert first.work.out.dtype is gx.DType.F32


def test_otherwise_c_is_put_into_the_results_as_well() -> None:
    first, second = biased(layers(8, c=True), SINGLE)
    assert [len(first.nodes), len(second.nodes)] == [8, 8]
    assert (first.label, second.label) == ("affine", "gemm")
    assert first.inplace == tuple((2 * n, n) for n in range(8))
    assert isinstance(second.work, Gemm)
    assert (second.work.c, second.work.bias, second.work.beta) == (None, None, 1.0)


NO_BATCH = "the device adds no bias of its own to each product of a batch"
NO_STRIDE = "their biases lie at no constant stride"
NO_COMMAND = "no single command puts the biases into the results first"
SLOWER = "putting the biases into the results first would not be faster"


@pytest.mark.parametrize(("graph", "chip", "resident", "why"), [
    (layers(2), SINGLE, False, f"{NO_BATCH}; {SLOWER}"),
    (layers(8, given=True), ABLE, True, f"{NO_STRIDE}; {NO_COMMAND}"),
    (layers(2, apart=True), ABLE, True, f"arrays of pointers take no bias; {SLOWER}"),
])  # fmt: skip
def test_where_that_is_no_batch_either_they_stay_as_they_are_and_are_told_why(
    graph: gx.Graph, chip: Chip, resident: bool, why: str
) -> None:
    """Two batches in place of one would not save two commands."""
    commands, refused = with_notes(graph, chip, resident)
    count = len(graph.outputs)
    assert [(len(c.nodes), c.label) for c in commands] == [(0, "gemm")] * count
    between = "and" if count == 2 else "…"
    assert refused == [f"'y0' {between} 'y{count - 1}' ({count}) stay apart: {why}"]


def test_a_batch_for_which_there_is_no_algorithm() -> None:
    graph = layers(2)
    (command,) = biased(graph)
    assert isinstance(command.work, Gemm)
    commands, refused = with_notes(graph, without(ABLE, command.work))
    assert [type(c.work) for c in commands] == [Gemm] * 2
    reason = "there is no algorithm"
    assert refused == [f"'y0' and 'y1' (2) stay apart: {reason}; {SLOWER}"]


def test_explain_tells_of_products_that_stay_apart() -> None:
    compiled = plan_graph(layers(8, given=True), resident=True)
    told = f"rewrite batch did not apply: 'y0' … 'y7' (8) stay apart: {NO_STRIDE}; {NO_COMMAND}"
    for node in ("y0", "y5"):
        assert told in explain(compiled, node)


def test_nothing_is_said_of_products_that_no_bias_keeps_apart() -> None:
    """GEMMs fill the device, or are one batch."""
    assert with_notes(layers(8), ABLE) == (biased(layers(8)), [])
    assert with_notes(layers(8, apart=True), ABLE, True)[1] == []
    g = gx.Graph("large")
    for n in range(2):
        x, b = g.input(f"x{n}", (2048, 2048)), g.input(f"b{n}", (2048,))
        g.output(**{f"out{n}": g.gemm(x, x, bias=b, name=f"y{n}")})
    commands, refused = with_notes(g, SINGLE)
    assert len(commands) == 2
    assert refused == []


@pytest.mark.parametrize("chip", [PLAIN, SINGLE, ABLE], ids=["none", "single", "all"])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("resident", [False, True])
def test_numbers_with_biases(chip: Chip, dtype: str, resident: bool) -> None:
    class Device(gx.CpuDevice):
        def support(self, work: Work) -> Support:
            return chip.support(work)

        def facts(self) -> Facts:
            return chip.facts()

    batches = 0
    for graph in (
        layers(6, dtype=dtype), layers(6, True, dtype), layers(6, False, dtype, True),
        layers(6, dtype=dtype, weight=True), layers(6, True, dtype, weight=True),
        layers(6, dtype=dtype, plain=3), layers(6, dtype=dtype, c=True),
        layers(6, True, dtype, c=True), layers(6, dtype=dtype, apart=True, c=True),
        layers(6, True, dtype, weight=True, c=True), layers(6, dtype=dtype, given=True),
    ):  # fmt: skip
        with gx.compile(graph, device=Device(poison=True, delays=1), resident=resident) as exe:
            works = [exe.bound.work[n] for n, i in enumerate(exe.plan.instructions)
                     if isinstance(i, Launch) and i.nodes]  # fmt: skip
            batches += sum(isinstance(work, Gemm | GemmBatch) for work in works)
            rng = np.random.default_rng(0)
            inputs = {
                n: rng.standard_normal(t.shape).astype(t.dtype.numpy())
                for n, t in exe.inputs.items()
            }
            assert compare_executable(exe, inputs).ok
    assert batches


@settings(max_examples=60)
@given(repeated_graphs(), st.sampled_from([SINGLE, ABLE]), st.booleans())
def test_any_graph_with_biases(graph: gx.Graph, chip: Chip, resident: bool) -> None:
    """Planned for a device that adds biases, of single products or of batches too."""
    compiled = plan_graph(graph, hardware=chip, resident=resident)
    done = [n for c in compiled.program.commands for n in (c.nodes or (c.node,))]
    kept = {node.name for node in compiled.rewritten.nodes if not node.window}
    assert kept & set(compiled.program.storages) <= set(done)
    for command in compiled.program.commands:
        if isinstance(command.work, Gemm) and command.work.bias is not None:
            assert not chip.support(command.work).refused
        elif isinstance(command.work, Gemm | GemmBatch):
            works = command.work.members if isinstance(command.work, GemmBatch) else [command.work]
            assert all(work.c is None for work in works)


# What is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [{}, {"alpha": 0.5}, {"trans_b": True}, {"out_dtype": "f32"}],
)
def test_what_differs_stays_apart(other: dict[str, object]) -> None:
    g = gx.Graph("g")
    for n in range(8):
        x = g.input(f"x{n}", (16, 16), "f16")
        g.output(**{f"y{n}": g.gemm(x, x, name=f"g{n}", **(other if n % 2 else {}))})
    sizes = {len(c.nodes) for c in compute(batched(g))}
    assert sizes == ({4} if other else {8})


def test_what_depends_on_one_another_stays_apart() -> None:
    g = gx.Graph("g")
    x, y = g.input("x", (16, 16)), g.input("y", (16, 16))
    g.gemm(x, x, name="first")
    g.gemm(y, y, name="second", after=["first"])
    g.output("first", "second")
    program = lowered(g)
    assert rewritten(program, GPU) is program
    chain = lowered(chains(1, 4))
    assert rewritten(chain, GPU) is chain


def test_commands_that_fill_the_device_stay_apart() -> None:
    program = lowered(chains(4, 2, 4096, "f16"), resident=True)
    assert rewritten(program, GPU) is program
    assert compute(rewritten(lowered(chains(4, 2, 256, "f16"), resident=True), GPU))[0].nodes


def test_what_transfers_hide_stays_apart() -> None:
    """One GEMM for all would start after the last upload, and the first download after it."""
    g = gx.Graph("g")
    w = g.input("w", (1024, 1024), "f16")
    for n in range(32):
        x = g.input(f"x{n}", (512, 1024), "f16")
        g.output(**{f"y{n}": g.gemm(x, w, name=f"g{n}")})
    program = lowered(g)
    assert rewritten(program, GPU) is program


def test_many_more_bytes_are_not_taken_for_a_little_time() -> None:
    """One after another, the branches need room for one: 3 matrices of 8 MiB, and not 3 · 16."""
    program = lowered(in_turn(16, 2048))
    costs = replace(CPU, flops=100e6, wave=0.0)
    assert rewritten(program, costs) is program
    small = lowered(in_turn(16, 256))
    assert rewritten(small, costs) is not small


def in_turn(branches: int, size: int) -> gx.Graph:
    """Branches whose ends are added up one by one."""
    g = gx.Graph("in_turn")
    x = g.input("x", (size, size), "f16")
    total = x
    for branch in range(branches):
        y = x
        for step in range(3):
            y = g.gemm(y, x, name=f"c{branch}_{step}")
        total = g.gemm(total, y, name=f"sum{branch}")
    g.output(out=total)
    return g


def test_it_can_be_switched_off() -> None:
    plan = gx.make_plan(chains(4, 2), no_rewrite=["batch"])
    assert not any(i.nodes for i in plan.instructions if isinstance(i, Launch))


# Order, places, names -------------------------------------------------------------------------


def test_after_names_the_nodes_and_not_the_batch() -> None:
    """'b' has a second launch; 'late' need not wait for it."""
    g = gx.Graph("g")
    for name in "ab":
        x = g.input(f"x_{name}", (16, 16), "f16")
        g.gemm(x, x, name=name, out_dtype="f64" if name == "b" else None)
    other = g.input("other", (4,))
    g.softmax(other, name="late", after=["a"])
    g.output("a", "b", "late")
    plan = gx.make_plan(g)
    launches = [i for i in plan.instructions if isinstance(i, Launch)]
    assert [i.after for i in launches if i.node == "late"] == [("a",)]


def test_tensors_keep_places_of_their_own_at_a_constant_stride() -> None:
    plan = gx.make_plan(chains(5, 2, 7), device="hip")
    places = {t.name: t for t in plan.tensors}
    for step in range(2):
        offsets = [places[f"c{chain}_{step}"].offset for chain in range(5)]
        assert np.diff(offsets).tolist() == [256] * 4
        assert {places[f"c{chain}_{step}"].bytes for chain in range(5)} == {196}


@pytest.mark.parametrize("name", BRANCHES)
def test_launches_say_which_nodes_and_bytes(name: str) -> None:
    graph = BRANCHES[name]()
    plan = gx.make_plan(graph, device="hip")
    places = {t.name: Range(t.buffer, t.offset, t.offset + t.bytes) for t in plan.tensors}
    launches = [i for i in plan.instructions if isinstance(i, Launch) and i.nodes]
    assert launches
    for launch in launches:
        assert launch.node == launch.nodes[0]
        assert launch.writes == tuple(places[node] for node in launch.nodes)
        assert launch.results == tuple(zip(launch.nodes, launch.writes, strict=True))
    assert Plan.from_json(plan.to_json()) == plan
    done = [n for i in plan.instructions if isinstance(i, Launch) for n in i.members]
    assert set(graph.nodes) <= set(done)


@settings(max_examples=60)
@given(repeated_graphs(), stream_counts(), st.booleans())
def test_groups_lie_at_their_stride(graph: gx.Graph, streams: int, resident: bool) -> None:
    compiled = plan_graph(graph, streams=streams, resident=resident)
    places, storages = compiled.allocation.places, compiled.program.storages
    for group in compiled.program.groups:
        buffer, first = places[group.storages[0]]
        if storages[group.storages[0]].role in ("input", "output"):  # sessions take them in order
            at = [b.id for b in compiled.plan.buffers].index(buffer)
            following = compiled.plan.buffers[at : at + len(group.storages)]
            assert [b.id for b in following] == list(group.storages)
            assert {aligned(b.bytes) for b in following} == {group.stride}
        else:
            assert [places[name] for name in group.storages] == [
                (buffer, first + n * group.stride) for n in range(len(group.storages))
            ]
        assert {storages[name].nbytes <= group.stride for name in group.storages} == {True}
        assert group.stride % ALIGNMENT == first % ALIGNMENT == 0
    grouped = [name for group in compiled.program.groups for name in group.storages]
    assert len(grouped) == len(set(grouped))


def test_groups_take_one_another_s_place() -> None:
    """Softmax works in place: so does a batch of them."""
    plan = gx.make_plan(chains(4, 1, softmax=True), device="hip")
    places = {t.name: t.offset for t in plan.tensors}
    assert [places[f"s{n}_0"] for n in range(4)] == [places[f"c{n}_0"] for n in range(4)]


def test_weights_of_a_batch_lie_side_by_side(tmp_path: object) -> None:
    program = batched(gx.load("graphs/multi_head_attention.yaml"))
    compiled = plan_graph(gx.load("graphs/multi_head_attention.yaml"))
    assert ("wq", "wk", "wv") in [g.storages for g in program.groups]
    offsets = [compiled.allocation.places[w] for w in ("wq", "wk", "wv")]
    assert offsets == [("weights", n * 64 * 64 * 4) for n in range(3)]


@settings(max_examples=60)
@given(repeated_graphs())
def test_dependencies_are_kept(graph: gx.Graph) -> None:
    """All predecessors are in earlier commands; otherwise there is a cycle."""
    before = lowered(graph)
    after = rewritten(before, CPU)
    # A node may have several commands, in the order of their lowering.
    position: dict[tuple[str, str, str], int] = {}
    for index, command in enumerate(after.commands):
        for node, view in zip(command.nodes or (command.node,), command.writes, strict=True):
            assert (node, command.label, view.storage) not in position
            position[node, command.label, view.storage] = index
    at = [position[c.node, c.label, c.writes[0].storage] for c in before.commands]
    for command, needs in enumerate(before.predecessors):
        assert all(at[need] < at[command] for need in needs)
    for command in before.commands:
        index = at[before.commands.index(command)]
        assert set(command.after_nodes) <= set(after.commands[index].after_nodes)


# Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("name", BRANCHES)
def test_numbers(name: str, streams: int) -> None:
    graph = BRANCHES[name]()
    rng = np.random.default_rng(0)
    results = []
    for off in ([], ["batch"]):
        device = gx.CpuDevice(poison=True, delays=streams)
        with gx.compile(graph, device=device, streams=streams, no_rewrite=off) as exe:
            rng = np.random.default_rng(0)
            inputs = {
                n: rng.standard_normal(t.shape).astype(t.dtype.numpy())
                for n, t in exe.inputs.items()
            }
            results.append(exe.run(**inputs))
            exact = evaluate(exe.graph, inputs)
    for found in results:
        for output, tensor in graph.outputs.items():
            expected = exact[tensor]
            error = np.linalg.norm(found[output].astype(np.float64) - expected)
            tolerance = 5e-3 if found[output].dtype == np.float16 else 1e-5
            assert error <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("name", BRANCHES)
def test_compare_and_taps_see_every_node(name: str) -> None:
    graph = BRANCHES[name]()
    with gx.compile(graph, device="cpu") as exe:
        rng = np.random.default_rng(1)
        inputs = {
            n: rng.standard_normal(t.shape).astype(t.dtype.numpy()) for n, t in exe.inputs.items()
        }
        seen: dict[str, int] = {}

        def tap(node: str, written: np.ndarray) -> None:  # type: ignore[type-arg]
            seen[node] = written.nbytes

        exe.run_tapped(inputs, tap)
        types = exe.graph.types()
        assert {n: types[n].nbytes for n in graph.nodes} == {n: seen[n] for n in graph.nodes}
    assert gx.compare(graph, inputs, device="cpu").ok


@pytest.mark.parametrize("name", BRANCHES)
def test_the_verifier_sees_every_member(name: str) -> None:
    """Without a member's write its reader finds nothing; half a matrix further it hits another."""
    plan = gx.make_plan(BRANCHES[name](), streams=3)
    assert gx.find_hazards(plan) == []
    tried = 0
    for index, launch in enumerate(plan.instructions):
        if not isinstance(launch, Launch) or not launch.nodes:
            continue
        last = launch.writes[-1]
        half = (last.high - last.low) // 2
        near = replace(last, low=last.low - half, high=last.high - half)
        if near.low < launch.writes[-2].high:  # no gap for the alignment between them
            assert kinds(plan, index, replace(launch, writes=(*launch.writes[:-1], near))) & {
                "ALIAS"
            }
        if not written_before(plan, index, last):
            less = replace(launch, nodes=launch.nodes[:-1], writes=launch.writes[:-1])
            assert kinds(plan, index, less) & {"UNINITIALISED"}
            tried += 1
    assert tried


def kinds(plan: Plan, index: int, launch: Launch) -> set[str]:
    """Hazards of the plan with another launch in this place."""
    instructions = (*plan.instructions[:index], launch, *plan.instructions[index + 1 :])
    return {hazard.kind for hazard in gx.find_hazards(replace(plan, instructions=instructions))}


def written_before(plan: Plan, index: int, wanted: Range) -> bool:
    return any(
        w.buffer == wanted.buffer and w.low < wanted.high and wanted.low < w.high
        for i in plan.instructions[:index] if isinstance(i, Launch) for w in i.writes
    )  # fmt: skip


def test_a_limit_too_low_for_batches_is_kept_without() -> None:
    """One after another, chains need the bytes of one."""
    g = in_turn(8, 64)
    apart = ["common-subexpressions"]  # the chains are the same
    free = gx.make_plan(g, no_rewrite=apart).stats
    assert free is not None
    limit = free.arena_bytes // 2
    tight = gx.make_plan(g, memory_limit=limit, no_rewrite=apart)
    assert not any(i.nodes for i in tight.instructions if isinstance(i, Launch))
    told = plan_graph(g, memory_limit=limit, no_rewrite=apart).notes
    given_up = [note for note in told if note.rewrite == "batch"]
    assert given_up
    assert not any(note.applied for note in given_up)
    assert all(note.text.startswith("given up for the memory limit: ") for note in given_up)
    assert tight.buffer("arena").bytes <= limit
    assert gx.make_plan(g, memory_limit=free.arena_bytes, no_rewrite=apart).stats == free


def test_memcpy_is_the_work_of_dense_copies_only() -> None:
    g = gx.Graph("g")
    x = g.input("x", (7, 7))
    for n in range(3):
        g.output(**{f"y{n}": g.copy(x, name=f"c{n}")})
    assert all(isinstance(c.work, Memcpy) and not c.nodes for c in batched(g).commands)
