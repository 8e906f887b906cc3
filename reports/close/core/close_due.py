"""Which months are due to be closed; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from meterline.reports.booking.core.ledger import PeriodLedger, PeriodState
from meterline.reports.booking.core.months import Month, cut_off_ms, month_at, month_before
from meterline.schemas.finance import FinancePolicy

MONTHS_BACK_MAX = 12
"""A month that stayed open for a year is not closed without an operator."""


def due_months(
    with_events: Collection[str],
    ledger: PeriodLedger,
    policy: FinancePolicy,
    time_zone: str,
    now_ms: int,
) -> list[Month]:
    """Months with events whose cut-off is over and that are not closed, the oldest first.

    A reopened month is not due: who reopened it closes it again.

    Args:
        with_events: names of the months that have events.
        ledger: of all months.
        policy: its close day and time.
        time_zone: the billing time zone.
        now_ms: now, UTC ms.
    """
    return [
        month
        for month in reversed(list(_months_back(time_zone, now_ms)))
        if cut_off_ms(month, policy, time_zone) <= now_ms
        and ledger.history(month.name).state not in {PeriodState.CLOSED, PeriodState.REOPENED}
        and (month.name in with_events or ledger.history(month.name).entries)
    ]


def _months_back(time_zone: str, now_ms: int) -> Iterator[Month]:
    month = month_at(now_ms, time_zone)
    for _ in range(MONTHS_BACK_MAX):
        month = month_before(month, time_zone)
        yield month
