"""Metric names: one closed list, each with its meaning."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Metric(StrEnum):
    """Name of a metric without the prefix `meterline_`; counters end in `_total`."""

    EVENTS = "events_total"
    """Usage events accepted and counted."""
    MESSAGES = "messages_total"
    """Kafka messages handled."""
    REJECTS = "rejects_total"
    """Events or messages sent to the dead-letter topic, by reason."""
    NOTICES = "notices_total"
    """Irregular input that was handled, by reason."""
    SNAPSHOTS = "snapshots_total"
    """Spend snapshots published."""
    ENTRIES = "table_entries"
    """Entries in the spend table."""
    ROWS = "rows_total"
    """Rows inserted into ClickHouse, by table (reason)."""
    INSERT_RETRIES = "insert_retries_total"
    """Inserts retried."""
    COMMANDS = "throttle_commands_total"
    """Throttle commands published, by state (reason)."""
    ALERTS = "alerts_total"
    """Alert records published, by severity (reason)."""
    DELIVERIES = "deliveries_total"
    """Delivery attempts, by outcome (reason)."""
    EMITTED = "emitted_total"
    """Events handed to the emitter."""
    DROPPED = "dropped_total"
    """Events lost because a bounded buffer was full, by reason."""
    DRIFT_NANO_USD = "drift_nano_usd"
    """Difference of stream totals, window rows and raw events, at the last reconciliation."""
    DRIFT_WINDOWS = "drift_windows"
    """Totals that differ, at the last reconciliation."""
    MISSING_BATCHES = "missing_batches"
    """Numbers that relays' lanes skipped, at the last reconciliation."""
    RECONCILED_MS = "reconciled_timestamp_ms"
    """When the last reconciliation was made."""
    READY = "ready"
    """1 once the worker has caught up with its state and handles input."""
    HEARTBEAT_MS = "heartbeat_timestamp_ms"
    """When the worker's loop last completed a round: an old value is a stuck worker."""
    LAST_EVENT_MS = "last_event_timestamp_ms"
    """Newest event time seen."""
    LAST_FLUSH_MS = "last_flush_timestamp_ms"
    """When effects were last made durable."""


class Meter(Protocol):
    """Receives metrics; label values are closed sets, so cardinality is bounded."""

    def count(self, metric: Metric, amount: int = 1, *, reason: str = "") -> None:
        """Add to a counter."""

    def gauge(self, metric: Metric, value: int) -> None:
        """Set a gauge."""


class NoMeter:
    """Discards metrics: for relays and tests without a metrics page."""

    def count(self, metric: Metric, amount: int = 1, *, reason: str = "") -> None:
        """Discard the value."""

    def gauge(self, metric: Metric, value: int) -> None:
        """Discard the value."""
