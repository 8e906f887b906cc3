"""Outages in their short form; `python -m benchmarks.outages` has them last a minute."""

from __future__ import annotations

import pytest

from benchmarks.outages import OUTAGES, measure, why_not
from benchmarks.report import unmet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SECONDS = 3.0
PER_SECOND = 1_000.0


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_loses_nothing_and_slows_no_one(name: str) -> None:
    """Whatever is away: totals stay exact, memory bounded, and who does not need it never waits."""
    if lacking := why_not(name):
        pytest.skip(lacking)
    figures, targets = measure(name, SECONDS, PER_SECOND)
    assert not unmet(figures, targets), figures
