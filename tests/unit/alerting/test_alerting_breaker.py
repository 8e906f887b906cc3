"""The staged breaker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meterline.alerting.core.breaker import (
    Breaker,
    TripReason,
    admitted_percent,
    advance,
    breakpoints,
    may_trip,
)
from meterline.alerting.rules.measurement import NANO_USD, Measurement
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import BreakerPolicy
from meterline.schemas.rule_ref import RuleId
from meterline.schemas.throttle import BreakerState

CLOSED, THROTTLED, HALF_OPEN, OPEN = BreakerState
POLICY = BreakerPolicy()
DWELL_MS = POLICY.dwell_seconds * 1000
LONG_AGO = 0
NOW = 10 * DWELL_MS


def reading(percent: int, *, period: str = "2026-10", version: int = 1) -> Measurement:
    """Spend as whole percent of a budget of 100."""
    return Measurement(
        RuleId.BUDGET_MONTH, WindowKind.MONTH, period, 0, 2**50, version, percent, 100, NANO_USD
    )


def standing(state: BreakerState, since_ms: int = LONG_AGO) -> Breaker:
    """A breaker in the readings' period."""
    return Breaker(state, since_ms, "2026-10", 1)


@pytest.mark.parametrize(
    ("before", "percent", "after", "reason", "because"),
    [
        (CLOSED, 74, CLOSED, TripReason.STEADY, "below the first bound"),
        (CLOSED, 75, THROTTLED, TripReason.LIMIT_REACHED, "a bound is reached, not exceeded"),
        (CLOSED, 89, THROTTLED, TripReason.LIMIT_REACHED, "up to the next bound"),
        (CLOSED, 90, HALF_OPEN, TripReason.LIMIT_REACHED, "two stages at once"),
        (CLOSED, 100, OPEN, TripReason.LIMIT_REACHED, "three stages at once"),
        (HALF_OPEN, 500, OPEN, TripReason.LIMIT_REACHED, "far above is open"),
        (OPEN, 99, OPEN, TripReason.HELD_BY_HYSTERESIS, "1 point below the bound"),
        (OPEN, 95, OPEN, TripReason.HELD_BY_HYSTERESIS, "exactly 5 points below still holds"),
        (OPEN, 94, HALF_OPEN, TripReason.STEPPED_DOWN, "more than 5 points below"),
        (OPEN, 10, HALF_OPEN, TripReason.STEPPED_DOWN, "one stage only, however low"),
        (HALF_OPEN, 84, THROTTLED, TripReason.STEPPED_DOWN, "below 90 - 5"),
        (HALF_OPEN, 85, HALF_OPEN, TripReason.HELD_BY_HYSTERESIS, "at 90 - 5"),
        (THROTTLED, 69, CLOSED, TripReason.STEPPED_DOWN, "below 75 - 5"),
        (THROTTLED, 70, THROTTLED, TripReason.HELD_BY_HYSTERESIS, "at 75 - 5"),
    ],
)
def test_stages_after_a_long_dwell(
    before: BreakerState, percent: int, after: BreakerState, reason: TripReason, because: str
) -> None:
    """The breaker rises at once and falls one stage, below its bound minus the hysteresis."""
    step = advance(POLICY, standing(before), reading(percent), NOW, may_trip=True)
    assert (step.breaker.state, step.reason) == (after, reason), because


def test_it_falls_only_after_the_dwell_and_says_when() -> None:
    """Within the dwell nothing falls, and the step names the time when it may."""
    since = NOW - DWELL_MS + 1
    early = advance(POLICY, standing(OPEN, since), reading(10), NOW, may_trip=True)
    assert early.reason is TripReason.DWELLING
    assert early.breaker.state is OPEN
    assert early.recheck_ms == since + DWELL_MS
    late = advance(POLICY, early.breaker, reading(10), early.recheck_ms, may_trip=True)
    assert late.breaker.state is HALF_OPEN
    assert late.recheck_ms == early.recheck_ms + DWELL_MS


