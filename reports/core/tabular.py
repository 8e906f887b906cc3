"""Tables for other programs: RFC 4180 CSV, JSON and Parquet, exact to the nano-dollar.

    write_table(Format.CSV, columns, rows, file)

Cells that a spreadsheet would take for a formula are prefixed with an apostrophe: names of keys
come from users.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

from meterline.schemas.money import usd_decimal, usd_text
from meterline.schemas.periods import rfc3339

# What Excel, LibreOffice and Google Sheets take as the beginning of a formula (OWASP).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class TableFormat(StrEnum):
    """File formats."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class ColumnKind(StrEnum):
    """What a column holds; None is an empty cell in each."""

    TEXT = "text"
    COUNT = "count"
    MONEY = "money"
    """Integers of nano-dollars; dollars with nine places in files."""
    TIME = "time"
    """UTC ms; RFC 3339 in files."""
    PPM = "ppm"
    """Parts per million; percent with four places in files."""


class TableColumn(NamedTuple):
    """One column."""

    name: str
    kind: ColumnKind = ColumnKind.TEXT


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def percent_text(ppm: int) -> str:
    """Parts per million as percent: 123456 is "12.3456"."""
    sign = "-" if ppm < 0 else ""
    return f"{sign}{abs(ppm) // 10_000}.{abs(ppm) % 10_000:04d}"


def cell_text(kind: ColumnKind, value: Any) -> str:
    """A value as text, not guarded; empty for None."""
    if value is None:
        return ""
    match kind:
        case ColumnKind.MONEY:
            return usd_text(value)
        case ColumnKind.TIME:
            return rfc3339(value)
        case ColumnKind.PPM:
            return percent_text(value)
        case ColumnKind.TEXT | ColumnKind.COUNT:
            return str(value)


def write_table(
    form: TableFormat, columns: Sequence[TableColumn], rows: Iterable[Sequence[Any]], file: BinaryIO
) -> None:
    """Write all rows; the same rows give the same bytes."""
    match form:
        case TableFormat.CSV:
            _write_csv(columns, rows, file)
        case TableFormat.JSON:
            _write_json(columns, rows, file)
        case TableFormat.PARQUET:
            _write_parquet(columns, rows, file)


def _write_csv(
    columns: Sequence[TableColumn], rows: Iterable[Sequence[Any]], file: BinaryIO
) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([column.name for column in columns])
    for row in rows:
        cells = [cell_text(column.kind, each) for column, each in zip(columns, row, strict=True)]
        writer.writerow(
            [
                guarded(cell) if column.kind is ColumnKind.TEXT else cell
                for column, cell in zip(columns, cells, strict=True)
            ]
        )
    text.flush()
    text.detach()


def _write_json(
    columns: Sequence[TableColumn], rows: Iterable[Sequence[Any]], file: BinaryIO
) -> None:
    file.write(b"[")
    for number, row in enumerate(rows):
        values = {
            column.name: _json_value(column.kind, each)
            for column, each in zip(columns, row, strict=True)
        }
        file.write((",\n " if number else "\n ").encode() + json.dumps(values).encode())
    file.write(b"\n]\n")


def _json_value(kind: ColumnKind, value: Any) -> Any:
    if value is None or kind in {ColumnKind.TEXT, ColumnKind.COUNT}:
        return value
    return cell_text(kind, value)


def _write_parquet(
    columns: Sequence[TableColumn], rows: Iterable[Sequence[Any]], file: BinaryIO
) -> None:
    # 60 MB of library, and only this format needs it.
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    types = {
        ColumnKind.TEXT: pa.string(),
        ColumnKind.COUNT: pa.int64(),
        ColumnKind.MONEY: pa.decimal128(38, 9),
        ColumnKind.TIME: pa.timestamp("ms", "UTC"),
        ColumnKind.PPM: pa.string(),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])
    values: list[list[Any]] = [[] for _ in columns]
    for row in rows:
        for column, into, each in zip(columns, values, row, strict=True):
            into.append(_parquet_value(column.kind, each))
    arrays = [
        pa.array(into, type=types[column.kind])
        for column, into in zip(columns, values, strict=True)
    ]
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), file)


def _parquet_value(kind: ColumnKind, value: Any) -> Any:
    if value is None:
        return None
    if kind is ColumnKind.MONEY:
        return usd_decimal(value)
    return percent_text(value) if kind is ColumnKind.PPM else value
