"""Sums of raw events by window and scope: to start a new log from, and to reconcile with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meterline.reports.core.query import Query, between
from meterline.reports.core.totals import SCOPES_OF_EVENT
from meterline.schemas.measures import MEASURES, NEWEST_EVENT_SQL, events_sql
from meterline.schemas.periods import Window

# Sums of one window, in the order of `schemas.spend.Totals` from `cost_nano_usd` on.
SUMS = f"{events_sql(MEASURES)}, {NEWEST_EVENT_SQL}"


@dataclass(frozen=True, slots=True)
class BootstrapSums:
    """Totals of consecutive windows of one kind, by scope and source partition."""

    windows: Sequence[Window]
    epoch: int

    def build(self) -> Query:
        """Rows of (start_ms, scope, partition, sums...)."""
        scopes = ", ".join(SCOPES_OF_EVENT.values())
        sql = f"""
SELECT roundDown(toUnixTimestamp64Milli(event_time), {{starts:Array(Int64)}}) AS start_ms,
       arrayJoin(arrayConcat({scopes})) AS scope, source_partition, {SUMS}
FROM usage_events FINAL
WHERE {between("event_time")} AND source_epoch < {{epoch:UInt16}}
GROUP BY start_ms, scope, source_partition"""  # noqa: S608 - constants; values are bound
        return Query(
            sql,
            {
                "starts": [window.start_ms for window in self.windows],
                "start_ms": self.windows[0].start_ms,
                "end_ms": self.windows[-1].end_ms,
                "epoch": self.epoch,
            },
        )


class AppliedOffset(NamedTuple):
    """Up to which place of its partition a shard has counted."""

    epoch: int
    offset: int


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
WHERE {between("event_time")} AND (
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
