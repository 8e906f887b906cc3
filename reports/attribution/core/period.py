"""Pure: the period of a report, in whole days of the billing time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from meterline.schemas.errors import MeterlineError
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.usage import TIME_MS_MIN

NOON = 12
_LAST_DAYS = re.compile(r"^(\d{1,4})d$")
_MONTH = re.compile(r"^(\d{4})-(\d{2})$")
_DAYS = re.compile(r"^(\d{4}-\d{2}-\d{2})(?:\.\.(\d{4}-\d{2}-\d{2}))?$")
_HELP = (
    "write current_month, previous_month, 7d, all, 2026-10, 2026-10-31 or 2026-10-01..2026-10-31"
)


class ReportPeriodError(MeterlineError, ValueError):
    """A period that cannot be read; the message says what can."""


class Granularity(StrEnum):
    """How a period is cut into rows."""

    TOTAL = "total"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """Whole billing days: `start_ms <= time_ms < end_ms`."""

    name: str
    """As written on the command line and in titles: 2026-10, 7d."""
    start_ms: int
    end_ms: int


def read_period(text: str, calendar: Calendar, now_ms: int) -> ReportPeriod:
    """Parse a period as written on the command line.

    Args:
        text: current_month, previous_month, Nd (N days, today the last), all, a month, a day, or
            two days with `..` between (both inside).
        calendar: of the billing time zone.
        now_ms: now, UTC ms.

    Raises:
        ReportPeriodError: none of these.
    """
    today = calendar.window(WindowKind.DAY, now_ms)
    month = calendar.window(WindowKind.MONTH, now_ms)
    if text == "current_month":
        return ReportPeriod(calendar.period(month), month.start_ms, month.end_ms)
    if text == "previous_month":
        before = calendar.window(WindowKind.MONTH, month.start_ms - 1)
        return ReportPeriod(calendar.period(before), before.start_ms, before.end_ms)
    if text == "all":
        first = calendar.window(WindowKind.MONTH, TIME_MS_MIN)
        return ReportPeriod("all", first.start_ms, month.end_ms)
    if (last := _LAST_DAYS.match(text)) is not None and int(last[1]):
        local = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(calendar.time_zone)).date()
        first_day = local - timedelta(days=int(last[1]) - 1)
        return ReportPeriod(text, _day(first_day, calendar).start_ms, today.end_ms)
    return _written_out(text, calendar)


def _written_out(text: str, calendar: Calendar) -> ReportPeriod:
    try:
        if (month := _MONTH.match(text)) is not None:
            inside = date(int(month[1]), int(month[2]), 15)
            window = calendar.window(WindowKind.MONTH, _noon_ms(inside, calendar))
            return ReportPeriod(text, window.start_ms, window.end_ms)
        if (days := _DAYS.match(text)) is not None:
            first = _day(date.fromisoformat(days[1]), calendar)
            last = _day(date.fromisoformat(days[2] or days[1]), calendar)
            if last.end_ms > first.start_ms:
                return ReportPeriod(text, first.start_ms, last.end_ms)
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is no period: {error}; {_HELP}"
        raise ReportPeriodError(message) from error
    message = f"{text!r} is no period; {_HELP}"
    raise ReportPeriodError(message)


def _noon_ms(day: date, calendar: Calendar) -> int:
    # Noon, because midnight may be missing where daylight saving moves.
    zone = ZoneInfo(calendar.time_zone)
    return int(datetime(day.year, day.month, day.day, NOON, tzinfo=zone).timestamp()) * 1000


def _day(day: date, calendar: Calendar) -> ReportPeriod:
    window = calendar.window(WindowKind.DAY, _noon_ms(day, calendar))
    return ReportPeriod(day.isoformat(), window.start_ms, window.end_ms)
