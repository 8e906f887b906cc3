"""What a replaced controller still writes, and how its successor takes it over."""

from __future__ import annotations

import pytest

from meterline.alerting.core import engine, lifecycle
from meterline.alerting.core.restore import RestoredState, restore
from meterline.alerting.core.state import AlertSeen, HealthChecksSeen, PublishAlert, State
from meterline.alerting.core.takeover import ForeignAlerts
from meterline.alerting.rules.pipeline import HealthCheck, HealthCheckKind
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.periods import HOUR_MS, parse_rfc3339
from meterline.schemas.policy import Limits, RuleSet
from tests.alerting_story import RESEARCH, Scenario

FIRING, RESOLVED = AlertStatus.FIRING, AlertStatus.RESOLVED


@pytest.fixture
def story() -> Scenario:
    """Research stands at 80 % of its month."""
    begun = Scenario("2026-10-31T12:00:00Z")
    begun.policy(RESEARCH, month="100")
    begun.spend(RESEARCH, "80")
    return begun


def overhear(story: Scenario, alert: Alert) -> list[tuple[AlertStatus, str]]:
    """Another controller's record, and what this one says to it."""
    story.alerts.append(alert)
    before = len(story.alerts)
    story.step(AlertSeen(alert))
    return [(each.status, each.dedup_key) for each in story.alerts[before:]]


def test_an_alert_of_a_month_that_is_over_is_resolved_at_once(story: Scenario) -> None:
    """Written late, it would otherwise fire until the next restart."""
    (late,) = story.alerts
    story.wait_until("2026-11-01T00:00:01Z")
    assert story.still_firing() == set()
    assert overhear(story, late) == [(RESOLVED, late.dedup_key)]


def test_an_alert_of_another_budget_is_resolved_and_nothing_is_notified_again(
    story: Scenario,
) -> None:
    """What has fired of the current budget does not fire again."""
    (late,) = story.alerts
    story.policy(RESEARCH, month="90", version=2)
    assert story.fired(RESEARCH) == [80, 80]
    assert overhear(story, late) == [(RESOLVED, late.dedup_key)]
    story.spend(RESEARCH, "1")
    assert story.fired(RESEARCH)[2:] == [80, 90]


def test_an_alert_that_holds_is_taken_over() -> None:
    """It does not fire again, and is resolved like its own."""
    first, second = Scenario("2026-10-31T12:00:00Z"), Scenario("2026-10-31T12:00:00Z")
    for each in (first, second):
        each.policy(RESEARCH, month="100")
    first.spend(RESEARCH, "80")
    (published,) = first.alerts
    assert overhear(second, published) == []
    second.spend(RESEARCH, "80")
    assert second.alerts == [published]
    second.wait_until("2026-11-01T00:00:01Z")
    assert second.still_firing() == set()


def test_an_alert_of_a_scope_without_policy_is_resolved(story: Scenario) -> None:
    """No policy names that scope any more."""
    (late,) = story.alerts
    story.drop_policy(RESEARCH)
    assert overhear(story, late) == [(RESOLVED, late.dedup_key)]
    assert RESEARCH not in story.state.scopes


def test_a_limit_that_was_raised_is_resolved_again() -> None:
    """Firing, resolved, and the late firing of a controller that did not know: resolved."""
    story = Scenario("2026-10-31T12:00:00Z")
    story.policy(RESEARCH, limits=Limits(hour_spend_nano_usd=10**9))
    story.spend(RESEARCH, "1")
    (late,) = story.alerts
    story.policy(RESEARCH, limits=Limits(hour_spend_nano_usd=10**10))
    assert story.still_firing() == set()
    assert overhear(story, late) == [(RESOLVED, late.dedup_key)]


def test_a_foreign_resolution_is_believed(story: Scenario) -> None:
    """Receivers know that it is over: it is not resolved a second time."""
    (published,) = story.alerts
    assert overhear(story, lifecycle.resolved(published, story.now_ms)) == []
    story.wait_until("2026-11-01T00:00:01Z")
    assert [alert.status for alert in story.alerts] == [FIRING, RESOLVED]


