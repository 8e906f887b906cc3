"""What a package's head says of it is what its code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from meterline.schemas.tables import TableName
from meterline.schemas.topics import Topic

ROOT = Path(__file__).parents[3]
PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for link in (ROOT / "src" / "meterline").iterdir()
    if link.is_dir() and not link.name.startswith("__")
    for path in (ROOT / link.name).rglob("__init__.py")
)
# `schemas` defines every topic and table; `app` hands all of them on.
NAMING_ALL = {"schemas", "app"}
ROOMS = sorted({package.partition("/")[0] for package in PACKAGES} - NAMING_ALL)
IN_SQL = re.compile(r"\b(?:FROM|INTO|JOIN|TABLE|VIEW|EXISTS|UPDATE|IN)\s+\{?(?:\w+:)?(\w+)")
PARTS = ("Owns", "Reads", "Writes", "Never")


def _head(package: str) -> str:
    head = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text("utf-8")))
    assert head is not None
    return head


def _part(head: str, name: str) -> str:
    found = re.search(
        rf"^{name}: (.*?)(?=^(?:{'|'.join(PARTS)}): |\Z)", head, re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"no line {name!r}"
    return " ".join(found[1].split())


def _nodes(room: str) -> Iterator[ast.AST]:
    for path in (ROOT / room).rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text("utf-8")))


def _members_used(room: str, enum: str) -> set[str]:
    return {
        node.attr
        for node in _nodes(room)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == enum
    }


def _topics_used(room: str) -> set[str]:
    used = _members_used(room, "Topic")
    return {topic.value for topic in Topic if topic.name in used}


def _texts(room: str) -> Iterator[str]:
    """Every text of the room but docstrings, which are statements of their own."""
    for path in (ROOT / room).rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in said:
                yield str(node.value)
    for path in (ROOT / room).rglob("*.sql"):
        yield path.read_text("utf-8")


def _tables_used(room: str) -> set[str]:
    used = _members_used(room, "TableName") | {
        name.name
        for node in _nodes(room)
        if isinstance(node, ast.ImportFrom) and node.module == "meterline.schemas.tables"
        for name in node.names
    }
    queried = {name for text in _texts(room) for name in IN_SQL.findall(text)}
    return {table.value for table in TableName if table.name in used or table.value in queried}


def _named(head: str, names: set[str]) -> set[str]:
    said = f"{_part(head, 'Reads')} {_part(head, 'Writes')}"
    return {name for name in names if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w-])", said)}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_file_holds_its_head_and_nothing_else(package: str) -> None:
    """Each `__init__.py` is a docstring of Owns, Reads, Writes and Never, in this order."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))
    assert len(tree.body) == 1
    head = _head(package)
    assert tuple(re.findall(r"^(\w+): ", head, re.MULTILINE)) == PARTS
    assert all(_part(head, name) for name in PARTS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_head_names_the_topics_that_its_code_uses(room: str) -> None:
    """No topic is used in a room without standing in its head, and none stands there in vain."""
    assert _named(_head(room), {topic.value for topic in Topic}) == _topics_used(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_head_names_the_tables_that_its_code_uses(room: str) -> None:
    """No table is used in a room without standing in its head, and none stands there in vain."""
    # Names of one word ("alerts") are words of the language as well: they cannot be distinguished.
    known = {table.value for table in TableName if "_" in table.value}
    assert _named(_head(room), known) == _tables_used(room) & known
