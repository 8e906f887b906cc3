"""A quarter in seconds: old windows are given back, month totals are not."""

from __future__ import annotations

import pytest

from benchmarks.three_months import DAYS, KEYS, entries_bound, simulate
from streams.entries import Retention


@pytest.mark.timeout(240)
def test_three_months_leave_no_leak_and_exact_month_totals() -> None:
    """Over three months and two month ends the table stays within its retention, the changelog
    holds exactly the table, and each month's totals are the sums of what was sent."""
    report = simulate()
    assert len(report.days) == DAYS
    assert report.events == 2 * 10 * 48 * DAYS
    assert report.wrong_months == 0
    # The organisation, three departments and the keys, in each of two partitions.
    bound = entries_bound(2 * (1 + 3 + KEYS), Retention())
    assert max(day.entries for day in report.days) <= bound
    for day in report.days:
        # Tombstones of what was dropped go out with the next flush.
        assert day.entries <= day.log_keys <= day.entries + bound // 4
        assert day.due == day.entries
    # Days are kept for 45: from then on only months are added, and everything else comes and goes.
    settled = report.days[50:]
    months_more = 2 * (1 + 3 + KEYS)
    assert (
        max(day.entries for day in settled) - min(day.entries for day in settled) <= months_more * 2
    )
    sizes = [day.bookkeeping_bytes for day in settled]
    assert max(sizes) < 1.2 * min(sizes)
