"""Compare the verifier with the brute-force oracle on very many mutants; they must agree.

    python benchmarks/mutation_campaign.py --count 100000 --seed 0 --jobs 2

Three of four plans are compiled from random graphs, the fourth is random itself. A line of the
table is one kind of mutation: the number of mutants, how many the oracle refutes and accepts, and
how many the verifier judges differently. The smallest of the latter is printed in full. The exit
status is 1 if there is any.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from mutants import KINDS, sample
from oracle import racy
from strategies import Seeded, random_graph, random_plan

import graphexec as gx
from graphexec.ir.plan import Plan
from graphexec.proof import find_hazards

PER_KIND = 20
"""Mutants of a plan and kind, at most."""

CHUNK = 32
"""Plans between two looks at the count."""

ORIGINAL = "not mutated"


@dataclass
class Tally:
    """Counts by kind of mutant, and the smallest plan the two disagree about."""

    made: Counter[str] = field(default_factory=Counter)
    refuted: Counter[str] = field(default_factory=Counter)
    disagreed: Counter[str] = field(default_factory=Counter)
    smallest: tuple[str, Plan] | None = None

    def add(self, what: str, plan: Plan) -> None:
        kind = what.split(":")[0]
        unsafe, refuted = bool(racy(plan)), bool(find_hazards(plan))
        self.made[kind] += 1
        self.refuted[kind] += unsafe
        if unsafe != refuted:
            self.disagreed[kind] += 1
            self.keep_smaller((what, plan))

    def mutants(self) -> int:
        return self.made.total() - self.made[ORIGINAL]

    def keep_smaller(self, found: tuple[str, Plan] | None) -> None:
        if found and (
            self.smallest is None or len(found[1].instructions) < len(self.smallest[1].instructions)
        ):
            self.smallest = found

    def merge(self, other: Tally) -> None:
        self.made += other.made
        self.refuted += other.refuted
        self.disagreed += other.disagreed
        self.keep_smaller(other.smallest)


def original(seed: int) -> Plan:
    """The plan whose mutants are judged: a random one, or that of a random graph."""
    if seed % 4 == 3:
        return random_plan(Seeded(seed))
    return gx.make_plan(random_graph(Seeded(seed)), streams=1 + seed % 6, verify=False)


def judge(seed: int) -> Tally:
    """The original of a seed and some of its mutants."""
    tally = Tally()
    plan = original(seed)
    tally.add(f"{ORIGINAL}: seed {seed}", plan)
    for what, mutant in sample(plan, Random(seed), PER_KIND):
        tally.add(f"{what} (seed {seed})", mutant)
    return tally


def campaign(count: int, seed: int, jobs: int) -> Tally:
    """Plan after plan, until there are `count` mutants. The result is the same for any `jobs`."""
    total, began = Tally(), time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for first in range(seed, sys.maxsize, CHUNK):
            for tally in pool.map(judge, range(first, first + CHUNK)):
                total.merge(tally)
            made = total.mutants()
            print(f"\r{made} mutants, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
            if made >= count:
                print(file=sys.stderr)
                return total
    raise AssertionError("there is no last seed")


def table(total: Tally) -> str:
    """The tally, a line for each kind of mutant."""
    lines = [_line("mutants by kind", "made", "refuted", "accepted", "disagree")]
    for kind in (ORIGINAL, *KINDS):
        made, refuted = total.made[kind], total.refuted[kind]
        lines.append(_line(kind, made, refuted, made - refuted, total.disagreed[kind]))
    made, refuted = total.mutants(), total.refuted.total() - total.refuted[ORIGINAL]
    disagreed = total.disagreed.total() - total.disagreed[ORIGINAL]
    return "\n".join([*lines, _line("all mutants", made, refuted, made - refuted, disagreed)])


def _line(kind: str, *columns: int | str) -> str:
    return f"{kind:<24}" + "".join(f"{column:>10}" for column in columns)


def explained(what: str, plan: Plan) -> str:
    """The verdicts of both on a plan, and the plan."""
    steps = "\n".join(f"  {i}: {step}" for i, step in enumerate(plan.instructions))
    return (
        f"the smallest disagreement: {what}\n"
        f"oracle: {racy(plan) or 'safe'}\n"
        f"verifier: {[str(hazard) for hazard in find_hazards(plan)] or 'safe'}\n"
        f"{plan.streams}\n{plan.buffers}\n{steps}"
    )


def main() -> int:
    """Run the campaign; 1 if the two ever disagree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="mutants, at least")
    parser.add_argument("--seed", type=int, default=0, help="of the first plan")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    total = campaign(options.count, options.seed, options.jobs)
    print(table(total))
    if total.smallest:
        print(explained(*total.smallest))
    return 1 if total.disagreed else 0


if __name__ == "__main__":
    sys.exit(main())
