"""What a package's head says of it is what its code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
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
# `schemas` defines every topic and table, `app` hands all of them on, migrations create all tables.
NAMING_ALL = {"schemas", "app", "sinks/migrations"}
# Effects of a `core` package are data: the package around it carries them out and names them.
ROOMS = [
    package
    for package in PACKAGES
    if package not in NAMING_ALL
    and not package.startswith("schemas/")
    and "core" not in package.split("/")
]
# The writer of the sinks inserts into the table that a handler chose, so that no call names it.
WRITING_BY_VALUE = {"sinks"}
TOPIC_WRITERS = {"send", "publish", "_publish", "OutgoingRecord", "write", "write_keyed"}
WRITES_SQL = re.compile(r"(?:INSERT INTO|ALTER TABLE|DELETE FROM|TRUNCATE TABLE)\s+(\w+)")
READS_SQL = re.compile(r"(?<!DELETE )\b(?:FROM|JOIN)\s+\{?(?:\w+:)?(\w+)")
ITS_OWN = "what it writes itself"
"""In a line "Reads": every name of the line "Writes"."""
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


@cache
def _nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


def _nodes(room: str) -> Iterator[ast.AST]:
    for path in (ROOT / room).rglob("*.py"):
        yield from _nodes_of(path)


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
        said = {id(node.value) for node in _nodes_of(path) if isinstance(node, ast.Expr)}
        for node in _nodes_of(path):
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


def _names_in(said: str, names: set[str]) -> set[str]:
    return {name for name in names if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w-])", said)}


def _named(head: str, names: set[str]) -> set[str]:
    return _names_in(f"{_part(head, 'Reads')} {_part(head, 'Writes')}", names)


def _calls(room: str, names: set[str]) -> Iterator[ast.Call]:
    for node in _nodes(room):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in names:
                yield node


def _topic_settings(room: str) -> dict[str, str]:
    """Settings that hold a topic: `dead_letter_topic: str = Topic.DEAD_LETTERS.value`."""
    return {
        node.target.id: match[1]
        for node in _nodes(room)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
        if (match := re.fullmatch(r"Topic\.(\w+)(?:\.value)?", ast.unparse(node.value)))
    }


def _topics_written(room: str) -> set[str]:
    settings = _topic_settings(room)
    found = set()
    for call in _calls(room, TOPIC_WRITERS):
        for argument in call.args:
            parts = ast.unparse(argument).removesuffix(".value").split(".")
            found.add(settings.get(parts[-1], parts[-1] if parts[0] == "Topic" else ""))
    return {topic.value for topic in Topic if topic.name in found}


def _tables_written(room: str) -> set[str]:
    inserted = {
        ast.unparse(call.args[0]).removeprefix("TableName.").removesuffix(".name")
        for call in _calls(room, {"insert"})
        if call.args
    }
    stated = {name for text in _texts(room) for name in WRITES_SQL.findall(text)}
    return {table.value for table in TableName if table.name in inserted or table.value in stated}


def _tables_read(room: str) -> set[str]:
    stated = {name for text in _texts(room) for name in READS_SQL.findall(text)}
    return {table.value for table in TableName if table.value in stated}


def _of_several_words(names: type[TableName | Topic]) -> set[str]:
    """Without names of one word ("alerts"), which are words of the language as well."""
    return {each.value for each in names if re.search(r"[_.]", each.value)}


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
    known = _of_several_words(TableName)
    assert _named(_head(room), known) == _tables_used(room) & known


@pytest.mark.parametrize("room", ROOMS)
def test_writes_names_the_topics_that_are_given_to_a_producer(room: str) -> None:
    """The line "Writes" has every topic that a call sends to, and no topic that none does.

    A call counts where it names the topic or the setting that holds it. A topic that a variable
    holds is not seen; neither is which topics are read, since consumers get them in many ways.
    """
    written = _topics_written(room)
    said = _part(_head(room), "Writes")
    assert written <= _names_in(said, {topic.value for topic in Topic})
    assert _names_in(said, _of_several_words(Topic)) <= written


@pytest.mark.parametrize("room", ROOMS)
def test_reads_and_writes_name_the_tables_of_the_statements(room: str) -> None:
    """Tables that are selected from stand in "Reads", those inserted into or altered in "Writes"."""
    head, known = _head(room), _of_several_words(TableName)
    writes = _names_in(_part(head, "Writes"), known)
    reads = _names_in(_part(head, "Reads"), known)
    if ITS_OWN in _part(head, "Reads"):
        reads |= writes
    written = _tables_written(room) & known
    assert written <= writes
    assert _tables_read(room) & known <= reads
    if room not in WRITING_BY_VALUE:
        assert writes <= written


@pytest.mark.parametrize("room", ["streams", "reports", "alerting", "control", "relay"])
def test_reads_and_writes_cannot_change_places(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head whose "Reads" and "Writes" are exchanged fails the tests above."""
    part = _part
    exchanged = {"Reads": "Writes", "Writes": "Reads"}

    def other_part(head: str, name: str) -> str:
        return part(head, exchanged[name])

    monkeypatch.setattr(f"{__name__}._part", other_part)
    with pytest.raises(AssertionError):  # noqa: PT012 - either of the two may find it
        test_writes_names_the_topics_that_are_given_to_a_producer(room)
        test_reads_and_writes_name_the_tables_of_the_statements(room)
