"""Reads the bootstrap state of a new log from the store: totals, ids, lanes, control records.

Only rows of older logs count (`source_epoch < epoch`): those of the new log are counted from the
log itself. So the results do not change while relays and the sink keep running, and an interrupted
rebuild can be repeated.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.reports.core.event_sums import BootstrapSums
from meterline.reports.core.totals import WINDOWS_PER_QUERY_MAX
from meterline.schemas.measures import MEASURES, read_sums
from meterline.schemas.periods import Window, WindowKind


class StoreEnds(NamedTuple):
    """The newest stored times of the older logs."""

    events: int
    """Rows including duplicates: 0 if nothing is stored."""
    received_ms: int
    """Newest append time; 0 if nothing is stored."""
    event_ms: int
    """Newest event time; 0 if nothing is stored."""
    newest_epoch: int
    """The latest log that anything is stored of; -1 if nothing is."""


class BootstrapSum(NamedTuple):
    """One scope's sums in one window, of the events of one partition."""

    start_ms: int
    scope: str
    partition: int
    sums: tuple[int, ...]
    """In the order of `schemas.spend.Totals` from `cost_nano_usd` on."""


class WindowRow(NamedTuple):
    """A total in spend_windows that is not zero."""

    kind: WindowKind
    start_ms: int
    end_ms: int
    scope: str
    shard: str


class LaneRow(NamedTuple):
    """One lane with its greatest stored sequence number."""

    partition: int
    name: str
    seq: int
    last_ms: int


class ControlRecord(NamedTuple):
    """One record of a control topic."""

    key: bytes
    value: bytes


def read_ends(client: Client, epoch: int) -> StoreEnds:
    """The newest stored times of the logs before `epoch`.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT countIf(source_epoch < {epoch:UInt16}), "
        "maxIf(received_ms, source_epoch < {epoch:UInt16}), "
        "maxIf(toUnixTimestamp64Milli(event_time), source_epoch < {epoch:UInt16}), "
        "if(count() = 0, -1, toInt32(max(source_epoch))) FROM usage_events WHERE is_deleted = 0",
        {"epoch": epoch},
    )
    return StoreEnds(*(int(value) for value in rows[0]))


def read_bootstrap_sums(
    client: Client, windows: Sequence[Window], epoch: int
) -> Iterator[BootstrapSum]:
    """Totals of all scopes in the windows, from the raw events.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    for first in range(0, len(windows), WINDOWS_PER_QUERY_MAX):
        question = BootstrapSums(windows[first : first + WINDOWS_PER_QUERY_MAX], epoch)
        for start_ms, scope, partition, *sums, newest_ms in client.query(*question.build()):
            values = (*read_sums(MEASURES, sums), int(newest_ms))
            yield BootstrapSum(start_ms, scope, partition, values)


def read_window_rows(
    client: Client, kind: WindowKind, start_ms: int, epoch: int
) -> Iterator[WindowRow]:
    """Totals that older logs left in spend_windows, of windows from `start_ms` on.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT toUnixTimestamp64Milli(window_start), toUnixTimestamp64Milli(window_end), "
        "scope, shard FROM spend_windows FINAL WHERE window_kind = {kind:String} "
        "AND window_start >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC') "
        "AND source_epoch < {epoch:UInt16} AND (events != 0 OR cost_usd != 0)",
        {"kind": kind.value, "start_ms": start_ms, "epoch": epoch},
    )
    for first_ms, end_ms, scope, shard in rows:
        yield WindowRow(kind, first_ms, end_ms, scope, shard)


# What events were sent with and is kept apart from them.
_PERSONS = (
    " LEFT JOIN (SELECT organisation, person, user_email, client_ip, user_agent FROM persons FINAL) "
    "AS person_ USING (organisation, person) "
)


def read_newest_events(
    client: Client, columns: Sequence[str], partition: int, epoch: int, limit: int
) -> list[tuple[Any, ...]]:
    """The events of one partition that were counted last, in the order of the log.

    Args:
        client: the store.
        columns: expressions to select, constants of Meterline.
        partition: the source partition.
        epoch: the new log.
        limit: maximum number of events.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    # Two steps, because sorting whole rows would take the memory of all of them: first where the
    # newest begin (`version` falls with the position), then the rows from there on.
    condition = "source_partition = {partition:UInt16} AND source_epoch < {epoch:UInt16}"
    bound = {"partition": partition, "epoch": epoch, "limit": limit}
    first = client.query(
        "SELECT max(version) FROM (SELECT version FROM usage_events FINAL "  # noqa: S608 - bound
        f"WHERE {condition} ORDER BY version LIMIT {{limit:UInt64}})",
        bound,
    )[0][0]
    return client.query(
        f"SELECT {', '.join(columns)} FROM usage_events FINAL{_PERSONS} "  # noqa: S608 - constants; bound
        f"WHERE {condition} AND version <= {{first:UInt64}} ORDER BY version DESC",
        {**bound, "first": first},
    )


def read_lanes(client: Client, epoch: int, active_since_ms: int) -> list[LaneRow]:
    """The lanes that were active since a time, each with its greatest stored number.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT any(source_partition), lane, max(seq), "
        "max(toUnixTimestamp64Milli(received_at)) AS last_ms FROM usage_batches "
        "WHERE source_epoch < {epoch:UInt16} GROUP BY lane "
        "HAVING last_ms >= {since_ms:Int64} ORDER BY last_ms, lane",
        {"epoch": epoch, "since_ms": active_since_ms},
    )
    return [LaneRow(*row) for row in rows]


def read_missing(
    client: Client, epoch: int, active_since_ms: int
) -> dict[str, list[tuple[int, int]]]:
    """By lane, the gaps: ranges of sequence numbers before the greatest that are not stored.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        """
SELECT lane, before + 1, seq - 1
FROM (
    SELECT lane, seq, lagInFrame(seq, 1, 0) OVER (
               PARTITION BY lane ORDER BY seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
           ) AS before
    FROM usage_batches
    WHERE source_epoch < {epoch:UInt16} AND lane IN (
        SELECT lane FROM usage_batches WHERE source_epoch < {epoch:UInt16} GROUP BY lane
        HAVING max(toUnixTimestamp64Milli(received_at)) >= {since_ms:Int64}
    )
)
WHERE seq > before + 1
ORDER BY lane, seq""",
        {"epoch": epoch, "since_ms": active_since_ms},
    )
    missing: dict[str, list[tuple[int, int]]] = {}
    for lane, first, last in rows:
        missing.setdefault(lane, []).append((first, last))
    return missing


def read_control_records(client: Client, topic: str) -> list[ControlRecord]:
    """The newest record of every key of a topic, in the order of its log; no deleted keys.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    # In base64, because a driver would take the bytes for text.
    rows = client.query(
        "SELECT base64Encode(record_key), base64Encode(record_value) FROM control_records FINAL "
        "WHERE topic = {topic:String} AND tombstone = 0 ORDER BY version",
        {"topic": topic},
    )
    return [ControlRecord(base64.b64decode(key), base64.b64decode(value)) for key, value in rows]
