"""The help of `meterline` and of every command, as an operator reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.cells import cell_len
from typer.testing import CliRunner

from meterline.app.cli import cli
from tests.golden_files import assert_golden

WIDTH = 100
# The package has no stubs for the group that it makes of lazy commands.
ROOT: Any = typer.main.get_command(cli)
SHORTEST_HELP = 8
"""Below it stands at most one word that says nothing: `Which.`, `All.`"""
PRIVATE_WORDS = re.compile(
    r"\b(told|tell|telling|heard|hear|whom|somebody|nobody|whoever|for ever|so many|"
    r"the present|anew|amid|worked out|door|letters?|by hand|of ours)\b(?! letter)",
    re.IGNORECASE,
)


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, by the words that run it."""
    yield path
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from paths(command.get_command(context, name), (*path, name))


PATHS = sorted(paths(ROOT))


def command_at(path: tuple[str, ...]) -> Any:
    """The command of some words."""
    found = ROOT
    for name in path:
        found = found.get_command(typer.Context(found), name)
    return found


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_help_of_a_command_is_its_golden_file(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of what a command says of itself is seen in a review."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", WIDTH)
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", None)
    done = CliRunner().invoke(cli, [*path, "--help"], prog_name="meterline")
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.output.splitlines()]
    assert all(cell_len(line) <= WIDTH for line in lines)
    assert_golden(f"help/{'-'.join(('meterline', *path))}.txt", "\n".join([*lines, ""]))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_everything_says_what_it_does(path: tuple[str, ...]) -> None:
    """Each command, option and argument has a help text, of more than one word, in plain words."""
    command = command_at(path)
    texts = {"": command.help or ""}
    texts |= {parameter.name: parameter.help or "" for parameter in command.params}
    for name, text in texts.items():
        if name == "help":
            continue
        assert len(text) >= SHORTEST_HELP, f"{name} of {path} says {text!r}"
        assert len(text.split()) > 1, f"{name} of {path} says {text!r}"
        assert text.rstrip().endswith((".", "...")), f"{name} of {path} says {text!r}"
        assert not PRIVATE_WORDS.search(text), f"{name} of {path} says {text!r}"
