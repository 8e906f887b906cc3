"""The audit export: one row per request with a fixed list of fields, streamed in constant memory.

CSV and JSON lines are formatted by ClickHouse and passed through; Parquet is written block by
block. The order of rows is not promised: sorting millions of them would need their memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from meterline.backends.clickhouse.client import Client
from meterline.reports.audit.core.export import (
    _FORMATS,
    _NUMBERS,
    _SETTINGS,
    AuditExport,
    ExportFormat,
)


def export_text(client: Client, export: AuditExport, form: ExportFormat) -> Iterator[bytes]:
    """The bytes of a CSV (RFC 4180, with its header) or JSON lines file, piece by piece.

    Raises:
        ClickHouseError: the store failed or refused; also after some pieces, and then the file is
            incomplete.
    """
    query = export.build(guarded=form is ExportFormat.CSV)
    if form is ExportFormat.CSV:
        yield ",".join(export.fields).encode() + b"\r\n"
    yield from client.stream(f"{query.sql}\nSETTINGS {_SETTINGS}", query.parameters, _FORMATS[form])


def write_parquet(client: Client, export: AuditExport, file: BinaryIO) -> int:
    """Write a Parquet file block by block; how many rows.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    import pyarrow as pa  # noqa: PLC0415 - 60 MB of library, and only this format needs it
    from pyarrow import parquet  # noqa: PLC0415

    schema = pa.schema(
        [
            (
                name,
                pa.decimal128(38, 9)
                if name == "cost_usd"
                else pa.int64()
                if name in _NUMBERS
                else pa.string(),
            )
            for name in export.fields
        ]
    )
    rows = 0
    query = export.build(guarded=False)
    with parquet.ParquetWriter(file, schema) as writer:
        for block in client.blocks(query.sql, query.parameters):
            arrays = [
                pa.array(column, type=field.type)
                for column, field in zip(block, schema, strict=True)
            ]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows
