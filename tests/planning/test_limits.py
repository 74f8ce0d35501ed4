from __future__ import annotations

import json
import re

import pytest
import shapes
import strategies
from click.testing import CliRunner
from graph_files import STEMS
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.errors import InputError
from graphexec.cli.app import app
from graphexec.ir.plan import title
from graphexec.machine import costs
from graphexec.machine.costs import CostModel, signature
from graphexec.planning.allocate import allocate
from graphexec.planning.assemble import assemble
from graphexec.planning.pipeline import plan_graph
from graphexec.planning.profile import Profile
from graphexec.planning.schedule import schedule, schedule_frugally
from graphexec.planning.synchronize import synchronize
from graphexec.proof import find_hazards
from graphexec.tools.explain import explain
from graphexec.views.layout import layout


def wide(branches: int = 8, steps: int = 3) -> gx.Graph:
    """Branches of GEMMs no two of which are alike, so that they are not made batches."""
    g = gx.Graph("wide")
    x = g.input("x", (64, 64), "f32")
    ends = []
    for branch in range(branches):
        y = x
        for step in range(steps):
            y = g.gemm(y, x, alpha=branch + 1, name=f"b{branch}_{step}")
        ends.append(y)
    total = ends[0]
    for number, end in enumerate(ends[1:]):
        total = g.gemm(total, end, name=f"join{number}")
    g.output(out=total)
    return g


def test_a_limit_is_kept_at_the_price_of_streams():
    free = gx.make_plan(wide(), streams=8, costs=costs.GPU)
    tight = gx.make_plan(
        wide(), streams=8, costs=costs.GPU, memory_limit=free.stats.arena_bytes - 1
    )
    assert tight.stats.arena_bytes < free.stats.arena_bytes
    assert tight.stats.streams < free.stats.streams


def test_a_limit_that_is_large_enough_changes_nothing():
    free = gx.make_plan(wide(), streams=8, costs=costs.GPU)
    assert (
        gx.make_plan(wide(), streams=8, costs=costs.GPU, memory_limit=free.stats.arena_bytes)
        == free
    )


def test_the_smallest_size_found_is_said_and_works():
    with pytest.raises(InputError) as caught:
        gx.make_plan(wide(), memory_limit=1000)
    smallest = int(str(caught.value).split("at least ")[1].split(" bytes")[0].replace(",", ""))
    assert smallest < gx.make_plan(wide(), streams=8, costs=costs.GPU).stats.arena_bytes
    assert gx.make_plan(wide(), memory_limit=smallest).stats.arena_bytes <= smallest
    with pytest.raises(InputError):
        gx.make_plan(wide(), memory_limit=smallest - 1)


def test_the_frugal_order_finishes_one_branch_before_the_next():
    """Written breadth first, all branches would be alive at once."""
    net = shapes.Net()
    x = net.input(1024)
    first = [net.node(x, nbytes=1 << 20) for _ in range(10)]
    second = [net.node(y, nbytes=1024) for y in first]
    net.node(*second, nbytes=1024)
    program = net.program()
    plain = allocate(synchronize(schedule(program, 1, costs.GPU)))
    frugal = allocate(synchronize(schedule_frugally(program, costs.GPU)))
    assert frugal.arena_bytes < plain.arena_bytes / 4


def test_running_within_a_limit_gives_the_same_numbers():
    import numpy as np

    given = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32) / 8
    results = []
    for limit in (None, 180_000):
        device = gx.CpuDevice(poison=True)
        with gx.compile(wide(), device=device, streams=8, memory_limit=limit) as exe:
            results.append(exe.run(x=given)["out"])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


models = st.builds(
    CostModel,
    flops=st.sampled_from([1e3, 1e6, 2e8]),
    bytes=st.sampled_from([1e3, 3e6]),
    link_bytes=st.sampled_from([1e2, 5e4]),
    launch=st.sampled_from([0.0, 1.0, 20.0]),
    wait=st.sampled_from([0.0, 1.5, 100.0]),
    wave=st.sampled_from([0.0, 2.5, 1000.0]),
)


@given(
    seed=st.integers(0, 2**32),
    nodes=st.integers(1, 25),
    streams=st.one_of(st.integers(1, 9), st.just("auto")),
    model=models,
)
@settings(max_examples=80)
def test_any_dag_costs_and_streams_give_a_proved_plan(seed, nodes, streams, model):
    program = shapes.random_dag(nodes, seed)
    scheduled = schedule(program, streams, model)
    synchronized = synchronize(scheduled)
    allocation = allocate(synchronized)
    assert find_hazards(assemble(synchronized, allocation, "hip").plan) == []
    assert allocation.lower_bound <= allocation.arena_bytes <= allocation.naive_bytes
    prediction = scheduled.prediction
    assert prediction.timeline.makespan >= prediction.bounds.best * (1 - 1e-9)
    one = sum(prediction.tasks.time) + model.launch * len(program.commands)
    assert prediction.timeline.makespan <= one * (1 + 1e-9)
    again = schedule(program, streams, model)
    assert (again.order, again.stream) == (scheduled.order, scheduled.stream)


