"""The chaos proof in its short form: `make chaos` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos_suite.run import ChaosOptions, run_chaos
from benchmarks.chaos_suite.schedule import make_schedule, schedule_text

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
CYCLES = 5
SEED = 3


def test_nothing_is_lost_or_counted_twice(kafka_kind: str, tmp_path: Path) -> None:
    """After five rounds of kills, truth and everything the pipeline says are equal."""
    schedule = make_schedule(cycles=CYCLES, seed=SEED, kafka=kafka_kind)
    outcome = run_chaos(ChaosOptions(schedule, per_second=200.0), tmp_path)
    said = (outcome.verify, outcome.differences, schedule_text(schedule))
    assert outcome.equal, said
    # None of these comparisons was of nothing.
    assert outcome.events > 1_000
    assert outcome.malformed > 10
    assert outcome.alerts > 20
    assert outcome.deliveries == outcome.alerts
    assert outcome.beliefs > 50
    assert outcome.commands > 10
    assert outcome.kills >= CYCLES
    assert outcome.crashes_reached > 0
