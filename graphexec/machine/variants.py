"""Alternative kernels of a command, and programs that use them.

They are those of the command's recipe, if it is Varied. A profile's choice n for the command is
the n-th of them, counted from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphexec.ir.program import Command, Kernel, Program, TritonKernel, Varied
from graphexec.machine.costs import Measured, signature


def variants(command: Command) -> Sequence[Kernel | TritonKernel]:
    """The alternative kernels of a command; none for a batch."""
    recipe: object = command.recipe
    if not isinstance(recipe, Varied):
        return ()
    return tuple(recipe.variants(command.reads, command.writes))


def with_variant(command: Command, choice: int) -> Command:
    """The command with the kernel of that choice; unchanged for 0 and if there is none."""
    if not choice or not isinstance(command.work, Kernel | TritonKernel):
        return command
    kernels = variants(command)
    return replace(command, work=kernels[choice - 1]) if choice <= len(kernels) else command


def with_choices(program: Program, measured: Mapping[str, Measured]) -> Program:
    """The program with the kernels that were measured as the fastest."""
    chosen = {key for key, found in measured.items() if found.choice}
    if not chosen:
        return program
    commands = []
    for command in program.commands:
        varied = isinstance(command.recipe, Varied)
        known = measured.get(signature(command)) if varied else None
        commands.append(with_variant(command, known.choice) if known is not None else command)
    return replace(program, commands=tuple(commands))