@given(strategies.graphs(), st.integers(1, 6), models, st.floats(0.2, 1.1))
@settings(max_examples=60)
def test_any_dag_costs_streams_and_limit_give_a_proved_plan_that_fits(graph, streams, model, part):
    def taken(plan):
        return sum(b.bytes for b in plan.buffers if b.space == "device")

    free = gx.make_plan(graph, streams=streams, costs=model)
    limit = int(taken(free) * part)
    try:
        found = gx.make_plan(graph, streams=streams, costs=model, memory_limit=limit)
    except InputError as exc:
        smallest = int(str(exc).split("at least ")[1].split(" bytes")[0].replace(",", ""))
        assert limit < smallest <= taken(free)
        found = gx.make_plan(graph, streams=streams, costs=model, memory_limit=smallest)
        limit = smallest
    assert taken(found) <= limit
    assert find_hazards(found) == []
    assert len(found.streams) <= streams


@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(0.3, 1.0))
@settings(max_examples=30)
def test_limits_are_kept_or_refused(seed, streams, part):
    from random import Random

    graph = wide(Random(seed).randint(1, 6), Random(seed).randint(1, 3))
    free = gx.make_plan(graph, streams=streams)
    limit = int(free.stats.arena_bytes * part)
    try:
        found = gx.make_plan(graph, streams=streams, memory_limit=limit)
    except InputError:
        return
    assert sum(b.bytes for b in found.buffers if b.space == "device") <= limit


def test_back_to_back_runs_are_proved_with_256_readers_between_two_writers():
    net = shapes.Net()
    x = net.input(1024)
    y = net.node(x, nbytes=1024)
    net.node(*[net.node(y, nbytes=256) for _ in range(256)], nbytes=1024)
    synchronized = synchronize(schedule(net.program(), 8, costs.GPU))
    assert find_hazards(assemble(synchronized, allocate(synchronized), "hip").plan) == []


# What plans say of themselves, and the command line -------------------------------------------


def test_costs_come_from_a_model_a_profile_or_a_file(tmp_path):
    g = wide()
    command = next(c for c in plan_graph(g).program.commands if c.node == "b0_0")
    measured = Profile("cpu", {signature(command): costs.Measured(1234.5)})
    path = tmp_path / "profile.json"
    path.write_text(measured.to_json())
    assert gx.make_plan(g).stats.costs == "cpu model"
    assert gx.make_plan(g, costs=costs.GPU).stats.costs == "gpu model"
    assert gx.make_plan(g, costs=measured).stats.costs == "profile"
    found = gx.make_plan(g, costs=path)
    assert found.stats.costs == str(path)
    assert found.stats.predicted_ns > 3 * 1_234_500


def test_predictions_survive_the_plan_file():
    plan = gx.make_plan(wide())
    assert plan.stats.predicted_ns >= plan.stats.makespan_lower_bound_ns > 0
    assert gx.Plan.from_json(plan.to_json()).stats == plan.stats
    keys = json.loads(plan.to_json())["stats"]
    assert {"predicted_ns", "makespan_lower_bound_ns", "costs", "schedule"} <= keys.keys()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "wide.yaml"
    path.write_text(wide().to_yaml())
    return str(path)


def run(*args: str):
    return CliRunner().invoke(app, list(args))


def test_text_has_times_and_a_certificate(file):
    found = run("plan", file, "--device", "cpu", "--streams", "auto")
    assert found.exit_code == 0, found.output
    last = found.stdout.strip().splitlines()[-1]
    assert last.startswith("waits ")
    assert "= minimum for this order; arena " in last
    assert "× lower bound; predicted " in last
    assert "(" in last
    assert "cpu model)" in last


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--streams", "0"], 2, "--streams"),
        (["--streams", "many"], 2, "--streams"),
        (["--memory-limit", "10k"], 2, "does not fit: at least"),
        (["--memory-limit", "x"], 2, "expected bytes such as"),
        (["--memory-limit", "1GB"], 0, "predicted"),
        (["--memory-limit", "0.5 MiB"], 0, "predicted"),
        (["--costs", "none.json"], 2, "cannot read the profile"),
        (["--costs", "none.json", "--no-profile"], 2, "exclude each other"),
        (["--no-profile"], 0, "cpu model"),
    ],
)
def test_options(file, options, code, words):
    found = run("plan", file, "--device", "cpu", *options)
    assert found.exit_code == code, found.output
    assert words in found.output


