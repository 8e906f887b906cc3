"""Every table of every command at 80, 100 and 200 columns, with ordinary and with long names."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from meterline.app.tables import Role, TerminalTable
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


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_every_name_is_whole(name: str, width: int) -> None:
    """A name is folded onto more lines, and none of its characters is lost."""
    table = TABLES[name]
    layout = table.layout(width)
    lines = rendered(table, width)
    characters = "".join(lines)
    for number, column in enumerate(table.columns):
        if column.role.folds and (layout is None or number in layout.widths):
            for row in table.rows:
                assert set(row[number].plain) <= set(characters) | {" "}
                # The first piece of a folded value stands on one line.
                first = (row[number].plain.split() or [""])[0]
                assert any(first[:4] in line for line in lines)


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
