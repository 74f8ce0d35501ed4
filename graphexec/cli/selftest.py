"""graphexec selftest: check that everything works here. The report can be pasted into an issue."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from graphexec.cli import ranks
from graphexec.cli.options import (
    chosen_device,
    device_option,
    json_option,
    mode_option,
    timeout_option,
)
from graphexec.cli.progress import Progress
from graphexec.cli.report import duration, print_json

if TYPE_CHECKING:
    from graphexec.runtime.device import Device
    from graphexec.runtime.hip.options import Mode
    from graphexec.tools.selftest import Check


@click.command(short_help="Check that everything works on a device.")
@ranks.ranked
@device_option
@mode_option
@timeout_option
@json_option
def selftest(device: str, mode: Mode | None, timeout: float | None, as_json: bool) -> int:
    """Run a few seconds of checks on a device: every op and dtype against float64, races, capture
    and replay, requests in flight, the example graphs.

    Exit code 1 if a check fails. The report can be pasted into an issue.

    \b
    --json prints one object:
      graphexec, python, platform, device, detail, mode, ok
      hip:     what `graphexec info` says of the HIP device, or null
      checks:  [{name, ok, detail, seconds}]
    """
    from graphexec.tools.selftest import selftest

    chosen = chosen_device(device, mode, timeout)
    report = _environment(chosen, mode)
    if not as_json:
        click.echo(_heading(report))
    progress, checks = Progress(), []
    with progress.step("checking"):
        for check in selftest(chosen):
            checks.append(check)
            if not as_json:
                click.echo(_line(check))
        for check in ranks.checks_of_ranks([check.name for check in checks if not check.ok]):
            checks.append(check)
            if not as_json:
                click.echo(_line(check))
    report["checks"], report["ok"] = [asdict(c) for c in checks], all(c.ok for c in checks)
    if as_json:
        print_json(report)
    else:
        click.echo(_ending(checks))
    return 0 if report["ok"] else 1


def _environment(device: Device, mode: Mode | None) -> dict[str, Any]:
    from graphexec.base.version import __version__
    from graphexec.runtime.hip.info import describe

    hip = device.name == "hip"
    return {
        "graphexec": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": device.name,
        "detail": device.describe(),
        "mode": (mode or "graph") if hip else None,
        "hip": describe() if hip else None,
    }


def _heading(report: dict[str, Any]) -> str:
    from graphexec.runtime.hip.info import lines

    mode = f", {report['mode']} mode" if report["mode"] else ""
    text = [
        f"graphexec {report['graphexec']} selftest on {report['device']}{mode}",
        f"python     {report['python']} on {report['platform']}",
        f"device     {report['detail']}",
        *(lines(report["hip"]) if report["hip"] else []),
    ]
    return "\n".join(text) + "\n"


def _line(check: Check) -> str:
    word = "ok    " if check.ok else "FAILED"
    return f"{word}  {check.name:<26}  {check.detail} ({duration(check.seconds)})"


def _ending(checks: list[Check]) -> str:
    failed = [check.name for check in checks if not check.ok]
    if not failed:
        return f"\nall {len(checks)} checks are ok"
    return f"\n{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
