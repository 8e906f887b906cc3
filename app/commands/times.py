"""Times and durations as people write them on the command line."""

from __future__ import annotations

import re

from meterline.schemas.errors import UserError
from meterline.schemas.periods import parse_rfc3339

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
