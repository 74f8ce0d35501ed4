"""graphexec ops and graphexec schema: the vocabulary of graph files."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill as wrap
from typing import TYPE_CHECKING

import click

from graphexec.cli import completion
from graphexec.cli.options import json_option, ops_option
from graphexec.cli.report import print_json, screen

if TYPE_CHECKING:
    from graphexec.ir.op import Attribute, Op
    from graphexec.ir.operand import Operand

_KINDS = {
    "bool": "true or false",
    "int": "integer",
    "number": "number",
    "dtype": "element type",
    "axes": "list of axes",
    "axis": "axis or list of axes",
    "dims": "list of extents",
    "slices": "axis: [start, stop, step]",
    "named": "named axes -> named axes",
    "expression": "expression over tensors",
}


def _width() -> int:
    return min(96, screen() or 96)


@click.command()
@click.argument("name", required=False, shell_complete=completion.ops)
@ops_option
@click.option("--rewrites", is_flag=True, help="List the rewrites instead: what planning replaces.")
@json_option
def ops(
    name: str | None, op_folders: tuple[Path, ...], rewrites: bool, as_json: bool
) -> None:  # fmt: skip
    """List the ops, or explain the op NAME alone.

    \b
    --json prints one object:
      ops: [{name, doc,
             operands:   [{name, doc, optional, many}],
             attributes: [{name, kind, default, choices, doc}]}]
    with --rewrites:
      rewrites: [{name, default, doc}]          default: true if on unless switched off
    """
    if rewrites:
        if name is not None:
            raise click.UsageError("--rewrites lists all of them; it takes no NAME.")
        _list_rewrites(as_json)
        return
    from graphexec.base.diagnostics import did_you_mean
    from graphexec.ir.registry import load_ops

    known = load_ops(op_folders)
    if name is not None and name not in known:
        hint = did_you_mean(name, known) or f"known are {', '.join(sorted(known))}."
        raise click.UsageError(f"there is no op '{name}'; {hint}")
    chosen = [known[name]] if name is not None else [known[n] for n in sorted(known)]
    if as_json:
        print_json({"ops": [_document(op) for op in chosen]})
    elif name is not None:
        click.echo(_page(chosen[0]))
    else:
        click.echo(_list(chosen))


def _list(chosen: list[Op]) -> str:
    width = max(len(op.name) for op in chosen)
    indent = " " * (width + 2)
    texts = [
        wrap(f"{op.name:<{width}}  {' '.join(op.doc.split())}", _width(), subsequent_indent=indent)
        for op in chosen
    ]
    return "\n\n".join([*texts, "`graphexec ops NAME` explains one."])


def _list_rewrites(as_json: bool) -> None:
    from graphexec.planning.rewrite import known_rewrites

    known = known_rewrites().values()
    if as_json:
        print_json({"rewrites": [{"name": r.name, "default": r.default, "doc": r.doc}
                                 for r in known]})  # fmt: skip
        return
    entries = [(r.name, f"{'on ' if r.default else 'off'}  {r.doc}") for r in known]
    click.echo(f"In the order in which they run, on or off by default:\n\n{_entries(entries)}\n")
    click.echo("`--no-rewrite NAME` switches one off, `--rewrite NAME` one on.")


def _page(op: Op) -> str:
    parts = [
        f"{op.name}\n\n{wrap(' '.join(op.doc.split()), _width())}",
        f"In YAML:\n\n{_usage(op)}",
    ]
    operands = [
        (o.name, f"{o.text} (optional)" if o.optional else o.text) for o in op.operands
    ]  # fmt: skip
    if operands:
        parts.append("Operands, each the name of a tensor:\n\n" + _entries(operands))
    if op.expression is not None:
        parts.append(_vocabulary(op.expression))
    if op.attributes:
        parts.append("Attributes:\n\n" + _entries([(a.name, _explain(a)) for a in op.attributes]))
    return "\n\n".join(parts)


def _usage(op: Op) -> str:
    needed = "".join(f", {o.name}: {_written(o)}" for o in op.operands if not o.optional)
    if op.expression is not None:
        needed += f", {op.expression}: …"
    return f"  y: {{op: {op.name}{needed}}}"


def _vocabulary(expression: str) -> str:
    """What an expression is made of."""
    from graphexec.base.grammar import FUNCTIONS

    text = (
        f"Operands are the tensors in `{expression}`, by their names; `with: {{x: NAME}}` gives "
        f"one another name there. Functions: {', '.join(sorted(FUNCTIONS, key=str.lower))}."
    )
    return wrap(text, _width())


def _written(operand: Operand) -> str:
    return f"[{operand.name}, …]" if operand.many else operand.name


def _entries(entries: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in entries)
    indent = " " * (width + 4)
    return "\n".join(
        wrap(f"  {name:<{width}}  {text}", _width(), subsequent_indent=indent)
        for name, text in entries
    )


def _explain(attribute: Attribute) -> str:
    kind = " | ".join(attribute.choices) if attribute.choices else _KINDS[attribute.kind]
    default = "" if attribute.default is None else f"; default {_yaml(attribute.default)}"
    return f"{attribute.doc} ({kind}{default})"


def _yaml(value: object) -> str:
    return json.dumps(value, default=str)


def _document(op: Op) -> dict[str, object]:
    return {
        "name": op.name,
        "doc": op.doc,
        "operands": [
            {"name": o.name, "doc": o.text, "optional": o.optional, "many": o.many}
            for o in op.operands
        ],
        "attributes": [
            {"name": a.name, "kind": a.kind, "default": json.loads(_yaml(a.default)),
             "choices": list(a.choices), "doc": a.doc}
            for a in op.attributes
        ],
    }  # fmt: skip


@click.command()
@ops_option
def schema(op_folders: tuple[Path, ...]) -> None:
    """Print the JSON Schema of graph files, for editors.

    With --ops it knows your ops too. The output is one JSON document.
    """
    from graphexec.frontend.schema import schema as make
    from graphexec.ir.registry import load_ops

    click.echo(json.dumps(make(load_ops(op_folders)), indent=2, ensure_ascii=False))
