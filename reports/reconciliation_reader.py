"""Reads what reconciliation compares from ClickHouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meterline.backends.clickhouse.client import Client
from meterline.reports.core.event_sums import AppliedOffset, EventSums
from meterline.reports.core.query import between
from meterline.reports.core.reconciliation import LaneGap
from meterline.reports.core.totals import WINDOWS_PER_QUERY_MAX, WindowScope
from meterline.schemas.measures import MEASURES, Sums, columns_sql, read_sums
from meterline.schemas.periods import Window, WindowKind
from meterline.schemas.spend import SnapshotKey, Totals


def read_event_sums(
    client: Client, windows: Sequence[Window], cuts: Sequence[AppliedOffset]
) -> dict[WindowScope, Sums]:
    """Sums of the raw events in consecutive windows of one kind.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    found: dict[WindowScope, Sums] = {}
    for first in range(0, len(windows), WINDOWS_PER_QUERY_MAX):
        question = EventSums(windows[first : first + WINDOWS_PER_QUERY_MAX], cuts)
        # The newest event's time is nothing to compare.
        for start_ms, scope, *sums, _newest_ms in client.query(*question.build()):
            key = WindowScope(windows[0].kind, start_ms, scope)
            found[key] = read_sums(MEASURES, sums)
    return found


def read_window_shards(
    client: Client, kind: WindowKind, start_ms: int, end_ms: int
) -> dict[SnapshotKey, Totals]:
    """The stored totals of windows of one kind that begin in `[start_ms, end_ms)`.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT scope, toUnixTimestamp64Milli(window_start), shard, source_epoch, source_offset, "  # noqa: S608 - column names; values are bound
        f"toUnixTimestamp64Milli(window_end), {columns_sql(MEASURES)}, "
        "toUnixTimestamp64Milli(last_event_time) FROM spend_windows FINAL "
        f"WHERE window_kind = {{kind:String}} AND {between('window_start')}",
        {"kind": kind.value, "start_ms": start_ms, "end_ms": end_ms},
    )
    return {
        SnapshotKey(scope, kind.value, at_ms, shard): _totals(numbers)
        for scope, at_ms, shard, *numbers in rows
    }


def read_lane_gaps(client: Client, start_ms: int, end_ms: int) -> list[LaneGap]:
    """Numbers that lanes active in a period skipped, but for batches that are dead letters.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    bound = {"start_ms": start_ms, "end_ms": end_ms}
    lanes = f"SELECT lane FROM usage_batches WHERE {between('received_at')}"  # noqa: S608 - bound
    rows = client.query(
        f"""
SELECT lane, before + 1, seq - 1
FROM (
    SELECT lane, seq, lagInFrame(seq, 1, 0) OVER (
               PARTITION BY lane ORDER BY seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
           ) AS before
    FROM (
        SELECT lane, seq FROM usage_batches WHERE lane IN ({lanes})
        UNION DISTINCT
        SELECT lane, seq FROM dead_letters WHERE lane IN ({lanes}) AND seq > 0
    )
)
WHERE seq > before + 1
ORDER BY lane, seq""",  # noqa: S608 - constants; values are bound
        bound,
    )
    return [LaneGap(*row) for row in rows]


def _totals(numbers: Sequence[Any]) -> Totals:
    epoch, offset, end_ms, *sums, last_event_ms = numbers
    return Totals(epoch, offset, end_ms, *read_sums(MEASURES, sums), last_event_ms=last_event_ms)
