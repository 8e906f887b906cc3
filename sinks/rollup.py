"""Keeps usage_days up to date: counts the dirty buckets again.

A bucket is a department's UTC day (`cell` in table and column names); it is dirty while it has
invalidations that were not counted. A count of buckets takes four steps:

    1. Read the invalidations (usage_changes). Their rows are in usage_events before them.
    2. Count the buckets from usage_events FINAL into rows of a new attempt. A crash leaves rows
       that no bucket names: no report reads them, and step 4 of a later round removes them.
    3. Name the attempt and the invalidations of step 1 in usage_day_cells: from here on reports
       read the new rows, all of a bucket at once. Invalidations that arrive after step 1 make the
       bucket dirty again.
    4. Every hour remove the rows of earlier attempts, an hour after they were replaced, so that a
       report that is running still finds them.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

import structlog

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.errors import ClickHouseError
from meterline.schemas.clock import Clock
from meterline.schemas.measures import MEASURES, columns_sql, events_sql
from meterline.schemas.periods import DAY_MS, HOUR_MS

_log = structlog.get_logger("rollup")

# Buckets of one statement: 60 KB of parameters, and some million events at most.
BUCKETS_PER_COUNT = 500
# Buckets of one round: 20 s of work, after which the dirty ones are read again.
BUCKETS_PER_ROUND = 20_000
# Buckets of the current UTC day change all the time: counted again this often at most.
HOT_SECONDS = 600
ROUND_SECONDS = 30.0
# No report runs as long: STATEMENT_SECONDS_MAX of the client bounds it.
KEEP_REPLACED_MS = HOUR_MS
REMOVE_EVERY_SECONDS = 3_600.0
# An attempt is a time and random bits: no two counts share one, and later ones are greater.
_RANDOM_BITS = 20
_EPOCH = date(1970, 1, 1)


class DirtyBucket(NamedTuple):
    """A bucket to count, with the version of its invalidations."""

    organisation: str
    department: str
    day: date
    version: int


_STALE = """
SELECT organisation, department, cell_day, changed
FROM (
    SELECT organisation, department, cell_day, sum(newest) AS changed
    FROM (
        SELECT organisation, department, cell_day, shard, max(version) AS newest
        FROM usage_changes
        GROUP BY organisation, department, cell_day, shard
    )
    GROUP BY organisation, department, cell_day
) AS marks
LEFT JOIN (
    SELECT organisation, department, cell_day, version, attempt
    FROM usage_day_cells FINAL
    WHERE time_zone = {time_zone:String}
) AS counted USING (organisation, department, cell_day)
WHERE counted.version != changed
  AND (cell_day < {today:Date} OR counted.attempt < {hot_before:UInt64})
ORDER BY organisation, department, cell_day
LIMIT {cells_max:UInt64}"""

_CELLS = (
    "(SELECT arrayJoin(arrayZip({organisations:Array(String)}, {departments:Array(String)}, "
    "{days:Array(Date)})))"
)

# Both grains in one reading of the events.
_COUNT = f"""
INSERT INTO usage_days
    (grain, organisation, department, cell_day, time_zone, attempt, day, project, environment, key,
     model, provider, {columns_sql(MEASURES)})
SELECT if(grouping(key) = 1, 'department', 'key'), organisation, department,
       toDate(event_time) AS cell_day, {{time_zone:String}}, {{attempt:UInt64}},
       toDate(event_time, {{time_zone:String}}) AS billing_day, project, environment, key, model,
       provider, {events_sql(MEASURES)}
FROM usage_events FINAL
WHERE event_time >= toDateTime64({{first:Date}}, 3, 'UTC')
  AND event_time < toDateTime64({{after:Date}}, 3, 'UTC')
  AND (organisation, department, toDate(event_time)) IN {_CELLS}
GROUP BY GROUPING SETS (
    (organisation, department, cell_day, billing_day, model, provider),
    (organisation, department, cell_day, billing_day, project, environment, key, model, provider)
)"""  # noqa: S608 - only fixed text is put in; values are bound

_NAME = """
INSERT INTO usage_day_cells (organisation, department, cell_day, time_zone, version, attempt)
SELECT tupleElement(cell, 1), tupleElement(cell, 2), tupleElement(cell, 3), {time_zone:String},
       tupleElement(cell, 4), {attempt:UInt64}
