"""Outages in their short form; `python -m benchmarks.outages` has them last a minute."""

from __future__ import annotations

import operator

import pytest

from benchmarks.outages import measure

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
SECONDS = 5.0
PER_SECOND = 1_000.0
OPERATORS = {"<": operator.lt, "==": operator.eq}


def test_outages_lose_nothing_and_slow_nobody() -> None:
    """Broker silent, ClickHouse dead, spool's disk full: bounded, exact, and no request waits."""
    figures, targets = measure(SECONDS, PER_SECOND)
    found = {figure.name: figure.median for figure in figures}
    missed = [
        target for target in targets if not OPERATORS[target.op](found[target.name], target.target)
    ]
    assert not missed, found
    assert found["broker_backlog_batches"] > 0
    assert found["clickhouse_events"] > PER_SECOND * SECONDS
