"""Commands that are imported when they are asked for: a worker loads what it runs, and no more.

A module's imports stay at its head, where they belong; what is put off is the module itself.
`--help` of a group loads all of it, because it shows what they say of themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typing_extensions import override


class Lazy(NamedTuple):
    """Where a command is."""

    module: str
    name: str
    """A function, or a Typer with commands of its own."""
    panel: str = ""
    """The heading under which help shows it."""


def lazy_group(commands: Mapping[str, Lazy]) -> type[TyperGroup]:
    """A class for `typer.Typer(cls=...)` that has these commands beside its own.

    Args:
        commands: by the name that a person types, in the order of the help.
    """

    class LazyGroup(TyperGroup):
        """Looks a command up where it is, when it is asked for."""

        @override
        def list_commands(self, ctx: Any) -> list[str]:
            """Its own ones, then these."""
            own = [each for each in super().list_commands(ctx) if each not in commands]
            return [*own, *commands]

        @override
        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Import it, if it is one of these."""
            known = super().get_command(ctx, cmd_name)
            if known is None and cmd_name in commands:
                known = self.commands[cmd_name] = _load(cmd_name, commands[cmd_name])
            return known

    return LazyGroup


def _load(name: str, lazy: Lazy) -> Any:
    found = getattr(import_module(lazy.module), lazy.name)
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
