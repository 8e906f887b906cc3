"""ClickHouse tables: names, columns and types, as the sinks write and the reports read them.

The statements that create them are `sinks/migrations/*.sql`; a test compares the two.

Conventions:
    money           Decimal with nine places in US dollars; written as integer nano-USD
    time            DateTime64(3, 'UTC'); written as UTC milliseconds
    `version`       decides which row of one sorting key wins: the greatest, under FINAL
    `is_deleted`    1 on a row that retracts another; FINAL hides both
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from meterline.schemas.measures import MEASURES, MeasureUnit

MONEY = "Decimal(18, 9)"
"""One event's cost: up to 999 million dollars."""
MONEY_SUM = "Decimal(38, 9)"
MONEY_OR_NULL = "Nullable(Decimal(18, 9))"
TIME = "DateTime64(3, 'UTC')"
LABEL = "LowCardinality(String)"
"""A text with few distinct values."""
TEXT = "String"
COUNT = "Int64"
TAGS = "Map(LowCardinality(String), String)"

NANO_USD_LIMIT = 10**18
"""The first amount of nano-USD that does not fit into MONEY."""


class StoredColumn(NamedTuple):
    """One column that is written."""

    name: str
    type: str


class TableName(StrEnum):
    """Every table of the pipeline."""

    USAGE_EVENTS = "usage_events"
    SPEND_WINDOWS = "spend_windows"
    ALERTS = "alerts"
    THROTTLE_COMMANDS = "throttle_commands"
    THROTTLE_ACKS = "throttle_acks"
    DEAD_LETTERS = "dead_letters"
    AUDIT_LOG = "audit_log"
    DELIVERIES = "deliveries"
    USAGE_BATCHES = "usage_batches"
    CONTROL_RECORDS = "control_records"
    PERSONS = "persons"
    AUDIT_CHAIN = "audit_chain"
    USAGE_CHANGES = "usage_changes"
    USAGE_DAYS = "usage_days"
    USAGE_DAY_CELLS = "usage_day_cells"
    CLOSED_LINES = "closed_lines"
    CLOSED_PERIODS = "closed_periods"
    ERP_DELIVERIES = "erp_deliveries"
    PROVIDER_USAGE = "provider_usage"
    PRICE_ADJUSTMENTS = "price_adjustments"
    PRICE_CATALOGUES = "price_catalogues"
    SCHEMA_MIGRATIONS = "schema_migrations"


class Table(NamedTuple):
    """A table and the columns that the sinks write; the rest are computed by ClickHouse."""

    name: TableName
    columns: tuple[StoredColumn, ...]


def _table(name: TableName, *columns: tuple[str, str]) -> Table:
    return Table(name, tuple(StoredColumn(*column) for column in columns))


# The columns of a roll-up, one per measure.
_SUMS = tuple(
    (each.column, MONEY_SUM if each.unit is MeasureUnit.NANO_USD else COUNT) for each in MEASURES
)


