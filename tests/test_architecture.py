"""The walls of the design: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import graphexec as gx

ROOT = Path(gx.__file__).parent
OPS = Path(__file__).parent.parent / "ops"

DATA = {
    "blas_layout", "capabilities", "collector", "command", "costs", "cycles", "diagnostics",
    "epilogue", "errors", "expressions", "graph", "lower_bounds", "op", "plan", "rewriting",
    "scheduled", "simulate", "tensor", "typed",
}  # fmt: skip
"""Modules that say what things are; stages may import these and what is named for each."""

READS_FILES = {
    "infer": {"weights"},
    "rewrite": {"rewrites"},
    "load": {"reading"},
    "schedule": {"scheduling"},
    "allocate": {"allocation"},
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name without `graphexec.`."""
    found = {}
    for folder, prefix in ((ROOT, ""), (OPS, "ops.")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[(prefix + ".".join(parts)).rstrip(".")] = path
    return found


def imports(path: Path, only_eager: bool = False) -> Iterator[str]:
    """Full names imported by a module: `from a.b import c` gives `a.b.c`.

    `only_eager` leaves out what is imported inside functions and for types only.
    """
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if only_eager and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if only_eager and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)


def own(name: str, only_eager: bool = False) -> set[str]:
    """Modules of graphexec that module `name` imports, without the prefix."""
    found = set()
    for full in imports(modules()[name], only_eager):
        if not full.startswith("graphexec."):
            continue
        parts = full.split(".")[1:]
        while parts and ".".join(parts) not in modules():
            parts.pop()
        found.add(".".join(parts))
    return found - {""}


def top(name: str) -> str:
    return name.split(".")[0]


def within(package: str) -> list[str]:
    return sorted(m for m in modules() if m.startswith(f"{package}.") or m == package)


def foreign(library: str, only_eager: bool = False) -> set[str]:
    """Modules that import `library`."""
    return {
        name for name, path in modules().items()
        if any(full.split(".")[0] == library for full in imports(path, only_eager))
    }  # fmt: skip


def test_the_sources_are_found() -> None:
    assert {"pipeline", "stages.infer", "verify.races", "devices.cpu", "ops.gemm"} <= set(modules())
    assert "command" in own("stages.lower")
    assert "stages.allocate" in own("pipeline")


# Stages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [m for m in within("stages") if m != "stages"])
def test_stages_import_data_modules_only(stage: str) -> None:
    allowed = DATA | READS_FILES.get(stage.removeprefix("stages."), set())
    assert {top(m) for m in own(stage)} <= allowed


def test_only_the_pipeline_imports_the_stages() -> None:
    """Loading is where everything begins, so anybody may."""
    for name in modules():
        stages = {m for m in own(name) if top(m) == "stages"} - {"stages.load"}
        if top(name) not in ("pipeline", ""):
            assert not stages, name


def test_data_modules_import_no_machinery() -> None:
    """Not when they are imported, that is: a plan shows itself by importing a view."""
    for name in DATA:
        assert {top(m) for m in own(name, only_eager=True)} <= DATA, name


SHARED = {"rewrites.pointers", "rewrites.readers"}
"""What rewrites ask of graphs; they import one another in nothing else."""


def test_rewrites_import_data_modules_and_their_own_only() -> None:
    """And, when they run, the op of a node that they make."""
    for name in within("rewrites"):
        here = f"{'.'.join(name.split('.')[:2])}."
        others = {m for m in own(name) if not m.startswith(here)} - SHARED
        eager = {m for m in own(name, only_eager=True) if not m.startswith(here)} - SHARED
        # A rewrite of programs may ask how long one would take.
        assert {top(m) for m in others} <= DATA | {"ops", "scheduling"}, name
        assert {top(m) for m in eager} <= DATA | {"scheduling"}, name


# The verifier ---------------------------------------------------------------------------------


