"""Text → a tree of frozen nodes, each with its place.

PyYAML's event stream supplies the syntax. Composing is done here, because `yaml.compose` recurses,
follows YAML 1.1, keeps the last of two equal keys and expands a kilobyte of aliases or merges to
gigabytes.

Guarantees: scalars follow the core schema of YAML 1.2; the keys of a mapping are scalars and
differ; merge keys `<<` are resolved. Aliases share the node they name. The size of the tree with
copied aliases is bounded too, which bounds a walk along the document's structure.
Unsupported: tags, several documents, keys that are lists or mappings.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from graphexec.base.diagnostics import Diagnostic, Mark, Source, did_you_mean
from graphexec.base.errors import GraphError
from graphexec.frontend.yaml.scalars import NUMBER_STARTS, WORDS, ScalarValue, resolve
from graphexec.frontend.yaml.text import (
    BEGINS_OTHERWISE,
    MAX_DEPTH,
    TOO_DEEP,
    events,
    fatal,
    mark_of,
)

MAX_NODES = 4_000_000  # written in a file
MAX_SCALAR = 10_000  # characters
MAX_ALIASED = 1_000  # nodes that aliases may add, and ...
MAX_ALIASED_RATIO = 10  # ... so many more for each node written so far


class ScalarNode(NamedTuple):
    """A number, text, boolean or null. `plain`: it was written without quotes."""

    value: ScalarValue
    line: int
    column: int
    length: int
    plain: bool

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return Mark(self.line, self.column, self.length)


class ListNode(NamedTuple):
    """A sequence."""

    items: tuple[Any, ...]  # of Node; type checkers do not support recursive NamedTuples
    line: int
    column: int
    length: int

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return Mark(self.line, self.column, self.length)


class MapNode(NamedTuple):
    """A mapping; no two keys are equal. Pairs from merges come last."""

    pairs: tuple[tuple[ScalarNode, Any], ...]
    line: int
    column: int
    length: int

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return Mark(self.line, self.column, self.length)


Node: TypeAlias = ScalarNode | ListNode | MapNode


def compose(source: Source) -> tuple[Node | None, list[Diagnostic]]:
    """The document's root (None for an empty text) and the mistakes that did not stop the reading.

    Raises GraphError, which holds those mistakes too, if the text is not YAML or exceeds a limit.
    """
    composer = _Composer(source)
    try:
        return composer.compose(), composer.problems
    except GraphError as exc:
        raise GraphError([*composer.problems[:20], *exc.diagnostics]) from exc


class _Open:
    """A list or mapping whose end has not been seen."""

    __slots__ = ("anchor", "before", "items", "keys", "merge", "pending", "start")

    def __init__(self, event: Any, before: int, keys: dict[object, ScalarNode] | None) -> None:
        self.start, self.anchor = event.start_mark, event.anchor
        self.before = before  # nodes of the tree before this one
        self.items: list[Any] = []
        self.keys = keys  # None for a list
        self.pending: Node | None = None  # the key whose value comes next
        self.merge: list[Node] = []


class _Composer:
    """One pass over the events with a stack of its own: depth costs no Python frames."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Diagnostic] = []
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int] | None] = {}  # None: still being composed
        self.root: Node | None = None
        self.written = 0  # nodes in the text
        self.aliased = 0  # nodes that aliases would add to them if they were copied

    def compose(self) -> Node | None:
        from yaml import events as e

        handlers = {
            e.ScalarEvent: self.scalar,
            e.AliasEvent: self.alias,
            e.SequenceStartEvent: self.start_list,
            e.MappingStartEvent: self.start_map,
            e.SequenceEndEvent: self.end,
            e.MappingEndEvent: self.end,
            e.DocumentStartEvent: self.document,
        }
        for event in events(self.source):
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
            if self.written > MAX_NODES:
                raise self.fatal(f"more than {MAX_NODES:,} values in one file", event)
        return self.root

    # One method an event ----------------------------------------------------------------

    def document(self, event: Any) -> None:
        if self.root is not None:
            raise self.fatal(
                "a second document begins here", event, label="one file holds one graph"
            )

    def scalar(self, event: Any) -> None:
        # Three quarters of all events are scalars, hence few calls.
        start, value, plain = event.start_mark, event.value, not event.style
        length = event.end_mark.index - start.index
        if length > MAX_SCALAR or event.tag is not None:
            self.check_scalar(event)
        if plain and (value in WORDS or value[0] in NUMBER_STARTS):
            value = self.resolve(event)
        node = ScalarNode(value, start.line + 1, start.column + 1, length or 1, plain)
        self.written += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1)
        self.add(node)

    def check_scalar(self, event: Any) -> None:
        if len(event.value) > MAX_SCALAR:
            raise self.fatal(
                f"a text of {len(event.value):,} characters; at most {MAX_SCALAR:,} are allowed",
                event,
            )
        if event.tag is not None:
            self.refuse_tag(event)

    def resolve(self, event: Any) -> ScalarValue:
        try:
            return resolve(event.value)
        except ValueError:
            self.problem(f"a number of {len(event.value):,} characters", _mark(event))
            return 0

    def alias(self, event: Any) -> None:
        found = self.anchors.get(event.anchor)
        if found is None:
            inside = event.anchor in self.anchors
            raise self.fatal(
                f"the anchor '&{event.anchor}' contains itself" if inside
                else f"no anchor '&{event.anchor}' stands above this place", event,
                help="" if inside else did_you_mean(event.anchor, list(self.anchors)[:1000])
                or BEGINS_OTHERWISE["*"],
            )  # fmt: skip
        node, size = found
        self.aliased += size
        made = self.written + self.aliased
        if self.aliased > MAX_ALIASED + MAX_ALIASED_RATIO * self.written:
            raise self.fatal(
                "aliases and merges make this file too large", event, label="over the limit here",
                notes=(f"with aliases {self.written:,} values become {made:,}",),
            )  # fmt: skip
        self.add(node)

    def start_list(self, event: Any) -> None:
        self.start(event, None)

    def start_map(self, event: Any) -> None:
        self.start(event, {})

    def start(self, event: Any, keys: dict[object, ScalarNode] | None) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise self.fatal(TOO_DEEP, event)
        if event.tag is not None:
            self.refuse_tag(event)
        self.stack.append(_Open(event, self.written + self.aliased, keys))
        self.written += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = None

    def end(self, event: Any) -> None:
        done = self.stack.pop()
        if done.merge:
            self.merge(done)
        place = done.start.line + 1, done.start.column + 1
        length = max(1, event.end_mark.index - done.start.index)
        kind = ListNode if done.keys is None else MapNode
        node = kind(tuple(done.items), *place, length)
        if done.anchor is not None:
            self.anchors[done.anchor] = (node, self.written + self.aliased - done.before)
        self.add(node)

    # Putting nodes together -------------------------------------------------------------

    def add(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        keys, key = top.keys, top.pending
        if keys is None:
            top.items.append(node)
        elif key is None:
            top.pending = node
        else:
            top.pending = None
            self.pair(top, keys, key, node)

    def pair(self, top: _Open, keys: dict[object, ScalarNode], key: Node, value: Node) -> None:
        if not isinstance(key, ScalarNode):
            self.problem("a list or mapping is used as a key", key.mark, label="expected a name")
            return
        name = key.value
        identity = name if isinstance(name, str) else _identity(key)
        first = keys.get(identity)
        if first is not None:
            self.problem(
                f"duplicate key '{_short(name)}'", key.mark, label="given again here",
                notes=(f"first given at {self.source.path}:{first.line}:{first.column}",),
            )  # fmt: skip
            return
        keys[identity] = key
        if name == "<<" and key.plain:
            top.merge = list(value.items) if isinstance(value, ListNode) else [value]
        else:
            top.items.append((key, value))

    def merge(self, done: _Open) -> None:
        assert done.keys is not None
        for source in done.merge:
            if not isinstance(source, MapNode):
                self.problem(
                    "a merge '<<' takes a mapping or a list of mappings", source.mark,
                    label="this is no mapping",
                )  # fmt: skip
                continue
            for key, value in source.pairs:
                # Keys written here win, then the sources in their order.
                identity = _identity(key)
                if identity not in done.keys:
                    done.keys[identity] = key
                    done.items.append((key, value))

    # Errors -----------------------------------------------------------------------------

    def refuse_tag(self, event: Any) -> None:
        tag = _short(event.tag.replace("tag:yaml.org,2002:", "!!"))
        self.problem(
            f"the tag '{tag}' has no meaning here", _mark(event),
            help="remove it; quotes make a text of anything",
        )  # fmt: skip

    def problem(self, message: str, mark: Mark, **more: Any) -> None:
        self.problems.append(Diagnostic(message, source=self.source, mark=mark, **more))

    def fatal(self, message: str, event: Any, **more: Any) -> GraphError:
        return fatal(self.source, message, _mark(event), **more)


def _identity(key: ScalarNode) -> object:
    # 1, 1.0, true and "1" are different keys.
    return key.value if isinstance(key.value, str) else (type(key.value), key.value)


def _mark(event: Any) -> Mark:
    return mark_of(event.start_mark, event.end_mark.index - event.start_mark.index)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
