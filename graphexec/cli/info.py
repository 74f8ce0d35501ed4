"""graphexec info: versions, devices (with the reasons if not usable), BLAS, cores, cache."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import click

from graphexec.cli.options import json_option
from graphexec.cli.report import print_json

_PACKAGES = ("numpy", "ml-dtypes", "networkx", "pyyaml", "click", "rich", "threadpoolctl",
             "hip-python", "safetensors")  # fmt: skip


@click.command(short_help="Show versions, devices and libraries.")
@json_option
def info(as_json: bool) -> None:
    """Show versions, devices (and why one cannot be used), BLAS library and cores.

    \b
    --json prints one object:
      graphexec, python, platform, cores, cache
      packages: {name: version or null}
      devices:  [{name, usable, detail, reasons}]
      hip:      {usable, reason} or {usable, platform, hip_python, bindings, runtime,
                runtime_version, hiprtc, devices, graphs, hipblaslt}
      blas:     [{library, version, threads, path}]
    """
    found = _gather()
    if as_json:
        print_json(found)
    else:
        click.echo(_render(found))


def _gather() -> dict[str, Any]:
    from dataclasses import asdict

    from graphexec.base.version import __version__
    from graphexec.runtime.find import available
    from graphexec.runtime.hip.info import describe

    return {
        "graphexec": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": _cores(),
        "cache": _cache(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": [asdict(device) for device in available()],
        "hip": describe(),
        "blas": _blas(),
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _blas() -> list[dict[str, Any]]:
    import numpy  # noqa: F401  loads its BLAS
    from threadpoolctl import threadpool_info

    return [
        {"library": pool["internal_api"], "version": pool.get("version"),
         "threads": pool["num_threads"], "path": pool["filepath"]}
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]  # fmt: skip


def _render(found: dict[str, Any]) -> str:
    from graphexec.runtime.hip.info import lines as hip_lines

    lines = [
        f"graphexec  {found['graphexec']}",
        f"python     {found['python']} on {found['platform']}",
        f"cores      {found['cores']}",
        f"cache      {found['cache'] or 'none'}",
        "",
        "devices",
    ]
    for device in found["devices"]:
        usable = "usable" if device["usable"] else "not usable"
        lines.append(f"  {device['name']:<4}  {usable}: {device['detail']}")
        lines += [f"        {reason}" for reason in device["reasons"]]
    if found["hip"]["usable"]:
        lines += ["", "HIP", *(f"  {line}" for line in hip_lines(found["hip"]))]
    lines += ["", "BLAS"]
    for blas in found["blas"]:
        lines.append(f"  {blas['library']} {blas['version']}, {blas['threads']} threads")
    lines += ["", "packages"]
    lines += [f"  {n:<14} {v or 'not installed'}" for n, v in found["packages"].items()]
    return "\n".join(lines)


def _cache() -> str | None:
    from graphexec.base.cache import cache_folder

    folder = cache_folder("kernels")
    return None if folder is None else str(folder)