def test_the_verifier_shares_nothing_with_the_stages() -> None:
    """A plan, tensors and how errors are shown; no schedule, no command, no cost, no helper."""
    for name in within("verify"):
        allowed = {"plan", "tensor", "errors", "diagnostics", "verify"}
        assert {top(m) for m in own(name)} <= allowed, name


def test_the_stages_do_not_ask_the_verifier() -> None:
    for name in (*within("stages"), *within("rewrites"), *DATA):
        assert "verify" not in {top(m) for m in own(name, only_eager=True)}, name


# Devices --------------------------------------------------------------------------------------


def test_devices_know_no_op() -> None:
    for name in within("devices"):
        assert not {top(m) for m in own(name)} & {"ops", "op", "registry", "stages", "pipeline"}, (
            name
        )


def test_ops_know_no_device() -> None:
    for name in within("ops"):
        allowed = {
            "blas_layout",
            "command",
            "epilogue",
            "op",
            "ops",
            "tensor",
            "diagnostics",
            "errors",
            "host_compiler",  # what an op computes on the CPU may be written in C
        }
        assert {top(m) for m in own(name)} <= allowed, name


def test_hip_is_imported_in_one_module_and_lazily() -> None:
    assert foreign("hip") | foreign("rocm") <= {"devices.hip_bindings"}
    assert not foreign("hip", only_eager=True) | foreign("rocm", only_eager=True)


def test_triton_stays_with_the_compiler_and_the_kernels_written_for_it() -> None:
    kernels = {"ops.attention.flash", "ops.attention.flash_hopper"}
    assert foreign("triton") == {"devices.hip_triton", *kernels}
    assert foreign("triton", only_eager=True) == kernels
    assert not kernels & {m for name in modules() for m in own(name, True)}


# Libraries ------------------------------------------------------------------------------------


def test_yaml_is_imported_by_the_loader_alone() -> None:
    assert foreign("yaml")
    assert all(top(m) == "reading" or m in ("load", "stages.load") for m in foreign("yaml"))


def test_the_command_line_is_the_only_user_of_click_and_rich() -> None:
    assert {top(m) for m in foreign("click") | foreign("rich")} == {"cli"}


def test_nothing_imports_the_command_line() -> None:
    importers = {n for n in modules() if "cli" in {top(m) for m in own(n)} and top(n) != "cli"}
    assert importers <= {"__main__"}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


HEAVY = {"numpy", "yaml", "networkx", "click", "rich", "hip", "rocm", "ml_dtypes", "threadpoolctl",
         "safetensors", "concurrent", "asyncio"}  # fmt: skip


def test_importing_graphexec_loads_nothing_heavy() -> None:
    assert not loaded_after("import graphexec") & HEAVY


def test_loading_a_graph_needs_no_numpy() -> None:
    file = OPS.parent / "graphs" / "attention.yaml"
    loaded = loaded_after(
        f"import graphexec as gx; gx.load({str(file)!r}, ops={{}}) if 0 else gx.load"
    )
    assert not loaded & (HEAVY - {"yaml"})


def test_a_plan_is_shown_without_numpy_and_yaml() -> None:
    loaded = loaded_after("from graphexec import Plan, find_hazards")
    assert not loaded & HEAVY


def test_planning_does_not_load_a_device() -> None:
    code = ("import graphexec as gx; g = gx.Graph(); g.input('x', (2,)); g.output(g.copy('x')); "
            "gx.make_plan(g); import sys; "
            "assert not [m for m in sys.modules if m.startswith('graphexec.devices')]")  # fmt: skip
    assert not loaded_after(code) & {"click", "rich", "hip", "rocm", "threadpoolctl"}


def test_public_names_exist() -> None:
    assert set(gx.__all__) == set(dir(gx))
    for name in gx.__all__:
        assert getattr(gx, name) is not None
    with pytest.raises(AttributeError, match="module 'graphexec' has no attribute 'nothing'"):
        _ = gx.nothing
