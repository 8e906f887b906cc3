"""The engine, one promise at a time."""

from __future__ import annotations

import pytest

from meterline.alerting.core import engine
from meterline.alerting.core.state import FenceReason, PublishAlert, PublishThrottle, Tick
from meterline.alerting.core.totals import SpendSum
from meterline.schemas.alert import AlertStatus, RuleType, Severity
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import Limits
from meterline.schemas.throttle import BreakerState
from tests.alerting_story import KEY, RESEARCH, Scenario

CLOSED, THROTTLED, HALF_OPEN, OPEN = BreakerState
NOON = "2026-10-05T12:00:00Z"


@pytest.fixture
def story() -> Scenario:
    """Research may spend 100 dollars a month."""
    begun = Scenario(NOON)
    begun.policy(RESEARCH, month="100")
    return begun


def test_crossing_publishes_the_command_before_the_alert(story: Scenario) -> None:
    """Effects come in the order in which they must be carried out, and the alert names both."""
    window = story.calendar.window(WindowKind.MONTH, story.now_ms)
    spend = SpendSum(RESEARCH, *window, 76 * NANO_PER_USD, 1)
    command, alert = story.step(spend)
    assert isinstance(command, PublishThrottle)
    assert isinstance(alert, PublishAlert)
    assert alert.alert.commands == (f"{RESEARCH}@1.{command.command.seq}",)
    assert alert.alert.also_crossed == (50,)
    assert alert.alert.severity is Severity.WARNING


def test_a_scope_without_policy_is_not_watched(story: Scenario) -> None:
    """Spend of other scopes changes nothing."""
    story.spend("department:acme/other", "1000")
    assert story.commands == []
    assert story.alerts == []


def test_a_policy_that_comes_later_knows_the_spend(story: Scenario) -> None:
    """A budget written after the money was spent is judged at once."""
    story.spend(KEY, "30")
    story.policy(KEY, month="20")
    assert story.state_of(KEY) is OPEN
    assert story.fired(KEY) == [100]


def test_each_threshold_fires_once(story: Scenario) -> None:
    """Every further event says nothing new until the next threshold."""
    for _ in range(24):
        story.spend(RESEARCH, "5")
    assert story.fired(RESEARCH) == [50, 75, 80, 90, 95, 100]


def test_every_scope_type_has_budgets() -> None:
    """Organisation, department, project, user and key are treated alike."""
    story = Scenario(NOON)
    scopes = ["organisation:acme", RESEARCH, "project:acme/bot", "user:acme/ana", KEY]
    for scope in scopes:
        story.policy(scope, day="1")
        story.spend(scope, "1")
        assert story.state_of(scope) is OPEN, scope


def test_day_and_month_feed_one_command(story: Scenario) -> None:
    """The most restrictive cause speaks; when it ends, the next one does."""
    story.policy(RESEARCH, month="100", day="50", version=2)
    story.spend(RESEARCH, "80")
    command = story.last(RESEARCH)
    assert command.state is OPEN
    assert command.evidence is not None
    assert command.evidence.rule_id == "budget_day"
    story.wait_until("2026-10-06T00:00:00Z")
    command = story.last(RESEARCH)
    assert command.state is THROTTLED
    assert command.evidence is not None
    assert command.evidence.rule_id == "budget_month"


