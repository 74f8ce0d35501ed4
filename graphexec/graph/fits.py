"""What must be so of shapes where blocks meet: what a block is given, and what it carries over.

An input of a block whose shape is stated has that shape; what a repetition gives the next has the
type of what it was given itself. Where that is not so, nothing else is said of that use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.expressions import ExpressionError, Number, evaluate
from graphexec.base.tensor import TensorType
from graphexec.ir.graph import Fit, Graph
from graphexec.ir.origin import Origin, at


class Fits:
    """Checked whenever the type of a tensor is found."""

    def __init__(self, fits: tuple[Fit, ...]) -> None:
        self.waiting: dict[str, list[Fit]] = {}
        self.refused: set[str] = set()  # uses
        for fit in fits:
            self.waiting.setdefault(fit.tensor, []).append(fit)
            if isinstance(fit.like, str):
                self.waiting.setdefault(fit.like, []).append(fit)

    def refuse(self, origin: Origin | None) -> bool:
        """Whether a declaration is in a use at which a mistake was found."""
        if origin is None or not self.refused:
            return False
        return any(o.use in self.refused for o in origin.chain())

    def check(
        self, tensor: str, types: Mapping[str, TensorType], graph: Graph,
        names: Mapping[str, Number],
    ) -> Iterator[Diagnostic]:  # fmt: skip
        """The mistakes that show once the type of `tensor` is known."""
        for fit in self.waiting.get(tensor, ()):
            if isinstance(fit.like, str):
                known = fit.tensor in types and fit.like in types
                error = _carried(fit, types, graph) if known else None
            else:
                error = _stated(fit, types[tensor], graph, names)
            if error is not None and not self.refuse(fit.origin):
                self.refused.add(fit.origin.use)
                yield error


def _carried(fit: Fit, types: Mapping[str, TensorType], graph: Graph) -> Diagnostic | None:
    assert isinstance(fit.like, str)
    given, made = types[fit.like], types[fit.tensor]
    if given == made:
        return None
    message = (f"output '{fit.input}' of block '{fit.origin.block}' is {made}, and its input "
               f"'{fit.input}' is {given}")  # fmt: skip
    return Diagnostic(
        message, source=graph.source if fit.mark else None, mark=fit.mark,
        label="does not fit the next repetition" if fit.mark else "",
        notes=fit.origin.notes(graph.source),
        help="what a repeated block carries over keeps its shape and dtype",
    )  # fmt: skip


def _stated(
    fit: Fit, type: TensorType, graph: Graph, names: Mapping[str, Number]
) -> Diagnostic | None:
    stated = f"[{', '.join(map(str, fit.like))}]"
    try:
        shape = tuple(int(evaluate(extent, names, "int")) for extent in fit.like)
    except ExpressionError as exc:
        return Diagnostic(
            f"input '{fit.input}' of block '{fit.origin.block}': {exc.message}",
            source=graph.source if fit.mark else None,
            mark=fit.mark,
            help=exc.help,
        )
    if shape == type.shape:
        return None
    values = "" if stated == str(list(shape)) else f" = {list(shape)}"
    declared = at(fit.input, fit.mark, graph.source)
    return graph.error(
        f"input '{fit.input}' of block '{fit.origin.block}' is stated as {stated}{values}, and it "
        f"is given {type}", fit.user, fit.input, notes=(f"the input is {declared}",),
    )  # fmt: skip
