"""The audit export as a statement: one row per request with a fixed list of fields."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.core.query import Query, between
from meterline.reports.core.tabular import FORMULA_STARTS


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
        events = (
            f"(SELECT * FROM usage_events FINAL WHERE {between('event_time')}{condition}) AS event_"  # noqa: S608 - fixed text; values are bound
        )
        sql = f"SELECT {renamed}\nFROM (\nSELECT {selected}\nFROM {events}{last}\n)"
        return Query(sql, parameters)


def _guard(expression: str) -> str:
    starts = "".join(
        {"\t": "\\\\t", "\r": "\\\\r", "-": "\\\\-"}.get(each, each) for each in FORMULA_STARTS
    )
    return f"if(match({expression}, '^[{starts}]'), concat('\\'', {expression}), {expression})"
