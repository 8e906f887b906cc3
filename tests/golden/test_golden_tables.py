"""Every table of every command at 80, 100 and 200 columns, with ordinary and with long names."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence

import pytest
from rich.cells import cell_len
from rich.console import Console

from meterline.app.printable import visible
from meterline.app.tables import GAP, Role, TerminalTable
from tests.golden_files import assert_golden
from tests.table_samples import LONG, WORDS, every_table

GOLDEN_WIDTHS = (80, 100, 200)
# Also a split window and a phone.
WIDTHS = (32, 48, 64, *GOLDEN_WIDTHS)
TABLES = {
    f"{name}.{words}": table for words, names in WORDS.items() for name, table in every_table(names)
}


def rendered(table: TerminalTable, width: int) -> list[str]:
    """The lines on a terminal of some width, without the spaces at their ends."""
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_looks_as_its_golden_file(name: str) -> None:
    """A change of what operators see on a screen is seen in a review."""
    parts = []
    for width in GOLDEN_WIDTHS:
        parts += [f"---- {width} columns ----", *rendered(TABLES[name], width), ""]
    assert_golden(f"tables/{name}.txt", "\n".join(parts))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_keeps_its_names_and_its_money(name: str, width: int) -> None:
    """No name column is dropped, no shown amount is cut, and no line is longer than the width."""
    table = TABLES[name]
    lines = rendered(table, width)
    assert all(cell_len(line) <= width for line in lines)
    layout = table.layout(width)
    shown = range(len(table.columns)) if layout is None else layout.widths
    words = {word for line in lines for word in line.split()}
    for number, column in enumerate(table.columns):
        if column.role is Role.NAME:
            assert number in shown
        values = {row[number].plain for row in table.rows}
        if column.role is Role.MONEY and number in shown:
            assert {word for value in values for word in value.split()} <= words
        if number not in shown:
            note = " ".join(" ".join(lines).split()).rpartition("not shown at")[2]
            assert " ".join(column.title.split()) in note


def piece(line: str, start: int, end: int) -> str:
    """What stands between two positions of a line, in cells."""
    found, position = [], 0
    for character in line:
        # A combining mark stands on the cell before it.
        width = cell_len(character)
        if start <= (position if width else position - 1) < end:
            found.append(character)
        position += width
    return "".join(found).strip()


def is_reassembled(pieces: Sequence[str], value: str) -> bool:
    """Whether pieces from one line each are the value; a fold takes only the spaces at its place."""
    pattern = r"\s*".join(re.escape(each) for each in pieces if each)
    return re.fullmatch(pattern, value.strip()) is not None


def lines_after(
    lines: Sequence[str], rows: Iterable[Sequence[str]], spans: Sequence[tuple[int, int]]
) -> Sequence[str] | None:
    """The lines below rows whose cells stand in spans; None where a cell is not its value."""
    for row in rows:
        pieces: list[list[str]] = [[] for _ in spans]
        for used, line in enumerate(lines, 1):
            for cell, (start, end) in zip(pieces, spans, strict=True):
                cell.append(piece(line, start, end))
            if all(map(is_reassembled, pieces, row)):
                lines = lines[used:]
                break
        else:
            return None
    return lines


def in_columns(table: TerminalTable, widths: dict[int, int], lines: Sequence[str]) -> bool:
    """Whether the lines are every row's values in columns of these widths."""
    spans, start = [], table.indent
    for width in widths.values():
        spans.append((start, start + width))
        start += width + GAP
    rows = [[row[number].plain for number in widths] for row in table.rows]
    heading = [[visible(table.columns[number].title) for number in widths]]
    return lines_after(lines, [*heading * table.heading, *rows], spans) is not None


def in_lines(table: TerminalTable, width: int, lines: Sequence[str]) -> bool:
    """Whether the lines are every row as lines of `column  value`, wherever the values begin."""
    rows: list[tuple[str, str]] = []
    for row in table.rows:
        rows += [("", "")] * bool(rows)
        rows += [
            (visible(column.title), cell.plain)
            for column, cell in zip(table.columns, row, strict=True)
        ]
    return any(
        lines_after(lines, rows, [(table.indent, at - GAP), (at, width)]) is not None
        for at in range(table.indent + GAP + 1, width)
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_every_name_is_whole(name: str, width: int) -> None:
    """The pieces of a folded cell, put together, are its value: nothing is lost, moved or added."""
    table = TABLES[name]
    titles = [[visible(table.title)]] if table.title else []
    lines = lines_after(rendered(table, width), titles, [(0, width)])
    assert lines is not None
    layout = table.layout(width)
    if layout is None:
        assert in_lines(table, width, lines)
    else:
        assert in_columns(table, layout.widths, lines)


def test_a_lost_or_moved_character_is_found() -> None:
    """The comparison above is exact: one character less, more or elsewhere is another name."""
    lines = ["acme/resea  $1", "rch         "]
    spans = [(0, 10), (12, 14)]
    assert lines_after(lines, [("acme/research", "$1")], spans) == []
    name = "acme/research"
    less = {name[:place] + name[place + 1 :] for place in range(len(name))}
    more = {f"{name[:place]}~{name[place:]}" for place in range(len(name) + 1)}
    moved = {
        name[:place] + name[place + 1] + name[place] + name[place + 2 :] for place in range(12)
    }
    for other in {*less, *more, *moved}:
        assert lines_after(lines, [(other, "$1")], spans) is None, other


def test_the_columns_of_a_report_fit_a_usual_terminal() -> None:
    """At 80 columns `report attribution --by organisation,department` shows names and money."""
    lines = rendered(TABLES["report-organisation-department.ordinary"], 80)
    assert lines[1].split()[:2] == ["organisation", "department"]
    assert {"cost", "budget"} <= set(lines[1].split())
    assert any("$1,500.00" in line and "acme" in line and "research" in line for line in lines)


def test_long_names_are_sixty_cells_or_wide() -> None:
    """The samples hold what the promise is about: names of 60 characters, and wide ones."""
    assert len(LONG.model) == len(LONG.key) == 60
    assert cell_len(LONG.departments[0]) > len(LONG.departments[0])
