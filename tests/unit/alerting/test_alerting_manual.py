"""Manual control in the engine: throttles and budgets that operators set."""

from __future__ import annotations

from meterline.alerting.core.state import PolicyChanged
from meterline.relay.core.effective_limits import CLOCK_SKEW_MS, Phase, effective_limits_of
from meterline.schemas.alert import AlertStatus
from meterline.schemas.manual import (
    BudgetOverride,
    ManualObject,
    ManualThrottle,
    manual_id,
    subject_of,
)
from meterline.schemas.money import nano_from_usd
from meterline.schemas.periods import HOUR_MS, MINUTE_MS
from meterline.schemas.policy import decode_policy, encode_policy, object_id
from meterline.schemas.throttle import BreakerState, OnExpiry, ThrottleMode
from tests.alerting_story import KEY, RESEARCH, Scenario

START = "2026-10-05T12:00:00Z"


def throttle(story: Scenario, scope: str, percent: int, *, ms: int = HOUR_MS) -> ManualThrottle:
    return ManualThrottle(
        scope=scope,
        admit_percent=percent,
        mode=ThrottleMode.QUEUE,
        since_ms=story.now_ms,
        until_ms=story.now_ms + ms,
        author="ann",
        reason="a loop",
    )


def override(story: Scenario, month: str, *, ms: int = HOUR_MS, version: int = 1) -> BudgetOverride:
    return BudgetOverride(
        version=version,
        scope=RESEARCH,
        month_nano_usd=nano_from_usd(month),
        since_ms=story.now_ms,
        until_ms=story.now_ms + ms,
        author="ann",
        reason="a launch",
    )


def order(story: Scenario, item: ManualObject) -> None:
    story.step(PolicyChanged(manual_id(item), item, ()))


def test_a_block_is_commanded_at_once_and_ends_by_itself() -> None:
    """A scope without any policy is blocked until the order's end, then released."""
    story = Scenario(START)
    order(story, throttle(story, KEY, 0))
    command = story.last(KEY)
    assert (command.state, command.reason_code) == (BreakerState.OPEN, "manual")
    assert command.on_expiry is OnExpiry.HOLD
    assert "ann" in command.reason
    assert "a loop" in command.reason
    story.wait(3_599)
    assert story.state_of(KEY) is BreakerState.OPEN
    assert story.last(KEY).expires_at_ms > story.now_ms
    story.wait(2)
    assert story.state_of(KEY) is BreakerState.CLOSED


def test_lifting_it_releases_at_once() -> None:
    """An end in the past is a release, and says why."""
    story = Scenario(START)
    hold = throttle(story, KEY, 0)
    order(story, hold)
    order(story, hold.model_copy(update={"until_ms": story.now_ms}))
    assert story.state_of(KEY) is BreakerState.CLOSED
    assert "manual" in story.last(KEY).reason


def test_the_more_restrictive_wins() -> None:
    """A manual throttle does not ease an open breaker, and a block tops a throttled one."""
    story = Scenario(START)
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "100")
    order(story, throttle(story, RESEARCH, 50))
    assert story.last(RESEARCH).reason_code == "budget_exhausted"
    other = Scenario(START)
    other.policy(RESEARCH, month="100")
    other.spend(RESEARCH, "80")
    assert other.state_of(RESEARCH) is BreakerState.THROTTLED
    order(other, throttle(other, RESEARCH, 0))
    assert other.last(RESEARCH).reason_code == "manual"
    other.wait(3_601)
    assert other.state_of(RESEARCH) is BreakerState.THROTTLED, "what rules ask for stays"


def test_two_throttles_are_one_command_with_the_least_of_each() -> None:
    """80 % by the breaker and 50 % by hand are 50 %."""
    story = Scenario(START)
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "80")
    order(story, throttle(story, RESEARCH, 50))
    assert story.last(RESEARCH).admit_percent == 50
    story.wait(3_601)
    assert story.last(RESEARCH).admit_percent == 80


def test_an_override_lifts_the_breaker_and_reverts_by_itself() -> None:
    """With twice the budget the breaker closes; at its end it opens and notifies again."""
    story = Scenario(START)
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "100")
    assert story.state_of(RESEARCH) is BreakerState.OPEN
    before = len(story.alerts)
    order(story, override(story, "200"))
    assert story.state_of(RESEARCH) is BreakerState.CLOSED
    story.wait(3_601)
    assert story.state_of(RESEARCH) is BreakerState.OPEN
    fired = [one for one in story.alerts[before:] if one.status is AlertStatus.FIRING]
    assert [one.threshold for one in fired] == [50, 100], "50 % of 200, then all of 100 again"
    assert len({one.id for one in story.alerts}) == len(story.alerts)


def test_an_override_of_a_budget_that_is_not_there_changes_nothing() -> None:
    """A day budget is not made up where the policy has none."""
    story = Scenario(START)
    story.policy(RESEARCH, day="100")
    story.spend(RESEARCH, "60")
    order(story, override(story, "10"))
    assert story.state_of(RESEARCH) is BreakerState.CLOSED


def test_the_policy_file_may_change_meanwhile() -> None:
    """After the end of an override the budget is the file's of now, not of then."""
    story = Scenario(START)
    story.policy(RESEARCH, month="100")
    order(story, override(story, "200"))
    story.policy(RESEARCH, month="400", version=2)
    story.spend(RESEARCH, "190")
    assert story.state_of(RESEARCH) is BreakerState.HALF_OPEN
    story.wait(3_601)
    assert story.state_of(RESEARCH) is BreakerState.CLOSED


def test_a_dead_controller_holds_a_block_to_its_end_and_no_longer() -> None:
    """The relay keeps the block when the lease has ended, until the time its author named."""
    story = Scenario(START)
    order(story, throttle(story, KEY, 0, ms=3 * HOUR_MS))
    command = story.last(KEY)
    after = command.expires_at_ms + CLOCK_SKEW_MS + MINUTE_MS
    assert after < command.reset_at_ms
    assert effective_limits_of(None, command, after).phase is Phase.BLOCKED
    assert effective_limits_of(None, command, command.reset_at_ms).phase is Phase.NORMAL


def test_orders_are_policy_objects() -> None:
    """They pass the topic unchanged, under ids that name their scope."""
    story = Scenario(START)
    for item in (throttle(story, KEY, 10), override(story, "1")):
        assert decode_policy(encode_policy(item)) == item
        assert subject_of(object_id(item)) == item.scope
