"""The alerts worker on the embedded broker."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from meterline.alerting.consumer import EXIT_FENCED, EXIT_OK, run_alerts
from meterline.alerting.settings import AlertingSettings
from meterline.backends.failpoints import AlertingFailpoint
from meterline.backends.kafka.config import embedded_kafka
from meterline.schemas.metrics import NoMeter
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.policy import Budget, Limits, ScopePolicy
from meterline.schemas.throttle import BreakerState
from meterline.schemas.topics import Topic
from tests.alerting_broker import (
    PATIENCE_SECONDS,
    Log,
    running_log,
    running_process,
    running_thread,
)
from tests.alerting_story import RESEARCH
from tests.alerting_worker import now_ms

pytestmark = pytest.mark.functional

CLOSED, THROTTLED, HALF_OPEN, OPEN = BreakerState
SALES = "department:acme/sales"


@pytest.fixture
def log() -> Iterator[Log]:
    """A broker, and a budget of 100 dollars for two departments."""
    with running_log() as running:
        for scope in (RESEARCH, SALES):
            running.policy(budget(scope, 100))
        yield running


def budget(scope: str, usd: int, version: int = 1) -> ScopePolicy:
    """A month's budget, with a rate that can be reduced."""
    return ScopePolicy(
        scope=scope,
        budget=Budget(month_nano_usd=usd * NANO_PER_USD),
        budget_version=version,
        limits=Limits(requests_per_minute=60),
    )


def in_thread(log: Log, stop: threading.Event) -> int:
    """The worker."""
    return run_alerts(AlertingSettings(), log.config, now_ms, NoMeter(), stop)


def newest(log: Log, scope: str) -> BreakerState:
    """The state that the newest command of a scope asks for."""
    states = [command.state for command in log.commands if command.scope == scope]
    return states[-1] if states else CLOSED


def test_spend_becomes_commands_and_alerts_and_a_raised_budget_frees(log: Log) -> None:
    """Thresholds, stages, recovery, and nothing for the department that has not spent."""
    with running_thread(lambda stop: in_thread(log, stop)) as codes:
        log.spend(SALES, "10")
        for usd, state in (("76", THROTTLED), ("91", HALF_OPEN), ("101", OPEN)):
            log.spend(RESEARCH, usd)
            log.until(lambda state=state: newest(log, RESEARCH) is state, state)  # type: ignore[misc]
        log.until(lambda: len(log.alerts) == 3, "three alerts")
        log.policy(budget(RESEARCH, 1000, version=2))
        log.until(lambda: newest(log, RESEARCH) is CLOSED, "release")
        log.until(lambda: len(log.alerts) == 6, "three resolutions")
    assert codes == [EXIT_OK]
    assert [alert.threshold for alert in log.alerts[:3]] == [75, 90, 100]
    assert {command.scope for command in log.commands} == {RESEARCH}
    assert log.commands[0].limits.requests_per_minute == 48


def test_a_late_alert_of_a_replaced_controller_is_resolved(log: Log) -> None:
    """Written after its budget was raised and its alert resolved, it does not fire on."""
    with running_thread(lambda stop: in_thread(log, stop)) as codes:
        log.spend(RESEARCH, "76")
        log.until(lambda: len(log.alerts) == 1, "the alert")
        log.policy(budget(RESEARCH, 1000, version=2))
        log.until(lambda: len(log.alerts) == 2, "its resolution")
        log.alert(log.alerts[0])
        log.until(lambda: len(log.alerts) == 4, "the late alert and its resolution")
    assert codes == [EXIT_OK]
    published = [(alert.dedup_key, alert.status.value) for alert in log.alerts]
    assert published[2:] == published[:2]
    assert [status for _, status in published[:2]] == ["firing", "resolved"]


def test_garbage_on_the_topics_is_passed_over(log: Log) -> None:
    """A record that Meterline did not write stops neither the start nor the loop."""
    topics = (Topic.SPEND_SNAPSHOTS, Topic.POLICIES, Topic.THROTTLE_COMMANDS, Topic.ALERTS)
    for topic in topics:
        log.garbage(topic)
    with running_thread(lambda stop: in_thread(log, stop)) as codes:
        for topic in topics:
            log.garbage(topic)
        log.spend(RESEARCH, "100")
        log.until(lambda: newest(log, RESEARCH) is OPEN, "the block")
    assert codes == [EXIT_OK]


@pytest.mark.parametrize(
    "point",
    [
        AlertingFailpoint.BEFORE_COMMANDS,
        AlertingFailpoint.COMMANDS_SENT,
        AlertingFailpoint.COMMANDS_DURABLE,
        AlertingFailpoint.ALERTS_SENT,
        AlertingFailpoint.ALERTS_DURABLE,
    ],
)
def test_killed_between_effects_nothing_is_missed_or_renamed(
    log: Log, point: AlertingFailpoint
) -> None:
    """After kill -9 at any point the restarted worker says what is missing, under the same id."""
    log.spend(RESEARCH, "92")
    with running_process("alerts", log.config, point) as killed:
        assert killed.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    with running_process("alerts", log.config):
        log.until(lambda: bool(log.alerts) and bool(log.commands), "the missing effects")
        # A second department shows that the worker has finished with the first.
        log.spend(SALES, "100")
        log.until(lambda: any(alert.scope == SALES for alert in log.alerts), "the other alert")
    ids = {(alert.dedup_key, alert.id) for alert in log.alerts}
    assert len(ids) == 2, "one identity per alert, however often it was written"
    assert next(alert.threshold for alert in log.alerts if alert.scope == RESEARCH) == 90
    assert newest(log, RESEARCH) is HALF_OPEN
    versions = [command.version for command in log.commands if command.scope == RESEARCH]
    assert versions == sorted(versions)
    written = Counter(alert.id for alert in log.alerts)
    repeats = 2 if point is AlertingFailpoint.ALERTS_SENT else 1
    assert max(written.values()) <= repeats, "only an alert in flight may be written twice"


def test_a_second_worker_takes_over_and_the_first_stops(log: Log) -> None:
    """Two workers are not in charge: the newer start fences the older one."""
    log.spend(RESEARCH, "100")
    with running_thread(lambda stop: in_thread(log, stop)) as first:
        log.until(lambda: newest(log, RESEARCH) is OPEN, "the first worker's block")
        # Epochs are seconds: the second start must fall into another one.
        begun = now_ms() // 1000
        while now_ms() // 1000 == begun:
            log.take(0.05)
        with running_thread(lambda stop: in_thread(log, stop)) as second:
            log.until(lambda: bool(first), "the first worker's end")
            assert first == [EXIT_FENCED]
        assert second == [EXIT_OK]
    epochs = {command.epoch for command in log.commands}
    assert len(epochs) == 2


def test_a_block_is_claimed_again_at_every_start(log: Log) -> None:
    """A restart renews the lease of what it finds, and changes nothing else."""
    log.spend(RESEARCH, "100")
    for starts in (1, 2):
        with running_thread(lambda stop: in_thread(log, stop)):
            log.until(lambda starts=starts: len(log.commands) == starts, "a claim")  # type: ignore[misc]
    assert [command.state for command in log.commands] == [OPEN, OPEN]
    assert len(log.alerts) == 1


def test_an_unreachable_broker_is_one_line_and_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a broker the worker ends with an exit code, not a traceback."""
    code = run_alerts(
        AlertingSettings(), embedded_kafka("127.0.0.1:9"), now_ms, NoMeter(), threading.Event()
    )
    assert code == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
