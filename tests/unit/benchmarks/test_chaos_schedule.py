"""The schedule of a chaos run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos_suite.schedule import (
    Way,
    make_schedule,
    read_schedule,
    schedule_text,
    ways_to_die,
)

KINDS = ("embedded", "apache")


@pytest.mark.parametrize("kafka", KINDS)
def test_a_seed_gives_the_same_schedule(kafka: str, tmp_path: Path) -> None:
    """What is printed at a failure is, read again, what ran; another seed gives another."""
    schedule = make_schedule(cycles=20, seed=1, kafka=kafka)
    assert make_schedule(cycles=20, seed=1, kafka=kafka) == schedule
    assert make_schedule(cycles=20, seed=2, kafka=kafka) != schedule
    path = tmp_path / "schedule.json"
    path.write_text(schedule_text(schedule), encoding="utf-8")
    assert read_schedule(path) == schedule


@pytest.mark.parametrize("kafka", KINDS)
def test_a_short_run_hits_every_process(kafka: str) -> None:
    """No victim is hit a second time before every victim was hit once."""
    victims = [
        strike.victim
        for one in make_schedule(cycles=20, seed=5, kafka=kafka).rounds
        for strike in one.strikes
    ]
    count = len(ways_to_die(kafka))
    assert set(victims[:count]) == set(ways_to_die(kafka))


@pytest.mark.parametrize("kafka", KINDS)
def test_a_long_run_passes_every_crash_point(kafka: str) -> None:
    """Within as many strikes as there are ways to die, each way is taken once."""
    wanted = sorted(
        (victim, way, point) for victim, ways in ways_to_die(kafka).items() for way, point in ways
    )
    strikes = [
        (strike.victim, strike.way, strike.point.partition(":")[0])
        for one in make_schedule(cycles=60, seed=2, kafka=kafka).rounds
        for strike in one.strikes
    ]
    assert sorted(strikes[: len(wanted)]) == wanted


def test_the_broker_that_forgets_is_never_killed() -> None:
    """The embedded broker is in memory only: its death is a rebuild and no crash."""
    assert "broker" not in ways_to_die("embedded")
    assert (Way.KILL, "") in ways_to_die("apache")["broker"]
    assert len([name for name in ways_to_die("apache") if name.startswith("streams")]) == 2
