"""Plans with states: the verifier says what the brute-force oracle says, of random plans and of
compiled ones after a mistake was made in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from mutants import Mutant, sample
from oracle import kinds, racy
from strategies import Choices, Seeded, random_plan
from test_verify_oracle import assert_same_verdict

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.ir.plan import PlacedTensor, Plan
from graphexec.proof import find_hazards

BATCHES = 8
GRAPHS = {
    "cache": """
version: 1
inputs: {x: {shape: [2, 1, 4], dtype: f32}, w: {shape: [4, 4], dtype: f32}}
state:
  n: {shape: [], dtype: i32, next: n + 1}
  k: {shape: [2, 6, 4], dtype: f32, next: k1}
  v: {shape: [2, 6, 4], dtype: f32, next: v1}
nodes:
  kn: x @ w
  k1: {op: append, into: k, x: kn, at: n, axis: 1}
  v1: {op: append, into: v, x: x, at: n, axis: 1}
  a: {op: attention, q: x, k: k1, v: v1, at: n, causal: true}
outputs: {a: a, n: n}
""",
    "exchange": """
version: 1
inputs: {x: {shape: [4, 4], dtype: f32}}
state:
  a: {shape: [4, 4], dtype: f32, next: b}
  b: {shape: [4, 4], dtype: f32, next: a}
  c: {shape: [4, 4], dtype: f32, next: y}
  d: {shape: [4, 4], dtype: f32, next: y}
nodes:
  y: {op: gemm, a: x, b: c}
  z: a - b * y
  p: {op: softmax, x: d}
outputs: {z: z, p: p}
""",
}


def kept(plan: Plan, choices: Choices) -> Plan:
    """The plan with its arena kept from run to run, and states there: mostly right ones."""
    arena = next(b for b in plan.buffers if b.role == "arena")
    buffers = tuple(replace(b, role="state") if b is arena else b for b in plan.buffers)
    tensors = []
    for number in range(choices.integer(1, 2)):
        low = choices.integer(0, arena.bytes - 1)
        size = choices.integer(1, arena.bytes - low)
        begin = PlacedTensor(f"s{number}", arena.id, low, size, (1,), DType.F32,
                             state=f"s{number}", init=not choices.chance(30))  # fmt: skip
        if choices.chance(50):
            tensors.append(replace(begin, next=begin.state))
            continue
        moved = low + 1 if choices.chance(10) and low + size < arena.bytes else low
        end = replace(begin, name=f"e{number}", state="", next=begin.state, init=True, offset=moved)
        tensors += [begin, *([] if choices.chance(5) else [end])]
        if choices.chance(5):
            tensors.append(replace(end, name=f"f{number}"))
    return replace(plan, buffers=buffers, tensors=tuple(tensors))


def of_states(plan: Plan) -> Iterator[Mutant]:
    """Mistakes in what is said of states."""
    for place, tensor in enumerate(plan.tensors):
        if not (tensor.state or tensor.next):
            continue
        for what, changed in (
            ("no state", replace(tensor, state="")), ("no next", replace(tensor, next="")),
            ("no value", replace(tensor, init=False)),
            ("beside", replace(tensor, bytes=tensor.bytes - 1)),
            ("elsewhere", replace(tensor, buffer="arena")),
            ("of another", replace(tensor, next="n" if tensor.next != "n" else "k")),
        ):  # fmt: skip
            if changed != tensor:
                rest = (*plan.tensors[:place], changed, *plan.tensors[place + 1 :])
                yield f"{tensor.name} {what}", replace(plan, tensors=rest)
        double = replace(tensor, name=f"{tensor.name}#", state="")
        yield f"{tensor.name} twice", replace(plan, tensors=(*plan.tensors, double))
    for place, buffer in enumerate(plan.buffers):
        if buffer.role == "state":
            arena = replace(buffer, role="arena")
            rest = (*plan.buffers[:place], arena, *plan.buffers[place + 1 :])
            yield f"{buffer.id} is not kept", replace(plan, buffers=rest)


def all_mutants(plan: Plan, seed: int, per_kind: int) -> Iterator[Mutant]:
    yield from sample(plan, Random(seed), per_kind)
    yield from of_states(plan)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_plans_with_states(batch: int) -> None:
    for seed in range(batch, 160, BATCHES):
        plan = kept(random_plan(Seeded(seed)), Seeded(seed + 1000))
        assert_same_verdict(plan, f"seed {seed}")
        for what, mutant in all_mutants(plan, seed, per_kind=2):
            assert_same_verdict(mutant, f"seed {seed}, {what}")


def compiled(name: str, streams: int, in_place: bool) -> Plan:
    off = () if in_place else ("keep-in-place",)
    return gx.make_plan(gx.loads(GRAPHS[name]), streams=streams, no_rewrite=off, device="hip")


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_mutants_of_compiled_plans(name: str, in_place: bool) -> None:
    for streams in (1, 2, 4):
        plan = compiled(name, streams, in_place)
        assert not racy(plan)
        assert not find_hazards(plan)
        for what, mutant in all_mutants(plan, streams, per_kind=8):
            assert_same_verdict(mutant, f"{streams} streams, {what}")


def test_plans_of_both_verdicts_and_every_kind_are_tried() -> None:
    found: Counter[str] = Counter()
    for seed in range(300):
        plan = kept(random_plan(Seeded(seed)), Seeded(seed + 1000))
        found.update(kinds(racy(plan)) or {"safe"})
        found.update({h.kind for h in find_hazards(plan)})
    assert found["safe"] > 30
    wanted = {"STATE_WAR", "STATE_STEP", "STATE_WRITERS", "STATE_INIT", "STATE_PLACE", "state"}
    assert wanted <= found.keys()
