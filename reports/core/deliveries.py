"""Queries of the delivery log: the newest attempt of each message, or all attempts of one; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from meterline.reports.core.query import Query

# Rows of one answer: an operator reads no more, and a program queries by time.
ROWS_MAX = 10_000
_COLUMNS = (
    "message_id, channel, attempt, toUnixTimestamp64Milli(at), outcome, http_status, error, "
    "toUnixTimestamp64Milli(next_attempt), duration_ms, alert_id, dedup_key, alerts, alert_ids, "
    "route, queue"
)
FAILED = ("refused", "gone", "forbidden", "exhausted")
"""Outcomes of messages whose delivery finally failed."""


class DeliveryRow(NamedTuple):
    """One attempt."""

    message_id: str
    channel: str
    attempt: int
    at_ms: int
    outcome: str
    http_status: int
    error: str
    next_attempt_ms: int
    duration_ms: int
    alert_id: str
    dedup_key: str
    alerts: list[str]
    """JSON of each."""
    alert_ids: list[str]
    route: str
    queue: str


@dataclass(frozen=True, slots=True)
class NewestDeliveries:
    """The newest record of each message and channel, newest first."""

    since_ms: int
    outcomes: tuple[str, ...] = ()
    """None: all."""
    channel: str = ""
    limit: int = 100

    def build(self) -> Query:
        """The SQL and its parameters."""
        # A muted alert that was notified later, in a group's message of another id, is not muted.
        notified_later = (
            "(channel, alert_id) IN (SELECT channel, arrayJoin(alert_ids) FROM deliveries "
            "WHERE at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') AND outcome != 'muted')"
        )
        wheres = [
            "(empty({outcomes:Array(String)}) OR outcome IN {outcomes:Array(String)})",
            "(empty({channel:String}) OR channel = {channel:String})",
            f"(outcome != 'muted' OR NOT {notified_later})",
        ]
        # The newest record is chosen before its outcome is filtered: a message that was
        # delivered in the end is no failed one. FINAL is not needed: LIMIT BY keeps one row.
        sql = (
            f"SELECT {_COLUMNS} FROM ("  # noqa: S608 - constants; every value is bound
            "SELECT * FROM deliveries WHERE at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') "
            "ORDER BY at DESC, attempt DESC, version DESC LIMIT 1 BY message_id, channel"
            f") WHERE {' AND '.join(wheres)} ORDER BY at DESC, message_id, channel "
            "LIMIT {limit:UInt32}"
        )
        return Query(
            sql,
            {
                "since": self.since_ms,
                "outcomes": list(self.outcomes),
                "channel": self.channel,
                "limit": min(self.limit, ROWS_MAX),
            },
        )


@dataclass(frozen=True, slots=True)
class DeliveryHistory:
    """Every attempt of one message, by the beginning of its id, oldest first."""

    message_id: str

    def build(self) -> Query:
        """The SQL and its parameters."""
        return Query(
            f"SELECT {_COLUMNS} FROM deliveries FINAL "  # noqa: S608 - constants
            "WHERE startsWith(message_id, {id:String}) "
            "ORDER BY message_id, at, attempt, channel LIMIT {limit:UInt32}",
            {"id": self.message_id, "limit": ROWS_MAX},
        )


def delivery_rows(rows: Iterable[tuple[Any, ...]]) -> list[DeliveryRow]:
    """The rows of either question."""
    return [DeliveryRow(*row) for row in rows]
