"""What a shell completes: files, and names that are in the graph on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    split_arg_string,
)

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class GraphFile(click.ParamType):  # type: ignore[type-arg]
    """The path of a graph or a plan, or - for standard input. Shells complete it as a file."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leaves files to the shell."""
        return [CompletionItem(incomplete, type="file")]


def ops(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of ops, also those of --ops."""
    return _silently(lambda: _beginning(incomplete, ((n, op.doc) for n, op in _ops(ctx).items())))


def rewrites(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of rewrites, and all."""
    from graphexec.planning.rewrite import ALL, known_rewrites

    known = [(name, found.doc) for name, found in known_rewrites().items()]
    return _beginning(incomplete, [*known, (ALL, "all of them")])


def nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Nodes, tensors and outputs of the graph in FILE."""

    from graphexec.frontend.expand import expand

    def found() -> list[CompletionItem]:
        graph = expand(_graph(ctx))
        kept = {**graph.inputs, **graph.weights, **graph.states}
        names = {**kept, **graph.nodes, **graph.same, **graph.outputs}
        return _beginning(incomplete, ((name, "") for name in names))

    return _silently(found)


def dims(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """DIM=N for the dims of the graph in FILE, with the numbers that they have there."""
    return _silently(lambda: _beginning(
        incomplete, ((f"{name}={extent}", "") for name, extent in _graph(ctx).dims.items())
    ))  # fmt: skip


def inputs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """NAME= for the inputs of the graph in FILE with what can be made; else a file."""
    found = _silently(lambda: _beginning(
        incomplete, ((f"{name}={made}", "") for name in _graph(ctx).inputs for made in _MADE)
    ))  # fmt: skip
    return found or [CompletionItem(incomplete, type="file")]


_MADE = ("zeros", "ones", "arange", "full:", "randn:", "randint:")


class Bash(BashComplete):
    """Bash takes "q=zeros" for three words, of which it completes the last."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one to complete, and that word."""
        given = split_arg_string(os.environ["COMP_WORDS"])
        last = int(os.environ["COMP_CWORD"])
        words = given[1 : last + 1] + [""] * (last + 1 - len(given))
        joined: list[str] = []
        for word in words:
            if joined and (word == "=" or joined[-1].endswith("=")):
                joined[-1] += word
            else:
                joined.append(word)
        return joined[:-1], joined[-1] if joined else ""

    def format_completion(self, item: CompletionItem) -> str:
        """What takes the place of the last of the three."""
        return f"{item.type},{str(item.value).rpartition('=')[2]}"


add_completion_class(Bash)


def _silently(find: Callable[[], list[CompletionItem]]) -> list[CompletionItem]:
    """Nothing where the graph cannot be read: a message would stand in the line being typed."""
    try:
        return find()
    except Exception:
        return []


def _beginning(start: str, known: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    from graphexec.base.printable import printable

    return [
        CompletionItem(name, help=printable(" ".join(text.split()), 80) or None)
        for name, text in known if name.startswith(start)
    ]  # fmt: skip


def _ops(ctx: click.Context) -> Any:
    from graphexec.ir.registry import load_ops

    return load_ops(ctx.params.get("op_folders") or ())


def _graph(ctx: click.Context) -> Graph:
    """The graph in FILE; standard input is the terminal and is not read."""
    from graphexec.frontend.load import load

    # Where the option being typed has no value yet, click leaves the arguments unread.
    return load(ctx.params.get("file") or ctx.args[0], ops=_ops(ctx))
