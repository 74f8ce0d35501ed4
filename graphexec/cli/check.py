"""graphexec check: all checks that need no run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import click

from graphexec.base.printable import printable
from graphexec.cli.completion import GraphFile
from graphexec.cli.files import is_plan_file, read_plan
from graphexec.cli.options import Loader, json_option, loader_options
from graphexec.cli.planning import options_of, rewrite_options, streams_option
from graphexec.cli.progress import Progress
from graphexec.cli.report import print_json, show_diagnostic

if TYPE_CHECKING:
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.ir.plan import Plan
    from graphexec.planning.options import Options
    from graphexec.proof import Hazard


@dataclass
class _Finding:
    """The findings of a file."""

    file: str
    plan: Plan | None = None
    nodes: int | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)
    hazards: list[Hazard] = field(default_factory=list)
    lint: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        if self.plan is None:
            return 2
        return 1 if self.hazards else 0


@click.command(short_help="Check graphs and plan files without running.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=GraphFile())
@loader_options
@options_of(streams_option, *rewrite_options)
@click.option(
    "--together",
    is_flag=True,
    help="The plans are of one executable: they share states, and run in any order.",
)
@json_option
def check(
    files: tuple[str, ...], loader: Loader, options: Options, together: bool, as_json: bool
) -> int:
    """Check graphs (.yaml) and plan files (.json) without running them.

    A graph's names, shapes and dtypes are checked, it is planned, and the plan is proved free of
    races. A plan file of any program is proved or refuted. The exit code is 1 for a race, 2 for an
    invalid file. The file - is standard input.

    \b
    --json prints one object:
      files: [{file, ok, graph, nodes, launches, streams, waits,
               diagnostics: [{severity, message, path, line, column, label, notes, help}],
               hazards: [{kind, message, relation, first, second, tensors, range, missing}],
               lint: [text]}]
    """
    progress = Progress()
    findings = []
    for file in files:
        with progress.step(f"checking {file}"):
            finding = _check_plan(file) if is_plan_file(file) else _check(file, loader, options)
        findings.append(finding)
        if together and len(findings) == len(files):
            _prove_together(findings)
        if not as_json and not together:
            _print(finding)
    for finding in findings if together and not as_json else ():
        _print(finding)
    if as_json:
        print_json({"files": [_document(f) for f in findings]})
    return max(f.exit_code for f in findings)


def _check(file: str, loader: Loader, options: Options) -> _Finding:
    from graphexec.api import make_plan
    from graphexec.base.errors import InputError

    finding = _Finding(file)
    loader.ops()  # a mistake of theirs is not one of the graph
    try:
        graph = loader.quietly(file)
        finding.diagnostics += graph.warnings
        finding.nodes = len(graph.nodes)
        plan = make_plan(graph, options=replace(options, verify=False))
    except InputError as exc:
        finding.diagnostics += exc.diagnostics
        return finding
    return _prove(finding, plan)


def _check_plan(file: str) -> _Finding:
    from graphexec.base.errors import InputError

    finding = _Finding(file)
    try:
        plan = read_plan(file)
    except InputError as exc:
        finding.diagnostics += exc.diagnostics
        return finding
    from graphexec.ir.figures import stale
    from graphexec.proof import lint

    _prove(finding, plan)
    finding.lint = stale(plan) if finding.hazards else [*lint(plan), *stale(plan)]
    return finding


def _prove(finding: _Finding, plan: Plan) -> _Finding:
    from graphexec.proof import find_hazards

    finding.plan = plan
    finding.hazards = find_hazards(plan)
    return finding


def _prove_together(findings: list[_Finding]) -> None:
    """Add what is wrong with plans beside one another to what is wrong with the last of them."""
    from graphexec.proof import find_hazards_together

    plans = [finding.plan for finding in findings if finding.plan is not None]
    findings[-1].hazards = [*findings[-1].hazards, *find_hazards_together(plans)]


# Showing --------------------------------------------------------------------------------


def _print(finding: _Finding) -> None:
    for diagnostic in finding.diagnostics:
        click.echo(diagnostic.render() + "\n", err=True)
    file = printable(finding.file)
    for hazard in finding.hazards:
        click.echo(f"error: {file}: {hazard}\n", err=True)
    for text in finding.lint:
        click.echo(f"warning: {file}: {printable(text)}\n", err=True)
    click.echo(f"{file}: {_verdict(finding)}")


def _verdict(finding: _Finding) -> str:
    from graphexec.views.table import count

    if finding.plan is None:
        errors = sum(d.severity == "error" for d in finding.diagnostics)
        return f"wrong: {count(errors, 'error')}"
    facts = _facts(finding)
    shape = f"{count(facts['launches'], 'launch')} on {count(facts['streams'], 'stream')}"
    shape += f", {count(facts['waits'], 'wait')}"
    if finding.nodes is not None:
        shape = f"{count(finding.nodes, 'node')}, {shape}"
    if finding.hazards:
        return f"refuted: {count(len(finding.hazards), 'hazard')}; {shape}"
    warnings = len(finding.diagnostics) + len(finding.lint)
    ending = f" ({count(warnings, 'warning')})" if warnings else ""
    return f"ok: {shape}, proved free of races{ending}"


def _facts(finding: _Finding) -> dict[str, int]:
    from graphexec.ir.plan import Wait

    assert finding.plan is not None
    instructions = finding.plan.instructions
    return {
        "launches": len(finding.plan.launches),
        "streams": len(finding.plan.streams),
        "waits": sum(isinstance(i, Wait) and i.role == "dependency" for i in instructions),
    }


def _document(finding: _Finding) -> dict[str, object]:
    found: dict[str, object] = {"file": finding.file, "ok": finding.exit_code == 0}
    if finding.plan is not None:
        found |= {"graph": finding.plan.graph, "nodes": finding.nodes, **_facts(finding)}
    return found | {
        "diagnostics": [show_diagnostic(d) for d in finding.diagnostics],
        "hazards": [_hazard(h) for h in finding.hazards],
        "lint": finding.lint,
    }


def _hazard(hazard: Hazard) -> dict[str, object]:
    sites = {
        name: site and {"instruction": site.index, "node": site.node, "command": site.command,
                        "stream": site.stream}
        for name, site in (("first", hazard.first), ("second", hazard.second))
    }  # fmt: skip
    at = hazard.range and [hazard.range.buffer, hazard.range.low, hazard.range.high]
    return {"kind": hazard.kind, "message": hazard.message, "relation": hazard.relation, **sites,
            "tensors": list(hazard.tensors), "range": at, "missing": hazard.missing}  # fmt: skip