@pytest.mark.parametrize(
    ("limits", "code", "tokens", "ends"),
    [
        (Limits(hour_spend_nano_usd=NANO_PER_USD), "hour_spend", 0, "2026-10-05T13:00:00Z"),
        (Limits(day_spend_nano_usd=NANO_PER_USD), "day_spend", 0, "2026-10-06T00:00:00Z"),
        (Limits(day_tokens=1000), "day_tokens", 1000, "2026-10-06T00:00:00Z"),
    ],
)
def test_an_absolute_limit_opens_for_its_window_only(
    limits: Limits, code: str, tokens: int, ends: str
) -> None:
    """Reaching a limit blocks until its window ends, and a timer releases it."""
    story = Scenario(NOON)
    story.policy(KEY, limits=limits)
    story.spend(KEY, "1", tokens=tokens)
    assert (story.state_of(KEY), story.last(KEY).reason_code) == (OPEN, code)
    (alert,) = story.alerts
    assert (alert.rule_type, alert.severity) == (RuleType.LIMIT, Severity.CRITICAL)
    story.wait_until(ends)
    assert (story.state_of(KEY), story.last(KEY).reason_code) == (CLOSED, "released")
    assert story.alerts[-1].status is AlertStatus.RESOLVED
    assert story.alerts[-1].dedup_key == alert.dedup_key
    assert story.alerts[-1].id != alert.id


def test_late_events_throttle_no_scope(story: Scenario) -> None:
    """Spend of a window that is over is counted there and decides nothing now."""
    story.policy(KEY, limits=Limits(hour_spend_nano_usd=NANO_PER_USD))
    story.spend(KEY, "500", at="2026-10-05T11:30:00Z")
    assert story.state_of(KEY) is CLOSED


def test_spend_of_a_window_that_begins_later_waits_for_it(story: Scenario) -> None:
    """A relay whose clock is ahead counts for the next hour when that hour begins."""
    story.policy(KEY, limits=Limits(hour_spend_nano_usd=NANO_PER_USD))
    story.wait_until("2026-10-05T12:58:00Z")
    story.spend(KEY, "5", at="2026-10-05T13:01:00Z")
    assert story.state_of(KEY) is CLOSED
    story.wait_until("2026-10-05T13:00:00Z")
    assert story.state_of(KEY) is OPEN


def test_leases_are_renewed_while_the_cause_lasts(story: Scenario) -> None:
    """A block is said again every five minutes, a soft throttle every minute."""
    story.spend(RESEARCH, "100")
    story.wait(900)
    assert [command.state for command in story.commands] == [OPEN] * 4
    seqs = [command.seq for command in story.commands]
    assert seqs == sorted(set(seqs))
    gaps = [
        b.issued_at_ms - a.issued_at_ms
        for a, b in zip(story.commands, story.commands[1:], strict=False)
    ]
    assert gaps == [300_000] * 3
    assert len(story.alerts) == 1


def test_a_removed_policy_releases(story: Scenario) -> None:
    """Without a budget nothing is exhausted: the scope is released and forgotten."""
    story.spend(RESEARCH, "100")
    story.drop_policy(RESEARCH)
    assert story.state_of(RESEARCH) is CLOSED
    assert story.still_firing() == set()
    assert RESEARCH not in story.state.scopes


def test_changed_rates_of_a_throttled_scope_are_published(story: Scenario) -> None:
    """Absolute numbers follow the policy they were made of."""
    story.spend(RESEARCH, "80")
    story.policy(RESEARCH, month="100", limits=Limits(requests_per_minute=100))
    assert story.last(RESEARCH).limits.requests_per_minute == 80


def test_changed_rules_are_applied_to_all(story: Scenario) -> None:
    """Another bound trips the scopes that have reached it."""
    story.spend(RESEARCH, "60")
    assert story.state_of(RESEARCH) is CLOSED
    story.rule(throttle_at_percent=55)
    assert story.state_of(RESEARCH) is THROTTLED


def test_the_override_releases_every_breaker(story: Scenario) -> None:
    """Breakers switched off by policy close; alerts go on."""
    story.spend(RESEARCH, "90")
    story.rule(enabled=False)
    assert story.state_of(RESEARCH) is CLOSED
    story.spend(RESEARCH, "10")
    assert story.state_of(RESEARCH) is CLOSED
    assert story.fired(RESEARCH) == [90, 100]


def test_a_correction_walks_down_by_dwells(story: Scenario) -> None:
    """Spend taken back eases one stage per dwell, each published."""
    story.spend(RESEARCH, "100")
    story.spend(RESEARCH, "-95")
    assert story.state_of(RESEARCH) is OPEN
    story.wait(900)
    states = list(dict.fromkeys(command.state for command in story.commands))
    assert states == [OPEN, HALF_OPEN, THROTTLED, CLOSED]


