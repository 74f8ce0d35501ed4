"""Which axes of inputs, weights and states are cut: by the dims that the graph, or the tensor
itself, says to cut. Dims are matched by their names in shapes, never by their values."""

from __future__ import annotations

from collections.abc import Mapping

from graphexec.base.diagnostics import Diagnostic, Mark, did_you_mean
from graphexec.base.errors import GraphError
from graphexec.base.expressions import names_in
from graphexec.base.grammar import Binary, Expression, Name, parse
from graphexec.frontend.expand import expand
from graphexec.graph.partition.split import Spec
from graphexec.ir.graph import Dim, Graph, Input, State, Weight
from graphexec.ir.typed import TypedGraph


def cuts_of(graph: Graph, typed: TypedGraph, mesh: Mapping[str, int]) -> dict[str, Spec]:
    """For each tensor that is cut, the axis of the mesh for each of its axes. GraphError with all
    that is wrong with what the graph says."""
    return _Cuts(graph, typed, mesh).run()


class _Cuts:
    def __init__(self, graph: Graph, typed: TypedGraph, mesh: Mapping[str, int]) -> None:
        self.graph, self.types, self.mesh = graph, typed.types(), mesh
        self.errors: list[Diagnostic] = []
        self.named: set[str] = set()  # dims that a shape names

    def run(self) -> dict[str, Spec]:
        flat, found = expand(self.graph), dict[str, Spec]()
        cut = self.checked(self.graph.cut, self.graph.cut_marks, "")
        declared: list[Input | Weight | State] = [*flat.inputs.values(), *flat.weights.values()]
        for item in (*declared, *flat.states.values()):
            own = self.checked(item.cut or {}, item.marks, "cut.")
            spec = self.spec(item, cut | own)
            if any(spec):
                found[item.name] = spec
            missing = own.keys() - self.names(item)
            for dim in sorted(missing):
                self.error(f"no axis of '{item.name}' is named '{dim}'", item.marks, f"cut.{dim}")
        for dim in cut.keys() - self.named:
            self.error(f"no shape of an input, weight or state names the dim '{dim}'",
                       self.graph.cut_marks, dim, "only named dims are cut")  # fmt: skip
        if self.errors:
            raise GraphError(self.errors)
        return found

    def checked(
        self, cut: Mapping[str, str], marks: Mapping[str, Mark], prefix: str
    ) -> dict[str, str]:
        """The cuts along axes of the mesh that there are."""
        good = {}
        for dim, axis in cut.items():
            if dim not in self.graph.dims:
                self.error(f"the graph has no dim '{dim}'", marks, prefix + dim,
                           did_you_mean(dim, self.graph.dims))  # fmt: skip
            elif axis not in self.mesh:
                known = f"its axes: {', '.join(self.mesh)}" if self.mesh else "it has no axes"
                self.error(f"the mesh has no axis '{axis}'", marks, prefix + dim,
                           did_you_mean(axis, self.mesh) or known)  # fmt: skip
            elif self.graph.dims[dim] % self.mesh[axis]:
                self.error(f"{dim} = {self.graph.dims[dim]} does not divide among the "
                           f"{self.mesh[axis]} ranks of '{axis}'", marks, prefix + dim)  # fmt: skip
                self.named.add(dim)
            else:
                good[dim] = axis
        return good

    def names(self, item: Input | Weight | State) -> set[str]:
        return {name for extent in item.shape or () for name in names_in(str(extent))}

    def spec(self, item: Input | Weight | State, cut: Mapping[str, str]) -> Spec:
        shape = self.types[item.name].shape
        spec = [""] * len(shape)
        for place, extent in enumerate(item.shape or ()):
            for dim in [name for name in names_in(str(extent)) if name in cut]:
                self.named.add(dim)
                why = self.why_not(extent, dim)
                if not why and (cut[dim] in spec):
                    why = f"two axes of '{item.name}' would be cut along '{cut[dim]}'"
                if why:
                    key = f"shape[{place}]"
                    self.error(f"'{item.name}' cannot be cut along '{dim}': {why}", item.marks,
                               key if key in item.marks else "shape")  # fmt: skip
                else:
                    spec[place] = cut[dim]
        return tuple(spec)

    def why_not(self, extent: Dim, dim: str) -> str:
        tree: Expression = parse(str(extent))
        while isinstance(tree, Binary) and tree.operator == "*":
            tree = tree.left
        if isinstance(tree, Name) and tree.name == dim:
            return ""
        return f"'{dim}' is not the leading factor of {extent}"

    def error(self, message: str, marks: Mapping[str, Mark], key: str, help: str = "") -> None:
        mark = marks.get(key) or marks.get("")
        found = Diagnostic(
            message, source=self.graph.source if mark else None, mark=mark, help=help
        )
        if found not in self.errors:
            self.errors.append(found)
