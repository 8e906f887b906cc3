"""The detectors' benchmark reads and scores what it is given as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.anomaly import Alarm, read_csv, score_alarms
from benchmarks.spend_corpus import Incident, Series

DAY_SLOTS = 288


def test_a_labelled_file_becomes_windows_and_sums(tmp_path: Path) -> None:
    """Times in either spelling, sums per slot, one incident per run of labels, days from midnight."""
    path = tmp_path / "spend.csv"
    path.write_text(
        "time,value,label\n"
        "2026-06-01T01:00:00Z,1.5,0\n"
        "2026-06-01T01:01:00,0.25,0\n"
        "1780279200,3,1\n"
        "2026-06-01T02:05:00+00:00,4,1\n"
        "2026-06-01T03:00:00Z,5,0\n"
        "2026-06-01T04:00:00Z,6,1\n",
        encoding="utf-8",
    )
    series = read_csv(path)
    assert series.amounts[12] == 1_750_000_000
    assert series.amounts[24:26] == [3_000_000_000, 4_000_000_000]
    assert [(one.first, one.end) for one in series.incidents] == [(24, 36), (48, 49)]


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    """With one line that names it."""
    path = tmp_path / "empty.csv"
    path.write_text("time,value,label\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="no rows"):
        read_csv(path)


def test_alarms_are_scored_as_the_page_says() -> None:
    """Inside or an hour after is a hit; elsewhere false, once in 24 hours; warm-up is not counted."""
    first = 8 * DAY_SLOTS
    runaway = Incident("runaway", first, first + 24)
    theft = Incident("theft", first + 3 * DAY_SLOTS, first + 3 * DAY_SLOTS + 12)
    series = Series("k", "office", [10**9] * (14 * DAY_SLOTS), [runaway, theft])
    said = [
        5,  # warm-up
        first - 30,  # false
        first - 20,  # the same day
        first + 11,  # found, within the hour
        first + 24 + 11,  # still the incident's
        theft.end + 12,  # false: too late
    ]
    outcome = score_alarms([series], {"k": [Alarm(slot, "deviation.x") for slot in said]})
    assert outcome.found == {"runaway": [True], "theft": [False]}
    assert (outcome.recall, outcome.runaway_within_hour) == (0.5, 1.0)
    assert outcome.false_per_week == pytest.approx(2.0)
    assert outcome.delays_hours == [pytest.approx(11 / 12)]