@pytest.fixture
def quick_waits(tmp_path):
    """A profile by which streams pay on the CPU, too: threads wake and wait in no time."""
    profile = {"profile_version": 1, "commands": {}, "constants": {"wait": 1.5, "fork": 0.0}}
    path = tmp_path / "fast.json"
    path.write_text(json.dumps(profile))
    return path


def test_explain_the_whole(file, quick_waits):
    found = run("explain", file, "--device", "cpu", "--streams", "3", "--costs", quick_waits)
    assert found.exit_code == 0, found.output
    for words in ("Time: predicted", "critical path", "One stream would take", "further stream",
                  "Waits: ", "which that writes (RAW)", "Memory: arena"):  # fmt: skip
        assert words in found.stdout


def test_explain_a_node(file):
    found = run("explain", file, "join0", "--device", "cpu", "--streams", "2")
    assert found.exit_code == 0, found.output
    for words in ("gemm, predicted from", "stream: ", "after b0_2", "after b1_2", "tensor join0"):
        assert words in found.stdout


def explained_plans():
    """Every example and a wide graph, on both devices, on few and many streams."""
    for device in ("cpu", "hip"):
        for streams in (2, 4, 8):
            yield plan_graph(wide(5), device=device, streams=streams)
            for name in STEMS:
                yield plan_graph(gx.load(f"graphs/{name}.yaml"), device=device, streams=streams)


def test_what_a_start_is_explained_by_adds_up_to_it():
    """The end of the command that is named, and the event's latency, are the predicted start."""
    waited = forked = 0
    for compiled in explained_plans():
        event = compiled.synchronized.schedule.prediction.tasks.event
        nodes = {c.node for c in compiled.program.commands}
        text = "\n".join(explain(compiled, node) for node in nodes)
        starts = re.findall(
            r"predicted from (.*) to .* µs\n  stream: .*\n  starts when (.*)\n", text
        )
        assert len(starts) == len(compiled.program.commands)
        for start, cause in starts:
            if ended := re.search(r" has ended \((\S+) µs\)", cause):
                later = re.search(r" and its event has arrived \((\S+) µs later\)", cause)
                waited += later is not None
                due = float(ended[1]) + (float(later[1]) if later else 0)
            else:
                due = event if "has forked" in cause else 0.0
                forked += "has forked" in cause
            assert float(start) == pytest.approx(due, abs=0.011)
    assert waited > 20
    assert forked > 2


def test_what_holds_a_plan_up_is_what_its_picture_marks():
    for compiled in explained_plans():
        (said,) = re.findall(r"What holds it up: (.*)\.", explain(compiled))
        shown = layout(compiled.plan, 100)
        path = [shown.launches[n] for n in sorted(shown.critical)]
        names = [title(launch.node, launch.nodes) for launch in path]
        if len(names) > 12:
            names = [*names[:6], f"({len(names) - 12} more)", *names[-6:]]
        assert said.split(" → ") == names


def test_explain_tells_the_commands_of_one_node_apart(quick_waits):
    found = run("explain", "graphs/diamond.yaml", "--device", "cpu", "--costs", quick_waits)
    assert found.exit_code == 0, found.output
    assert "out (gemm, s" in found.stdout
    assert "waits for out (memcpy, s" in found.stdout


def test_explain_an_unknown_node(file):
    found = run("explain", file, "joint0")
    assert found.exit_code == 2
    assert "did you mean 'join0'" in found.output


@pytest.mark.parametrize("name", ["q", "k", "v", "scores", "probs", "ctx"])
def test_explain_every_tensor_of_an_example(name):
    unfused = ("--no-rewrite", "fuse-attention")
    found = run("explain", "graphs/attention.yaml", name, "--device", "cpu", *unfused)
    assert found.exit_code == 0, found.output
    assert f"tensor {name}: bytes" in found.stdout
    if name == "probs":
        assert "in place" in found.stdout


def test_explain_tells_of_streams_that_begin_one_after_another() -> None:
    g = gx.Graph("g")
    r = g.softmax(g.input("x", (256, 256)), name="r")
    for n in range(3):
        g.output(**{f"y{n}": g.gemm(r, r, alpha=n + 1.0, name=f"g{n}")})
    model = CostModel(1e6, 1e6, 1e6, launch=1.0, wait=1.5, wave=1000.0, fork=900.0)
    options = {"device": "hip", "resident": True, "no_rewrite": ("batch",), "costs": model}
    compiled = plan_graph(g, streams=4, **options)
    told = [explain(compiled, f"g{n}") for n in range(3)]  # the third stream begins at 1801.5 µs
    assert ["streams begin one after another (1801.50 µs)" in t for t in told].count(True) == 1
