"""Tables in files: what was put in comes out, exactly, in every format."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.reports.core.tabular import (
    FORMULA_STARTS,
    ColumnKind,
    TableColumn,
    TableFormat,
    guarded,
    write_table,
)

COLUMNS = (
    TableColumn("name"),
    TableColumn("requests", ColumnKind.COUNT),
    TableColumn("cost_usd", ColumnKind.MONEY),
    TableColumn("at", ColumnKind.TIME),
    TableColumn("share", ColumnKind.PPM),
)
ROWS = [
    ('=cmd|"calc"', 3, -1_000_000_001, 1_793_000_000_123, 123_456),
    ("plain, with\r\nlines", 0, 5, None, -1),
    (None, None, None, None, None),
]


def written(form: TableFormat) -> bytes:
    file = io.BytesIO()
    write_table(form, COLUMNS, ROWS, file)
    return file.getvalue()


def test_csv_is_rfc_4180_and_guarded() -> None:
    """CRLF, doubled quotes, money with nine places, and no cell that a spreadsheet computes."""
    assert written(TableFormat.CSV) == (
        b"name,requests,cost_usd,at,share\r\n"
        b'"\'=cmd|""calc""",3,-1.000000001,2026-10-26T07:33:20.123Z,12.3456\r\n'
        b'"plain, with\r\nlines",0,0.000000005,,-0.0001\r\n'
        b",,,,\r\n"
    )


def test_json_keeps_money_as_text() -> None:
    """Money is a decimal string: a float of it would be another amount."""
    first, _, last = json.loads(written(TableFormat.JSON))
    assert first["cost_usd"] == "-1.000000001"
    assert first["name"] == '=cmd|"calc"'
    assert last == dict.fromkeys(("name", "requests", "cost_usd", "at", "share"))


def test_parquet_is_typed() -> None:
    """Money is decimal128(38, 9), times are UTC timestamps, nothing is nothing."""
    table = pq.read_table(io.BytesIO(written(TableFormat.PARQUET)))
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 9)"
    assert table.column("cost_usd").to_pylist() == [
        Decimal("-1.000000001"),
        Decimal("0.000000005"),
        None,
    ]
    assert str(table.schema.field("at").type) == "timestamp[ms, tz=UTC]"


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_formulas_are_guarded(start: str) -> None:
    """Whatever a spreadsheet may take for a formula begins with an apostrophe."""
    assert guarded(start + "1") == "'" + start + "1"


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_csv_comes_back(rows: list[tuple[str, str]]) -> None:
    """Any text survives: a reader gets the cells that were written, guards apart."""
    file = io.BytesIO()
    write_table(TableFormat.CSV, (TableColumn("a"), TableColumn("b")), rows, file)
    text = io.StringIO(file.getvalue().decode("utf-8"), newline="")
    found = list(csv.reader(text))[1:]
    assert [tuple(row) for row in found] == [(guarded(a), guarded(b)) for a, b in rows]