def test_a_corrected_crossing_is_not_notified_again(story: Scenario) -> None:
    """Once per period and budget version, also when spend goes down and up."""
    story.spend(RESEARCH, "80")
    story.spend(RESEARCH, "-40")
    story.spend(RESEARCH, "41")
    assert story.fired(RESEARCH) == [80]


def test_our_own_commands_come_back_without_effect(story: Scenario) -> None:
    """The log repeats what we wrote; that is no other controller."""
    story.spend(RESEARCH, "80")
    story.see_command(story.last(RESEARCH))
    assert story.fences == []
    assert len(story.commands) == 1


def test_a_newer_controller_fences_us(story: Scenario) -> None:
    """A greater epoch on the topic means that we were replaced."""
    story.spend(RESEARCH, "80")
    story.see_command(story.last(RESEARCH).model_copy(update={"epoch": 2}))
    assert [fence.reason for fence in story.fences] == [FenceReason.NEWER_EPOCH]


def test_a_twin_fences_us(story: Scenario) -> None:
    """Another controller with the same epoch writes as well: stop."""
    story.spend(RESEARCH, "80")
    ours = story.last(RESEARCH)
    story.see_command(ours.model_copy(update={"issued_at_ms": ours.issued_at_ms + 1}))
    story.see_command(ours.model_copy(update={"seq": 99}))
    assert [fence.reason for fence in story.fences] == [FenceReason.SAME_EPOCH] * 2


def test_a_replaced_controllers_word_is_corrected(story: Scenario) -> None:
    """An older epoch's late command must not be the topic's last word."""
    story.spend(RESEARCH, "80")
    ours = story.last(RESEARCH)
    story.see_command(ours.model_copy(update={"epoch": 0, "state": OPEN}))
    assert story.last(RESEARCH).version > ours.version
    assert story.state_of(RESEARCH) is THROTTLED


def test_an_operators_command_is_left_alone(story: Scenario) -> None:
    """Only the alerts worker's own commands say who is in charge."""
    story.spend(RESEARCH, "80")
    manual = story.last(RESEARCH).model_copy(update={"epoch": 9, "issuer": "operator"})
    story.see_command(manual)
    assert story.fences == []
    assert len(story.commands) == 1


def test_quiet_spend_is_not_evaluated(story: Scenario) -> None:
    """Between two edges a sum changes nothing but itself: the state's evaluations stand."""
    story.spend(RESEARCH, "1")
    before = story.state.scopes[RESEARCH]
    story.spend(RESEARCH, "1")
    assert story.state.scopes[RESEARCH] is before
    story.spend(RESEARCH, "60")
    assert story.state.scopes[RESEARCH] is not before


def test_time_never_goes_back(story: Scenario) -> None:
    """A clock that is set back neither reopens old windows nor stops the engine."""
    story.spend(RESEARCH, "80")
    later = story.now_ms
    state, effects = engine.step(story.state, Tick(complete=True), later - 3_600_000)
    assert (state.now_ms, effects) == (later, ())


def test_a_copy_keeps_what_was(story: Scenario) -> None:
    """A snapshot of the state is not touched by later steps."""
    kept = story.state.copy()
    story.spend(RESEARCH, "100")
    assert kept.scopes[RESEARCH].published is None
    assert kept.seq == 0


def test_windows_follow_the_billing_time_zone() -> None:
    """The day of a budget ends at local midnight."""
    story = Scenario("2026-10-05T12:00:00Z", zone="America/New_York")
    story.policy(KEY, day="1")
    story.spend(KEY, "1")
    story.wait_until("2026-10-06T03:59:00Z")
    assert story.state_of(KEY) is OPEN
    story.wait_until("2026-10-06T04:00:00Z")
    assert story.state_of(KEY) is CLOSED
