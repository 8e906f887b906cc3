"""Event trace: reads the arrivals of one event, the totals it was counted in and its alerts.

Everything is read from ClickHouse. An event id is selected without FINAL, so that arrivals are
seen that are not merged yet; `core.arrivals` decides which of them counts, by the rule of the
table: the first position in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.reports.core.arrivals import BatchRow, DeadLetterRow, EventRow, LogPosition
from meterline.reports.core.totals import SCOPES_OF_EVENT, WindowScope
from meterline.schemas.money import NanoUsd, nano_from_usd
from meterline.schemas.periods import WindowKind

# Arrivals of one id: a relay in a loop could send it without end, and a page shows no more.
ARRIVALS_MAX = 1_000


class ShardTotal(NamedTuple):
    """What one shard says of a scope and window."""

    key: WindowScope
    shard: str
    epoch: int
    offset: int
    cost_nano_usd: NanoUsd
    events: int


class FiredAlert(NamedTuple):
    """An alert that fired for one of the event's scopes and periods."""

    alert_id: str
    dedup_key: str
    scope: str
    kind: str
    period: str
    severity: str
    starts_ms: int
    summary: str
    evidence: tuple[str, ...]
    """`shard:offset,...` of the observations behind its commands."""


def read_event_rows(client: Client, event_id: str) -> list[EventRow]:
    """The stored rows of an id, the first place in the log first.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    scopes = ", ".join(SCOPES_OF_EVENT.values())
    rows = client.query(
        f"""
SELECT source_epoch, source_offset, source_index, source_partition, is_deleted,
       organisation, department, toString(toDate(event_time)), key,
       toUInt64(version - is_deleted + 2 * source_index),
       toUnixTimestamp64Milli(event_time), received_ms, arrayConcat({scopes}),
       cost_usd, priced, price_version, model
FROM usage_events
WHERE event_id = {{event_id:String}}
ORDER BY version DESC
LIMIT {{limit:UInt32}}""",  # noqa: S608 - constants; values are bound
        {"event_id": event_id, "limit": ARRIVALS_MAX},
    )
    return [
        EventRow(
            LogPosition(*row[0:3]),
            row[3],
            bool(row[4]),
            tuple(row[5:9]),
            row[9],
            row[10],
            row[11],
            tuple(row[12]),
            nano_from_usd(row[13]),
            *row[14:17],
        )
        for row in rows
    ]


def read_dead_letters(client: Client, event_id: str) -> list[DeadLetterRow]:
    """The dead letters that name an id.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT source_epoch, source_offset, source_index, source_partition, reason, detail, lane, "
        "seq, toUnixTimestamp64Milli(source_time) FROM dead_letters FINAL "
        "WHERE event_id = {event_id:String} AND source_topic = 'usage.events' "
        "ORDER BY source_epoch, source_offset, source_index LIMIT {limit:UInt32}",
        {"event_id": event_id, "limit": ARRIVALS_MAX},
    )
    return [DeadLetterRow(LogPosition(*row[0:3]), *row[3:]) for row in rows]


def read_batches(client: Client, places: Iterable[tuple[int, int]]) -> list[BatchRow]:
    """The batches at these places, and every other arrival of the same batches.

    Args:
        client: the store.
        places: `batch_version` and partition of events' rows.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    wanted = sorted(set(places))
    rows = client.query(
        """
SELECT lane, seq, source_partition, source_epoch, source_offset, version,
       toUnixTimestamp64Milli(received_at)
FROM usage_batches FINAL
WHERE (lane, seq) IN (
    SELECT lane, seq FROM usage_batches WHERE version IN {versions:Array(UInt64)}
    AND (version, source_partition) IN (
        SELECT tupleElement(each, 1), tupleElement(each, 2)
        FROM (SELECT arrayJoin(arrayZip({versions:Array(UInt64)}, {partitions:Array(UInt16)}))
              AS each)))
ORDER BY version DESC
LIMIT {limit:UInt32}""",
        {
            "versions": [version for version, _ in wanted],
            "partitions": [partition for _, partition in wanted],
            "limit": ARRIVALS_MAX,
        },
    )
    return [
        BatchRow(row[0], row[1], row[2], LogPosition(row[3], row[4], 0), row[5], row[6])
        for row in rows
    ]


def read_shard_totals(client: Client, keys: Sequence[WindowScope]) -> list[ShardTotal]:
    """What the shards say of these scopes and windows.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT window_kind, toUnixTimestamp64Milli(window_start) AS start_ms, scope, shard, "
        "source_epoch, source_offset, cost_usd, events FROM spend_windows FINAL "
        # The type is the head of the scope; named, it lets the sorting key find the scope.
        "WHERE window_kind IN {kinds:Array(String)} AND scope_type IN {types:Array(String)} "
        "AND window_start IN (SELECT fromUnixTimestamp64Milli(arrayJoin({starts:Array(Int64)}), "
        "'UTC')) AND scope IN {scopes:Array(String)} ORDER BY window_kind, start_ms, scope, shard",
        {
            "kinds": sorted({key.kind.value for key in keys}),
            "starts": sorted({key.start_ms for key in keys}),
            "types": sorted({key.scope.partition(":")[0] for key in keys}),
            "scopes": sorted({key.scope for key in keys}),
        },
    )
    found = [
        ShardTotal(
            WindowScope(WindowKind(kind), start_ms, scope),
            shard,
            epoch,
            offset,
            nano_from_usd(cost),
            events,
        )
        for kind, start_ms, scope, shard, epoch, offset, cost, events in rows
    ]
    wanted = set(keys)
    return [each for each in found if each.key in wanted]


def read_fired(
    client: Client, scopes: Sequence[str], periods: Sequence[str], since_ms: int
) -> list[FiredAlert]:
    """The alerts of these scopes and periods that fired at or after a time, in their order.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT alert_id, dedup_key, scope, window_kind, period, severity, "
        "toUnixTimestamp64Milli(starts_at) AS starts_ms, summary, commands FROM alerts FINAL "
        "WHERE scope IN {scopes:Array(String)} AND period IN {periods:Array(String)} "
        "AND status = 'firing' AND starts_at >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC') "
        "ORDER BY starts_ms, dedup_key",
        {"scopes": list(scopes), "periods": list(periods), "since_ms": since_ms},
    )
    commands = sorted({command for row in rows for command in row[8]})
    evidence = dict(
        client.query(
            "SELECT concat(scope, '@', toString(epoch), '.', toString(seq)), "
            "JSONExtractString(evidence, 'source_offset') FROM throttle_commands FINAL "
            "WHERE concat(scope, '@', toString(epoch), '.', toString(seq)) "
            "IN {commands:Array(String)} AND scope IN {scopes:Array(String)}",
            {"commands": commands, "scopes": list(scopes)},
        )
        if commands
        else ()
    )
    fired = []
    for alert_id, dedup_key, scope, kind, period, severity, starts_ms, summary, given in rows:
        offsets = tuple(evidence[each] for each in given if evidence.get(each))
        fired.append(
            FiredAlert(
                alert_id, dedup_key, scope, kind, period, severity, starts_ms, summary, offsets
            )
        )
    return fired
