"""lower: turn nodes into commands and add the transfers from and to the host.

Requires a TypedGraph. Guarantees a Program whose commands compute the outputs when run one
after another; every command's views lie inside storages of the program. Each input in use is
copied in once ("<tensor>.h2d"), each output copied out once ("<tensor>.d2h"); a result that a
node places in host memory is written where the host reads it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.base.tensor import Space, TensorType, View
from graphexec.graph.rewrites.readers import Layouts
from graphexec.graph.rewriting import Target, target_of
from graphexec.ir.access import undeclared
from graphexec.ir.names import port_buffer, transfer_name
from graphexec.ir.op import Call
from graphexec.ir.program import (
    DIRECTIONS,
    FAULT,
    Command,
    Cost,
    Kept,
    Memcpy,
    Program,
    Role,
    Storage,
)
from graphexec.ir.typed import TypedGraph, TypedNode, TypedWeight
from graphexec.ops.append.kernels import FAULT as FAULT_WORD
from graphexec.ops.append.kernels import keep
from graphexec.planning.moves import Move, one_by_one


def lower(graph: TypedGraph, resident: bool = False, target: Target | None = None) -> Program:
    """The program of `graph`; GraphError when a name collides with one the compiler makes.

    With `resident`, inputs and outputs lie in device memory and no transfers are added. Ops may
    ask the target what it does; without one they keep to plain commands.
    """
    return _Lowering(graph, resident, target or target_of("")).run()


class _Lowering:
    def __init__(self, graph: TypedGraph, resident: bool, target: Target) -> None:
        self.graph, self.resident, self.target = graph, resident, target
        self.edge: Space = "device" if resident else "host"
        self.storages: dict[str, Storage] = {}
        self.layouts = Layouts(graph)
        self.tensors = self.layouts.views
        self.commands: list[Command] = []
        self.made_by: dict[str, tuple[int, ...]] = {}
        self.types = self.layouts.types
        self.nodes = {node.name: node for node in graph.nodes}
        self.wholes: dict[str, View] = {}  # results of which parts are written in place
        self.inside: set[str] = set()  # these parts
        self.shared: dict[Hashable, View] = {}  # temporary tensors that several nodes read
        self.faults: list[str] = []  # nodes that may set the fault word
        self.output_of: dict[str, str] = {}  # the first output of each tensor that is one
        for output, tensor in graph.outputs.items():
            self.output_of.setdefault(tensor, output)

    def run(self) -> Program:
        graph = self.graph
        read = set(graph.outputs.values())
        for node in graph.nodes:
            read.update(node.operands.values(), node.after)
        read |= graph.kept
        for name, state in graph.states.items():
            self.state(name, state.type)
        for name, weight in graph.weights.items():
            if name in read:
                self.tensors[name] = self.weight(name, weight)
                self.made_by[name] = ()
        weights = {name: self.tensors[name] for name in graph.weights if name in read}
        inputs = {n: self.upload(n, type) for n, type in graph.inputs.items() if n in read}
        for node in graph.nodes:
            self.node(node)
        outputs: dict[str, View] = {}
        for output, tensor in graph.outputs.items():
            outputs[output] = self.output(output, tensor, outputs)
        states = self.next_values()  # last, when all have read the old ones
        return Program(
            graph.name, graph.dims, self.storages, self.tensors, tuple(self.commands),
            inputs, outputs, weights, states=states, faults=tuple(self.faults),
        )  # fmt: skip

    def storage(self, name: str, type: TensorType, role: Role, space: Space = "device") -> View:
        if name in self.storages or name in self.tensors:
            raise _taken(name)
        self.storages[name] = Storage(name, type.nbytes, role, space)
        return View.dense(name, type)

    def weight(self, name: str, weight: TypedWeight) -> View:
        """Where a weight is loaded to: a storage of its own, or its part of a larger one."""
        if weight.into is None:
            return self.storage(name, weight.type, "weights")
        whole = weight.into.storage
        if whole not in self.wholes:
            self.wholes[whole] = self.storage(whole, self.types[whole], "weights")
        self.inside.add(name)
        return weight.into

    def state(self, name: str, type: TensorType) -> None:
        """The home of a state."""
        self.tensors[name] = self.storage(port_buffer(name, "state"), type, "state")
        self.made_by[name] = ()

    def fault(self, node: str) -> tuple[View, int]:
        """The fault word, and the number of a node in it."""
        if not self.faults:
            self.storage(FAULT, FAULT_WORD, "state")
        self.faults.append(node)
        return View.dense(FAULT, FAULT_WORD), len(self.faults)

    def next_values(self) -> dict[str, Kept]:
        """Bring the next value of every state home, as if all at once."""
        found, moves = {}, {}
        for name, state in self.graph.states.items():
            home, source = self.tensors[name], self.tensors[state.next]
            end = name if source == home else f"{name}.home"
            found[name] = Kept(home, state.next, end)
            if end != name:
                moves[name] = Move(home, source)
        for name, move, is_home in one_by_one(moves):
            end = f"{name}.{'home' if is_home else 'old'}"
            if end in self.tensors or end in self.types:
                raise _taken(end)
            target = move.target
            if not is_home:
                target = self.storage(end, TensorType(move.source.shape, move.source.dtype),
                                      "arena")  # fmt: skip
            self.tensors[end] = target
            self.commands.append(self.move(end, move.source, target, is_home))
        return found

    def move(self, name: str, source: View, target: View, is_home: bool) -> Command:
        """A copy of dense bytes; one to a state heeds the fault word."""
        cost = Cost(0, 2 * source.elements * source.dtype.itemsize)
        if not (is_home and self.faults):
            work = self.memcpy(source, target)
            return Command(name, "memcpy", work, (source,), (target,), cost)
        fault = View.dense(FAULT, FAULT_WORD)
        kernel = keep(source, target, fault)
        return Command(name, "keep", kernel, (source, fault), (target,), cost)

    def upload(self, name: str, type: TensorType) -> View:
        host = self.storage(port_buffer(name, "input"), type, "input", self.edge)
        if self.resident:
            self.tensors[name], self.made_by[name] = host, ()
            return host
        self.tensors[name] = self.storage(name, type, "arena")
        self.made_by[name] = (len(self.commands),)
        self.transfer(name, host, self.tensors[name])
        return host

    def node(self, node: TypedNode) -> None:
        found = self.layouts.moved(node)
        if found is not None:
            self.tensors[node.name] = found
            # What must precede a reader of this name by `after` is what made the bytes.
            self.made_by[node.name] = tuple(
                i for name in node.operands.values() for i in self.made_by[name]
            )
            return
        self.tensors[node.name] = self.result(node)
        out = self.layouts.written(node, self.tensors[node.name])
        type = node.type if node.layout is None else replace(node.type, shape=out.shape)

        def scratch(name: str, type: TensorType) -> View:
            full = f"{node.name}.{name}"
            self.tensors[full] = view = self.storage(full, type, "arena")
            return view

        operands = self.layouts.operands(node)
        types = {key: self.types[name] for key, name in node.operands.items()}
        after = tuple(sorted({i for name in node.after for i in self.made_by[name]}))
        call = Call(
            node.name, operands, node.attrs, out, types, type, scratch, after,
            lambda work: not self.target.support(work).refused, self.target.facts.programs,
            lambda: self.fault(node.name), self.shared,
        )  # fmt: skip
        # An op that builds a command without its call may have omitted `after`.
        commands = [c if c.after == after else replace(c, after=after) for c in node.op.lower(call)]
        self.check_accesses(node, commands)
        if after:
            names = tuple(dict.fromkeys(self.commands[i].node for i in after))
            commands = [replace(c, after_nodes=names) for c in commands]
        commands = [self.directed(c) for c in commands]
        inside = [i for name in node.operands.values() if name in self.inside
                  for i in self.made_by[name]]  # fmt: skip
        own = range(len(self.commands), len(self.commands) + len(commands))
        self.made_by[node.name] = (*inside, *own)
        self.commands += commands

    def directed(self, command: Command) -> Command:
        """The command of an op, which does not know in which memory its operands lie."""
        work = command.work
        if not isinstance(work, Memcpy):
            return command
        return replace(command, work=self.memcpy(work.src, work.dst))

    def memcpy(self, source: View, target: View) -> Memcpy:
        """A copy with its direction."""
        ends = (self.storages[source.storage].space, self.storages[target.storage].space)
        return Memcpy(source, target, DIRECTIONS[ends])

    def check_accesses(self, node: TypedNode, commands: Sequence[Command]) -> None:
        """Refuse an op whose commands do not state what they do with a view they are given, or
        that reads one of its operands nowhere: waits, places and the proof rest on it."""
        for command in commands:
            view = undeclared(command)
            if view is not None:
                raise _refused(
                    node, f"its command '{command.label}' passes {self.described(node, view)} to "
                    "its kernel, but does not say that it reads or writes it",
                )  # fmt: skip
        read = {view.storage for command in commands for view in command.reads}
        shares = any(view.storage in read for view in self.shared.values())
        for key, name in node.operands.items():
            if shares and not self.types[name].dtype.is_float:
                continue  # read by the command that made the shared tensor
            if self.tensors[name].storage in read or key in node.op.ignores(node.attrs):
                continue
            if name in self.inside:
                continue
            raise _refused(
                node, f"none of its commands reads operand '{key}'; `ignores` names operands that "
                "are not needed",
            )  # fmt: skip

    def described(self, node: TypedNode, view: View) -> str:
        """A view of a node, for a message."""
        if view.storage == self.tensors[node.name].storage:
            return "the result"
        for key, name in node.operands.items():
            if view.storage == self.tensors[name].storage:
                return f"operand '{key}'"
        return f"the temporary '{view.storage}'"

    def result(self, node: TypedNode) -> View:
        """The storage of a node's result: the arena, or the output buffer if it is on the host."""
        if node.over is not None:
            return self.tensors[node.operands[node.over]]
        if node.into is not None:
            whole = self.whole(node.into.storage)
            self.inside.add(node.name)
            return replace(node.into, storage=whole.storage)
        if node.name in self.wholes:
            return self.wholes[node.name]
        if node.type.space != self.edge:
            return self.storage(node.name, node.type, "arena", node.type.space)
        output = self.output_of.get(node.name)
        if output is not None:
            return self.storage(port_buffer(output, "output"), node.type, "output", self.edge)
        return self.storage(node.name, node.type, "arena", self.edge)

    def whole(self, name: str) -> View:
        """The place of a result of which a part is written before the node's own commands."""
        if name not in self.wholes:
            self.wholes[name] = self.result(self.nodes[name])
        return self.wholes[name]

    def output(self, output: str, tensor: str, earlier: Mapping[str, View]) -> View:
        """The view the host reads as an output; a tensor with several names is copied once."""
        first = self.output_of[tensor]
        if first in earlier:
            return earlier[first]
        view = self.tensors[tensor]
        if self.storages[view.storage].role == "output":
            return view
        place = port_buffer(output, "output")
        host = self.storage(place, self.types[tensor], "output", self.edge)
        self.transfer(tensor, view, host)
        return host

    def transfer(self, tensor: str, source: View, target: View) -> None:
        """Add a copy of dense bytes from one memory space to another."""
        work = self.memcpy(source, target)
        name = transfer_name(tensor, work.direction)
        if name in self.types:
            raise _taken(name)
        cost = Cost(0, 2 * source.elements * source.dtype.itemsize)
        self.commands.append(Command(name, "memcpy", work, (source,), (target,), cost))


def _refused(node: TypedNode, why: str) -> GraphError:
    message = f"op '{node.op.name}' cannot be planned for node '{node.name}': {why}"
    help = "state each access at the kernel's call: In(x), Out(y) or InOut(c)"
    return GraphError([Diagnostic(message, notes=(f"the op is {node.op.source}",), help=help)])


def _taken(name: str) -> GraphError:
    message = f"the compiler uses the name '{name}' for its own storages or commands"
    return GraphError([Diagnostic(message, help="rename the node or input")])
