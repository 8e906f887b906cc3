"""Which months are due to be closed; pure but for the look at what months have events."""

from __future__ import annotations

from collections.abc import Iterator

from meterline.backends.clickhouse.client import Client
from meterline.reports.close.core.months import Month, cut_off_ms, month_at, month_before
from meterline.reports.close.ledger import PeriodLedger, PeriodState
from meterline.schemas.finance import FinancePolicy

MONTHS_BACK_MAX = 12
"""A month that nobody closed for a year is not closed behind anybody's back."""


def due_months(
    client: Client, ledger: PeriodLedger, policy: FinancePolicy, time_zone: str, now_ms: int
) -> list[Month]:
    """Months with events whose cut-off is over and that are not closed, the oldest first.

    A reopened month waits for the person who reopened it.
    """
    stored = _months_with_events(client, time_zone)
    return [
        month
        for month in reversed(list(_months_back(time_zone, now_ms)))
        if cut_off_ms(month, policy, time_zone) <= now_ms
        and ledger.history(month.name).state not in {PeriodState.CLOSED, PeriodState.REOPENED}
        and (month.name in stored or ledger.history(month.name).entries)
    ]


def _months_back(time_zone: str, now_ms: int) -> Iterator[Month]:
    month = month_at(now_ms, time_zone)
    for _ in range(MONTHS_BACK_MAX):
        month = month_before(month, time_zone)
        yield month


def _months_with_events(client: Client, time_zone: str) -> set[str]:
    rows = client.query(
        "SELECT DISTINCT formatDateTime(event_time, '%Y-%m', {time_zone:String}) "
        "FROM usage_events WHERE is_deleted = 0",
        {"time_zone": time_zone},
    )
    return {row[0] for row in rows}
