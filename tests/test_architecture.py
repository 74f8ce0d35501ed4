"""The walls of the design, read from the sources: who may import whom, where, and when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import pytest

import graphexec as gx

ROOT = Path(gx.__file__).parent
OPS = ROOT.parent / "ops"

FLOORS = (
    "base",  # tensors, diagnostics, files
    "ir",  # the nouns
    "proof",  # beside the compiler: it shares the nouns and nothing else
    "machine",  # what hardware can do and what it costs
    "ops",
    "formats",
    "frontend",
    "graph",
    "planning",
    "runtime",
    "views",
    "api",  # what a user calls; the tools and the command line are users of it
    "tools",
    "onnx_backend",  # what ONNX's own tests are run with; a user of the api
    "cli",
    "graphexec",  # the names of the package, imported when they are first used
)
"""Each imports only what stands before it, and modules of its own floor."""

MOST_AT_THE_TOP = 8

SHOWS_ITSELF = "a noun shows and saves itself: users call the method, the text is made above it"
QUICK = "a command loads what it needs: `graphexec --help` answers at once"
NUMPY = "NumPy takes longer to load than most graphs to plan"
DEVICES = "planning loads no device, and running on one not the others"
OPTIONAL = "an optional library"
MPI = "loading it starts MPI"

UPWARD = {
    ("ir.plan", "formats.plan_file"): SHOWS_ITSELF,
    ("ir.plan", "views.dot"): SHOWS_ITSELF,
    ("ir.plan", "views.lanes"): SHOWS_ITSELF,
    ("ir.plan", "views.notebook"): SHOWS_ITSELF,
    ("ir.plan", "views.text"): SHOWS_ITSELF,
    ("ir.graph", "views.notebook"): SHOWS_ITSELF,
    ("runtime.executable", "views.notebook"): SHOWS_ITSELF,
    ("ir.graph", "frontend.yaml.write"): SHOWS_ITSELF,
}
"""Imports of a higher floor, all inside functions; they close no circle when modules load."""

INSIDE_FUNCTIONS = {
    **UPWARD,
    ("api", "runtime.executable"): DEVICES,
    ("api", "runtime.find"): DEVICES,
    ("api", "runtime.ranks.agree"): DEVICES,
    ("api", "runtime.ranks.world"): DEVICES,
    ("base.cycles", "networkx"): "only a graph with a cycle needs it",
    ("base.tensor", "ml_dtypes"): NUMPY,
    ("ir.approximate", "ml_dtypes"): NUMPY,
    ("base.tensor", "numpy"): NUMPY,
    ("frontend.load", "frontend.onnx.load"): OPTIONAL,
    ("frontend.onnx.fold", "onnx"): OPTIONAL,
    ("frontend.onnx.model", "onnx"): OPTIONAL,
    ("frontend.load", "frontend.pretrained.load"): OPTIONAL,
    ("frontend.pretrained.gguf", "gguf"): OPTIONAL,
    ("frontend.weights", "base.casts"): NUMPY,
    ("frontend.weights", "base.npy"): NUMPY,
    ("frontend.weights", "frontend.pretrained.gguf"): OPTIONAL,
    ("frontend.weights", "frontend.onnx.weights"): OPTIONAL,
    ("frontend.weights", "numpy"): NUMPY,
    ("frontend.weights", "safetensors"): OPTIONAL,
    ("frontend.yaml.text", "yaml"): "a graph that is built in code needs no YAML",
    ("frontend.yaml.tree", "yaml"): "a graph that is built in code needs no YAML",
    ("machine.bounds", "numpy"): NUMPY,
    ("ops.attention.by_numpy", "numpy"): "from NumPy 2 on",
    ("planning.allocation.conflicts", "numpy"): NUMPY,
    ("runtime.cpu.cores", "threadpoolctl"): "it looks at every library that is loaded",
    ("runtime.find", "runtime.cpu.device"): DEVICES,
    ("runtime.find", "runtime.hip.device"): DEVICES,
    ("runtime.hip.triton", "triton"): OPTIONAL,
    ("runtime.ranks.identity", "mpi4py"): MPI,
    ("runtime.ranks.transport", "mpi4py"): MPI,
    ("runtime.pending", "asyncio"): "who does not await needs no event loop",
    ("runtime.pinned", "runtime.hip.bindings"): "arrays for the CPU need no GPU",
    ("views.png", "resvg_py"): OPTIONAL,
}
"""Imports inside functions, and why they are not at the top. The command line has more: QUICK."""


class Import(NamedTuple):
    """`full` is what is named: `from a.b import c` gives a.b.c. `inside` a function, or for
    `types` only."""

    full: str
    inside: bool
    types: bool

    @property
    def library(self) -> str:
        return self.full.split(".")[0]


@cache
def modules() -> dict[str, Path]:
    """Every module by its name without `graphexec.`; the package itself is `graphexec`."""
    found = {}
    for folder, prefix in ((ROOT, ""), (OPS, "ops.")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[(prefix + ".".join(parts)).rstrip(".") or "graphexec"] = path
    return found


@cache
def imports(name: str) -> tuple[Import, ...]:
    """All imports of a module, wherever they stand."""
    path = modules()[name]
    return tuple(_imports(ast.parse(path.read_text(encoding="utf-8")), path, False, False))


def _imports(node: ast.AST, path: Path, inside: bool, types: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, inside, types) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}: relative imports hide who imports whom"
        yield from (Import(f"{node.module}.{a.name}", inside, types) for a in node.names)
    inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        yield from _imports(child, path, inside, types or (only and child in node.body))


def module_of(full: str) -> str | None:
    """The module of graphexec that an import is of; None for another library."""
    if full.split(".")[0] != "graphexec":
        return None
    parts = full.split(".")[1:]
    while parts and ".".join(parts) not in modules():
        parts.pop()
    return ".".join(parts) or "graphexec"


def own(name: str, loaded: bool = False) -> set[str]:
    """The modules of graphexec that a module imports; those `loaded` with it only, or all."""
    found = {module_of(i.full) for i in imports(name) if not (loaded and (i.inside or i.types))}
    return {found_name for found_name in found if found_name is not None} - {name}


def edges() -> list[tuple[str, str]]:
    return [(name, other) for name in modules() for other in sorted(own(name))]


def floor(name: str) -> int:
    top = name.split(".")[0]
    return FLOORS.index("cli" if top == "__main__" else top)


def within(*packages: str) -> list[str]:
    return sorted(m for m in modules() if any(f"{m}.".startswith(f"{p}.") for p in packages))


def users(library: str, loaded: bool = False) -> set[str]:
    """Modules that import a library."""
    return {
        name for name in modules()
        if any(i.library == library and not (loaded and (i.inside or i.types))
               for i in imports(name))
    }  # fmt: skip


# Floors ---------------------------------------------------------------------------------------


def test_the_sources_are_found() -> None:
    assert {"graphexec", "graph.infer", "proof.races", "runtime.cpu.device", "ops.gemm"} <= {
        *modules()
    }
    assert "ir.program" in own("planning.lower")
    assert ("ir.plan", "views.text") in edges()


def test_every_module_is_on_a_floor() -> None:
    folders = {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()}
    assert folders == {*FLOORS} - {"ops", "api", "onnx_backend", "graphexec"}
    assert all(name.split(".")[0] in (*FLOORS, "__main__") for name in modules())


def test_few_modules_lie_at_the_top() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_AT_THE_TOP


def test_no_module_imports_above_its_floor() -> None:
    """Inside functions and for types neither."""
    found = {(m, o) for m, o in edges() if floor(o) > floor(m)}
    assert found == set(UPWARD)


def test_no_circles() -> None:
    """Among modules, all their imports taken, those inside functions and for types too."""
    graph = nx.DiGraph(e for e in edges() if e not in UPWARD)
    assert [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == []


def test_imports_inside_functions_have_a_reason() -> None:
    found = {
        (name, module_of(i.full) or i.library)
        for name in modules() if name.split(".")[0] != "cli"
        for i in imports(name) if i.inside
    }  # fmt: skip
    assert found == set(INSIDE_FUNCTIONS)


# The proof ------------------------------------------------------------------------------------


def test_the_proof_shares_nothing_with_the_compiler() -> None:
    """The nouns, and how errors are shown; no schedule, no cost, no helper."""
    for name in within("proof"):
        assert {m.split(".")[0] for m in own(name)} <= {"base", "ir", "proof"}, name


def test_stages_do_not_ask_the_proof() -> None:
    stages = ("lower", "schedule", "synchronize", "allocate", "assemble", "batch", "scheduling",
              "allocation", "scheduled")  # fmt: skip
    for name in within("graph", "machine", *(f"planning.{stage}" for stage in stages)):
        assert not [m for m in own(name) if m.split(".")[0] == "proof"], name


# Devices and ops ------------------------------------------------------------------------------


def test_devices_know_no_op_and_no_planner() -> None:
    closed = {*within("ops", "planning"), "ir.op", "ir.registry"}
    for name in within("runtime.cpu", "runtime.hip"):
        assert not own(name) & closed, name


def test_rewrites_know_one_another_by_what_they_share_only() -> None:
    names = ("biases", "pointers", "readers", "windows")
    shared = {"graph.rewrites", *(f"graph.rewrites.{name}" for name in names)}
    for name in within("graph.rewrites"):
        assert not {m for m in own(name) if m.startswith("graph.rewrites.")} - shared, name


# Libraries ------------------------------------------------------------------------------------


def test_hip_is_imported_in_one_module_and_lazily() -> None:
    assert users("hip") | users("rocm") <= {"runtime.hip.bindings"}
    assert not users("hip", loaded=True) | users("rocm", loaded=True)


def test_triton_stays_with_the_compiler_and_the_kernels_written_for_it() -> None:
    kernels = {"ops.attention.flash", "ops.attention.flash_hopper"}
    assert users("triton") == {"runtime.hip.triton", *kernels}
    assert users("triton", loaded=True) == kernels
    assert not kernels & {m for name in modules() for m in own(name)}


def test_yaml_is_imported_by_its_reader_alone() -> None:
    assert users("yaml")
    assert users("yaml") <= {*within("frontend.yaml")}


def test_the_command_line_is_the_only_user_of_click_and_rich() -> None:
    assert {name.split(".")[0] for name in users("click") | users("rich")} == {"cli"}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"numpy", "yaml", "networkx", "click", "rich", "hip", "rocm", "ml_dtypes", "threadpoolctl",
         "safetensors", "concurrent", "asyncio"}  # fmt: skip


def test_importing_graphexec_loads_nothing_but_its_version() -> None:
    loaded = loaded_after("import graphexec")
    assert not loaded & HEAVY
    assert {m for m in loaded if m.startswith("graphexec.")} == {
        "graphexec.base", "graphexec.base.version",
    }  # fmt: skip


def test_loading_a_graph_needs_no_numpy() -> None:
    assert not loaded_after("import graphexec as gx; gx.load") & (HEAVY - {"yaml"})


def test_a_plan_is_shown_without_numpy_and_yaml() -> None:
    plan = "Plan('g', 'cpu', {}, (), (), (), ())"
    assert not loaded_after(f"from graphexec import Plan, find_hazards; str({plan})") & HEAVY


def test_planning_does_not_load_a_device() -> None:
    code = ("import graphexec as gx; g = gx.Graph(); g.input('x', (2,)); g.output(g.copy('x')); "
            "gx.make_plan(g)")  # fmt: skip
    loaded = loaded_after(code)
    assert not loaded & {"click", "rich", "hip", "rocm", "threadpoolctl"}
    assert not [m for m in loaded if m.startswith(("graphexec.runtime.cpu", "graphexec.runtime.h"))]


def test_public_names_exist() -> None:
    assert set(gx.__all__) == set(dir(gx))
    for name in gx.__all__:
        assert getattr(gx, name) is not None
    with pytest.raises(AttributeError, match="module 'graphexec' has no attribute 'nothing'"):
        _ = gx.nothing
