"""A quarter in seconds: old windows are given back, month totals are not."""

from __future__ import annotations

import pytest

from benchmarks.three_months import (
    DAYS,
    EVENTS_PER_MESSAGE,
    KEYS,
    RETENTION,
    entries_bound,
    simulate,
)


@pytest.mark.timeout(240)
def test_three_months_leave_no_leak_and_exact_month_totals() -> None:
    """Over three months and two month ends the table stays within its retention, the changelog
    holds exactly the table, and each month's totals are the sums of what was sent."""
    report = simulate(partitions=2)
    assert len(report.days) == DAYS
    assert report.events == 2 * EVENTS_PER_MESSAGE * 24 * DAYS
    assert report.wrong_months == 0
    bound = entries_bound(2, KEYS, RETENTION)
    for day in report.days:
        assert day.entries <= bound
        assert day.due == day.entries
        # Tombstones of what was dropped go out with the next flush.
        assert day.entries <= day.log_keys <= day.entries * 1.1
    # When the last kind but the months has begun to be dropped, only months are added.
    settled = report.days[-DAYS // 2 :]
    months = 2 * (1 + 3 + KEYS) * 2
    entries = [day.entries for day in settled]
    assert max(entries) - min(entries) <= months + max(entries) // 20
    sizes = [day.bookkeeping_bytes for day in settled]
    assert max(sizes) < 1.2 * min(sizes)