FROM (
    SELECT arrayJoin(arrayZip({organisations:Array(String)}, {departments:Array(String)},
                              {days:Array(Date)}, {versions:Array(UInt64)})) AS cell
)"""


def attempt_at(now_ms: int) -> int:
    """A new attempt: greater than every one of an earlier millisecond."""
    return now_ms << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)


def refresh(client: Client, time_zone: str, now_ms: int, *, hot_seconds: int = HOT_SECONDS) -> int:
    """Count the dirty buckets.

    Args:
        client: the store.
        time_zone: of the billing days.
        now_ms: now, UTC ms.
        hot_seconds: after a count, buckets of the current day are not counted again within this.

    Returns:
        Number of buckets counted.

    Raises:
        ClickHouseError: the store is unavailable or refuses; what was counted is kept, the other
            buckets are still dirty.
    """
    rows = client.query(
        _STALE,
        {
            "time_zone": time_zone,
            "today": _EPOCH + timedelta(days=now_ms // DAY_MS),
            "hot_before": (now_ms - hot_seconds * 1000) << _RANDOM_BITS,
            "cells_max": BUCKETS_PER_ROUND,
        },
    )
    buckets = [DirtyBucket(*row) for row in rows]
    for first in range(0, len(buckets), BUCKETS_PER_COUNT):
        _count(client, time_zone, now_ms, buckets[first : first + BUCKETS_PER_COUNT])
    return len(buckets)


def _count(client: Client, time_zone: str, now_ms: int, buckets: Sequence[DirtyBucket]) -> None:
    parameters: dict[str, object] = {
        "organisations": [bucket.organisation for bucket in buckets],
        "departments": [bucket.department for bucket in buckets],
        "days": [bucket.day for bucket in buckets],
        "time_zone": time_zone,
        "attempt": attempt_at(now_ms),
    }
    # 2. Count.
    client.command(
        _COUNT,
        parameters
        | {
            "first": min(bucket.day for bucket in buckets),
            "after": max(bucket.day for bucket in buckets) + timedelta(days=1),
        },
    )
    # 3. Only now are they read.
    client.command(_NAME, parameters | {"versions": [bucket.version for bucket in buckets]})


def remove_replaced(client: Client, now_ms: int, cluster: str = "") -> None:
    """Remove the rows of attempts that no bucket names, once no report can be reading them.

    Raises:
        ClickHouseError: the store is unavailable, or refuses the statement.
    """
    suffix = "_local" if cluster else ""
    on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
    client.command(
        f"ALTER TABLE usage_days{suffix}{on_cluster} DELETE WHERE attempt < {{before:UInt64}} "  # noqa: S608 - a cluster's name is checked by the settings
        f"AND (organisation, department, cell_day, time_zone, attempt) NOT IN (SELECT "
        f"organisation, department, cell_day, time_zone, attempt "
        f"FROM usage_day_cells{suffix} FINAL)",
        {"before": (now_ms - KEEP_REPLACED_MS) << _RANDOM_BITS},
    )


def run_rollup(
    client: Callable[[], Client],
    time_zone: str,
    clock: Clock,
    stop: threading.Event,
    cluster: str = "",
    also: Callable[[Client], object] = lambda _: None,
) -> None:
    """Refresh every ROUND_SECONDS until `stop` is set; a failed round is logged and repeated.

    `also` is called in every round: other work on the stored rows that may be repeated.
    It runs beside a sink. Several sinks may run it at once: some buckets are counted
    twice, alike.
    """
    store = client()
    removed_at = time.monotonic()
    try:
        while not stop.wait(ROUND_SECONDS):
            try:
                counted = refresh(store, time_zone, clock())
                also(store)
                if time.monotonic() - removed_at > REMOVE_EVERY_SECONDS:
                    remove_replaced(store, clock(), cluster)
                    removed_at = time.monotonic()
            except ClickHouseError as error:
                _log.warning("rollup.waiting", reason=str(error))
            else:
                _log.debug("rollup.counted", buckets=counted)
    finally:
        store.close()