def test_a_rise_needs_no_dwell() -> None:
    """A stage entered this very millisecond can be left upwards."""
    step = advance(POLICY, standing(THROTTLED, NOW), reading(100), NOW, may_trip=True)
    assert step.breaker == standing(OPEN, NOW)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"period": "2026-11"}, TripReason.NEW_PERIOD),
        ({"version": 2}, TripReason.BUDGET_CHANGED),
    ],
)
def test_a_new_period_or_budget_starts_again(changed: dict[str, str], reason: TripReason) -> None:
    """The walk down is not for another period or another budget."""
    seen = reading(
        10, period=changed.get("period", "2026-10"), version=int(changed.get("version", 1))
    )
    step = advance(POLICY, standing(OPEN, NOW), seen, NOW, may_trip=True)
    assert (step.breaker.state, step.reason) == (CLOSED, reason)


def test_a_raised_budget_may_leave_a_milder_stage() -> None:
    """After a small raise the breaker stands where spend says, without hysteresis."""
    step = advance(POLICY, standing(OPEN, NOW), reading(92, version=2), NOW, may_trip=True)
    assert step.breaker.state is HALF_OPEN


def test_the_override_closes_at_once() -> None:
    """Breakers that policy switches off are closed, whatever was spent."""
    off = POLICY.model_copy(update={"enabled": False})
    step = advance(off, standing(OPEN, NOW), reading(200), NOW, may_trip=True)
    assert (step.breaker.state, step.reason) == (CLOSED, TripReason.DISABLED)


def test_grace_keeps_it_from_rising_but_not_from_standing() -> None:
    """In the grace an incomplete state trips nothing new and releases nothing old."""
    rising = advance(POLICY, standing(CLOSED), reading(100), NOW, may_trip=False)
    assert (rising.breaker.state, rising.reason) == (CLOSED, TripReason.HELD_BY_GRACE)
    assert rising.recheck_ms == POLICY.grace_seconds * 1000
    standing_still = advance(POLICY, standing(OPEN), reading(100), NOW, may_trip=False)
    assert standing_still.breaker.state is OPEN


def test_grace_lets_a_changed_budget_ease_only() -> None:
    """Without the right to trip, another budget version cannot tighten."""
    raised = advance(POLICY, standing(OPEN), reading(80, version=2), NOW, may_trip=False)
    assert raised.breaker.state is THROTTLED
    lowered = advance(POLICY, standing(THROTTLED), reading(120, version=2), NOW, may_trip=False)
    assert (lowered.breaker.state, lowered.reason) == (THROTTLED, TripReason.HELD_BY_GRACE)


@pytest.mark.parametrize(
    ("now_ms", "complete", "expected", "because"),
    [
        (0, False, False, "the month's first millisecond"),
        (0, True, True, "known complete"),
        (POLICY.grace_seconds * 1000 - 1, False, False, "the grace's last millisecond"),
        (POLICY.grace_seconds * 1000, False, True, "after the grace"),
    ],
)
def test_grace_is_half_open(now_ms: int, complete: bool, expected: bool, because: str) -> None:
    """The grace is [start, start + grace), and completeness ends it."""
    assert may_trip(POLICY, reading(100), now_ms, complete=complete) is expected, because


def test_a_budget_of_zero_is_open() -> None:
    """Nothing may be spent of nothing."""
    step = advance(POLICY, Breaker(), replace(reading(0), limit=0), NOW, may_trip=True)
    assert step.breaker.state is OPEN


def test_edges_are_where_the_answer_may_turn() -> None:
    """Bounds, and bounds minus the hysteresis, as amounts."""
    assert breakpoints(POLICY, 100) == {75, 90, 100, 70, 85, 95}
    assert breakpoints(POLICY, 0) == set()


def test_shares_of_the_base_limits() -> None:
    """80 and 50 percent, none when open."""
    shares = [admitted_percent(POLICY, state) for state in BreakerState]
    assert shares == [100, 80, 50, 0]
