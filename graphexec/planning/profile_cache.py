"""The folder of kept profiles, from which later plans take the measured times.

A profile is for one graph (its nodes, types and attributes, hence its dims), one kind of hardware
and the versions of what runs there. The file is named after the graph and a hash of all three.
Profiles are text for people, so they have no seal as other cache entries do. A file is not used,
and a warning names it, if it is damaged, if its content does not match its name, if it belongs to
another user, or if others may write to it.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graphexec.base.atomic_file import check_file, check_folder, text_writer, write_files
from graphexec.base.cache import CacheWarning, cache_folder, fingerprint, read_private
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError, GraphError
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.machine.hardware import Machine
from graphexec.planning.profile import Profile, loads

VARIABLE = "GRAPHEXEC_PROFILES"


@dataclass(frozen=True)
class Kept:
    """A profile and the file it is in."""

    path: Path
    profile: Profile


def folder() -> Path | None:
    """`$GRAPHEXEC_PROFILES`, `$XDG_CACHE_HOME/graphexec/profiles`, or that under `~/.cache`; None
    for a user without a home."""
    if chosen := os.environ.get(VARIABLE, ""):
        return Path(chosen)
    return cache_folder("profiles")


def find(graph: TypedGraph, machine: Callable[[], Machine]) -> Kept | None:
    """The profile of `graph` on a machine. `machine` is called only if there may be a profile.

    Warns of a file that should be the profile but cannot be used.
    """
    place = folder()
    if place is None or not any(_named_like(place, graph)):
        return None
    here = machine()
    path = place / file_name(graph, here)
    try:
        profile = loads(read_private(path).decode("utf-8-sig"), str(path))
        why = _foreign(profile, graph, here)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as exc:
        why = f"it is not UTF-8 text: {exc}"
    except OSError as exc:
        why = exc.strerror or str(exc)
    except GraphError as exc:
        why = exc.diagnostics[0].message
    if why:
        message = f"the profile '{path}' is not used: {why}"
        warnings.warn(message, CacheWarning, stacklevel=2)
        return None
    return Kept(path, profile)


def _foreign(profile: Profile, graph: TypedGraph, here: Machine) -> str:
    """Why the content of a profile does not match its file name; empty if it does."""
    if profile.signature != signature(graph):
        return f"it is of another graph, '{profile.graph}'"
    if profile.device != here.architecture or profile.versions != here.versions:
        return f"it was measured on something else, '{profile.device}'"
    return ""


def keep(graph: TypedGraph, machine: Machine, profile: Profile) -> Path:
    """Write the profile to its place, whole or not at all. DataError if that fails."""
    path = _place(graph, machine)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise _no_folder(path.parent, exc) from exc
    write_files({path: text_writer(profile.to_json())}, mode=0o600)
    return path


def check_keepable(graph: TypedGraph, machine: Machine) -> None:
    """Raise DataError unless a profile could be kept now; leaves nothing behind."""
    path = _place(graph, machine)
    place = path.parent
    if os.path.isdir(place):
        check_file(path)
        return
    # What would hold the first of the folders that are to be made. A name that is taken by
    # anything else, a broken link too, is where making them would end.
    there = next(p for p in (place, *place.parents) if os.path.lexists(p))
    try:
        check_folder(there)
        with suppress(FileNotFoundError):  # any other error, as for a name too long, stays
            os.stat(place)
    except OSError as exc:
        raise _no_folder(place, exc) from exc


def _place(graph: TypedGraph, machine: Machine) -> Path:
    place = folder()
    if place is None:
        help = f"set {VARIABLE} to a folder"
        raise DataError([Diagnostic("there is no place to keep profiles at", help=help)])
    return place / file_name(graph, machine)


def _no_folder(place: Path, exc: OSError) -> DataError:
    return DataError([Diagnostic(f"cannot make the folder '{place}': {exc.strerror or exc}")])


def file_name(graph: TypedGraph, machine: Machine) -> str:
    """The name of the file with the profile of a graph on a machine."""
    parts = (signature(graph), machine.architecture, repr(sorted(machine.versions.items())))
    return f"{_slug(graph.name)}-{fingerprint(*parts)[:16]}.json"


def signature(graph: TypedGraph) -> str:
    """A hash that is equal for graphs that compute the same in the same way. It depends on the
    names of nodes, and not on their order."""
    parts = [f"input {name} {type}" for name, type in graph.inputs.items()]
    parts += [f"weight {name} {weight.type}" for name, weight in graph.weights.items()]
    parts += [f"output {name} {tensor}" for name, tensor in graph.outputs.items()]
    parts += [f"state {name} {s.type} {s.next}" for name, s in graph.states.items()]
    parts += [_node(node) for node in graph.nodes]
    return fingerprint(*sorted(parts))


def _node(node: TypedNode) -> str:
    operands, attrs = sorted(node.operands.items()), sorted(node.attrs.items())
    return f"node {node.name} {node.op.name} {operands} {attrs} {node.type} {node.after}"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)[:60] or "graph"


def _named_like(place: Path, graph: TypedGraph) -> list[Path]:
    """Files of graphs of this name. Looking for them first avoids hashing large graphs."""
    try:
        return list(place.glob(f"{_slug(graph.name)}-*.json"))
    except OSError:
        return []