def test_rules_of_others_are_left_alone(story: Scenario) -> None:
    """The reports worker's drift alert is its own."""
    (published,) = story.alerts
    foreign = ForeignAlerts()
    assert not foreign.read(published.model_copy(update={"rule_id": "pipeline.drift"}))
    assert foreign.take(story.now_ms) == []


def test_own_records_come_back_once(story: Scenario) -> None:
    """The first is an echo; the same record again is another's."""
    (published,) = story.alerts
    foreign = ForeignAlerts()
    foreign.writing([published])
    assert [foreign.read(published), foreign.read(published)] == [False, True]
    assert foreign.take(story.now_ms) == [published]
    assert foreign.take(story.now_ms) == []


def test_only_the_last_word_counts(story: Scenario) -> None:
    """Fired by another and resolved since, by whomever: there is nothing to answer for."""
    (published,) = story.alerts
    over = lifecycle.resolved(published, story.now_ms)
    foreign = ForeignAlerts()
    foreign.writing([over])
    assert [foreign.read(published), foreign.read(over)] == [True, False]
    assert foreign.take(story.now_ms) == []
    assert [foreign.read(published), foreign.read(over)] == [True, True]
    assert foreign.take(story.now_ms) == [over]


def test_an_alert_from_the_future_waits_for_its_time(story: Scenario) -> None:
    """A controller whose clock is ahead writes about a month that has not begun here."""
    (published,) = story.alerts
    ahead = published.model_copy(update={"starts_at_ms": story.now_ms + 5_000})
    foreign = ForeignAlerts()
    assert foreign.read(ahead)
    assert foreign.take(story.now_ms) == []
    assert foreign.take(story.now_ms + 5_000) == [ahead]


LAG = HealthCheck(HealthCheckKind.LAG, "usage.events", 10**9)
NOTHING = HealthChecksSeen(frozenset({HealthCheckKind.LAG}), ())


def lag_told() -> tuple[State, Alert]:
    """A pipeline that lags behind, and its alert."""
    now_ms = parse_rfc3339("2026-10-31T12:00:00Z")
    state = engine.start(1, RuleSet(), now_ms)
    state, effects = engine.step(
        state, HealthChecksSeen(frozenset({HealthCheckKind.LAG}), (LAG,)), now_ms
    )
    (alert,) = [effect.alert for effect in effects if isinstance(effect, PublishAlert)]
    return state, alert


def test_a_pipeline_alert_survives_a_restart() -> None:
    """It does not fire again while it lasts, even into another hour, and is resolved when over."""
    _, alert = lag_told()
    memory = RestoredState()
    memory.add_alert(alert)
    later_ms = alert.starts_at_ms + HOUR_MS
    state, effects = restore(memory, later_ms, complete=True)
    assert effects == ()
    state, effects = engine.step(
        state, HealthChecksSeen(frozenset({HealthCheckKind.LAG}), (LAG,)), later_ms + 1
    )
    assert effects == ()
    _, effects = engine.step(state, NOTHING, later_ms + 2)
    (resolved,) = [effect.alert for effect in effects if isinstance(effect, PublishAlert)]
    assert (resolved.status, resolved.dedup_key) == (RESOLVED, alert.dedup_key)


def test_a_foreign_pipeline_alert_is_resolved_by_the_next_look() -> None:
    """Nothing lags: a replaced controller's alert about it is over."""
    _, alert = lag_told()
    state = engine.start(2, RuleSet(), alert.starts_at_ms)
    state, effects = engine.step(state, AlertSeen(alert), alert.starts_at_ms)
    assert effects == ()
    _, effects = engine.step(state, NOTHING, alert.starts_at_ms + 1)
    (resolved,) = [effect.alert for effect in effects if isinstance(effect, PublishAlert)]
    assert (resolved.status, resolved.dedup_key) == (RESOLVED, alert.dedup_key)
