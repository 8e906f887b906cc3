"""Months by name, their days, and when they are due to be closed; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from meterline.schemas.errors import MeterlineError
from meterline.schemas.finance import FinancePolicy
from meterline.schemas.periods import Calendar, WindowKind

_NAME = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])")
_NOON = timedelta(hours=12)


class MonthError(MeterlineError, ValueError):
    """A text that names no month."""


class Month(NamedTuple):
    """One calendar month in the billing time zone: `[start_ms, end_ms)`."""

    name: str
    """2026-10."""
    start_ms: int
    end_ms: int
    first_day: date
    last_day: date

    def days(self) -> Iterator[date]:
        """Every day of it, in order."""
        day = self.first_day
        while day <= self.last_day:
            yield day
            day += timedelta(days=1)


def month_named(name: str, time_zone: str) -> Month:
    """The month of a name such as 2026-10.

    Raises:
        MonthError: it is not written so.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        message = f"{name!r} is not a month: write 2026-10"
        raise MonthError(message)
    noon = datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC) + _NOON
    # Noon UTC of the second day lies inside the month in every time zone.
    return month_at(int((noon + timedelta(days=1)).timestamp()) * 1000, time_zone)


def month_at(time_ms: int, time_zone: str) -> Month:
    """The month that holds a time."""
    calendar = Calendar(time_zone)
    window = calendar.window(WindowKind.MONTH, time_ms)
    zone = ZoneInfo(time_zone)
    first = datetime.fromtimestamp(window.start_ms / 1000, zone).date()
    after = datetime.fromtimestamp(window.end_ms / 1000, zone).date()
    last = after - timedelta(days=1)
    return Month(calendar.period(window), window.start_ms, window.end_ms, first, last)


def month_before(month: Month, time_zone: str) -> Month:
    """The month that ends where this one begins."""
    return month_at(month.start_ms - 1, time_zone)


def cut_off_ms(month: Month, policy: FinancePolicy, time_zone: str) -> int:
    """When a month becomes due to be closed: day and time of the following month, UTC ms."""
    hour, minute = policy.close_time.split(":")
    following = month.last_day + timedelta(days=policy.close_day)
    moment = datetime(
        following.year,
        following.month,
        following.day,
        int(hour),
        int(minute),
        tzinfo=ZoneInfo(time_zone),
    )
    return int(moment.timestamp()) * 1000


# Called once per line; a close reads at most four months of days.
@lru_cache(maxsize=1_024)
def day_start_ms(day: date, time_zone: str) -> int:
    """When a day of the billing time zone begins, UTC ms."""
    return (
        int(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(time_zone)).timestamp()) * 1000
    )
