"""Calendar windows: half-open `[start, end)` ranges in a billing time zone, UTC ms at both ends.

    minute   [ ) [ ) [ ) [ )            60,000 ms always
    hour     [              )           the wall clock's hour, also at +05:30
    day      [                      )   23, 24 or 25 hours where daylight saving moves
    month    [                                 )

Every boundary falls on a UTC minute, so a minute belongs to exactly one hour, day and month.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

# One entry per minute in use; 4,096 minutes are nearly three days of late events.
CACHED_MINUTES_MAX = 4_096


class WindowKind(StrEnum):
    """The granularities that spend is kept in."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Window(NamedTuple):
    """One window: `start_ms <= time_ms < end_ms`."""

    kind: WindowKind
    start_ms: int
    end_ms: int


class Calendar:
    """The windows of one billing time zone."""

    def __init__(self, time_zone: str = "UTC") -> None:
        """Take an IANA name; `zoneinfo.ZoneInfoNotFoundError` if there is none such."""
        self.time_zone = time_zone
        self._zone = ZoneInfo(time_zone)
        self._of_minute = lru_cache(maxsize=CACHED_MINUTES_MAX)(self._compute)

    def windows(self, time_ms: int) -> tuple[Window, Window, Window, Window]:
        """The minute, hour, day and month that contain an event time, in this order."""
        return self._of_minute(time_ms // MINUTE_MS)

    def window(self, kind: WindowKind, time_ms: int) -> Window:
        """The window of one kind that holds an event time."""
        return self.windows(time_ms)[_ORDER[kind]]

    def period(self, window: Window) -> str:
        """A window's name in messages and dedup keys: 2026-10, 2026-10-31, 2026-10-31T14:00+01:00."""
        start = datetime.fromtimestamp(window.start_ms / 1000, self._zone)
        match window.kind:
            case WindowKind.MONTH:
                return start.strftime("%Y-%m")
            case WindowKind.DAY:
                return start.strftime("%Y-%m-%d")
            case WindowKind.HOUR | WindowKind.MINUTE:
                return start.isoformat(timespec="minutes")

    def _compute(self, minute: int) -> tuple[Window, Window, Window, Window]:
        start_ms = minute * MINUTE_MS
        local = datetime.fromtimestamp(start_ms / 1000, self._zone)
        offset = local.utcoffset() or timedelta()
        offset_ms = offset // timedelta(milliseconds=1)
        hour_ms = (start_ms + offset_ms) // HOUR_MS * HOUR_MS - offset_ms
        day = datetime(local.year, local.month, local.day, tzinfo=self._zone)
        after = local.date() + timedelta(days=1)
        next_day = datetime(after.year, after.month, after.day, tzinfo=self._zone)
        month = datetime(local.year, local.month, 1, tzinfo=self._zone)
        year, month_number = divmod(local.year * 12 + local.month, 12)
        next_month = datetime(year, month_number + 1, 1, tzinfo=self._zone)
        return (
            Window(WindowKind.MINUTE, start_ms, start_ms + MINUTE_MS),
            Window(WindowKind.HOUR, hour_ms, hour_ms + HOUR_MS),
            Window(WindowKind.DAY, _ms(day), _ms(next_day)),
            Window(WindowKind.MONTH, _ms(month), _ms(next_month)),
        )


_ORDER = {kind: position for position, kind in enumerate(WindowKind)}


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def rfc3339(time_ms: int) -> str:
    """A UTC time as text: 2026-10-31T12:00:00.123Z."""
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def parse_rfc3339(text: str) -> int:
    """Read an RFC 3339 time with an offset as UTC ms.

    Raises:
        ValueError: malformed, or without an offset (a time without one is a guess).
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = f"{text!r} has no UTC offset"
        raise ValueError(message)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
