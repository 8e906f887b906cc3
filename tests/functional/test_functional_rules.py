"""History-based rules in the real worker on the embedded broker, with real kills."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from meterline.schemas.alert import AlertStatus
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.policy import Budget, RuleSet, ScopePolicy
from meterline.schemas.policy_rules import BurnRateRule, DeviationRule, PipelineRules
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.topics import Topic
from tests.alerting_broker import PATIENCE_SECONDS, Log, running_log, running_process
from tests.alerting_worker import now_ms

pytestmark = [pytest.mark.functional, pytest.mark.timeout(240)]

KEY = "key:acme/k-17"
OTHER = "key:acme/k-18"
FOR_SECONDS = 6
DAY_MS = 86_400_000
HOUR_MS = 3_600_000


@pytest.fixture
def log() -> Iterator[Log]:
    """A broker; thresholds are silent, one burn-rate rule waits before it fires."""
    with running_log() as running:
        rules = RuleSet(
            thresholds_percent=(),
            deviations=(DeviationRule(id="day"),),
            burn_rates=(
                BurnRateRule(id="fast", for_seconds=FOR_SECONDS, exhausts_within_seconds=86_400),
            ),
            pipeline=PipelineRules(zero_cost_tokens=None),
        )
        running.policy(rules)
        for scope in (KEY, OTHER):
            policy = ScopePolicy(scope=scope, budget=Budget(month_nano_usd=10**6 * NANO_PER_USD))
            running.policy(policy)
        yield running


def write(log: Log, scope: str, kind: WindowKind, at_ms: int, usd: int) -> None:
    """One window's total, as streams write it."""
    window = Calendar().window(kind, at_ms)
    key = SnapshotKey(scope, kind, window.start_ms, "0")
    log._offset += 1
    totals = Totals(0, log._offset, window.end_ms, usd * NANO_PER_USD, 1, 1, 0, 0, 0, 1, 0, at_ms)
    log._write(Topic.SPEND_SNAPSHOTS, encode_key(key), encode_totals(totals), 0)


def spend(log: Log, scope: str, usd: int) -> None:
    """Spend now, in all windows."""
    at_ms = now_ms()
    for kind in WindowKind:
        write(log, scope, kind, at_ms, usd)


def until(log: Log, condition: Callable[[], bool], what: str) -> None:
    """Read until something holds; a worker's start takes its time on a busy machine."""
    deadline = time.monotonic() + 3 * PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not seen: {what}; {log.alerts}"
        log.take()


def of_rule(log: Log, prefix: str, scope: str = KEY) -> list[AlertStatus]:
    """What a rule said of a scope, in order."""
    return [
        alert.status
        for alert in log.alerts
        if alert.rule_id.startswith(prefix) and alert.scope == scope
    ]


def test_a_wait_survives_kills_and_fires_once_at_its_time(log: Log) -> None:
    """Killed while it waits and again when it has fired: one pending, one firing, in time."""
    spend(log, KEY, 600_000)
    with running_process("alerts", log.config) as first:
        until(log, lambda: bool(of_rule(log, "burn_rate.")), "the wait")
        first.kill()
        assert first.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert of_rule(log, "burn_rate.") == [AlertStatus.PENDING]
    with running_process("alerts", log.config) as second:
        until(log, lambda: AlertStatus.FIRING in of_rule(log, "burn_rate."), "the alert")
        second.kill()
        assert second.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    pending, firing = (
        next(alert for alert in log.alerts if alert.status is status)
        for status in (AlertStatus.PENDING, AlertStatus.FIRING)
    )
    assert firing.starts_at_ms >= pending.starts_at_ms + FOR_SECONDS * 1000, "not early"
    assert firing.explanation is not None
    assert firing.explanation.drivers_note.startswith("not asked")
    with running_process("alerts", log.config):
        spend(log, OTHER, 600_000)
        until(log, lambda: AlertStatus.FIRING in of_rule(log, "burn_rate.", OTHER), "the other")
    assert of_rule(log, "burn_rate.") == [AlertStatus.PENDING, AlertStatus.FIRING]


def test_a_baseline_is_rebuilt_from_the_topic_and_a_kill_notifies_nothing_twice(log: Log) -> None:
    """Seven days of history on spend.snapshots are enough for the first minute of a new worker."""
    today = Calendar().window(WindowKind.DAY, now_ms()).start_ms
    for days in range(1, 8):
        for hour in range(24):
            write(log, KEY, WindowKind.HOUR, today - days * DAY_MS + hour * HOUR_MS, 2)
    with running_process("alerts", log.config) as first:
        spend(log, KEY, 5_000)
        until(log, lambda: bool(of_rule(log, "deviation.")), "the deviation")
        first.kill()
        assert first.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    with running_process("alerts", log.config):
        spend(log, OTHER, 600_000)
        until(log, lambda: AlertStatus.FIRING in of_rule(log, "burn_rate.", OTHER), "the other")
    (alert,) = (each for each in log.alerts if each.rule_id.startswith("deviation."))
    assert alert.explanation is not None
    hours = (now_ms() - today) // HOUR_MS + 1
    assert alert.explanation.baseline_nano_usd in {
        2 * hours * NANO_PER_USD,
        2 * (hours - 1) * NANO_PER_USD,  # the hour may have turned meanwhile
    }
    assert alert.explanation.samples == 7


def test_the_pipelines_own_faults_are_alerts(log: Log) -> None:
    """Dead letters and events without a price are notified by the health checks."""
    window = Calendar().window(WindowKind.HOUR, now_ms())
    key = SnapshotKey("organisation:acme", WindowKind.HOUR, window.start_ms, "0")
    totals = Totals(0, 1, window.end_ms, 0, 10, 5, 0, 0, 0, 3, 3, now_ms())
    log._write(Topic.SPEND_SNAPSHOTS, encode_key(key), encode_totals(totals), 0)
    log._write(Topic.DEAD_LETTERS, b"usage.events-0-1-0", b"{}", 0)
    with running_process("alerts", log.config):
        until(
            log,
            lambda: (
                {"pipeline.unpriced", "pipeline.dead_letters"}
                <= {alert.rule_id for alert in log.alerts}
            ),
            "both probes",
        )
    unpriced = next(alert for alert in log.alerts if alert.rule_id == "pipeline.unpriced")
    assert (unpriced.scope, unpriced.observed) == ("organisation:acme", 3)
