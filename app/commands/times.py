"""Times and durations as operators write and read them."""

from __future__ import annotations

import re

from meterline.schemas.errors import UserError
from meterline.schemas.periods import parse_rfc3339, rfc3339

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_DURATION = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)


def duration_ms(text: str) -> int:
    """`90s`, `30m`, `2h`, `7d`, `1w` as ms; UserError if it is none of these."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or found[1] == "0":
        message = f"{text!r} is not a duration: write 30m, 2h or 7d"
        raise UserError(message)
    return int(found[1]) * _UNITS_MS[found[2]]


def time_ms(text: str) -> int:
    """An RFC 3339 time with its zone as UTC ms; UserError if it is none."""
    try:
        return parse_rfc3339(text)
    except ValueError:
        message = f"{text!r} is not a time: write 2026-10-31T12:00:00Z or with an offset"
        raise UserError(message) from None


def duration_text(duration_ms: int) -> str:
    """A duration in its two largest units, rounded down: `7 d 11 h`, `3 min`, `0 s`.

    From a minute on, seconds are left out: an operator decides nothing by them.
    """
    seconds = max(duration_ms, 0) // 1000
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    parts: tuple[tuple[int, str], ...] = ((seconds, "s"),)
    if days:
        parts = ((days, "d"), (hours, "h"))
    elif hours:
        parts = ((hours, "h"), (minutes, "min"))
    elif minutes:
        parts = ((minutes, "min"),)
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount) or "0 s"


def ago(at_ms: int, now_ms: int) -> str:
    """How long ago a time was: `3 min ago`; `0 s ago` for a time ahead of this clock."""
    return f"{duration_text(now_ms - at_ms)} ago"


def minute_text(at_ms: int) -> str:
    """A UTC time to the minute, with its year: `2026-10-31 12:00`."""
    return rfc3339(at_ms)[:16].replace("T", " ")


def short_minute_text(at_ms: int) -> str:
    """A UTC time to the minute in a list of recent ones: `10-31 12:00`."""
    return minute_text(at_ms)[5:]
