"""The audit export: one row per request with a fixed list of fields, streamed in constant memory.

CSV and JSON lines are formatted by ClickHouse and passed through; Parquet is written block by
block. The order of rows is not promised: sorting millions of them would need their memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import BinaryIO, Final

from meterline.backends.clickhouse.client import Client
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.tabular import FORMULA_STARTS
from meterline.reports.totals import Query


class ExportFormat(StrEnum):
    """Forms of an export."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class Aggregate(StrEnum):
    """What one row is."""

    NONE = "none"
    PER_KEY = "per_key"


# Name -> expression over usage_events; the list and its order are a contract with auditors.
FIELDS: Final = MappingProxyType(
    {
        "timestamp": "concat(replaceOne(toString(event_time), ' ', 'T'), 'Z')",
        "api_key_id": "key",
        "key_name": "key_name",
        "user_email": "person_.user_email",
        "action": "if(action = '', 'model.request', action)",
        "resource_type": "if(resource_type = '', 'model', resource_type)",
        "resource_id": "if(resource_id = '', model_sent, resource_id)",
        "model": "model",
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cost_usd": "cost_usd",
        "ip_address": "person_.client_ip",
        "user_agent": "person_.user_agent",
        "request_id": "if(request_id = '', event_id, request_id)",
    }
)
PER_KEY_FIELDS: Final = MappingProxyType(
    {
        "api_key_id": "key",
        "key_name": "anyLast(key_name)",
        "first_timestamp": "concat(replaceOne(toString(min(event_time)), ' ', 'T'), 'Z')",
        "last_timestamp": "concat(replaceOne(toString(max(event_time)), ' ', 'T'), 'Z')",
        "requests": "count()",
        "input_tokens": "sum(input_tokens)",
        "output_tokens": "sum(output_tokens)",
        "cost_usd": "sum(cost_usd)",
        "unpriced_requests": "countIf(NOT priced)",
    }
)
_NUMBERS: Final = frozenset(
    {"input_tokens", "output_tokens", "cost_usd", "requests", "unpriced_requests"}
)
_SETTINGS: Final = (
    "output_format_csv_crlf_end_of_line = 1, output_format_decimal_trailing_zeros = 1, "
    "output_format_json_quote_64bit_integers = 0, output_format_json_quote_decimals = 1"
)
_TIMES: Final = (
    "event_time >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC') "
    "AND event_time < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')"
)
_FORMATS: Final = {ExportFormat.CSV: "CSV", ExportFormat.JSONL: "JSONEachRow"}


@dataclass(frozen=True, slots=True)
class AuditExport:
    """What to export."""

    period: ReportPeriod
    organisation: str = ""
    """Empty for all."""
    aggregate: Aggregate = Aggregate.NONE

    @property
    def fields(self) -> dict[str, str]:
        """Name -> expression."""
        return dict(FIELDS if self.aggregate is Aggregate.NONE else PER_KEY_FIELDS)

    def build(self, *, guarded: bool) -> Query:
        """The statement without its format; `guarded` against formulas of spreadsheets."""
        selected = ",\n       ".join(
            f"{_guard(expression) if guarded and name not in _NUMBERS else expression} AS {name}_"
            for name, expression in self.fields.items()
        )
        renamed = ", ".join(f"{name}_ AS {name}" for name in self.fields)
        parameters: dict[str, object] = {
            "start_ms": self.period.start_ms,
            "end_ms": self.period.end_ms,
        }
        condition = ""
        if self.organisation:
            parameters["organisation"] = self.organisation
            condition = " AND organisation = {organisation:String}"
        join = (
            "\nLEFT JOIN (SELECT organisation, person, user_email, client_ip, user_agent "
            "FROM persons FINAL) AS person_ USING (organisation, person)"
        )
        last = (
            join
            if self.aggregate is Aggregate.NONE
            else "\nGROUP BY organisation, key\nORDER BY organisation, key"
        )
        events = f"(SELECT * FROM usage_events FINAL WHERE {_TIMES}{condition}) AS event_"  # noqa: S608 - fixed text; values are bound
        sql = f"SELECT {renamed}\nFROM (\nSELECT {selected}\nFROM {events}{last}\n)"
        return Query(sql, parameters)


def _guard(expression: str) -> str:
    starts = "".join(
        {"\t": "\\\\t", "\r": "\\\\r", "-": "\\\\-"}.get(each, each) for each in FORMULA_STARTS
    )
    return f"if(match({expression}, '^[{starts}]'), concat('\\'', {expression}), {expression})"


def export_text(client: Client, export: AuditExport, form: ExportFormat) -> Iterator[bytes]:
    """The bytes of a CSV (RFC 4180, with its header) or JSON lines file, piece by piece.

    Raises:
        ClickHouseError: as the door says; also in the middle, when what came is no whole file.
    """
    query = export.build(guarded=form is ExportFormat.CSV)
    if form is ExportFormat.CSV:
        yield ",".join(export.fields).encode() + b"\r\n"
    yield from client.stream(f"{query.sql}\nSETTINGS {_SETTINGS}", query.parameters, _FORMATS[form])


def write_parquet(client: Client, export: AuditExport, file: BinaryIO) -> int:
    """Write a Parquet file block by block; how many rows.

    Raises:
        ClickHouseError: as the door says.
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
