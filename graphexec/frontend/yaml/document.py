"""The top level of a graph's YAML, and mappings with known keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from graphexec.base.diagnostics import Mark, Source
from graphexec.base.file_kinds import kind_of_keys
from graphexec.frontend.yaml.fields import Fields
from graphexec.frontend.yaml.problems import Problems, found, short
from graphexec.frontend.yaml.tree import MapNode, Node, ScalarNode

VERSION = 1
SECTIONS = (
    "version", "name", "dims", "consts", "mesh", "cut", "inputs", "file", "prefix", "weight_dtype",
    "weights", "state", "blocks", "nodes", "outputs",
)  # fmt: skip
OUTPUTS_HELP = "name them, as in 'outputs: {out: x}'"

Members = dict[str, tuple[ScalarNode, Node]]


class Document:
    """The sections of a file, and the state that their readers share."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems = Problems(source)
        self.fields = Fields(self.problems)
        self.sections: Members = {}
        self.what = "the graph"  # whose sections these are
        self.outer: Document | None = None  # the graph that a block is in

    def open(self, root: Node | None) -> None:
        """Split the root into sections and check `version`."""
        if root is None or (isinstance(root, ScalarNode) and root.value is None):
            self.problems.add(None, "the file is empty", help="a graph begins with 'version: 1'")
            return
        if not isinstance(root, MapNode):
            self.problems.add(
                root, f"expected a mapping at the top level, found {found(root)}",
                help=f"keys: {', '.join(SECTIONS)}",
            )  # fmt: skip
            return
        kind = kind_of_keys({str(key.value) for key, _ in root.pairs}, "version")
        if kind is not None and kind.name != "a graph":
            self.problems.add(root.pairs[0][0], kind.instead_of("a graph"), help=kind.use)
            return
        self.sections = self.members(root, "the graph", SECTIONS)
        top = Mark(root.line, root.column)
        if "version" not in self.sections:
            self.problems.add(
                top, "the key 'version' is missing", help=f"write 'version: {VERSION}' at the top"
            )
        else:
            self._check_version(self.sections["version"][1])
        if "outputs" not in self.sections:
            self.problems.add(top, f"{self.what} has no outputs", help=OUTPUTS_HELP)

    def within(self, sections: Members, what: str) -> Document:
        """A part of this document with sections of its own: a block."""
        part = Document(self.source)
        part.problems, part.fields = self.problems, self.fields
        part.sections, part.what, part.outer = sections, what, self
        return part

    @property
    def has_file(self) -> bool:
        """Whether weights need not name a file."""
        return "file" in self.sections or (self.outer is not None and self.outer.has_file)

    def _check_version(self, node: Node) -> None:
        value = node.value if isinstance(node, ScalarNode) else None
        if value != VERSION or type(value) is not int:
            self.problems.add(
                node, f"expected version {VERSION}, found {found(node)}",
                label=f"this graphexec reads version {VERSION}",
            )  # fmt: skip

    def name(self, default: str) -> str:
        """The graph's name; `default` if none is given or the given one is wrong."""
        if "name" not in self.sections:
            return default
        node = self.sections["name"][1]
        name = self.fields.text(node, "the graph's name")
        if not name.isprintable():
            self.problems.add(node, "the graph's name must be one line of printable text")
            return default
        return name or default

    def members(
        self, node: Node, what: str, known: Collection[str], needed: Collection[str] = ()
    ) -> Members:
        """The pairs of a mapping whose keys must be in `known`."""
        if not isinstance(node, MapNode):
            self.fields.expected(node, f"a mapping with the keys {', '.join(known)}")
            return {}
        members: Members = {}
        for key, value in node.pairs:
            if key.value in known:
                members[str(key.value)] = (key, value)
            else:
                self.unknown_key(key, what, known)
        for name in needed:
            if name not in members:
                self.problems.add(node, f"{what} needs the key '{name}'")
        return members

    def unknown_key(self, key: ScalarNode, what: str, known: Collection[str]) -> None:
        """Note a key that `what` does not have."""
        wrong = short(key.value)
        self.problems.add(
            key, f"{what} has no key '{wrong}'", help=f"known keys: {', '.join(known)}",
            wrong=wrong, known=known,
        )  # fmt: skip

    def entries(self, section: str) -> Iterator[tuple[ScalarNode, Node]]:
        """The declarations of a section by name. An empty section declares nothing."""
        if section not in self.sections:
            return
        node = self.sections[section][1]
        if isinstance(node, MapNode):
            for key, value in node.pairs:
                if isinstance(key.value, str):
                    yield key, value
                else:
                    self.fields.expected(key, "a name", "put it in quotes")
        elif not (isinstance(node, ScalarNode) and node.value is None):
            self.fields.expected(node, f"a mapping for '{section}'")

    def place(self, mark: Mark) -> str:
        """A place as text."""
        return f"{self.source.path}:{mark.line}:{mark.column}"
