"""Reconciliation: the streams' totals, their copy in the store, and the raw events, window by window.

    streams    the newest record of every shard on spend.snapshots
    windows    spend_windows, the sink's copy of them
    events     sums of usage_events under FINAL: what invoices are made of

The streams' totals hold all events up to a place in the log, their cut; the events are summed up to
the same place, so a pipeline at work is compared exactly, without waiting for it to be quiet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.reports.bootstrap import SUMS, TIMES
from meterline.reports.totals import SCOPES_OF_EVENT, WINDOWS_PER_QUERY_MAX, Query, WindowScope
from meterline.schemas.measures import MEASURES, Sums, columns_sql, read_sums
from meterline.schemas.periods import Window, WindowKind
from meterline.schemas.spend import REPAIR_SHARD, SnapshotKey, Totals, sums_of


class AppliedOffset(NamedTuple):
    """Up to which place of its partition a shard has counted."""

    epoch: int
    offset: int


class Side(StrEnum):
    """Which copy differs."""

    STREAMS = "streams"
    """The streams' totals from the events."""
    WINDOWS = "windows"
    """The stored totals from the streams', or from the events where the streams keep none."""


class Drift(NamedTuple):
    """One total that is not what it should be."""

    side: Side
    key: WindowScope
    end_ms: int
    expected: Sums
    found: Sums

    @property
    def nano_usd(self) -> int:
        """How far apart, without sign."""
        return abs(self.expected.cost_nano_usd - self.found.cost_nano_usd)


class LaneGap(NamedTuple):
    """Batches of a lane that never came, though later ones did."""

    lane: str
    first: int
    last: int

    @property
    def batches(self) -> int:
        """How many."""
        return self.last - self.first + 1


Shards = Mapping[SnapshotKey, Totals]


@dataclass(frozen=True, slots=True)
class TotalsBySource:
    """What is laid side by side."""

    streams: Shards
    windows: Shards
    events: Mapping[WindowScope, Sums]
    ends: Mapping[WindowScope, int]
    """End of each window."""
    kept: Collection[WindowScope]
    """Those that the streams still keep."""
    cuts: Sequence[AppliedOffset]
    """By partition."""


@dataclass(frozen=True, slots=True)
class EventSums:
    """Sums of raw events up to the cuts, by scope and window of one kind."""

    windows: Sequence[Window]
    cuts: Sequence[AppliedOffset]
    """By partition; partitions beyond these are of an older log and counted whole."""

    def build(self) -> Query:
        """Rows of (start_ms, scope, sums..., newest event)."""
        scopes = ", ".join(SCOPES_OF_EVENT.values())
        sql = f"""
SELECT roundDown(toUnixTimestamp64Milli(event_time), {{starts:Array(Int64)}}) AS start_ms,
       arrayJoin(arrayConcat({scopes})) AS scope, {SUMS}
FROM usage_events FINAL
WHERE {TIMES} AND (
    source_partition >= length({{epochs:Array(Int64)}})
    OR (toInt64(source_epoch), toInt64(source_offset)) <=
       ({{epochs:Array(Int64)}}[source_partition + 1], {{offsets:Array(Int64)}}[source_partition + 1])
)
GROUP BY start_ms, scope"""  # noqa: S608 - constants; values are bound
        return Query(
            sql,
            {
                "starts": [window.start_ms for window in self.windows],
                "start_ms": self.windows[0].start_ms,
                "end_ms": self.windows[-1].end_ms,
                "epochs": [cut.epoch for cut in self.cuts],
                "offsets": [cut.offset for cut in self.cuts],
            },
        )


def read_event_sums(
    client: Client, windows: Sequence[Window], cuts: Sequence[AppliedOffset]
) -> dict[WindowScope, Sums]:
    """Sums of the raw events in consecutive windows of one kind.

    Raises:
        ClickHouseError: as the door says.
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
        ClickHouseError: as the door says.
    """
    rows = client.query(
        "SELECT scope, toUnixTimestamp64Milli(window_start), shard, source_epoch, source_offset, "  # noqa: S608 - column names; values are bound
        f"toUnixTimestamp64Milli(window_end), {columns_sql(MEASURES)}, "
        "toUnixTimestamp64Milli(last_event_time) FROM spend_windows FINAL "
        "WHERE window_kind = {kind:String} "
        "AND window_start >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC') "
        "AND window_start < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')",
        {"kind": kind.value, "start_ms": start_ms, "end_ms": end_ms},
    )
    return {
        SnapshotKey(scope, kind.value, at_ms, shard): _totals(numbers)
        for scope, at_ms, shard, *numbers in rows
    }


