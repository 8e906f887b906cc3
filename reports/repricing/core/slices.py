"""Parts of a period that are small enough to be read at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meterline.reports.attribution.core.period import ReportPeriod
from meterline.schemas.periods import DAY_MS

SLICE_EVENTS_MAX = 2_000_000
"""Events of one slice: some 300 MB of groups in ClickHouse if no two requests are alike. A busier
day is a slice of its own."""


class EventSlice(NamedTuple):
    """Events in `[start_ms, end_ms)`."""

    start_ms: int
    end_ms: int


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
