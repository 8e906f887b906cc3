"""Commands that are imported when they are run: a process loads what it runs, and no more.

A module's imports stay at its head, where they belong; only the import of the module is deferred.
`--help` of a group imports all of its commands, because it shows their help texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typing_extensions import override


class Lazy(NamedTuple):
    """Where a command is defined."""

    module: str
    name: str
    """A function, or a Typer with commands of its own."""
    panel: str = ""
    """The heading under which help shows it."""
    arguments: tuple[object, ...] = ()
    """If given, NAME is a factory: the command is what it returns for these arguments."""


def lazy_group(commands: Mapping[str, Lazy]) -> type[TyperGroup]:
    """A class for `typer.Typer(cls=...)` that has these commands beside its own.

    Args:
        commands: by the name on the command line, in the order of the help.
    """

    class LazyGroup(TyperGroup):
        """Imports a command when it is run or described."""

        @override
        def list_commands(self, ctx: Any) -> list[str]:
            """List the registered commands, then the deferred ones."""
            own = [each for each in super().list_commands(ctx) if each not in commands]
            return [*own, *commands]

        @override
        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Return a command, importing it if it is a deferred one."""
            known = super().get_command(ctx, cmd_name)
            if known is None and cmd_name in commands:
                known = self.commands[cmd_name] = _load(cmd_name, commands[cmd_name])
            return known

    return LazyGroup


def _load(name: str, lazy: Lazy) -> Any:
    found = getattr(import_module(lazy.module), lazy.name)
    if lazy.arguments:
        found = found(*lazy.arguments)
    holder = typer.Typer()
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name, rich_help_panel=lazy.panel or None)
    else:
        holder.command(name, rich_help_panel=lazy.panel or None)(found)
    # One command alone would be the holder itself.
    holder.callback()(lambda: None)
    group = typer.main.get_command(holder)
    assert isinstance(group, TyperGroup)
    return group.commands[name]
