"""Stretches of a period small enough to be read at once.

ClickHouse keeps what it groups in memory; a slice bounds that, and our own memory with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.schemas.periods import DAY_MS

SLICE_EVENTS_MAX = 2_000_000
"""Events of one slice: some 300 MB of groups in ClickHouse if no two requests are alike. A busier
day is a slice of its own."""


class EventSlice(NamedTuple):
    """Events in `[start_ms, end_ms)`."""

    start_ms: int
    end_ms: int


TIMES = (
    "event_time >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC') "
    "AND event_time < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')"
)
"""Condition on `event_time`; the parameters are those of a slice's `_asdict()`."""


def read_event_slices(client: Client, period: ReportPeriod) -> list[EventSlice]:
    """The slices of a period that have events, in order.

    Raises:
        ClickHouseError: as the door says.
    """
    rows = client.query(
        f"""
SELECT intDiv(toUnixTimestamp64Milli(event_time), {DAY_MS}) AS day, count()
FROM usage_events WHERE {TIMES} GROUP BY day ORDER BY day""",  # noqa: S608 - fixed text
        {"start_ms": period.start_ms, "end_ms": period.end_ms},
    )
    return list(pack(((int(day), int(count)) for day, count in rows), period))


def pack(days: Iterable[tuple[int, int]], period: ReportPeriod) -> Iterator[EventSlice]:
    """Join days (number since 1970, events) to slices; days are UTC days, cut to the period."""
    start, end, held = 0, 0, 0
    for day, count in days:
        first, after = day * DAY_MS, (day + 1) * DAY_MS
        if held and held + count > SLICE_EVENTS_MAX:
            yield EventSlice(max(start, period.start_ms), min(end, period.end_ms))
            held = 0
        if not held:
            start = first
        end, held = after, held + count
    if held:
        yield EventSlice(max(start, period.start_ms), min(end, period.end_ms))