def read_lane_gaps(client: Client, start_ms: int, end_ms: int) -> list[LaneGap]:
    """Numbers that lanes active in a period skipped, but for batches that are dead letters.

    Raises:
        ClickHouseError: as the door says.
    """
    bound = {"start_ms": start_ms, "end_ms": end_ms}
    lanes = (
        "SELECT lane FROM usage_batches "
        "WHERE received_at >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC') "
        "AND received_at < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')"
    )
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


def find_drift(sides: TotalsBySource) -> list[Drift]:
    """Every total that differs, the streams' own first. Pure."""
    streams, windows = by_window(sides.streams), by_window(sides.windows)
    found: list[Drift] = []
    nothing = Sums()
    for key in sorted(sides.events.keys() | streams.keys() | windows.keys()):
        expected = sides.events.get(key, nothing)
        end_ms = sides.ends[key]
        if key in sides.kept:
            counted = streams.get(key, nothing)
            if counted != expected:
                found.append(Drift(Side.STREAMS, key, end_ms, expected, counted))
        elif windows.get(key, nothing) != expected:
            found.append(Drift(Side.WINDOWS, key, end_ms, expected, windows.get(key, nothing)))
    stale = {window_of(key) for key in [*behind(sides), *left_over(sides)]}
    found += [
        Drift(
            Side.WINDOWS,
            key,
            sides.ends[key],
            streams.get(key, nothing),
            windows.get(key, nothing),
        )
        for key in sorted(stale & set(sides.kept))
    ]
    return found


def left_over(sides: TotalsBySource) -> list[SnapshotKey]:
    """Stored totals that the streams, as far as they were read, do not have."""
    return [
        key
        for key, copy in sides.windows.items()
        if key not in sides.streams
        and any(sums_of(copy))
        and not (
            key.shard.isdigit()
            and int(key.shard) < len(sides.cuts)
            and (copy.epoch, copy.offset) > sides.cuts[int(key.shard)]
        )
        and window_of(key) in sides.kept
    ]


def behind(sides: TotalsBySource) -> list[SnapshotKey]:
    """The streams' totals whose copy is older, missing, or of the same age and different."""
    late = []
    for key, totals in sides.streams.items():
        copy = sides.windows.get(key)
        age = (totals.epoch, totals.offset)
        if (
            copy is None
            or (copy.epoch, copy.offset) < age
            or ((copy.epoch, copy.offset) == age and sums_of(copy) != sums_of(totals))
        ):
            late.append(key)
    return late


def by_window(shards: Shards) -> dict[WindowScope, Sums]:
    """The sums over the shards."""
    found: defaultdict[WindowScope, Sums] = defaultdict(Sums)
    for key, totals in shards.items():
        window = window_of(key)
        found[window] = found[window].plus(sums_of(totals))
    return dict(found)


def repair_record(
    drift: Drift, shards: Shards, epoch: int, at_ms: int
) -> tuple[SnapshotKey, Totals]:
    """The record that makes a total right: the difference, as a shard of its own. Pure.

    The difference is absolute and replaces the one of an earlier repair, so repairing twice
    changes nothing; `at_ms` orders them, as offsets order the records of other shards.
    """
    own = by_window(
        {key: totals for key, totals in shards.items() if key.shard != REPAIR_SHARD}
    ).get(drift.key, Sums())
    kind, start_ms, scope = drift.key
    key = SnapshotKey(scope, kind.value, start_ms, REPAIR_SHARD)
    missing = drift.expected.minus(own)
    return key, Totals(epoch, at_ms, drift.end_ms, *missing, last_event_ms=start_ms)


def window_of(key: SnapshotKey) -> WindowScope:
    """The total that a shard's record is part of."""
    return WindowScope(WindowKind(key.kind), key.start_ms, key.scope)


def missing_batches(gaps: Iterable[LaneGap]) -> int:
    """How many in all."""
    return sum(gap.batches for gap in gaps)


def _totals(numbers: Sequence[Any]) -> Totals:
    epoch, offset, end_ms, *sums, last_event_ms = numbers
    return Totals(epoch, offset, end_ms, *read_sums(MEASURES, sums), last_event_ms=last_event_ms)
