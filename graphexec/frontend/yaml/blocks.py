"""The section `blocks`: graphs with names of their own, used by nodes as `{block: NAME, …}`.

A block is read once, whatever its uses are. Problems inside of it say where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.base.diagnostics import Diagnostic
from graphexec.frontend.yaml.document import Document
from graphexec.frontend.yaml.problems import short
from graphexec.frontend.yaml.tensors import Entry, TensorReader
from graphexec.frontend.yaml.tree import ListNode, ScalarNode
from graphexec.frontend.yaml.tree import Node as Value
from graphexec.ir.graph import Block, Graph, Input
from graphexec.ir.names import NODE_KEYS
from graphexec.ir.origin import at

BLOCK_KEYS = ("inputs", "file", "prefix", "weights", "state", "nodes", "outputs")


class BlockReaders:
    """The readers of all blocks of a file, which know of each other."""

    def __init__(self, doc: Document, graph: Graph) -> None:
        self.doc, self.graph = doc, graph
        self.readers: dict[str, TensorReader] = {}
        for key, value in doc.entries("blocks"):
            name = doc.fields.name(key, "a block")
            members = doc.members(value, f"block '{short(name)}'", BLOCK_KEYS, ("outputs",))
            block = graph.blocks[name] = Block(name, graph)
            block.mark = key.mark
            inner = doc.within(members, f"block '{short(name)}'")
            self.readers[name] = _BlockReader(inner, block, self.readers)

    def read(self, root: TensorReader) -> None:
        """Read all blocks, which the graph read by `root` may use."""
        scopes = [root, *self.readers.values()]
        for reader in self.readers.values():
            reader.declare()
        for name, reader in self.readers.items():
            self.doc.problems.context = self._users(name, scopes)
            reader.read()
        self.doc.problems.context = ()

    def _users(self, block: str, scopes: Sequence[TensorReader]) -> tuple[str, ...]:
        """Who uses a block, for messages: the first node, and how many more there are."""
        users = [
            at(name, reader.declared[name].mark, self.doc.source)
            for reader in scopes
            for name, use in reader.used.items() if use.block == block
        ]  # fmt: skip
        if not users:
            return ()
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        return (f"block '{block}' is used by {users[0]}{more}",)

    def cut_short(self) -> list[Diagnostic]:
        """Warnings for expressions that comments seem to cut."""
        return [w for reader in self.readers.values() for w in reader.expressions.cut_short()]


class _BlockReader(TensorReader):
    """Fills a block."""

    def input_entries(self) -> list[Entry]:
        if "inputs" not in self.doc.sections:
            return []
        value = self.doc.sections["inputs"][1]
        if not isinstance(value, ListNode):
            return list(self.doc.entries("inputs"))
        names: list[Entry] = []
        for item in value.items:
            if isinstance(item, ScalarNode) and isinstance(item.value, str):
                names.append((item, None))
            else:
                self.fields.expected(item, "the name of an input")
        return names

    def input(self, key: ScalarNode, value: Value | None) -> None:
        name, marks = str(key.value), {"": key.mark}
        if name in NODE_KEYS:
            self.problems.add(
                key, f"an input of a block cannot be named '{name}'",
                help=f"{', '.join(NODE_KEYS)} are keys of nodes",
            )  # fmt: skip
        self.graph.inputs[name] = Input(name, (), "", marks)
        if value is None or (isinstance(value, ScalarNode) and value.value is None):
            return
        assert isinstance(self.graph, Block)
        self.graph.shapes[name] = self.fields.shape(value, marks)

    def output(self, key: Value, value: Value) -> None:
        super().output(key, value)
        name = key.value if isinstance(key, ScalarNode) else None
        tensor = value.value if isinstance(value, ScalarNode) else None
        if name != tensor and name in self.declared and name not in self.graph.inputs:
            inner = at(str(name), self.declared[str(name)].mark, self.doc.source)
            self.problems.add(
                key, f"output '{short(name)}' is not the tensor of this name in the block",
                notes=(f"the other is {inner}",), help="rename one of them",
            )  # fmt: skip
