"""What the pages of the documentation name is there: files, modules, commands, make targets."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from meterline.app.cli import cli
from meterline.schemas.topics import Topic

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
TOP = sorted(
    each.name for each in ROOT.iterdir() if each.is_dir() and not each.name.startswith((".", "__"))
)
# `folder/file.ext`, `folder/`, `folder/file.py:Class.method`. NAME stands for what a reader adds.
_PLACE = re.compile(rf"`((?:{'|'.join(map(re.escape, TOP))})/[\w./-]*)(?::[\w.]+)?`")
# `backends.kafka`: a module by its dotted name, with or without `meterline.`.
_MODULE = re.compile(
    r"`(?:meterline\.)?((?:alerting|app|backends|control|embedded|operations|pricing|relay|reports"
    r"|schemas|sinks|streams|benchmarks|tests)(?:\.(?!py`)\w+)+)`"
)
_RUN = re.compile(r"python -m ([\w.]+)")
# `meterline VERB VERB`, in code and in fenced blocks; `A | B` and `A|B` name several.
_COMMAND = re.compile(
    r"(?:`|^ *)meterline ([a-z][a-z-]*(?: ?\| ?[a-z][a-z-]*)*(?: [a-z][a-z-]*(?:\|[a-z-]+)*)?)(?![\w=:/])",
    re.MULTILINE,
)
_TARGET = re.compile(r"(?:`|^)(?:\w+=\S+ )*make ([a-z-]+)", re.MULTILINE)
_LINK = re.compile(r"\]\(([\w./-]+)\)")


def _found(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    return sorted({(page, hit) for page, text in TEXTS.items() for hit in pattern.findall(text)})


PLACES = [
    (page, place) for page, place in _found(_PLACE) if "NAME" not in place and "..." not in place
]


@pytest.mark.parametrize(("page", "place"), PLACES)
def test_a_file_that_a_page_names_exists(page: str, place: str) -> None:
    """Every path of the repository in backticks leads to a file or a folder."""
    assert (ROOT / place).exists(), f"{page}: {place} is not there"


@pytest.mark.parametrize(("page", "link"), _found(_LINK))
def test_a_link_between_pages_leads_somewhere(page: str, link: str) -> None:
    """Every relative link has its target."""
    assert ((ROOT / page).parent / link).exists(), f"{page}: {link} is not there"


def _is_there(dotted: str) -> bool:
    """A module, or a name that its module defines."""
    parts = dotted.split(".")
    prefix = ROOT.joinpath(*parts)
    if prefix.is_dir() or prefix.with_suffix(".py").is_file():
        return True
    module = ROOT.joinpath(*parts[:-1])
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    name = re.escape(parts[-1])
    return file.is_file() and bool(
        re.search(rf"^(?:class |(?:async )?def )?{name}\b", file.read_text("utf-8"), re.MULTILINE)
    )


MODULES = [(page, name) for page, name in _found(_MODULE) if name not in set(Topic)]


@pytest.mark.parametrize(("page", "dotted"), MODULES)
def test_a_module_that_a_page_names_exists(page: str, dotted: str) -> None:
    """Every dotted name of our packages is a module, or is defined in one."""
    assert _is_there(dotted), f"{page}: {dotted} is not there"


@pytest.mark.parametrize(("page", "module"), _found(_RUN))
def test_a_module_that_a_page_runs_exists(page: str, module: str) -> None:
    """Every `python -m` names a module that can be run."""
    assert find_spec(module) is not None, f"{page}: python -m {module}"


# The package has no stubs for the group that it makes of lazy commands.
CLI: Any = typer.main.get_command(cli)


def _inner(command: Any) -> dict[str, Any]:
    """The commands of a group by name; none of a command."""
    if not hasattr(command, "list_commands"):
        return {}
    context = typer.Context(command)
    return {name: command.get_command(context, name) for name in command.list_commands(context)}


COMMANDS = _inner(CLI)


@pytest.mark.parametrize(("page", "words"), _found(_COMMAND))
def test_a_command_that_a_page_shows_exists(page: str, words: str) -> None:
    """Every `meterline VERB` is a command, and so is the VERB of a group that follows it."""
    first, *choices = re.split(r" ?\| ?| ", words)
    assert first in COMMANDS, f"{page}: meterline {words}"
    known = set(_inner(COMMANDS[first])) or set(COMMANDS)
    if _inner(COMMANDS[first]) or "|" in words:
        assert set(choices) <= known, f"{page}: meterline {words}"


TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize(("page", "target"), _found(_TARGET))
def test_a_make_target_that_a_page_names_exists(page: str, target: str) -> None:
    """Every `make TARGET` is in the Makefile."""
    assert target in TARGETS, f"{page}: make {target}"


def test_the_patterns_find_what_pages_name() -> None:
    """The checks have something to check: a pattern that matches nothing would pass."""
    assert len(PLACES) > 100
    assert len(MODULES) > 5
    assert len(_found(_RUN)) > 15
    assert len(_found(_COMMAND)) > 60
    assert len(_found(_TARGET)) > 5