USAGE_EVENTS = _table(
    TableName.USAGE_EVENTS,
    ("event_id", TEXT),
    ("event_time", TIME),
    ("organisation", LABEL),
    ("department", LABEL),
    ("project", LABEL),
    ("user", TEXT),
    ("team", LABEL),
    ("environment", LABEL),
    ("key", TEXT),
    ("key_name", TEXT),
    ("model", LABEL),
    ("model_sent", LABEL),
    ("response_model", LABEL),
    ("provider", LABEL),
    ("service_tier", LABEL),
    ("operation", LABEL),
    ("input_tokens", COUNT),
    ("output_tokens", COUNT),
    ("cache_read_tokens", COUNT),
    ("cache_write_tokens", COUNT),
    ("cache_write_1h_tokens", COUNT),
    ("reasoning_tokens", COUNT),
    ("input_audio_tokens", COUNT),
    ("output_audio_tokens", COUNT),
    ("cost_usd", MONEY),
    ("priced", "Bool"),
    ("price_version", LABEL),
    ("reported_cost_usd", MONEY_OR_NULL),
    ("usage_source", LABEL),
    ("provider_input_tokens", COUNT),
    ("provider_output_tokens", COUNT),
    ("reservation_id", TEXT),
    ("status", LABEL),
    ("http_status", "Int32"),
    ("error_type", LABEL),
    ("finish_reason", LABEL),
    ("stream", "Bool"),
    ("latency_ms", "Int32"),
    ("ttft_ms", "Int32"),
    ("person", "UInt64"),
    ("action", LABEL),
    ("resource_type", LABEL),
    ("resource_id", TEXT),
    ("request_id", TEXT),
    ("relay", LABEL),
    ("trace_parent", TEXT),
    ("tags", TAGS),
    ("corrects_id", TEXT),
    ("correction_reason", LABEL),
    ("extra", TEXT),
    ("received_delay_ms", COUNT),
    ("source_partition", "UInt16"),
    ("version", "UInt64"),
    ("is_deleted", "UInt8"),
)
SPEND_WINDOWS = _table(
    TableName.SPEND_WINDOWS,
    ("window_kind", LABEL),
    ("window_start", TIME),
    ("window_end", TIME),
    ("scope_type", LABEL),
    ("organisation", LABEL),
    ("scope", TEXT),
    ("shard", LABEL),
    *_SUMS,
    ("last_event_time", TIME),
    ("source_epoch", "UInt16"),
    ("source_offset", "Int64"),
    ("version", "UInt64"),
)
ALERTS = _table(
    TableName.ALERTS,
    ("alert_id", TEXT),
    ("dedup_key", TEXT),
    ("rule_id", LABEL),
    ("rule_type", LABEL),
    ("status", LABEL),
    ("severity", LABEL),
    ("scope", TEXT),
    ("window_kind", LABEL),
    ("period", LABEL),
    ("threshold", "Int64"),
    ("unit", LABEL),
    ("observed", "Int64"),
    ("limit", "Int64"),
    ("percent", "Int64"),
    ("budget_version", "Int64"),
    ("also_crossed", "Array(Int64)"),
    ("summary", TEXT),
    ("starts_at", TIME),
    ("ends_at", TIME),
    ("reset_at", TIME),
    ("commands", "Array(String)"),
    ("version", "UInt64"),
)
THROTTLE_COMMANDS = _table(
    TableName.THROTTLE_COMMANDS,
    ("scope", TEXT),
    ("epoch", "UInt64"),
    ("seq", "UInt64"),
    ("state", LABEL),
    ("mode", LABEL),
    ("admit_percent", "UInt8"),
    ("limits", TEXT),
    ("fallback_model", LABEL),
    ("reason", TEXT),
    ("reason_code", LABEL),
    ("http_status", "Int32"),
    ("evidence", TEXT),
    ("issued_at", TIME),
    ("expires_at", TIME),
    ("reset_at", TIME),
    ("on_expiry", LABEL),
    ("degrade_percent", "UInt8"),
    ("degrade_nano_usd_per_hour", "Int64"),
    ("issuer", LABEL),
    ("version", "UInt64"),
)
THROTTLE_ACKS = _table(
    TableName.THROTTLE_ACKS,
    ("relay", LABEL),
    ("scope", TEXT),
    ("epoch", "UInt64"),
    ("seq", "UInt64"),
    ("applied", LABEL),
    ("at", TIME),
    ("version", "UInt64"),
)
DEAD_LETTERS = _table(
    TableName.DEAD_LETTERS,
    ("source_topic", LABEL),
    ("source_epoch", "UInt16"),
    ("source_partition", "UInt16"),
    ("source_offset", "Int64"),
    ("source_index", "Int32"),
    ("reason", LABEL),
    ("detail", TEXT),
    ("event_id", TEXT),
    ("lane", TEXT),
    ("seq", "Int64"),
    ("source_time", TIME),
    ("original", TEXT),
    ("version", "UInt64"),
)
AUDIT_LOG = _table(
    TableName.AUDIT_LOG,
    ("id", TEXT),
    ("at", TIME),
    ("actor", TEXT),
    ("action", LABEL),
    ("object_id", TEXT),
    ("reason", TEXT),
    ("before", TEXT),
    ("after", TEXT),
    ("version", "UInt64"),
)
DELIVERIES = _table(
    TableName.DELIVERIES,
    ("message_id", TEXT),
    ("channel", LABEL),
    ("attempt", "UInt32"),
    ("alert_id", TEXT),
    ("dedup_key", TEXT),
    ("at", TIME),
    ("outcome", LABEL),
    ("http_status", "Int32"),
    ("error", TEXT),
    ("next_attempt", TIME),
    ("duration_ms", "Int64"),
    ("version", "UInt64"),
    ("alerts", "Array(String)"),
    ("alert_ids", "Array(String)"),
    ("route", LABEL),
    ("queue", TEXT),
)
USAGE_BATCHES = _table(
    TableName.USAGE_BATCHES,
    ("lane", TEXT),
    ("seq", COUNT),
    ("source_partition", "UInt16"),
    ("received_at", TIME),
    ("events", "UInt16"),
    ("version", "UInt64"),
)
CONTROL_RECORDS = _table(
    TableName.CONTROL_RECORDS,
    ("topic", LABEL),
    ("record_key", TEXT),
    ("record_value", TEXT),
    ("tombstone", "UInt8"),
    ("at", TIME),
    ("version", "UInt64"),
)
PERSONS = _table(
    TableName.PERSONS,
    ("organisation", LABEL),
    ("person", "UInt64"),
    ("user", TEXT),
    ("user_email", TEXT),
    ("client_ip", TEXT),
    ("user_agent", TEXT),
    ("seen", TIME),
)
AUDIT_CHAIN = _table(
    TableName.AUDIT_CHAIN,
    ("seq", "UInt64"),
    ("version", "UInt64"),
    ("id", TEXT),
    ("day", "Date"),
    ("row_hash", "FixedString(64)"),
    ("hash", "FixedString(64)"),
)
USAGE_CHANGES = _table(
    TableName.USAGE_CHANGES,
    ("organisation", LABEL),
    ("department", LABEL),
    ("cell_day", "Date"),
    ("shard", LABEL),
    ("version", "UInt64"),
)
USAGE_DAYS = _table(
    TableName.USAGE_DAYS,
    ("grain", LABEL),
    ("organisation", LABEL),
    ("department", LABEL),
    ("cell_day", "Date"),
    ("time_zone", LABEL),
    ("attempt", "UInt64"),
    ("day", "Date"),
    ("project", LABEL),
    ("environment", LABEL),
    ("key", TEXT),
    ("model", LABEL),
    ("provider", LABEL),
    *_SUMS,
)
USAGE_DAY_CELLS = _table(
    TableName.USAGE_DAY_CELLS,
    ("organisation", LABEL),
    ("department", LABEL),
    ("cell_day", "Date"),
    ("time_zone", LABEL),
    ("version", "UInt64"),
    ("attempt", "UInt64"),
)
CLOSED_LINES = _table(
    TableName.CLOSED_LINES,
    ("booked_period", LABEL),
    ("run", "UInt64"),
    ("draft", "UInt8"),
    ("kind", LABEL),
    ("origin_period", LABEL),
    ("day", "Date"),
    ("organisation", LABEL),
    ("department", LABEL),
    ("project", LABEL),
    ("team", LABEL),
    ("environment", LABEL),
    ("key", TEXT),
    ("model", LABEL),
    ("provider", LABEL),
    ("service_tier", LABEL),
    ("tier_floor", COUNT),
    ("price_version", LABEL),
    ("correction_reason", LABEL),
    ("tags", TEXT),
    ("key_name", TEXT),
    ("events", COUNT),
    ("unpriced_events", COUNT),
    ("input_tokens", COUNT),
    ("output_tokens", COUNT),
    ("cache_read_tokens", COUNT),
    ("cache_write_tokens", COUNT),
    ("cache_write_1h_tokens", COUNT),
    ("input_audio_tokens", COUNT),
    ("output_audio_tokens", COUNT),
    ("cost_usd", MONEY_SUM),
    ("written_at", "DateTime"),
)
CLOSED_PERIODS = _table(
    TableName.CLOSED_PERIODS,
    ("period", LABEL),
    ("seq", "UInt64"),
    ("state", LABEL),
    ("revision", "UInt32"),
    ("run", "UInt64"),
    ("at", TIME),
    ("actor", TEXT),
    ("reason", TEXT),
    ("inputs", TEXT),
    ("manifest", TEXT),
    ("version", "UInt64"),
)
ERP_DELIVERIES = _table(
    TableName.ERP_DELIVERIES,
    ("idempotency_key", TEXT),
    ("period", LABEL),
    ("run", "UInt64"),
    ("department", TEXT),
    ("at", TIME),
    ("outcome", LABEL),
    ("http_status", "Int32"),
    ("attempts", "UInt32"),
    ("version", "UInt64"),
)
PROVIDER_USAGE = _table(
    TableName.PROVIDER_USAGE,
    ("provider", LABEL),
    ("account", LABEL),
    ("kind", LABEL),
    ("day", "Date"),
    ("import_id", "UInt64"),
    ("number", "UInt32"),
    ("digest", "FixedString(64)"),
    ("model", LABEL),
    ("key", TEXT),
    ("project", LABEL),
    ("requests", COUNT),
    ("input_tokens", COUNT),
    ("output_tokens", COUNT),
    ("cache_read_tokens", COUNT),
    ("cache_write_tokens", COUNT),
    ("cost_usd", MONEY_SUM),
)
PRICE_ADJUSTMENTS = _table(
    TableName.PRICE_ADJUSTMENTS,
    ("event_id", TEXT),
    ("event_time", TIME),
    ("organisation", LABEL),
    ("department", LABEL),
    ("project", LABEL),
    ("user", TEXT),
    ("team", LABEL),
    ("environment", LABEL),
    ("key", TEXT),
    ("key_name", TEXT),
    ("model", LABEL),
    ("provider", LABEL),
    ("service_tier", LABEL),
    ("input_tokens", COUNT),
    ("tags", TAGS),
    ("charged_usd", MONEY),
    ("difference_usd", MONEY),
    ("newly_priced", "UInt8"),
    ("price_version", LABEL),
    ("reason", LABEL),
    ("run", "UInt64"),
)
PRICE_CATALOGUES = _table(
    TableName.PRICE_CATALOGUES,
    ("version", TEXT),
    ("number", "UInt16"),
    ("file_name", TEXT),
    ("content", TEXT),
    ("used_since", TIME),
)

TABLES: tuple[Table, ...] = (
    USAGE_EVENTS,
    SPEND_WINDOWS,
    ALERTS,
    THROTTLE_COMMANDS,
    THROTTLE_ACKS,
    DEAD_LETTERS,
    AUDIT_LOG,
    DELIVERIES,
    USAGE_BATCHES,
    CONTROL_RECORDS,
    PERSONS,
    AUDIT_CHAIN,
    USAGE_CHANGES,
    USAGE_DAYS,
    USAGE_DAY_CELLS,
    CLOSED_LINES,
    CLOSED_PERIODS,
    ERP_DELIVERIES,
    PROVIDER_USAGE,
    PRICE_ADJUSTMENTS,
    PRICE_CATALOGUES,
)
