"""Durations and times on the command line."""

from __future__ import annotations

import pytest

from meterline.app.commands.times import ago, duration_text, minute_text, short_minute_text

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (0, "0 s"),
        (-5 * MINUTE, "0 s"),  # a clock that runs ahead
        (999, "0 s"),
        (59 * SECOND, "59 s"),
        (MINUTE, "1 min"),
        (3 * MINUTE + 40 * SECOND, "3 min"),
        (HOUR, "1 h"),
        (HOUR + 5 * MINUTE, "1 h 5 min"),
        (645_208 * SECOND, "7 d 11 h"),
        (7 * DAY + 59 * MINUTE, "7 d"),
        (400 * DAY, "400 d"),
    ],
)
def test_a_duration_is_given_in_its_two_largest_units(duration_ms: int, text: str) -> None:
    """An age is read at a glance: days and hours, or minutes, never a count of seconds."""
    assert duration_text(duration_ms) == text


def test_an_age_says_ago() -> None:
    """What happened before now is so long ago."""
    assert ago(1_000_000, 1_000_000 + 3 * MINUTE) == "3 min ago"


def test_times_are_given_to_the_minute() -> None:
    """Lists of recent things leave the year out."""
    assert minute_text(1_795_000_000_000) == "2026-11-18 11:06"
    assert short_minute_text(1_795_000_000_000) == "11-18 11:06"
