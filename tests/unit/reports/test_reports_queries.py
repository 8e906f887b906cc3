"""Queries as values: text and parameters."""

from __future__ import annotations

import itertools
import re

import pytest

from meterline.reports.core.query import Query
from meterline.reports.core.totals import (
    CurrentSpend,
    EventTotals,
    LastEvent,
    StreamTotals,
    windows_between,
)
from meterline.reports.core.verification import EventRange, StoredEvents, StoredIds
from meterline.schemas.periods import DAY_MS, HOUR_MS, Calendar, WindowKind
from meterline.schemas.scopes import ScopeType

NASTY = "acme' OR 1=1 --"
MARCH_MS = 1_772_323_200_000  # 2026-03-01T00:00Z
UTC = Calendar()
HOURS = windows_between(UTC, WindowKind.HOUR, MARCH_MS, MARCH_MS + 3 * HOUR_MS)
QUESTIONS = [
    StreamTotals(WindowKind.DAY, 1, 2, organisation=NASTY),
    EventTotals(WindowKind.HOUR, HOURS, organisation=NASTY),
    CurrentSpend(UTC.windows(MARCH_MS), (ScopeType.DEPARTMENT,)),
    LastEvent(),
    StoredEvents(EventRange(1, 2, NASTY, NASTY)),
    StoredIds(EventRange(1, 2, NASTY, NASTY), after=NASTY),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: type(each).__name__)
def test_values_are_bound(
    question: StreamTotals | EventTotals | CurrentSpend | LastEvent | StoredEvents | StoredIds,
) -> None:
    """Nothing a caller says stands in the SQL, and every place in it has its parameter."""
    sql, parameters = question.build()
    assert "acme" not in sql
    assert set(re.findall(r"\{(\w+):", sql)) == parameters.keys()


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: type(each).__name__)
def test_money_is_summed_under_final(
    question: StreamTotals | EventTotals | CurrentSpend | LastEvent | StoredEvents | StoredIds,
) -> None:
    """Whatever sums or counts reads FINAL."""
    sql, _ = question.build()
    if "sum(" in sql or "count" in sql:
        assert " FINAL" in sql


def test_stream_totals_text() -> None:
    """Totals of the streams: shards are summed per scope and window start, half-open range."""
    question = StreamTotals(WindowKind.DAY, 10, 20, (ScopeType.KEY, ScopeType.USER))
    assert question.build() == Query(
        """
SELECT toUnixTimestamp64Milli(window_start) AS start_ms, scope,
       sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(events), sum(unpriced_events)
FROM spend_windows FINAL
WHERE window_kind = {kind:String}
  AND window_start >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')
  AND window_start < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')
  AND scope_type IN {scope_types:Array(String)}
GROUP BY start_ms, scope
ORDER BY start_ms, scope""",
        {"kind": "day", "start_ms": 10, "end_ms": 20, "scope_types": ["key", "user"]},
    )


def test_event_totals_text() -> None:
    """Totals of the events: each event falls into its calendar window and its scopes."""
    assert EventTotals(WindowKind.HOUR, HOURS, (ScopeType.PROJECT,)).build() == Query(
        """
SELECT roundDown(toUnixTimestamp64Milli(event_time), {starts:Array(Int64)}) AS start_ms,
       arrayJoin(arrayConcat(if(project = '', [], [concat('project:', organisation, '/', project)]))) AS scope,
       sum(cost_usd), sum(input_tokens), sum(output_tokens), count(), countIf(NOT priced)
FROM usage_events FINAL
WHERE event_time >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')
  AND event_time < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')
GROUP BY start_ms, scope
ORDER BY start_ms, scope""",
        {
            "starts": [MARCH_MS, MARCH_MS + HOUR_MS, MARCH_MS + 2 * HOUR_MS],
            "start_ms": MARCH_MS,
            "end_ms": MARCH_MS + 3 * HOUR_MS,
        },
    )


def test_windows_cover_a_range_without_gaps() -> None:
    """Consecutive windows touch, hold both ends, and follow daylight saving."""
    calendar = Calendar("America/New_York")
    start_ms = MARCH_MS + 6 * DAY_MS
    windows = windows_between(calendar, WindowKind.DAY, start_ms, start_ms + 4 * DAY_MS)
    assert windows[0].start_ms <= start_ms < windows[0].end_ms
    assert windows[-1].start_ms < start_ms + 4 * DAY_MS <= windows[-1].end_ms
    assert all(one.end_ms == two.start_ms for one, two in itertools.pairwise(windows))
    assert (23 * HOUR_MS) in {window.end_ms - window.start_ms for window in windows}


def test_empty_range_has_no_windows() -> None:
    """Nothing lies in an empty range."""
    assert windows_between(UTC, WindowKind.DAY, 5, 5) == []
